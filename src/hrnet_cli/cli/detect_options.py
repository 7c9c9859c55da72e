"""The options of ``hrnet detect`` as one value, and which of them contradict each other."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrnet_cli.cli.options import check_choice, check_runtime, parse_list, parse_size
from hrnet_cli.cli.video_options import VideoOptions
from hrnet_cli.config import BACKGROUNDS, PARTS, PHOTOS_STEM, part_stem
from hrnet_cli.errors import UsageError
from hrnet_cli.palettes import PALETTES
from hrnet_cli.sinks import SINKS, stream_opener

STDOUT = "-"
# What pictures look like where nothing else is asked for.
DEFAULT_PALETTE, DEFAULT_BACKGROUND = "sides", "photo"
# Records that are made of one person's way through a video, or of each person's.
MOTION_FORMATS = ("trc", "c3d")
# Options that mean nothing unless something is drawn.
ABOUT_DRAWING = ("--video-codec", "--quality", "--side-by-side", "--show")


@dataclass(frozen=True)
class DetectOptions:
    """The options of ``hrnet detect`` as given; `check_options` refuses contradictions."""

    sources: tuple[str, ...]
    out: str
    format: str
    draw: str
    model: str | None
    detector: str | None
    boxes: Path | None
    class_name: str
    person_threshold: float | None
    iou: float | None
    max_people: int | None
    pose_nms: float | None
    keypoint_threshold: float
    drop_low: bool
    flip_test: bool
    batch_size: int
    device: str
    runtime: str
    precision: str | None
    threads: int | None
    input_size: str | None
    codec: str | None
    keypoint_schema: str | None
    connections: Path | None
    palette: str
    background: str
    point_size: float | None
    line_width: float | None
    recursive: bool
    max_pixels: int
    overwrite: bool
    append: bool
    strict: bool
    offline: bool
    dry_run: bool
    show_stages: bool
    json: bool
    quiet: bool
    video: VideoOptions

    @property
    def formats(self) -> tuple[str, ...]:
        """Return the record formats."""
        return parse_list(self.format, "--format", tuple(SINKS))

    @property
    def parts(self) -> tuple[str, ...]:
        """Return what pictures show; empty for no pictures."""
        return parse_list(self.draw, "--draw", PARTS) if self.draw else ()

    @property
    def folder(self) -> Path | None:
        """Return the output folder, None for a stream."""
        return None if self.out == STDOUT else Path(self.out)

    @property
    def photos_stem(self) -> str:
        """Return the name of the records of all photos; each part of a run has its own."""
        part = self.video.part
        return PHOTOS_STEM if part is None else part_stem(*part)


def deciding_values(options: DetectOptions) -> dict[str, Any]:
    """Return the options that decide what is written of photos and videos alike, by name."""
    names = (
        *("format", "draw", "person_threshold", "iou", "max_people", "pose_nms", "runtime"),
        *("precision", "keypoint_threshold", "drop_low", "flip_test", "batch_size", "palette"),
        *("background", "point_size", "line_width", "codec", "keypoint_schema"),
    )
    return {
        **{name: getattr(options, name) for name in names},
        "class": options.class_name,
        "input": options.input_size,
        "connections": None if options.connections is None else str(options.connections),
        "boxes": None if options.boxes is None else str(options.boxes),
    }


def ids_for(formats: str, parts: str) -> tuple[str, ...]:
    """Return what is asked for, by option and value, that says nothing without ids of people."""
    wanted = [("--format", formats, MOTION_FORMATS), ("--draw", parts, ("ids",))]
    return tuple(
        f"{option} {name}"
        for option, text, needing in wanted
        for name in needing
        if name in [word.strip() for word in text.split(",")]
    )


def check_options(options: DetectOptions) -> None:
    """Raise UsageError for options that contradict each other, before anything heavy loads."""
    formats, parts = options.formats, options.parts
    parse_size(options.input_size)
    check_runtime(options.runtime, options.precision)
    check_choice(options.palette, "--palette", tuple(PALETTES))
    check_choice(options.background, "--background", BACKGROUNDS)
    options.video.check()
    contradictions = (
        (options.overwrite and options.append, "--overwrite and --append exclude each other"),
        (
            options.boxes is not None and options.detector is not None,
            "--boxes and --detector exclude each other: both say where people are",
        ),
        (options.out == STDOUT and options.json, "--out - and --json both want stdout"),
        (
            options.out == STDOUT and bool(parts),
            "--out - streams records, it cannot carry pictures",
        ),
        (options.out == STDOUT and len(formats) > 1, "--out - streams one --format only"),
        (
            options.device != "auto" and bool(options.video.cards),
            "--device and --devices exclude each other: both say where to compute",
        ),
        (options.overwrite and options.video.resume, "--overwrite and --resume exclude each other"),
        (
            options.out == STDOUT and options.video.shares,
            "--out - streams one run, --jobs and --devices make several",
        ),
        (
            options.out == STDOUT and (options.video.resume or options.video.report),
            "--out - streams records, --resume and --report need files",
        ),
        (
            options.out == STDOUT and options.video.offline,
            "--out - streams records, which savgol, gaussian and --fill-gaps change afterwards",
        ),
        (
            options.json and options.video.shares,
            "--json prints the summary of one run, --jobs and --devices make several",
        ),
        (
            "-" in options.sources and options.video.shares,
            "- reads standard input, which several processes cannot share",
        ),
        (
            options.background == "transparent" and bool(parts) and options.video.side_by_side,
            "--side-by-side and --background transparent exclude each other",
        ),
    )
    for wrong, message in contradictions:
        if wrong:
            raise UsageError(message, hint="leave one of them out")
    drawing = [name for name in options.video.given() if name in ABOUT_DRAWING]
    if drawing and not parts:
        raise UsageError(
            f"{drawing[0]} is about the drawn video, and nothing is drawn",
            hint="add --skeleton, or --draw with what to draw",
        )
    about_pictures = {
        "--palette": options.palette != DEFAULT_PALETTE,
        "--background": options.background != DEFAULT_BACKGROUND,
        "--connections": options.connections is not None,
        "--point-size": options.point_size is not None,
        "--line-width": options.line_width is not None,
    }
    useless = [name for name, given in about_pictures.items() if given]
    if useless and not parts and not options.video.report:
        raise UsageError(
            f"{useless[0]} is about drawn pictures, and nothing is drawn",
            hint="add --skeleton, or --draw with what to draw",
        )
    if options.out == STDOUT:
        for name in formats:
            stream_opener(name)
