"""What ``hrnet export`` does: find the model, write it for another engine, compare, report."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrnet_cli.cli import console
from hrnet_cli.cli.detect_report import echo_json
from hrnet_cli.cli.model_files import fetch_announcer, find_detector
from hrnet_cli.cli.options import check_choice, parse_size
from hrnet_cli.detectors import OPENVINO_FOLDER
from hrnet_cli.errors import InputError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from hrnet_cli.agreement import Agreement
    from hrnet_cli.config import ModelSpec
    from hrnet_cli.data.people import LabelledPeople
    from hrnet_cli.exporting import ExportWish

SCHEMA = "hrnet-export/1"
TENSORRT = "tensorrt"
CALIBRATION_CROPS = 300
CHECK_CROPS = 64


@dataclass(frozen=True)
class ExportOptions:
    """The options of ``hrnet export`` as given."""

    model: str
    to: str
    out: Path | None
    precision: str
    calibrate: Path | None
    check: Path | None
    batch_size: int | None
    input_size: str | None
    codec: str | None
    keypoint_schema: str | None
    overwrite: bool
    offline: bool
    json: bool
    quiet: bool


@dataclass(frozen=True)
class _Crops:
    """Photos to take crops of.

    Attributes:
        of: Returns the crops for a model.
        labelled: The people, where they have labels.
    """

    of: "Callable[[ModelSpec], np.ndarray]"
    labelled: "LabelledPeople | None" = None


def run(options: ExportOptions) -> None:
    """Export, compare and report.

    Raises:
        HrnetError: The model cannot be had, written, or is another one afterwards.
    """
    _check_options(options)
    from hrnet_cli.exporting import ExportMaterial, ExportWish, export_model

    started = time.perf_counter()
    if (detector := _find_detector(options)) is not None:
        _export_detector(options, detector, started)
        return
    wish = ExportWish(options.to, options.precision, options.batch_size)
    path, spec, provenance = _find(options)
    wish = replace(wish, provenance=provenance)
    out = options.out or wish.default_path(spec.name if spec is not None else path.stem)
    calibration = None if options.calibrate is None else _read(options.calibrate, CALIBRATION_CROPS)
    check = _read(options.check, CHECK_CROPS)
    material = ExportMaterial(check.of, calibration and calibration.of, check.labelled)
    agreement = export_model(path, spec, wish, out, material, overwrite=options.overwrite)
    _report(options, wish, out, agreement, time.perf_counter() - started)


def _check_options(options: ExportOptions) -> None:
    """Raise UsageError for what cannot be written, before anything heavy loads."""
    from hrnet_cli.optional_packages import check_installed
    from hrnet_cli.runtimes import PRECISIONS

    if options.to == TENSORRT:
        raise UsageError(
            "--to tensorrt is not written by this version: an engine fits only the GPU and the"
            " TensorRT that built it",
            hint="hrnet export --to onnx, then there: trtexec --onnx=FILE --saveEngine=FILE.engine",
        )
    check_choice(options.to, "--to", ("onnx", "openvino", "mnn", "torchscript"))
    check_choice(options.precision, "--precision", PRECISIONS)
    parse_size(options.input_size)
    if options.to in ("mnn", "torchscript") and options.batch_size is not None:
        raise UsageError(
            f"--fixed-batch is for --to onnx and openvino: {options.to} takes any batch",
            hint="leave out --fixed-batch",
        )
    if options.calibrate is not None and options.precision != "int8":
        raise UsageError(
            f"--calibrate is for --precision int8, and it is {options.precision}",
            hint="leave one of them out",
        )
    packages = {
        "onnx": ("onnx", "onnxruntime"),
        "openvino": ("openvino",),
        "mnn": ("MNN", "onnx"),
    }
    for package in packages.get(options.to, ()):
        check_installed(package, f"--to {options.to}")
    if options.precision == "int8" and options.to == "openvino":
        check_installed("nncf", "--to openvino --precision int8")


def _find_detector(options: ExportOptions) -> Path | None:
    """Return the file where the model is a YOLO, None where it is not."""
    from hrnet_cli import weights
    from hrnet_cli.detectors import code_warning, runs_code
    from hrnet_cli.detectors.yolo import is_pickled_model
    from hrnet_cli.runtimes.exported import graph_file

    path = Path(options.model)
    if graph_file(path) is not None:
        raise UsageError(
            f"'{options.model}' is an exported model already",
            hint="export the weights file it was made of",
        )
    if path.is_file():
        if not is_pickled_model(path):
            return None
        if runs_code() and not weights.is_listed_detector(path):
            console.say_warning(code_warning(path))
        return path
    if weights.find_entry(options.model).kind != "detector":
        return None
    found = find_detector(options.model, offline=options.offline, quiet=options.quiet)[1]
    if found is None or not is_pickled_model(found):
        raise UsageError(
            f"detector '{options.model}' cannot be exported: only YOLO files of ultralytics can",
            hint="hrnet export yolo11n --to openvino, or any .pt file of a YOLO",
        )
    return found


def _export_detector(options: ExportOptions, path: Path, started: float) -> None:
    from hrnet_cli.exporting import export_detector

    if options.to not in ("onnx", "openvino") or options.precision not in ("fp32", "fp16"):
        raise UsageError(
            f"--to {options.to} --precision {options.precision} is for pose models; a detector is"
            " written to onnx or openvino, in fp32 or fp16",
            hint="--to openvino"
            if options.precision != "int8"
            else "for int8 use ultralytics itself: yolo export model=FILE format=openvino int8=True"
            " data=YOUR.yaml; hrnet detect takes the result",
        )
    _refuse_for_detectors(options)
    stem = path.stem if options.precision == "fp32" else f"{path.stem}-{options.precision}"
    name = f"{stem}.onnx" if options.to == "onnx" else f"{stem}{OPENVINO_FOLDER}"
    out = options.out or Path(name)
    if options.to == "openvino" and not out.name.endswith(OPENVINO_FOLDER):
        raise UsageError(
            f"'{out}' does not end in {OPENVINO_FOLDER}, by which detectors are known",
            hint=f"--out {out.with_name(out.name + OPENVINO_FOLDER)}",
        )
    largest = export_detector(path, options.to, options.precision, out, overwrite=options.overwrite)
    seconds = time.perf_counter() - started
    if not options.quiet:
        console.say(f"boxes of sure people move by {largest:.3f} px at most")
        console.say(
            f"wrote {out}, {options.precision}, {_megabytes(out):.1f} MB, in {seconds:.1f} s"
        )
    if options.json:
        data: dict[str, Any] = {
            "schema": SCHEMA,
            "written": str(out),
            "to": options.to,
            "precision": options.precision,
            "megabytes": round(_megabytes(out), 3),
            "largest_step_px": largest,
            "seconds": round(seconds, 3),
        }
        echo_json(data)


def _refuse_for_detectors(options: ExportOptions) -> None:
    given = {
        "--fixed-batch": options.batch_size,
        "--input": options.input_size,
        "--codec": options.codec,
        "--keypoint-schema": options.keypoint_schema,
        "--check": options.check,
    }
    for name, value in given.items():
        if value is not None:
            raise UsageError(
                f"{name} is for pose models, and '{options.model}' is a detector",
                hint=f"leave out {name}",
            )


def _find(options: ExportOptions) -> "tuple[Path, ModelSpec | None, str]":
    """Return the file of the model, what it is, and where it came from."""
    from hrnet_cli import weights
    from hrnet_cli.estimator import ModelHints, find_model

    path, spec = find_model(
        options.model,
        offline=options.offline,
        hints=ModelHints(parse_size(options.input_size), options.codec, options.keypoint_schema),
        on_progress=fetch_announcer("pose model", quiet=options.quiet),
    )
    entries = weights.identify(weights.file_sha256(path))
    return path, spec, entries[0].source if entries else ""


def _read(place: Path | None, most: int) -> _Crops:
    """Return where crops come from: a folder of photos, labelled people, or None for our own."""
    from hrnet_cli.model_crops import (
        PARTS,
        installed_photos,
        labelled_crops,
        photo_crops,
        photos_in,
    )

    if place is None:
        photos = installed_photos()
        if not photos:
            raise InputError(
                "there are no photos on this machine to compare on", hint="--check FOLDER"
            )
        return _Crops(lambda spec: photo_crops(photos, spec, most, PARTS))
    if not place.exists():
        raise InputError(
            f"'{place}' does not exist; expected a folder of photos or a file of labelled people"
        )
    if place.is_dir() and not (place / "data.yaml").is_file():
        found = photos_in(place)
        return _Crops(lambda spec: photo_crops(found, spec, most))
    from hrnet_cli.data import open_dataset

    people = open_dataset(str(place), split="val")
    return _Crops(lambda spec: labelled_crops(people, spec, most), people)


def _report(
    options: ExportOptions, wish: "ExportWish", out: Path, agreement: "Agreement", seconds: float
) -> None:
    if not options.quiet:
        console.say(f"{agreement.describe()}")
        console.say(f"wrote {out}, {wish.precision}, {_megabytes(out):.1f} MB, in {seconds:.1f} s")
    if options.json:
        data: dict[str, Any] = {
            "schema": SCHEMA,
            "written": str(out),
            "to": wish.target,
            "precision": wish.precision,
            "megabytes": round(_megabytes(out), 3),
            "agreement": agreement.to_json(),
            "seconds": round(seconds, 3),
        }
        echo_json(data)


def _megabytes(path: Path) -> float:
    files = path.iterdir() if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files) / 1e6
