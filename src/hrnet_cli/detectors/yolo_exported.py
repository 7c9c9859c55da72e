"""YOLO files exported by ultralytics, ONNX and OpenVINO, run without ultralytics and torch.

A picture is scaled onto a grey canvas of the network's size, the network tells for each of some
thousand places a box and how sure it is of each class, and of boxes that overlap the surest stays.
The boxes equal those of ultralytics with the same file.

Shape letters: H W height and width, A places, C classes, N people.
"""

import ast
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from hrnet_cli.detectors import DetectorSettings
from hrnet_cli.detectors.classes import class_indices
from hrnet_cli.engines import GraphError, open_onnx, open_openvino
from hrnet_cli.errors import UsageError, WeightsError
from hrnet_cli.geometry import keep_apart
from hrnet_cli.seals import check_seal
from hrnet_cli.structures import Boxes, Frame

# Grey of the canvas beside the picture, as in training.
_GREY = 114
# What the box's numbers are followed by: scores of the classes and, for these, more.
_TASKS = ("detect", "pose", "segment")
# Where an export does its own suppression, each row is x1, y1, x2, y2, score, class.
_ROW = 6
# Of a segmentation model, behind the box: how much each of its prototype masks counts.
_MASK_WEIGHTS = 32
_HINT = "fetch or export the file again"


@dataclass(frozen=True)
class _Network:
    """An exported network.

    Attributes:
        compute: Maps pixels (1, 3, H, W) from 0 to 1 to the first output, without its batch axis.
        size_hw: Its input (height, width); None for any.
        dtype: Of the pixels.
        batch: Pictures it takes at once, computed one by one all the same.
    """

    compute: Callable[[np.ndarray], np.ndarray]
    size_hw: tuple[int, int] | None
    dtype: type[np.floating]
    batch: int


class ExportedYolo:
    """Finds people with an exported YOLO.

    Args:
        name: Name for the records.
        network: The file at work.
        facts: What the file says of itself.
        labels: Numbers of the classes to box.
        settings: Thresholds and limits.
    """

    def __init__(
        self,
        name: str,
        network: _Network,
        facts: "_Facts",
        labels: tuple[int, ...],
        settings: DetectorSettings,
    ) -> None:
        self.name = name
        self._network = network
        self._facts = facts
        self._labels = labels
        self._settings = settings

    def __call__(self, frames: Sequence[Frame]) -> list[Boxes]:
        """Return the boxes of each frame, surest first, clipped to the frame."""
        return [self._detect(frame.image_HW3) for frame in frames]

    def _detect(self, image_HW3: np.ndarray) -> Boxes:
        size_hw = self._network.size_hw or snug_size(
            image_HW3.shape[:2], self._settings.input_size, self._facts.stride
        )
        canvas_HW3, scale_xy, offset_xy = to_canvas(image_HW3, size_hw)
        pixels_13HW = cv2.dnn.blobFromImage(canvas_HW3, 1 / 255)
        output = self._network.compute(pixels_13HW.astype(self._network.dtype, copy=False))
        facts = self._facts
        xyxy_A4, scores_A = read_output(
            output.astype(np.float32, copy=False), len(facts.names), self._labels, facts.more
        )
        asked = self._settings.iou_threshold
        done = asked is None and is_suppressed(output, facts.more)
        sure_A = scores_A > self._settings.person_threshold
        kept_N = keep_apart(
            xyxy_A4[sure_A],
            np.argsort(-scores_A[sure_A], kind="stable"),
            1.0 if done else self._settings.overlap,
            most=self._settings.max_people,
        )
        height, width = image_HW3.shape[:2]
        boxes_N4 = (xyxy_A4[sure_A][kept_N] - np.tile(offset_xy, 2)) / np.tile(scale_xy, 2)
        boxes_N4 = np.clip(boxes_N4, 0, [width, height, width, height])
        has_area_N = np.all(boxes_N4[:, 2:] > boxes_N4[:, :2], axis=1)
        return Boxes(boxes_N4, scores_A[sure_A][kept_N])[np.flatnonzero(has_area_N)]


def open_exported_yolo(name: str, path: Path, settings: DetectorSettings) -> ExportedYolo:
    """Open an ``.onnx`` file or the folder of an OpenVINO export.

    Args:
        name: Name for the records.
        path: The file or folder.
        settings: What to look for.

    Raises:
        WeightsError: The file is missing, damaged or no detector, or a package it needs is missing.
        InputError: The model does not know the class.
    """
    if not path.exists():
        raise WeightsError(f"detector file '{path}' does not exist")
    if path.is_file() and path.stat().st_size == 0:
        raise WeightsError(f"detector file '{path}' is empty (0 bytes)")
    try:
        opener = _open_onnx if path.is_file() else _open_openvino
        network, metadata = opener(path, settings)
    except UsageError as error:
        # Who names a file means the file; which package runs it is not an option of theirs.
        raise WeightsError(error.message, hint=error.hint) from error
    facts = _read_facts(metadata, path)
    labels = class_indices(facts.names, settings.class_name, f"detector '{name}'")
    return ExportedYolo(name, network, facts, labels, settings)


def to_canvas(
    image_HW3: np.ndarray, size_hw: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a picture in the middle of a grey canvas, as large as fits.

    Returns:
        The canvas; how many of its pixels are one of the picture, in x and y, which differ a
        little as sides are whole; and the (x, y) of the picture's corner on the canvas in pixels.
    """
    height, width = image_HW3.shape[:2]
    scale = min(size_hw[0] / height, size_hw[1] / width)
    # A picture of 3000x2 pixels keeps a row.
    inner_wh = max(1, round(width * scale)), max(1, round(height * scale))
    if inner_wh != (width, height):
        image_HW3 = cv2.resize(image_HW3, inner_wh, interpolation=cv2.INTER_LINEAR)
    # Of an odd number of free pixels the larger half lies right and below.
    left, top = (size_hw[1] - inner_wh[0]) // 2, (size_hw[0] - inner_wh[1]) // 2
    canvas_HW3 = np.full((*size_hw, 3), _GREY, np.uint8)
    canvas_HW3[top : top + inner_wh[1], left : left + inner_wh[0]] = image_HW3
    return canvas_HW3, np.array(inner_wh) / (width, height), np.array([left, top])


def snug_size(image_hw: tuple[int, ...], longest: int, stride: int) -> tuple[int, int]:
    """Return the canvas (height, width) for a network that takes any multiple of its stride."""
    scale = longest / max(image_hw[:2])
    height, width = (max(1, round(side * scale)) for side in image_hw[:2])
    return -(-height // stride) * stride, -(-width // stride) * stride


def read_output(
    output: np.ndarray, classes: int, labels: Sequence[int], more: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes of some classes and their scores.

    Args:
        output: (4 + C + more, A): middle, size and scores of each place; or (N, 6 + more): rows of
            boxes whose overlaps are gone already.
        classes: Number of classes.
        labels: Numbers of these classes.
        more: Numbers behind those of the box, such as a pose's.

    Returns:
        Boxes (M, 4) as x1, y1, x2, y2 on the canvas, and scores (M,).
    """
    if is_suppressed(output, more):
        mine_N = np.isin(np.round(output[:, 5]), labels)
        return output[mine_N, :4], output[mine_N, 4]
    scores_AC = output[4 : 4 + classes].T
    # A place is of one class only: the likeliest.
    likeliest_A = scores_AC.argmax(axis=1)
    mine_A = np.isin(likeliest_A, labels)
    middles_A2, sizes_A2 = output[:2].T[mine_A], output[2:4].T[mine_A]
    corners_A4 = np.concatenate([middles_A2 - sizes_A2 / 2, middles_A2 + sizes_A2 / 2], axis=1)
    return corners_A4, scores_AC[mine_A, likeliest_A[mine_A]]


def is_suppressed(output: np.ndarray, more: int = 0) -> bool:
    """Tell whether an output is rows of boxes whose overlaps are gone already.

    No network has so few places that they would be taken for the columns of rows.
    """
    return output.shape[1] == _ROW + more


@dataclass(frozen=True)
class _Facts:
    """What an export says of itself.

    Attributes:
        names: Class names by number.
        stride: Of its coarsest grid in pixels.
        more: Numbers of a place behind its box and classes: a pose's keypoints, a mask's weights.
    """

    names: Mapping[int, str]
    stride: int
    more: int


def _read_facts(metadata: Mapping[str, Any], path: Path) -> _Facts:
    task = str(metadata.get("task", "detect"))
    if task not in _TASKS:
        raise WeightsError(
            f"detector '{path}' finds no boxes: it is made for the task '{task}'",
            hint="use a detection, pose or segmentation model",
        )
    names = _literal(metadata.get("names", {}))
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict):
        names = {}
    shape = _literal(metadata.get("kpt_shape", (17, 3)))
    try:
        more = {"pose": int(np.prod(shape)), "segment": _MASK_WEIGHTS}.get(task, 0)
        stride = int(metadata.get("stride", 32))
        return _Facts({int(number): str(name) for number, name in names.items()}, stride, more)
    except (TypeError, ValueError) as error:
        raise WeightsError(
            f"detector '{path}' says of itself what cannot be: {error}", hint=_HINT
        ) from error


def _literal(value: Any) -> Any:  # noqa: ANN401 - as the file has it
    """Return a value that ONNX, which holds texts only, has as Python writes it."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError, SyntaxError):
            return ast.literal_eval(value)
    return value


def _open_onnx(path: Path, settings: DetectorSettings) -> tuple[_Network, Mapping[str, Any]]:
    wanted_by = f"detector '{path}'"
    check_seal(path)
    try:
        session = open_onnx(
            path, device=settings.device, threads=settings.threads, wanted_by=wanted_by
        )
    except GraphError as error:
        raise _damaged(path, str(error)) from error
    pixels = session.get_inputs()[0]
    network = _Network(
        compute=lambda batch: session.run(None, {pixels.name: batch})[0][0],
        size_hw=_fixed_size(pixels.shape),
        dtype=np.float16 if "float16" in pixels.type else np.float32,
        batch=pixels.shape[0] if isinstance(pixels.shape[0], int) else 1,
    )
    return _checked(network, path), dict(session.get_modelmeta().custom_metadata_map)


def _open_openvino(path: Path, settings: DetectorSettings) -> tuple[_Network, Mapping[str, Any]]:
    graphs = sorted(path.glob("*.xml"))
    if len(graphs) != 1:
        raise WeightsError(
            f"folder '{path}' is not a detector: it holds {len(graphs)} .xml files, expected one"
        )
    check_seal(graphs[0])
    try:
        compiled = open_openvino(
            graphs[0],
            precision="fp32",
            threads=settings.threads,
            cache=settings.cache,
            wanted_by=f"detector '{path}'",
        )
    except GraphError as error:
        raise _damaged(path, str(error)) from error
    shape = compiled.input(0).partial_shape
    half = compiled.input(0).element_type.get_type_name() == "f16"
    sides = [side.get_length() if side.is_static else None for side in shape]
    network = _Network(
        compute=lambda batch: compiled(batch)[0][0],
        size_hw=_fixed_size(sides),
        dtype=np.float16 if half else np.float32,
        batch=sides[0] or 1,
    )
    return _checked(network, path), _folder_metadata(path)


def _folder_metadata(path: Path) -> Mapping[str, Any]:
    file = path / "metadata.yaml"
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise WeightsError(f"detector '{path}': {file.name} cannot be read", hint=_HINT) from error
    return found if isinstance(found, dict) else {}


def _fixed_size(shape: Sequence[Any]) -> tuple[int, int] | None:
    """Return height and width of an input (1, 3, H, W), None where they may be anything."""
    height, width = shape[2:4]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _checked(network: _Network, path: Path) -> _Network:
    if network.batch != 1:
        raise WeightsError(
            f"detector '{path}' takes {network.batch} pictures at once, expected 1 or any number",
            hint="export it again with batch=1 or dynamic=True",
        )
    return network


def _damaged(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"detector '{path}' cannot be loaded, it is damaged or not made by ultralytics: {reason}",
        hint=_HINT,
    )
