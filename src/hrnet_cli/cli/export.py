"""``hrnet export``: the options. What they do stands in export_run.py."""

from pathlib import Path
from typing import Annotated

import typer

from hrnet_cli.cli.options import (
    CodecOption,
    InputOption,
    OfflineOption,
    QuietOption,
    SchemaOption,
)

FIXED_BATCH = 8
EXAMPLES = """Examples:

\b
  hrnet export hrnet-w32 --to openvino
  hrnet export best.safetensors --to onnx --precision int8 --calibrate photos/
  hrnet export yolo11n.pt --to openvino
"""


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="Pose model or YOLO detector: a name of `hrnet download-weights --list`, or a"
            " weights file.",
            metavar="MODEL",
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            help="What to write.",
            metavar="onnx|openvino|mnn|torchscript",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="File to write, a folder for OpenVINO.",
            show_default="the model's name, in this folder",
        ),
    ] = None,
    precision: Annotated[
        str,
        typer.Option(
            "--precision",
            help="Of the network in the file; all but fp32 change its numbers a little.",
            metavar="fp32|bf16|fp16|int8",
        ),
    ] = "fp32",
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate",
            help="Photos to measure the ranges for int8 on: a folder, each photo one person; or"
            " labelled people, a COCO-style .json or a data set .toml.",
        ),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            "--check",
            help="Photos to compare with PyTorch on, in the same forms; with labels AP is compared"
            " too.",
            show_default="some that came with other packages",
        ),
    ] = None,
    dynamic_batch: Annotated[
        bool,
        typer.Option(
            "--dynamic-batch/--fixed-batch",
            help="Take any number of people at once, or always --batch-size.",
        ),
    ] = True,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", min=1, help="People at once of --fixed-batch.", show_default="8"
        ),
    ] = None,
    input_: InputOption = None,
    codec: CodecOption = None,
    keypoint_schema: SchemaOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing output of the same name.")
    ] = False,
    offline: OfflineOption = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print what was written, and how it compares, as JSON.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Write a model for another engine, after comparing it with PyTorch.

    The file says all of itself: detect, eval and bench take it with --model or --detector and need
    no PyTorch for it. A file that would give other keypoints is not written.
    """
    from hrnet_cli.cli.export_run import ExportOptions, run
    from hrnet_cli.errors import UsageError

    if batch_size is not None and dynamic_batch:
        raise UsageError(
            "--batch-size is for --fixed-batch: without that the file takes any number of people",
            hint="add --fixed-batch, or leave out --batch-size",
        )
    run(
        ExportOptions(
            model=model,
            to=to,
            out=out,
            precision=precision,
            calibrate=calibrate,
            check=check,
            batch_size=None if dynamic_batch else batch_size or FIXED_BATCH,
            input_size=input_,
            codec=codec,
            keypoint_schema=keypoint_schema,
            overwrite=overwrite,
            offline=offline,
            json=json_,
            quiet=quiet,
        )
    )
