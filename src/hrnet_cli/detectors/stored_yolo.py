"""Detector files of this project: a YOLO's weights as safetensors, with what opens them again.

The metadata name the architecture by the file in which ultralytics describes it, the classes, the
input size and, if it is not the usual one, the overlap of boxes. Nothing in the file is code, so
such a file needs no trust.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from hrnet_cli.detectors import USUAL_IOU
from hrnet_cli.errors import OutputError, WeightsError
from hrnet_cli.scratch import written_whole

SUFFIX = ".safetensors"
FORMAT = "hrnet-cli detector"
# A plain name: never a path, which could point at another description.
_ARCHITECTURE = re.compile(r"yolo[a-z0-9-]+\.yaml")
# The largest stride of the architectures; an input is a multiple of it.
_STRIDE = 32


@dataclass(frozen=True)
class StoredYolo:
    """A detector file as read.

    Attributes:
        architecture: Name of ultralytics' description, such as ``yolo11n.yaml``.
        classes: Names of the classes, in the order of their numbers.
        input_size: Longer side in pixels to which pictures are scaled.
        tensors: Weights by name, float32 where the file has half precision.
        iou_threshold: Of two boxes that overlap more, the less sure one is dropped, 0 to 1.
    """

    architecture: str
    classes: tuple[str, ...]
    input_size: int
    tensors: dict[str, torch.Tensor]
    iou_threshold: float = USUAL_IOU


def read_stored_yolo(path: Path) -> StoredYolo:
    """Return what a detector file holds.

    Raises:
        WeightsError: It is damaged, or not a detector.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            if metadata.get("format") != FORMAT:
                raise WeightsError(
                    f"'{path}' is no detector: its metadata lack format '{FORMAT}'",
                    hint="a pose model is given with --model",
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"detector '{path}' cannot be read as safetensors, it is damaged or cut short: {error}",
            hint="fetch the file again",
        ) from error
    return StoredYolo(
        _architecture(metadata, path),
        _classes(metadata, path),
        _input_size(metadata, path),
        {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()},
        _iou_threshold(metadata, path),
    )


def save_stored_yolo(path: Path, stored: StoredYolo, *, licence: str, provenance: str) -> None:
    """Write a detector file in half precision, whole or not at all.

    Args:
        path: File to write; replaced if it is there.
        stored: What it shall hold.
        licence: Terms of the file.
        provenance: How it was trained, in words.

    Raises:
        OutputError: The file cannot be written; what was at `path` is left as it was.
    """
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in stored.tensors.items()
    }
    metadata = {
        "format": FORMAT,
        "architecture": stored.architecture,
        "classes": json.dumps(stored.classes),
        "input_size": str(stored.input_size),
        "iou_threshold": str(stored.iou_threshold),
        "licence": licence,
        "provenance": provenance,
    }
    try:
        with written_whole(path) as part:
            save_file(tensors, part, metadata)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{path}: cannot be written: {error}",
            hint="check that the folder exists, may be written to and has space left",
        ) from error


def _architecture(metadata: dict[str, str], path: Path) -> str:
    name = metadata.get("architecture", "")
    if not _ARCHITECTURE.fullmatch(name):
        raise _unusable(path, "architecture", name, "a name such as yolo11n.yaml")
    return name


def _classes(metadata: dict[str, str], path: Path) -> tuple[str, ...]:
    text = metadata.get("classes", "")
    try:
        names = json.loads(text)
    except json.JSONDecodeError:
        names = None
    if not isinstance(names, list) or not names or any(not isinstance(n, str) for n in names):
        raise _unusable(path, "classes", text, 'a list of names such as ["person"]')
    return tuple(names)


def _input_size(metadata: dict[str, str], path: Path) -> int:
    text = metadata.get("input_size", "")
    size = int(text) if text.isdecimal() else 0
    if not size or size % _STRIDE:
        raise _unusable(path, "input_size", text, f"a multiple of {_STRIDE}")
    return size


def _iou_threshold(metadata: dict[str, str], path: Path) -> float:
    text = metadata.get("iou_threshold", str(USUAL_IOU))
    try:
        overlap = float(text)
    except ValueError:
        overlap = -1.0
    if not 0 <= overlap <= 1:
        raise _unusable(path, "iou_threshold", text, "a number from 0 to 1")
    return overlap


def _unusable(path: Path, key: str, value: str, expected: str) -> WeightsError:
    return WeightsError(
        f"detector '{path}': {key} in its metadata is '{value}', expected {expected}",
        hint="the file was not written by this version of hrnet",
    )
