"""A checkpoint -> a file for another engine, written only when it gives PyTorch's keypoints.

Shape letters: B crops, K keypoints, H W height and width.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from hrnet_cli import checkpoint, heatmap, weights
from hrnet_cli.config import ModelSpec
from hrnet_cli.errors import OutputError, UsageError, WeightsError
from hrnet_cli.estimator import PoseEstimator
from hrnet_cli.model_metadata import ARCHITECTURE, spec_to_metadata
from hrnet_cli.runtimes import TOLERANCES, Runtime, RuntimeSettings
from hrnet_cli.runtimes.exported import graph_file, open_exported, read_exported
from hrnet_cli.runtimes.folding import fold_batch_norms
from hrnet_cli.runtimes.graph import trace
from hrnet_cli.runtimes.graph_files import write_graph_file
from hrnet_cli.runtimes.torch_eager import TorchEager

if TYPE_CHECKING:
    from torch import nn

    from hrnet_cli.data.people import LabelledPeople
    from hrnet_cli.models.hrnet import HRNet

CHECK_BATCH = 16
# Part of the keypoints that must stay where PyTorch finds them, within one heatmap pixel. Seen on
# a briefly trained W32: 1 for all, also int8.
AGREEMENT = {"fp32": 1.0, "fp16": 0.99, "bf16": 0.98, "int8": 0.9}
# 8 bits move single values of a heatmap far more than its peak, which is what counts.
LARGEST_DIFFERENCE = TOLERANCES | {"int8": 0.5}
# Largest loss of COCO AP.
AP_LOSS = {"fp32": 0.0005, "fp16": 0.001, "bf16": 0.002, "int8": 0.01}
# A peak lower than this part of the highest may be noise, which has no place to agree on.
SURE_PART = 0.25


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


@dataclass(frozen=True)
class Agreement:
    """How an exported network compares with PyTorch in float32.

    Attributes:
        crops: Crops compared.
        difference: Largest difference of two heatmaps, as a share of the highest peak.
        keypoints: Keypoints PyTorch is sure of: those whose peak is not far lower than the highest.
        equal: Part of them with the peak on the same heatmap pixel.
        near: Part of them with the peak within one heatmap pixel.
        shift_px: Mean distance of them in crop pixels, decoded.
        ap: COCO AP of both, where labels were given: PyTorch's, the exported network's.
    """

    crops: int
    difference: float
    keypoints: int
    equal: float
    near: float
    shift_px: float
    ap: tuple[float, float] | None = None

    def describe(self) -> str:
        """Return the comparison as one line of text."""
        parts = [
            f"largest difference {self.difference:.1e} of the peak",
            f"{self.equal:.1%} of {self.keypoints} peaks on the same heatmap pixel,"
            f" {self.near:.1%} within one",
            f"mean shift {self.shift_px:.3f} px",
        ]
        if self.ap is not None:
            parts.append(f"AP {self.ap[1]:.4f}, PyTorch {self.ap[0]:.4f}")
        return f"on {self.crops} crops: {'; '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain values."""
        return {
            "crops": self.crops,
            "largest_difference": self.difference,
            "keypoints": self.keypoints,
            "same_pixel": self.equal,
            "within_one_pixel": self.near,
            "mean_shift_px": self.shift_px,
            "AP": None if self.ap is None else {"pytorch": self.ap[0], "exported": self.ap[1]},
        }


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
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        graph = temporary / f"{spec.name}{TARGETS[wish.target].suffix}"
        calibration_BHW3 = material.calibration and material.calibration(spec)
        _write(graph, network, spec, wish, metadata, calibration_BHW3)
        agreement = _compare_file(graph, network, spec, wish, material)
        _put_in_place(graph, out, folder=TARGETS[wish.target].folder)
    except OSError as error:
        raise OutputError(
            f"{out}: cannot be written: {error.strerror or error}",
            hint="check that the folder exists, may be written to and has space left",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return agreement


def compare(
    reference: Runtime, exported: Runtime, spec: ModelSpec, crops_BHW3: np.ndarray
) -> Agreement:
    """Return how the heatmaps of two runtimes compare on crops."""
    pairs = [
        (reference(part), exported(part))
        for part in np.split(crops_BHW3, range(CHECK_BATCH, len(crops_BHW3), CHECK_BATCH))
    ]
    right, other = (np.concatenate(maps) for maps in zip(*pairs, strict=True))
    peak = float(np.abs(right).max()) or 1.0
    right_peaks, scores_BK = heatmap.find_peaks(right)
    other_peaks, _ = heatmap.find_peaks(other)
    sure_BK = scores_BK >= SURE_PART * scores_BK.max(initial=0)
    steps_M = np.abs(right_peaks - other_peaks).max(axis=-1)[sure_BK]
    right_points, _ = heatmap.decode(right, spec.codec, spec.input_hw)
    other_points, _ = heatmap.decode(other, spec.codec, spec.input_hw)
    shifts_M = np.linalg.norm(right_points - other_points, axis=-1)[sure_BK]
    return Agreement(
        crops=len(crops_BHW3),
        difference=float(np.abs(right - other).max()) / peak,
        keypoints=int(sure_BK.sum()),
        equal=float((steps_M == 0).mean()),
        near=float((steps_M <= 1).mean()),
        shift_px=float(shifts_M.mean()),
    )


def check_agreement(agreement: Agreement, precision: str, what: str) -> None:
    """Raise WeightsError when an exported network differs more than its precision allows."""
    limit, near = LARGEST_DIFFERENCE[precision], AGREEMENT[precision]
    lost = 0.0 if agreement.ap is None else agreement.ap[0] - agreement.ap[1]
    # Comparisons are false for a difference that is not a number.
    if agreement.difference <= limit and agreement.near >= near and lost <= AP_LOSS[precision]:
        return
    expected = f"at most {limit:g} of the peak and at least {near:.0%} within one heatmap pixel"
    if agreement.ap is not None:
        expected += f", and at most {AP_LOSS[precision]:g} AP lost"
    raise WeightsError(
        f"{what} in {precision} is not the network it was made of, {agreement.describe()};"
        f" expected {expected}; nothing was written",
        hint="calibrate with more people, such as it will see, or use --precision bf16 or fp32"
        if precision == "int8"
        else "an untrained network has no peaks to keep: export a trained one",
    )


def _check_place(out: Path, target: ExportTarget, *, overwrite: bool) -> None:
    """Raise OutputError unless a place is free, or holds an export that may be replaced."""
    if not out.exists():
        return
    if not overwrite:
        raise OutputError(
            f"'{out}' would be overwritten",
            hint="add --overwrite to replace it, or name another place with --out",
        )
    if out.is_dir() != target.folder or (target.folder and graph_file(out) is None):
        what = "a folder of something else" if out.is_dir() else "a file"
        expected = "a folder with one export" if target.folder else "a file"
        raise OutputError(
            f"'{out}' is {what}, expected {expected} to replace",
            hint="name another place with --out",
        )


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
    check_agreement(agreement, wish.precision, f"'{spec.name}' for {wish.target}")
    return agreement


def _ap(runtime: Runtime, spec: ModelSpec, labelled: "LabelledPeople") -> float:
    """Return COCO's AP with the labelled boxes and flip test."""
    from hrnet_cli.evaluation import EvalSettings, score
    from hrnet_cli.predictions import predict

    estimator = PoseEstimator(runtime, spec, flip_test=True)
    column = score(labelled, predict(estimator, labelled), EvalSettings(resamples=0))
    return column.stats["AP"] or 0.0


def _put_in_place(graph: Path, out: Path, *, folder: bool) -> None:
    """Move what was written to where it belongs; the old one goes only then."""
    made = graph.parent if folder else graph
    if out.is_dir() and not out.is_symlink():
        old = out.with_name(f".{out.name}.{os.getpid()}.old")
        out.rename(old)
        made.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    else:
        made.replace(out)
