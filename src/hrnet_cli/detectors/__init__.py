"""Person detectors: frames in, person boxes out. They are interchangeable.

A new detector is a file with a `Detector` and one line in `DETECTORS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hrnet_cli.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from hrnet_cli.structures import Boxes, Frame


class Detector(Protocol):
    """Finds the people of pictures."""

    @property
    def name(self) -> str:
        """Name written into every record, such as ``yolo26s``."""
        ...

    def __call__(self, frames: Sequence[Frame]) -> list[Boxes]:
        """Return the boxes of each frame, in order, in its pixels; nobody is an empty `Boxes`."""
        ...


USUAL_IOU = 0.7


@dataclass(frozen=True)
class DetectorSettings:
    """What a detector looks for, and how sure it must be.

    Attributes:
        class_name: Class to box, by the detector's own name for it, or several: ``cat,dog``. What
            could be one or the other is boxed once.
        person_threshold: Boxes with a lower score are dropped, 0 to 1.
        iou_threshold: Of two boxes that overlap more, the less sure one is dropped, 0 to 1; None
            leaves it to the detector: `USUAL_IOU`, or what a ``.safetensors`` file says.
        max_people: Most boxes for one picture; the surest are kept. See `keeping` for others.
        input_size: Longer side in pixels to which a YOLO scales a picture; an exported file with a
            fixed input size and a ``.safetensors`` file keep their own.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        threads: Of the processor; None leaves it to the engine, which takes all it may use.
        cache: Folder for what OpenVINO compiles; None keeps nothing.
        trusted: The file is a listed one by its hash: the code inside it may run.
    """

    class_name: str = "person"
    person_threshold: float = 0.25
    iou_threshold: float | None = None
    max_people: int = 300
    input_size: int = 640
    device: str = "cpu"
    threads: int | None = None
    cache: Path | None = None
    trusted: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        for field in ("person_threshold", "iou_threshold"):
            value = getattr(self, field)
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"{field} is {value}, expected 0 to 1")
        for field in ("max_people", "input_size"):
            value = getattr(self, field)
            if value < 1:
                raise UsageError(f"{field} is {value}, expected at least 1")

    @property
    def overlap(self) -> float:
        """Return the overlap that is used, where the detector has none of its own."""
        return USUAL_IOU if self.iou_threshold is None else self.iou_threshold


# How ultralytics ends the name of the folder of an OpenVINO export.
OPENVINO_FOLDER = "_openvino_model"
# Its own variable, off unless set; here it is on unless set to 0.
SAFE_LOAD = "ULTRALYTICS_SAFE_LOAD"


class SureDetector:
    """Leaves out the boxes that another detector is unsure of.

    Args:
        detector: The other one.
        person_threshold: Boxes with a lower score are left out.
    """

    def __init__(self, detector: Detector, person_threshold: float) -> None:
        self.name = detector.name
        self._detector = detector
        self._person_threshold = person_threshold

    def __call__(self, frames: Sequence[Frame]) -> list[Boxes]:
        """Return the sure boxes of each frame; see `Detector`."""
        return [boxes[boxes.scores_N >= self._person_threshold] for boxes in self._detector(frames)]


# (name for the records, file or None, settings) -> detector
Opener = Callable[[str, Path | None, DetectorSettings], Detector]


def _open_yolo(name: str, path: Path | None, settings: DetectorSettings) -> Detector:
    from hrnet_cli.detectors.yolo import open_yolo

    return open_yolo(name, _needed(name, path), settings)


def _open_exported(name: str, path: Path | None, settings: DetectorSettings) -> Detector:
    from hrnet_cli.detectors.yolo_exported import open_exported_yolo

    return open_exported_yolo(name, _needed(name, path), settings)


def _open_torchvision(name: str, path: Path | None, settings: DetectorSettings) -> Detector:
    from hrnet_cli.detectors.torchvision import open_torchvision

    return open_torchvision(name, _needed(name, path), settings)


def _open_whole_image(_name: str, _path: Path | None, _settings: DetectorSettings) -> Detector:
    from hrnet_cli.detectors.whole_image import WholeImageDetector

    return WholeImageDetector()


DETECTORS: dict[str, Opener] = {
    "yolo": _open_yolo,
    "yolo-exported": _open_exported,
    "torchvision": _open_torchvision,
    "whole-image": _open_whole_image,
}


def open_detector(
    name: str,
    path: Path | None,
    settings: DetectorSettings,
    *,
    trusted: bool,
    on_warning: Callable[[str], None],
) -> Detector:
    """Return the detector for a name and the file that the name stands for.

    Args:
        name: Written into the records; ``whole-image`` and ``torchvision`` also pick the detector.
        path: Its weights: a ``.pth`` file is torchvision's, ``.onnx`` files and OpenVINO folders
            run without ultralytics, all others are ultralytics'; None for ``whole-image``.
        settings: What to look for.
        trusted: Whether the file's hash was checked against weights.toml.
        on_warning: Called with one line of text.

    Raises:
        WeightsError: The file is missing, damaged, of an unknown kind or needs a missing package.
        InputError: The detector does not know the class.
    """
    if path is not None and path.suffix.lower() == ".pt" and not trusted and runs_code():
        on_warning(code_warning(path))
    settings = replace(settings, trusted=trusted)
    return DETECTORS[detector_family(name, path)](name, path, settings)


def runs_code() -> bool:
    """Tell whether the user lets ``.pt`` files of YOLOs run the code inside them.

    By itself only what ultralytics makes networks of is loaded, and anything else refused.
    """
    value = os.environ.get(SAFE_LOAD, "1")
    return value.strip().lower() in ("0", "false", "no", "off", "n", "f")


def code_warning(path: Path) -> str:
    """Return the line about a file whose code is about to run."""
    return (
        f"{path} is not listed in weights.toml, and with {SAFE_LOAD}={os.environ[SAFE_LOAD]} the"
        " code inside it is run; use only files you trust"
    )


def detector_family(name: str, path: Path | None) -> str:
    """Return the key of `DETECTORS` for a name and its file: see `open_detector`."""
    if name in DETECTORS:
        return name
    if path is not None and (path.suffix.lower() == ".onnx" or path.name.endswith(OPENVINO_FOLDER)):
        return "yolo-exported"
    return "torchvision" if path is not None and path.suffix.lower() == ".pth" else "yolo"


def _needed(name: str, path: Path | None) -> Path:
    if path is None:
        raise WeightsError(
            f"detector '{name}' has no weights file",
            hint="hrnet download-weights --list shows the detectors there are",
        )
    return path
