"""``hrnet eval``: the options. What they do stands in eval_run.py."""

from pathlib import Path
from typing import Annotated

import typer

from hrnet_cli.cli.options import (
    BatchSizeOption,
    CodecOption,
    DeviceOption,
    FlipTestOption,
    InputOption,
    ModelOption,
    OfflineOption,
    PrecisionOption,
    QuietOption,
    RuntimeOption,
    SchemaOption,
    ThreadsOption,
)

EXAMPLES = """Examples:

\b
  hrnet eval --split val2017
  hrnet eval --dataset hands.json --data photos/ --model best.safetensors
"""


def eval_(
    split: Annotated[
        str,
        typer.Option("--split", help="Which part: val2017, val, test, ...; a .json is one part."),
    ] = "val",
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            help="What to measure on: coco, coco-wholebody, crowdpose, mpii, a COCO-style .json, a"
            " data set .toml, or a YOLO-pose data.yaml.",
        ),
    ] = "coco",
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Folder of the data; for a .json that of the photos.",
            show_default="data/coco for coco, else found beside the file",
        ),
    ] = None,
    model: ModelOption = None,
    boxes: Annotated[
        list[str] | None,
        typer.Option(
            "--boxes",
            help="Where the person boxes come from: gt (the labels), detector, or a file such as"
            " COCO detections; several, separated by commas or in turn, stand side by side.",
            metavar="gt|detector|FILE",
            show_default="gt,detector; gt for data sets of your own",
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            "--detector",
            help="Person detector: a listed YOLO, any ultralytics file (.pt, .onnx, OpenVINO"
            " folder), torchvision, or whole-image for one person filling the photo.",
            show_default="yolo26s",
        ),
    ] = None,
    class_: Annotated[
        str,
        typer.Option(
            "--class", help="Class to box, by the detector's name for it, or several: cat,dog."
        ),
    ] = "person",
    person_threshold: Annotated[
        float,
        typer.Option(
            "--person-threshold",
            min=0,
            max=1,
            help="Leave out boxes of the detector with a lower score.",
        ),
    ] = 0.05,
    evaluator: Annotated[
        str,
        typer.Option(
            "--evaluator",
            help="pycocotools, or faster for the same numbers sooner.",
            metavar="pycocotools|faster",
        ),
    ] = "pycocotools",
    nms: Annotated[
        str,
        typer.Option(
            "--nms", help="What becomes of two poses of one person.", metavar="hard|soft|none"
        ),
    ] = "hard",
    keypoint_threshold: Annotated[
        float,
        typer.Option(
            "--keypoint-threshold",
            min=0,
            max=1,
            help="Keypoints with a higher score count in the score of a person.",
        ),
    ] = 0.2,
    oks_threshold: Annotated[
        float,
        typer.Option(
            "--oks-threshold",
            min=0,
            max=1,
            help="Of two poses with a higher OKS, keep the surer.",
        ),
    ] = 0.9,
    pck: Annotated[
        float,
        typer.Option("--pck", help="Largest distance of a correct keypoint, as a part of --norm."),
    ] = 0.2,
    norm: Annotated[
        str,
        typer.Option(
            "--norm",
            help="What distances are divided by for PCK and NME: the box's longer side, the torso,"
            " the head segment, or the distance of two keypoints by name.",
            metavar="box|torso|head|A,B",
        ),
    ] = "box",
    per_keypoint: Annotated[
        bool,
        typer.Option(
            "--per-keypoint", help="Print a table of each keypoint too; page and JSON have it."
        ),
    ] = False,
    flip_test: FlipTestOption = True,
    batch_size: BatchSizeOption = 32,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    input_: InputOption = None,
    codec: CodecOption = None,
    keypoint_schema: SchemaOption = None,
    resamples: Annotated[
        int,
        typer.Option(
            "--resamples", min=0, help="Draws of photos for the 95% interval of AP; 0 for none."
        ),
    ] = 200,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of these draws.")] = 0,
    photos: Annotated[
        int | None,
        typer.Option(
            "--photos", min=1, help="Look at the first photos only: a trial, not a result."
        ),
    ] = None,
    download: Annotated[
        bool,
        typer.Option(
            "--download",
            help="Fetch photos and annotations of COCO val2017 into --data where they are missing,"
            " about 1 GB.",
        ),
    ] = False,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="Folder of the results files and of report.html."),
    ] = Path("hrnet-out/eval"),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing output of the same name.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first photo that cannot be used.")
    ] = False,
    offline: OfflineOption = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print the numbers as JSON on stdout.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Measure a model on labelled photos: COCO's AP and AR, pixels, each keypoint, each person.

    The settings are those of the official test. Writes a page, and the poses as COCO results.
    """
    from hrnet_cli.cli.eval_options import EvalOptions
    from hrnet_cli.cli.eval_run import run

    run(
        EvalOptions(
            split=split,
            dataset=dataset,
            data=data,
            model=model,
            boxes=tuple(boxes) if boxes else None,
            detector=detector,
            class_name=class_,
            person_threshold=person_threshold,
            evaluator=evaluator,
            nms=nms,
            keypoint_threshold=keypoint_threshold,
            oks_threshold=oks_threshold,
            pck=pck,
            norm=norm,
            per_keypoint=per_keypoint,
            flip_test=flip_test,
            batch_size=batch_size,
            device=device,
            runtime=runtime,
            precision=precision,
            threads=threads,
            input_size=input_,
            codec=codec,
            keypoint_schema=keypoint_schema,
            resamples=resamples,
            seed=seed,
            photos=photos,
            download=download,
            out=out,
            overwrite=overwrite,
            strict=strict,
            offline=offline,
            json=json_,
            quiet=quiet,
        )
    )
