"""A checkpoint -> a file for another engine, written only when it gives PyTorch's keypoints.

Shape letters: B crops, K keypoints, H W height and width.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from hrnet_cli import checkpoint, weights
from hrnet_cli.agreement import Agreement, check_agreement, compare
from hrnet_cli.config import ModelSpec
from hrnet_cli.errors import OutputError, UsageError, WeightsError
from hrnet_cli.estimator import PoseEstimator
from hrnet_cli.model_metadata import ARCHITECTURE, spec_to_metadata
from hrnet_cli.runtimes import Runtime, RuntimeSettings
from hrnet_cli.runtimes.exported import graph_file, open_exported, read_exported
from hrnet_cli.runtimes.folding import fold_batch_norms
from hrnet_cli.runtimes.graph import trace
from hrnet_cli.runtimes.graph_files import write_graph_file
from hrnet_cli.runtimes.torch_eager import TorchEager
from hrnet_cli.scratch import replace_folder, scratch_beside
from hrnet_cli.seals import seal
from hrnet_cli.structures import Boxes

if TYPE_CHECKING:
    from torch import nn

    from hrnet_cli.data.people import LabelledPeople
    from hrnet_cli.models.hrnet import HRNet

# Boxes of detectors are compared where they are sure, in pixels of the photos.
SURE_BOX, BOX_TOLERANCE_PX = 0.5, 2.0
# An OpenVINO graph begins with <?xml ...?> and <net ...>.
_HEAD_BYTES = 200


@dataclass(frozen=True)
class ExportTarget:
    """One kind of file.

    Attributes:
        suffix: Of the graph file.
        folder: Whether it lies in a folder of its own, of several files.
        runtime: What runs it.
        precisions: What it can be written in.
    """

    suffix: str
    folder: bool
    runtime: str
    precisions: tuple[str, ...]


TARGETS: dict[str, ExportTarget] = {
    "onnx": ExportTarget(".onnx", False, "onnx", ("fp32", "fp16", "int8")),
    "openvino": ExportTarget(".xml", True, "openvino", ("fp32", "bf16", "fp16", "int8")),
    "mnn": ExportTarget(".mnn", False, "mnn", ("fp32",)),
    "torchscript": ExportTarget(".torchscript", False, "torch", ("fp32", "bf16")),
}


@dataclass(frozen=True)
class ExportWish:
    """What to write.

    Attributes:
        target: One of `TARGETS`.
        precision: One of its precisions.
        batch: Fixed number of crops; None for any.
        provenance: Where the checkpoint came from, in words; kept in the file.
    """

    target: str
    precision: str = "fp32"
    batch: int | None = None
    provenance: str = ""

    def __post_init__(self) -> None:
        """Check that the target has the precision."""
        precisions = TARGETS[self.target].precisions
        if self.precision not in precisions:
            raise UsageError(
                f"--precision is {self.precision}, but --to {self.target} writes"
                f" {', '.join(precisions)}",
                hint="another --to has it" if self.precision != "int8" else "--to openvino or onnx",
            )

    def default_path(self, name: str) -> Path:
        """Return the file or folder for a model of this name, in the current folder."""
        stem = name if self.precision == "fp32" else f"{name}-{self.precision}"
        target = TARGETS[self.target]
        return Path(f"{stem}_{self.target}" if target.folder else f"{stem}{target.suffix}")


@dataclass(frozen=True)
class ExportMaterial:
    """What a network is calibrated and compared with.

    Attributes:
        check: Returns uint8 crops (B, H, W, 3) for a model, on which both networks are compared.
        calibration: Returns those that ``int8`` is calibrated with.
        labelled: People with keypoints to compare AP on.
    """

    check: Callable[[ModelSpec], np.ndarray]
    calibration: Callable[[ModelSpec], np.ndarray] | None = None
    labelled: "LabelledPeople | None" = None


def export_model(
    path: Path,
    spec: ModelSpec | None,
    wish: ExportWish,
    out: Path,
    material: ExportMaterial,
    *,
    overwrite: bool = False,
) -> Agreement:
    """Write a network for another engine, after it gave PyTorch's keypoints, or nothing.

    Args:
        path: Checkpoint.
        spec: What it is; None where the file says it.
        wish: What to write.
        out: File, or folder for OpenVINO.
        material: What to calibrate and compare with.
        overwrite: Replace what is at ``out``.

    Returns:
        How the two compare.

    Raises:
        WeightsError: The checkpoint cannot be used, or the exported network differs too much.
        UsageError: A package is missing, or ``int8`` has nothing to be calibrated with.
        DeviceError: This machine cannot compute in the precision, and so not check the file.
        OutputError: The file is there, or cannot be written.
    """
    _check_place(out, TARGETS[wish.target], overwrite=overwrite)
    if wish.precision == "int8" and material.calibration is None:
        raise UsageError(
            "--precision int8 needs photos to measure the ranges of its numbers on",
            hint="--calibrate FOLDER, with some hundred people such as it will see",
        )
    network, spec, _ = checkpoint.load_model(path, spec)
    metadata = _metadata(path, spec, wish)
    with _making(out) as scratch:
        graph = scratch / f"{spec.name}{TARGETS[wish.target].suffix}"
        calibration_BHW3 = material.calibration and material.calibration(spec)
        _write(graph, network, spec, wish, metadata, calibration_BHW3)
        agreement = _compare_file(graph, network, spec, wish, material)
        _put_in_place(graph, out, scratch, folder=TARGETS[wish.target].folder)
    return agreement


def export_detector(
    path: Path, target: str, precision: str, out: Path, *, overwrite: bool = False
) -> float:
    """Write a YOLO for another engine, after it gave the same boxes, or nothing.

    Args:
        path: The ``.pt`` file, a pickle: see `detectors.runs_code`.
        target: ``onnx`` or ``openvino``.
        precision: ``fp32`` or ``fp16``.
        out: File, or folder for OpenVINO; its name must be one that `detectors` knows again.
        overwrite: Replace what is at ``out``.

    Returns:
        The largest difference of a box's side, in pixels of the photos.

    Raises:
        WeightsError: The detector cannot be used, or finds other boxes afterwards.
        OutputError: The file is there, or cannot be written.
    """
    from hrnet_cli.detectors.yolo import export_yolo
    from hrnet_cli.weights import is_listed_detector

    trusted = is_listed_detector(path)
    _check_place(out, TARGETS[target], overwrite=overwrite)
    with _making(out) as scratch:
        half = precision == "fp16"
        written = export_yolo(path, target, scratch, half=half, trusted=trusted)
        graph = next(written.glob("*.xml")) if written.is_dir() else written
        seal(graph)
        difference = _compare_boxes(path, written, trusted=trusted)
        _put_in_place(graph, out, scratch, folder=TARGETS[target].folder)
    return difference


@contextmanager
def _making(out: Path) -> Iterator[Path]:
    """Yield a folder to make an output in; raise OutputError for what the file system refuses."""
    try:
        with scratch_beside(out.absolute()) as scratch:
            yield scratch
    except OSError as error:
        raise OutputError(
            f"{out}: cannot be written: {error.strerror or error}",
            hint="check that the folder may be written to and has space left",
        ) from error


def _compare_boxes(path: Path, written: Path, *, trusted: bool) -> float:
    """Return how far boxes moved on real photos; raise WeightsError when it is too far."""
    from hrnet_cli.detectors import DetectorSettings
    from hrnet_cli.detectors.yolo import open_yolo
    from hrnet_cli.detectors.yolo_exported import open_exported_yolo
    from hrnet_cli.images import read_image
    from hrnet_cli.model_crops import installed_photos
    from hrnet_cli.structures import Frame

    frames = [Frame(read_image(photo)[0], str(photo)) for photo in installed_photos()]
    settings = DetectorSettings(person_threshold=SURE_BOX, trusted=trusted)
    right = open_yolo(path.stem, path, settings)(frames)
    other = open_exported_yolo(path.stem, written, settings)(frames)
    largest = max((_largest_step(*pair) for pair in zip(right, other, strict=True)), default=0.0)
    if largest > BOX_TOLERANCE_PX:
        raise WeightsError(
            f"'{path.stem}' finds other boxes when it is exported: sides move by {largest:.1f}"
            f" pixels, expected at most {BOX_TOLERANCE_PX:g}; nothing was written",
            hint="use --precision fp32",
        )
    return largest


def _largest_step(right: Boxes, other: Boxes) -> float:
    """Return the largest distance of a side from that of the box nearest to its own."""
    if len(right) != len(other):
        return float("inf")
    if not len(right):
        return 0.0
    steps_NN4 = np.abs(right.xyxy_N4[:, None] - other.xyxy_N4[None])
    return float(steps_NN4.max(axis=2).min(axis=1).max())


def _check_place(out: Path, target: ExportTarget, *, overwrite: bool) -> None:
    """Raise OutputError unless a place is free, or holds an export that may be replaced."""
    if not target.folder and out.suffix != target.suffix:
        raise UsageError(
            f"'{out}' does not end in {target.suffix}",
            hint=f"--out {out.with_name(out.name + target.suffix)}",
        )
    if not out.exists():
        return
    if not overwrite:
        raise OutputError(
            f"'{out}' would be overwritten",
            hint="add --overwrite to replace it, or name another place with --out",
        )
    if out.is_dir() != target.folder or (target.folder and not _is_export(out)):
        what = "a folder of something else" if out.is_dir() else "a file"
        expected = "a folder with one export" if target.folder else "a file"
        raise OutputError(
            f"'{out}' is {what}, expected {expected} to replace",
            hint="name another place with --out",
        )


def _is_export(folder: Path) -> bool:
    """Tell whether a folder holds an OpenVINO export, and nothing else that would go with it."""
    graph = graph_file(folder)
    if graph is None or not graph.with_suffix(".bin").is_file():
        return False
    own = {graph.name, f"{graph.stem}.bin", "metadata.yaml"}
    with graph.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return b"<net " in head and {entry.name for entry in folder.iterdir()} <= own


def _metadata(path: Path, spec: ModelSpec, wish: ExportWish) -> dict[str, str]:
    return {
        **spec_to_metadata(spec),
        "architecture": ARCHITECTURE,
        "name": spec.name,
        "precision": wish.precision,
        "exported_from": json.dumps({"file": path.name, "sha256": weights.file_sha256(path)}),
        "provenance": wish.provenance,
    }


def _write(
    graph: Path,
    network: "nn.Module",
    spec: ModelSpec,
    wish: ExportWish,
    metadata: dict[str, str],
    calibration_BHW3: np.ndarray | None,
) -> None:
    folded = fold_batch_norms(network)
    if wish.target == "torchscript":
        from hrnet_cli.runtimes.torch_eager import prepare
        from hrnet_cli.runtimes.torch_script import write_script

        rounded = prepare(network, RuntimeSettings(precision=wish.precision))
        write_script(graph, cast("HRNet", rounded), spec, wish.precision, metadata)
        seal(graph)
        return
    write_graph_file(
        graph,
        trace(folded, spec),
        metadata,
        precision=wish.precision,
        batch=wish.batch,
        calibration_BHW3=calibration_BHW3,
    )


def _compare_file(
    graph: Path,
    network: "nn.Module",
    spec: ModelSpec,
    wish: ExportWish,
    material: ExportMaterial,
) -> Agreement:
    """Return how a written file compares with its network; raise when it does not."""
    settings = RuntimeSettings(precision=wish.precision)
    exported = open_exported(read_exported(graph), TARGETS[wish.target].runtime, settings, None)
    reference = TorchEager(network, spec, "cpu")
    agreement = compare(reference, exported, spec, material.check(spec))
    if material.labelled is not None:
        labelled = material.labelled
        aps = (_ap(runtime, spec, labelled) for runtime in (reference, exported))
        agreement = replace(agreement, ap=(next(aps), next(aps)))
    what = f"'{spec.name}' for {wish.target}"
    check_agreement(agreement, wish.precision, what, exported.tolerance)
    return agreement


def _ap(runtime: Runtime, spec: ModelSpec, labelled: "LabelledPeople") -> float:
    """Return COCO's AP with the labelled boxes and flip test."""
    from hrnet_cli.evaluation import EvalSettings, score
    from hrnet_cli.predictions import predict

    estimator = PoseEstimator(runtime, spec, flip_test=True)
    column = score(labelled, predict(estimator, labelled), EvalSettings(resamples=0))
    return column.stats["AP"] or 0.0


def _put_in_place(graph: Path, out: Path, scratch: Path, *, folder: bool) -> None:
    """Move what was written to where it belongs; the old one goes only then."""
    made, out = (graph.parent if folder else graph), out.absolute()
    if out.is_dir() and not out.is_symlink():
        replace_folder(made, out, scratch)
    else:
        made.replace(out)
