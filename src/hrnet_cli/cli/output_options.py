"""Options about what is written, of commands that write poses: same name, same words."""

from pathlib import Path
from typing import Annotated

import typer

OutOption = Annotated[
    str, typer.Option("--out", "-o", help="Output folder; - streams records to stdout.")
]
FormatOption = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        help="Records: jsonl,csv,coco,openpose,parquet,angles,trc,c3d; of photos to correct and"
        " train on: labels,yolo.",
        show_default="jsonl",
    ),
]
SkeletonOption = Annotated[
    bool,
    typer.Option(
        "--skeleton", help="Write pictures or a video: short for --draw keypoints,skeleton."
    ),
]
DrawOption = Annotated[
    str,
    typer.Option(
        "--draw",
        help="Write pictures or a video with these: keypoints,skeleton,boxes,scores,names,"
        "ids,heatmap. With --track boxes and scores bear the id, too.",
        show_default=False,
    ),
]
KeypointThresholdOption = Annotated[
    float,
    typer.Option(
        "--keypoint-threshold",
        min=0,
        max=1,
        help="Do not draw or label keypoints with a lower score; records keep them all.",
    ),
]
DropLowOption = Annotated[
    bool,
    typer.Option("--drop-low", help="Write null for keypoints below --keypoint-threshold."),
]
ConnectionsOption = Annotated[
    Path | None,
    typer.Option("--connections", help="Limbs to draw: a TOML or JSON list of name pairs."),
]
PaletteOption = Annotated[
    str, typer.Option("--palette", help="Colours by: sides, people or limbs.")
]
BackgroundOption = Annotated[
    str, typer.Option("--background", help="Draw on: photo, black or transparent.")
]
PointSizeOption = Annotated[
    float | None,
    typer.Option(
        "--point-size",
        min=0.1,
        max=10_000,
        help="Radius in pixels.",
        show_default="from the person's size",
    ),
]
LineWidthOption = Annotated[
    float | None,
    typer.Option(
        "--line-width",
        min=0.1,
        max=10_000,
        help="Width in pixels.",
        show_default="from the person's size",
    ),
]
MaxPixelsOption = Annotated[
    int, typer.Option("--max-megapixels", min=1, help="Refuse larger pictures.")
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace existing output of the same name.")
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Stop at the first photo or video that cannot be used.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print a summary of the run as JSON on stdout.")
]
