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
    PrecisionOption,
    QuietOption,
    RuntimeOption,
    SchemaOption,
    ThreadsOption,
)
from hrnet_cli.cli.output_options import (
    BackgroundOption,
    ConnectionsOption,
    DrawOption,
    DropLowOption,
    FormatOption,
    JsonOption,
    KeypointThresholdOption,
    LineWidthOption,
    MaxPixelsOption,
    OutOption,
    OverwriteOption,
    PaletteOption,
    PointSizeOption,
    SkeletonOption,
    StrictOption,
)
from hrnet_cli.cli.video_options import (
    DetectEveryOption,
    DevicesOption,
    EndOption,
    EveryOption,
    FillGapsOption,
    FixSwapsOption,
    FpsOption,
    JobsOption,
    MaxFramesOption,
    QualityOption,
    ReportOption,
    ResumeOption,
    ShardOption,
    ShowOption,
    SideBySideOption,
    SlowMotionOption,
    SmoothOption,
    StartOption,
    TrackGapOption,
    TrackOption,
    VideoCodecOption,
    VideoOptions,
)

EXAMPLES = """Examples:

\b
  hrnet detect photo.jpg --skeleton
  hrnet detect photos/ --recursive --format jsonl,csv --out results
  hrnet detect match.mp4 --skeleton --track --smooth one-euro
"""


def detect(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Photos, videos, folders, quoted globs, @list.txt, - for paths on standard input"
            " (all are read before the first is looked at), camera:0, or the address of a stream.",
            metavar="SOURCES",
        ),
    ],
    out: OutOption = "hrnet-out",
    formats: FormatOption = None,
    skeleton: SkeletonOption = False,
    draw: DrawOption = "",
    model: ModelOption = None,
    detector: Annotated[
        str | None,
        typer.Option(
            "--detector",
            help="Person detector: a listed YOLO, any ultralytics file (.pt, .onnx, OpenVINO"
            " folder), torchvision, or whole-image for one person filling the photo.",
            show_default="yolo26s; the starter-detector when it cannot be had",
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
        str,
        typer.Option(
            "--class", help="Class to box, by the detector's name for it, or several: cat,dog."
        ),
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
            show_default="0.7; starter-detector 0.45; with --boxes none",
        ),
    ] = None,
    max_people: Annotated[
        int | None,
        typer.Option(
            "--max-people",
            min=1,
            help="Most people in one picture; --keep says who.",
            show_default="300; with --boxes none",
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            "--keep",
            help="Who stays under --max-people: the surest, the largest, or those nearest the"
            " middle of the picture.",
            metavar="surest|largest|middle",
            show_default="surest",
        ),
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(
            "--region",
            help="Only people whose box has its centre in this part of the picture, in pixels.",
            metavar="X1,Y1,X2,Y2",
        ),
    ] = None,
    pose_nms: Annotated[
        float | None,
        typer.Option(
            "--pose-nms",
            min=0,
            max=1,
            help="Of two people whose keypoints are more alike (OKS), keep the surer; COCO's tests"
            " take 0.9.",
            show_default="off",
        ),
    ] = None,
    keypoint_threshold: KeypointThresholdOption = 0.2,
    drop_low: DropLowOption = False,
    flip_test: FlipTestOption = False,
    batch_size: BatchSizeOption = 32,
    device: DeviceOption = "auto",
    runtime: RuntimeOption = "auto",
    precision: PrecisionOption = None,
    threads: ThreadsOption = None,
    input_: InputOption = None,
    codec: CodecOption = None,
    keypoint_schema: SchemaOption = None,
    connections: ConnectionsOption = None,
    palette: PaletteOption = "sides",
    background: BackgroundOption = "photo",
    point_size: PointSizeOption = None,
    line_width: LineWidthOption = None,
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Look into folders below the given ones.")
    ] = False,
    max_pixels: MaxPixelsOption = 200,
    overwrite: OverwriteOption = False,
    append: Annotated[
        bool, typer.Option("--append", help="Add to existing output of the same name.")
    ] = False,
    strict: StrictOption = False,
    offline: OfflineOption = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be read and written.")
    ] = False,
    show_stages: Annotated[
        bool, typer.Option("--show-stages", help="Say how long each stage took.")
    ] = False,
    json_: JsonOption = False,
    quiet: QuietOption = False,
    start: StartOption = None,
    end: EndOption = None,
    every: EveryOption = 1,
    max_frames: MaxFramesOption = None,
    fps: FpsOption = None,
    slow_motion: SlowMotionOption = None,
    track: TrackOption = None,
    track_gap: TrackGapOption = None,
    detect_every: DetectEveryOption = 1,
    smooth: SmoothOption = "none",
    fill_gaps: FillGapsOption = 0.0,
    fix_swaps: FixSwapsOption = False,
    video_codec: VideoCodecOption = "h264",
    quality: QualityOption = None,
    side_by_side: SideBySideOption = False,
    show: ShowOption = False,
    report: ReportOption = False,
    resume: ResumeOption = False,
    jobs: JobsOption = 1,
    devices: DevicesOption = None,
    shard: ShardOption = None,
) -> None:
    """Find the people in photos and videos and the keypoints of each.

    Writes one record for each photo or frame, people or not, and with --skeleton or --draw pictures
    or a video as well.
    """
    from hrnet_cli.cli.detect_options import DetectOptions, ids_for
    from hrnet_cli.cli.detect_run import run

    run(
        DetectOptions(
            sources=tuple(sources),
            out=out,
            format=",".join(formats or ["jsonl"]),
            draw=f"keypoints,skeleton,{draw}" if skeleton else draw,
            model=model,
            detector=detector,
            boxes=boxes,
            class_name=class_,
            person_threshold=person_threshold,
            iou=iou,
            max_people=max_people,
            keep=keep,
            region=region,
            pose_nms=pose_nms,
            keypoint_threshold=keypoint_threshold,
            drop_low=drop_low,
            flip_test=flip_test,
            batch_size=batch_size,
            device=device,
            runtime=runtime,
            precision=precision,
            threads=threads,
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
            video=VideoOptions(
                ids_for=ids_for(",".join(formats or ()), draw),
                start=start,
                end=end,
                every=every,
                max_frames=max_frames,
                fps=fps,
                slow_motion=slow_motion,
                track=track,
                track_gap=track_gap,
                detect_every=detect_every,
                smooth=smooth,
                fill_gaps=fill_gaps,
                fix_swaps=fix_swaps,
                video_codec=video_codec,
                quality=quality,
                side_by_side=side_by_side,
                show=show,
                report=report,
                resume=resume,
                jobs=jobs,
                devices=devices,
                shard=shard,
            ),
        )
    )
