"""``hrnet bench``: the options. What they do stands in bench_run.py."""

from pathlib import Path
from typing import Annotated

import typer

from hrnet_cli.cli.options import (
    CodecOption,
    DeviceOption,
    InputOption,
    ModelOption,
    OfflineOption,
    QuietOption,
    SchemaOption,
    ThreadsOption,
)

EXAMPLES = """Examples:

\b
  hrnet bench --model hrnet-w32
  hrnet bench --model hrnet-w32 --accuracy data/coco --photos 200
"""


def bench(
    model: ModelOption = None,
    runtimes: Annotated[
        str | None,
        typer.Option(
            "--runtimes",
            help="Which to time: torch,compiled,onnx,openvino,mnn; compiling is slow.",
            show_default="torch,onnx,openvino,mnn; those of an exported file",
        ),
    ] = None,
    precisions: Annotated[
        str | None,
        typer.Option(
            "--precisions",
            help="In which arithmetic: fp32,bf16,fp16,int8.",
            show_default="fp32,bf16; that of an exported file",
        ),
    ] = None,
    people: Annotated[int, typer.Option("--people", min=1, help="People in the photo.")] = 8,
    rounds: Annotated[
        int, typer.Option("--rounds", min=1, help="Times that each is timed; the median counts.")
    ] = 5,
    detector: Annotated[
        str | None,
        typer.Option(
            "--detector",
            help="Time this person detector too: a name or a file as for detect.",
            show_default="none",
        ),
    ] = None,
    accuracy: Annotated[
        Path | None,
        typer.Option(
            "--accuracy",
            help="Measure AP of each runtime too, with labelled boxes and flip test: a folder in"
            " COCO's layout, a COCO-style .json or a data set .toml.",
        ),
    ] = None,
    photos: Annotated[
        int | None,
        typer.Option("--photos", min=1, help="Look at the first photos of --accuracy only."),
    ] = None,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    input_: InputOption = None,
    codec: CodecOption = None,
    keypoint_schema: SchemaOption = None,
    offline: OfflineOption = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the numbers as JSON on stdout.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Time the stages and runtimes on this machine, and say what accuracy each keeps.

    All are timed in turn, so that what else the machine does slows all alike. The share of the peak
    is that of the speed of a large 3x3 convolution, measured here too.
    """
    from hrnet_cli.cli.bench_run import BenchOptions, run

    run(
        BenchOptions(
            model=model,
            runtimes=runtimes,
            precisions=precisions,
            people=people,
            rounds=rounds,
            detector=detector,
            accuracy=accuracy,
            photos=photos,
            threads=threads,
            device=device,
            input_size=input_,
            codec=codec,
            keypoint_schema=keypoint_schema,
            offline=offline,
            json=json_,
            quiet=quiet,
        )
    )
