"""HRNet pose estimation: `hrnet` on the command line, the names below in Python."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hrnet_cli.detectors import DetectorSettings
    from hrnet_cli.draw import DrawStyle, draw_poses
    from hrnet_cli.estimator import PoseEstimator, load_model
    from hrnet_cli.images import read_image, write_image
    from hrnet_cli.matching import TrackerSettings
    from hrnet_cli.pipeline import detect_poses, load_detector
    from hrnet_cli.recipe import load_config
    from hrnet_cli.schema import KeypointSchema, load_schema
    from hrnet_cli.smoothing import Smoother, SmoothingSettings
    from hrnet_cli.sources import Span
    from hrnet_cli.sources.video import open_video
    from hrnet_cli.structures import Boxes, Frame, Poses
    from hrnet_cli.tracking import Tracker
    from hrnet_cli.training_data import train_in_folder

# Imported on first use, so that `import hrnet_cli` and the command line start at once.
_HOMES = {
    "Boxes": "structures",
    "DetectorSettings": "detectors",
    "DrawStyle": "draw",
    "Frame": "structures",
    "KeypointSchema": "schema",
    "PoseEstimator": "estimator",
    "Poses": "structures",
    "Smoother": "smoothing",
    "SmoothingSettings": "smoothing",
    "Span": "sources",
    "Tracker": "tracking",
    "TrackerSettings": "matching",
    "detect_poses": "pipeline",
    "draw_poses": "draw",
    "load_config": "recipe",
    "load_detector": "pipeline",
    "load_model": "estimator",
    "load_schema": "schema",
    "open_video": "sources.video",
    "read_image": "images",
    "train_in_folder": "training_data",
    "write_image": "images",
}

__all__ = [
    "Boxes",
    "DetectorSettings",
    "DrawStyle",
    "Frame",
    "KeypointSchema",
    "PoseEstimator",
    "Poses",
    "Smoother",
    "SmoothingSettings",
    "Span",
    "Tracker",
    "TrackerSettings",
    "__version__",
    "detect_poses",
    "draw_poses",
    "load_config",
    "load_detector",
    "load_model",
    "load_schema",
    "open_video",
    "read_image",
    "train_in_folder",
    "write_image",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    if name not in _HOMES:
        raise AttributeError(f"module 'hrnet_cli' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"hrnet_cli.{_HOMES[name]}"), name)
