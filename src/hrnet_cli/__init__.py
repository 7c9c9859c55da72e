"""HRNet pose estimation: `hrnet` on the command line, the names below in Python."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from hrnet_cli.draw import DrawStyle, draw_poses
    from hrnet_cli.estimator import PoseEstimator, load_model
    from hrnet_cli.images import read_image, write_image
    from hrnet_cli.pipeline import detect_poses
    from hrnet_cli.recipe import load_config
    from hrnet_cli.schema import KeypointSchema, load_schema
    from hrnet_cli.structures import Boxes, Frame, Poses
    from hrnet_cli.training_data import train_in_folder

# Imported on first use, so that `import hrnet_cli` and the command line start at once.
_HOMES = {
    "Boxes": "structures",
    "DrawStyle": "draw",
    "Frame": "structures",
    "KeypointSchema": "schema",
    "PoseEstimator": "estimator",
    "Poses": "structures",
    "detect_poses": "pipeline",
    "draw_poses": "draw",
    "load_config": "recipe",
    "load_model": "estimator",
    "load_schema": "schema",
    "read_image": "images",
    "train_in_folder": "training_data",
    "write_image": "images",
}

__all__ = [
    "Boxes",
    "DrawStyle",
    "Frame",
    "KeypointSchema",
    "PoseEstimator",
    "Poses",
    "__version__",
    "detect_poses",
    "draw_poses",
    "load_config",
    "load_model",
    "load_schema",
    "read_image",
    "train_in_folder",
    "write_image",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    if name not in _HOMES:
        raise AttributeError(f"module 'hrnet_cli' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(f"hrnet_cli.{_HOMES[name]}"), name)
