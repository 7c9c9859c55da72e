"""``hrnet detect``: the options. What they do stands in detect_run.py."""

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
    QuietOption,
    SchemaOption,
)

EXAMPLES = """Examples:

\b
  hrnet detect photo.jpg --skeleton
  hrnet detect photos/ --recursive --format jsonl,csv --out results
"""


def detect(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Photos, folders, quoted globs, @list.txt, or - for paths on standard input.",
            metavar="SOURCES",
        ),
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", help="Output folder; - streams records to stdout.")
    ] = "hrnet-out",
    format_: Annotated[
        str, typer.Option("--format", help="Records to write: jsonl,csv,coco,openpose.")
    ] = "jsonl",
    skeleton: Annotated[
        bool,
        typer.Option("--skeleton", help="Write pictures: short for --draw keypoints,skeleton."),
    ] = False,
    draw: Annotated[
        str,
        typer.Option(
            "--draw",
            help="Write pictures with these: keypoints,skeleton,boxes,scores,heatmap.",
            show_default=False,
        ),
    ] = "",
    model: ModelOption = None,
    detector: Annotated[
        str | None,
        typer.Option(
            "--detector",
            help="Person detector: a listed YOLO, any ultralytics file (.pt, .onnx, OpenVINO"
            " folder), torchvision, or whole-image for one person filling the photo.",
            show_default="yolo26s; the small starter-detector when it cannot be had",
        ),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            "--boxes",
            help="Take the boxes from a file of any detector instead: JSON Lines, COCO detections"
            " JSON, or CSV.",
        ),
    ] = None,
    class_: Annotated[
        str, typer.Option("--class", help="Class to box, by the detector's name for it.")
    ] = "person",
    person_threshold: Annotated[
        float | None,
        typer.Option(
            "--person-threshold",
            min=0,
            max=1,
            help="Leave out boxes with a lower score.",
            show_default="0.25; with --boxes none",
        ),
    ] = None,
    iou: Annotated[
        float | None,
        typer.Option(
            "--iou",
            min=0,
            max=1,
            help="Of two boxes that overlap more, keep the surer.",
            show_default="0.7; with --boxes none",
        ),
    ] = None,
    max_people: Annotated[
        int | None,
        typer.Option(
            "--max-people",
            min=1,
            help="Most people in one photo, the surest.",
            show_default="300; with --boxes none",
        ),
    ] = None,
    keypoint_threshold: Annotated[
        float,
        typer.Option(
            "--keypoint-threshold",
            min=0,
            max=1,
            help="Do not draw keypoints with a lower score; records keep them all.",
        ),
    ] = 0.2,
    drop_low: Annotated[
        bool,
        typer.Option("--drop-low", help="Write null for keypoints below --keypoint-threshold."),
    ] = False,
    flip_test: FlipTestOption = False,
    batch_size: BatchSizeOption = 32,
    device: DeviceOption = "auto",
    input_: InputOption = None,
    codec: CodecOption = None,
    keypoint_schema: SchemaOption = None,
    connections: Annotated[
        Path | None,
        typer.Option("--connections", help="Limbs to draw: a TOML or JSON list of name pairs."),
    ] = None,
    palette: Annotated[
        str, typer.Option("--palette", help="Colours by: sides, people or limbs.")
    ] = "sides",
    background: Annotated[
        str, typer.Option("--background", help="Draw on: photo, black or transparent.")
    ] = "photo",
    point_size: Annotated[
        float | None,
        typer.Option(
            "--point-size", min=0.1, help="Radius in pixels.", show_default="from the person's size"
        ),
    ] = None,
    line_width: Annotated[
        float | None,
        typer.Option(
            "--line-width", min=0.1, help="Width in pixels.", show_default="from the person's size"
        ),
    ] = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Look into folders below the given ones.")
    ] = False,
    max_pixels: Annotated[
        int, typer.Option("--max-megapixels", min=1, help="Refuse larger photos.")
    ] = 200,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing output of the same name.")
    ] = False,
    append: Annotated[
        bool, typer.Option("--append", help="Add to existing output of the same name.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first photo that cannot be used.")
    ] = False,
    offline: OfflineOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be read and written.")
    ] = False,
    show_stages: Annotated[
        bool, typer.Option("--show-stages", help="Say how long each stage took.")
    ] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print a summary of the run as JSON on stdout.")
    ] = False,
    quiet: QuietOption = False,
) -> None:
    """Find the people in photos and the keypoints of each.

    Writes one record a photo, people or not, and with --skeleton or --draw a picture as well.
    """
    from hrnet_cli.cli.detect_options import DetectOptions
    from hrnet_cli.cli.detect_run import run

    run(
        DetectOptions(
            sources=tuple(sources),
            out=out,
            format=format_,
            draw=f"keypoints,skeleton,{draw}" if skeleton else draw,
            model=model,
            detector=detector,
            boxes=boxes,
            class_name=class_,
            person_threshold=person_threshold,
            iou=iou,
            max_people=max_people,
            keypoint_threshold=keypoint_threshold,
            drop_low=drop_low,
            flip_test=flip_test,
            batch_size=batch_size,
            device=device,
            input_size=input_,
            codec=codec,
            keypoint_schema=keypoint_schema,
            connections=connections,
            palette=palette,
            background=background,
            point_size=point_size,
            line_width=line_width,
            recursive=recursive,
            max_pixels=max_pixels * 1_000_000,
            overwrite=overwrite,
            append=append,
            strict=strict,
            offline=offline,
            dry_run=dry_run,
            show_stages=show_stages,
            json=json_,
            quiet=quiet,
        )
    )
