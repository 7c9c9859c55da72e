"""``hrnet convert``: the options. What they do stands in convert_run.py."""

from pathlib import Path
from typing import Annotated

import typer

from hrnet_cli.cli.options import QuietOption
from hrnet_cli.cli.output_options import (
    BackgroundOption,
    ConnectionsOption,
    DropLowOption,
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
    EndOption,
    EveryOption,
    FillGapsOption,
    FixSwapsOption,
    MaxFramesOption,
    QualityOption,
    ReportOption,
    ResumeOption,
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
  hrnet convert results/clip.jsonl --smooth savgol --format trc,angles --out smooth
  hrnet convert results/clip.jsonl --track --draw skeleton,ids --palette people --out drawn
  hrnet convert results/poses.jsonl --format coco --out coco
"""


def convert(
    records: Annotated[
        list[Path],
        typer.Argument(
            help="Files of records (.jsonl) that `hrnet detect` wrote, or folders with such files.",
            metavar="RECORDS",
        ),
    ],
    out: OutOption = "hrnet-out",
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="Records: jsonl,csv,coco,openpose,parquet,angles,trc,c3d; of photos to correct and"
            " train on: labels,yolo.",
            show_default="jsonl, where nothing is drawn",
        ),
    ] = None,
    skeleton: SkeletonOption = False,
    draw: Annotated[
        str,
        typer.Option(
            "--draw",
            help="Write pictures or a video with these: keypoints,skeleton,boxes,scores,names,ids.",
            show_default=False,
        ),
    ] = "",
    media: Annotated[
        Path | None,
        typer.Option(
            "--media",
            help="The video or photo that was looked at, or the folder with them, where they are"
            " no longer in the place that the records name.",
        ),
    ] = None,
    keypoint_threshold: KeypointThresholdOption = 0.2,
    drop_low: DropLowOption = False,
    keypoint_schema: Annotated[
        str | None,
        typer.Option(
            "--keypoint-schema", help="TOML file with the limbs of keypoints of your own."
        ),
    ] = None,
    connections: ConnectionsOption = None,
    palette: PaletteOption = "sides",
    background: BackgroundOption = "photo",
    point_size: PointSizeOption = None,
    line_width: LineWidthOption = None,
    max_pixels: MaxPixelsOption = 200,
    overwrite: OverwriteOption = False,
    strict: StrictOption = False,
    json_: JsonOption = False,
    quiet: QuietOption = False,
    start: StartOption = None,
    end: EndOption = None,
    every: EveryOption = 1,
    max_frames: MaxFramesOption = None,
    slow_motion: SlowMotionOption = None,
    track: TrackOption = None,
    track_gap: TrackGapOption = None,
    smooth: SmoothOption = "none",
    fill_gaps: FillGapsOption = 0.0,
    fix_swaps: FixSwapsOption = False,
    video_codec: VideoCodecOption = "h264",
    quality: QualityOption = None,
    side_by_side: SideBySideOption = False,
    report: ReportOption = False,
    resume: ResumeOption = False,
) -> None:
    """Make other formats, drawings and steadier motion of records, without the networks.

    Takes what an earlier `hrnet detect` wrote: seconds instead of hours. Smoothing begins with the
    keypoints as the network gave them, also where the records are smoothed already.
    """
    from hrnet_cli.cli.convert_run import run
    from hrnet_cli.cli.detect_options import DetectOptions, ids_for

    parts = f"keypoints,skeleton,{draw}" if skeleton else draw
    if formats is None and not parts and not report:
        formats = ["jsonl"]
    options = DetectOptions(
        sources=tuple(str(path) for path in records),
        out=out,
        format=",".join(formats or ()),
        draw=parts,
        # What is recorded was sure enough.
        person_threshold=0.0,
        keypoint_threshold=keypoint_threshold,
        drop_low=drop_low,
        keypoint_schema=keypoint_schema,
        connections=connections,
        palette=palette,
        background=background,
        point_size=point_size,
        line_width=line_width,
        max_pixels=max_pixels * 1_000_000,
        overwrite=overwrite,
        strict=strict,
        json=json_,
        quiet=quiet,
        video=VideoOptions(
            ids_for=ids_for(",".join(formats or ()), parts),
            start=start,
            end=end,
            every=every,
            max_frames=max_frames,
            slow_motion=slow_motion,
            track=track,
            track_gap=track_gap,
            smooth=smooth,
            fill_gaps=fill_gaps,
            fix_swaps=fix_swaps,
            video_codec=video_codec,
            quality=quality,
            side_by_side=side_by_side,
            report=report,
            resume=resume,
        ),
    )
    run(options, media)
