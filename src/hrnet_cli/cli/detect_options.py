"""The options of ``hrnet detect`` as one value, and which of them contradict each other."""

from dataclasses import dataclass
from pathlib import Path

from hrnet_cli.cli.options import check_choice, check_runtime, parse_list, parse_size
from hrnet_cli.cli.video_options import OFFLINE, VideoOptions
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
    video: VideoOptions
    model: str | None = None
    detector: str | None = None
    boxes: Path | None = None
    class_name: str = "person"
    person_threshold: float | None = None
    iou: float | None = None
    max_people: int | None = None
    keep: str | None = None
    region: str | None = None
    pose_nms: float | None = None
    keypoint_threshold: float = 0.2
    drop_low: bool = False
    flip_test: bool = False
    batch_size: int = 32
    device: str = "auto"
    runtime: str = "auto"
    precision: str | None = None
    threads: int | None = None
    input_size: str | None = None
    codec: str | None = None
    keypoint_schema: str | None = None
    connections: Path | None = None
    palette: str = DEFAULT_PALETTE
    background: str = DEFAULT_BACKGROUND
    point_size: float | None = None
    line_width: float | None = None
    recursive: bool = False
    max_pixels: int = 200_000_000
    overwrite: bool = False
    append: bool = False
    strict: bool = False
    offline: bool = False
    dry_run: bool = False
    show_stages: bool = False
    json: bool = False
    quiet: bool = False

    @property
    def formats(self) -> tuple[str, ...]:
        """Return the record formats; empty for none."""
        return parse_list(self.format, "--format", tuple(SINKS)) if self.format else ()

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


def person_threshold(options: DetectOptions) -> float:
    """Return the score from which a box is a person; boxes from a file are taken as they are."""
    from hrnet_cli.detectors import DetectorSettings

    if options.person_threshold is not None:
        return options.person_threshold
    return 0.0 if options.boxes is not None else DetectorSettings().person_threshold


def ids_for(formats: str, parts: str) -> tuple[str, ...]:
    """Return what is asked for, by option and value, that says nothing without ids of people."""
    wanted = [("--format", formats, MOTION_FORMATS), ("--draw", parts, ("ids",))]
    return tuple(
        f"{option} {name}"
        for option, text, needing in wanted
        for name in needing
        if name in [word.strip() for word in text.split(",")]
    )


def parse_region(text: str) -> tuple[float, float, float, float]:
    """Return the corners (x1, y1, x2, y2) of a part of the picture in pixels.

    Raises:
        UsageError: They are not four numbers, or leave no place.
    """
    parts = text.split(",")
    try:
        corners = [float(part) for part in parts]
    except ValueError:
        corners = []
    # A number that is none is in no order.
    if len(corners) != 4 or not (corners[0] < corners[2] and corners[1] < corners[3]):
        raise UsageError(
            f"--region is '{text}', expected X1,Y1,X2,Y2 in pixels, X1 < X2 and Y1 < Y2",
            hint="such as 100,0,1180,720",
        )
    return corners[0], corners[1], corners[2], corners[3]


def _check_keep(options: DetectOptions) -> None:
    from hrnet_cli.detectors.keeping import KEEP

    if options.keep is None:
        return
    check_choice(options.keep, "--keep", tuple(KEEP))
    if options.max_people is None:
        raise UsageError(
            "--keep says who stays under --max-people, which is not given",
            hint="add --max-people 1, or how many there may be",
        )


def check_options(options: DetectOptions) -> None:
    """Raise UsageError for options that contradict each other, before anything heavy loads."""
    formats, parts = options.formats, options.parts
    parse_size(options.input_size)
    check_runtime(options.runtime, options.precision)
    check_choice(options.palette, "--palette", tuple(PALETTES))
    check_choice(options.background, "--background", BACKGROUNDS)
    _check_keep(options)
    if options.region is not None:
        parse_region(options.region)
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
            f"--out - streams records, which --fill-gaps, {', '.join(OFFLINE)} change afterwards",
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
