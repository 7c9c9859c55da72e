"""The options of ``hrnet detect`` that are about videos, and which contradict each other."""

import re
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Annotated, Any

import typer

from hrnet_cli.cli.options import check_choice
from hrnet_cli.errors import UsageError
from hrnet_cli.sources import Span

# Kinds that need the frames before only, and those that need all frames first, each with the
# settings it takes; the first of them may be given without its name.
CAUSAL = {
    "none": (),
    "one-euro": ("min_cutoff_hz", "beta"),
    "kalman": ("noise", "restlessness"),
    "median": ("taps",),
}
OFFLINE = {
    "savgol": ("window_s", "order"),
    "gaussian": ("sigma_s",),
    "butterworth": ("cutoff_hz",),
}

StartOption = Annotated[
    str | None,
    typer.Option("--start", help="Begin at this time of a video: seconds or H:MM:SS.", metavar="T"),
]
EndOption = Annotated[
    str | None, typer.Option("--end", help="End before this time of a video.", metavar="T")
]
EveryOption = Annotated[
    int, typer.Option("--every", min=1, help="Take every N-th frame of a video.")
]
MaxFramesOption = Annotated[
    int | None, typer.Option("--max-frames", min=1, help="Take at most so many frames of a video.")
]
FpsOption = Annotated[
    str | None,
    typer.Option(
        "--fps",
        help="Take the photos of each folder or glob as one video of so many pictures a second,"
        " such as 25 or 30000/1001.",
    ),
]
SlowMotionOption = Annotated[
    float | None,
    typer.Option(
        "--slow-motion",
        min=0.01,
        max=10_000,
        help="How many times slower the video plays than it was recorded, such as 8 for 240 frames"
        " a second shown at 30: times are those of the recording.",
        metavar="N",
    ),
]
TrackOption = Annotated[
    bool | None,
    typer.Option(
        "--track/--no-track",
        help="Give the people of a video stable ids.",
        show_default="no-track; on with options that need it",
    ),
]
TrackGapOption = Annotated[
    float | None,
    typer.Option(
        "--track-gap",
        min=0,
        max=3600,
        help="A person unseen for more seconds comes back under a new id.",
        show_default="1",
    ),
]
DetectEveryOption = Annotated[
    int,
    typer.Option(
        "--detect-every",
        min=1,
        help="Run the person detector on every N-th frame; in between boxes follow the keypoints.",
    ),
]
SmoothOption = Annotated[
    str,
    typer.Option(
        "--smooth",
        help="Steady the keypoints: one-euro, kalman or median while the video runs; savgol,"
        " gaussian or butterworth, without lag, in a second pass. A number behind it sets it:"
        " one-euro:1.5 (Hz), savgol:0.3 (seconds), butterworth:6 (Hz).",
        metavar="KIND[:NUMBER]",
    ),
]
FillGapsOption = Annotated[
    float,
    typer.Option(
        "--fill-gaps",
        min=0,
        max=3600,
        help="Fill in people and keypoints unseen for so many seconds.",
    ),
]
FixSwapsOption = Annotated[
    bool,
    typer.Option("--fix-swaps", help="Put right legs and arms whose left and right changed sides."),
]
VideoCodecOption = Annotated[
    str,
    typer.Option(
        "--video-codec",
        help="Of the drawn video: h264, hevc, prores (keeps transparency), or png for pictures.",
    ),
]
QualityOption = Annotated[
    int | None,
    typer.Option(
        "--quality",
        min=0,
        help="Of h264 and hevc, their CRF number: less is better and larger.",
        show_default="20; hevc 24",
    ),
]
SideBySideOption = Annotated[
    bool, typer.Option("--side-by-side", help="Put the frame as it was beside the drawn one.")
]
ShowOption = Annotated[
    bool, typer.Option("--show", help="Show the drawn video in a window while it runs.")
]
ReportOption = Annotated[
    bool,
    typer.Option(
        "--report", help="Write a page for each video: player, time line, paths and angles."
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Leave out videos that are done, and go on where a run was broken.",
    ),
]
JobsOption = Annotated[
    int, typer.Option("--jobs", min=1, help="Processes that share the sources on this machine.")
]
DevicesOption = Annotated[
    str | None,
    typer.Option(
        "--devices", help="GPUs that share the sources, a process on each: 0,1,2.", metavar="N,N"
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="Do part I of N of the sources, for job arrays; `hrnet merge` joins the parts.",
        metavar="I/N",
    ),
]


@dataclass(frozen=True)
class VideoOptions:
    """The options about videos as given; see the help of each."""

    start: str | None = None
    end: str | None = None
    every: int = 1
    max_frames: int | None = None
    fps: str | None = None
    slow_motion: float | None = None
    track: bool | None = None
    track_gap: float | None = None
    ids_for: tuple[str, ...] = ()  # other options that say nothing without ids, with their values
    detect_every: int = 1
    smooth: str = "none"
    fill_gaps: float = 0.0
    fix_swaps: bool = False
    video_codec: str = "h264"
    quality: int | None = None
    side_by_side: bool = False
    show: bool = False
    report: bool = False
    resume: bool = False
    jobs: int = 1
    devices: str | None = None
    shard: str | None = None

    @property
    def span(self) -> Span:
        """Return which frames are wanted."""
        end_s = None if self.end is None else parse_time(self.end, "--end")
        start_s = 0.0 if self.start is None else parse_time(self.start, "--start")
        return Span(start_s, end_s, self.every, self.max_frames)

    @property
    def rate(self) -> Fraction | None:
        """Return the pictures a second that make photos a video."""
        if self.fps is None:
            return None
        try:
            rate = Fraction(self.fps)
        except (ValueError, ZeroDivisionError):
            rate = Fraction(0)
        if not 0 < rate <= 100_000:
            raise UsageError(
                f"--fps is '{self.fps}', expected a number above 0 such as 25 or 30000/1001"
            )
        return rate

    @property
    def part(self) -> tuple[int, int] | None:
        """Return (number, count) of the part of the sources that is done here."""
        if self.shard is None:
            return None
        match = re.fullmatch(r"(\d+)/(\d+)", self.shard)
        number, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= number <= count:
            raise UsageError(f"--shard is '{self.shard}', expected I/N with 1 <= I <= N, as in 2/8")
        return number, count

    @property
    def follows(self) -> bool:
        """Tell whether people get ids: asked for, or needed by something else."""
        return bool(self.track) or bool(self._needs_ids())

    @property
    def cards(self) -> tuple[int, ...]:
        """Return the numbers of the GPUs that share the sources.

        Raises:
            UsageError: They are no numbers, or one comes twice.
        """
        if self.devices is None:
            return ()
        parts = [part.strip() for part in self.devices.split(",")]
        if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
            raise UsageError(
                f"--devices is '{self.devices}', expected numbers of GPUs, each once, such as 0,1",
                hint="nvidia-smi lists them; a single one is also --device cuda:1",
            )
        return tuple(int(part) for part in parts)

    @property
    def shares(self) -> bool:
        """Tell whether several processes share the sources, or GPUs were named."""
        return self.jobs > 1 or bool(self.cards)

    @property
    def smooth_kind(self) -> str:
        """Return the kind of smoothing without its numbers."""
        return self.smooth.partition(":")[0]

    @property
    def smooth_numbers(self) -> dict[str, Any]:
        """Return the settings of the smoothing that were given, by name."""
        return parse_smooth(self.smooth)

    @property
    def offline(self) -> bool:
        """Tell whether keypoints are changed when all frames are known."""
        return self.smooth_kind in OFFLINE or self.fill_gaps > 0

    def given(self) -> list[str]:
        """Return the options that only mean something for a video and were given."""
        anywhere = {"ids_for", "fps", "resume", "jobs", "devices", "shard"}
        return [
            "--" + f.name.replace("_", "-")
            for f in fields(self)
            if f.name not in anywhere and getattr(self, f.name) != f.default
        ]

    def check(self) -> None:
        """Raise UsageError for values that cannot be, or contradict each other."""
        _ = self.smooth_numbers, self.rate, self.part, self.span, self.cards
        if self.track is False and self._needs_ids():
            raise UsageError(f"--no-track contradicts {self._needs_ids()[0]}, which follows people")
        if self.fill_gaps and self.smooth_kind in ("one-euro", "kalman"):
            raise UsageError(
                f"--fill-gaps needs all frames first, --smooth {self.smooth} works while they come",
                hint=f"use --smooth {', '.join(OFFLINE)} or median with it",
            )
        if self.jobs > 1 and self.cards:
            raise UsageError(
                "--jobs and --devices exclude each other: both say how many processes there are",
                hint="leave out --jobs",
            )
        several = "--devices" if self.cards else "--jobs"
        if self.shares and self.shard is not None:
            raise UsageError(
                f"{several} and --shard exclude each other: both divide the sources",
                hint=f"use --shard over several machines, {several} on one",
            )
        if self.show and self.shares:
            raise UsageError(
                f"--show and {several} exclude each other", hint="leave one of them out"
            )

    def _needs_ids(self) -> list[str]:
        needs = {
            "--track-gap": self.track_gap is not None,
            f"--smooth {self.smooth}": self.smooth != "none",
            "--fill-gaps": self.fill_gaps > 0,
            "--fix-swaps": self.fix_swaps,
            "--detect-every": self.detect_every > 1,
            **dict.fromkeys(self.ids_for, True),
        }
        return [name for name, needed in needs.items() if needed]


def parse_time(text: str, option: str) -> float:
    """Return the seconds of a text such as ``12.5``, ``1:30`` or ``1:02:03.5``.

    Raises:
        UsageError: It is no time.
    """
    if not re.fullmatch(r"(\d+:){0,2}(\d+\.?\d*|\.\d+)", text):
        raise UsageError(f"{option} is '{text}', expected seconds or H:MM:SS, such as 90 or 1:30")
    seconds = 0.0
    for part in text.split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def parse_smooth(text: str) -> dict[str, Any]:
    """Return the numbers behind a kind of smoothing, such as ``one-euro:1.5,beta=4``, by name.

    Raises:
        UsageError: The kind or a name is not known, or a number is none or out of range.
    """
    kind, colon, rest = text.partition(":")
    check_choice(kind, "--smooth", (*CAUSAL, *OFFLINE))
    if not colon:
        return {}
    # These load numpy.
    from hrnet_cli.smoothing import SmoothingSettings
    from hrnet_cli.smoothing_offline import OfflineSettings

    settings = OfflineSettings if kind in OFFLINE else SmoothingSettings
    usual = {name: getattr(settings, name) for name in (CAUSAL | OFFLINE)[kind]}
    if not usual:
        raise UsageError(f"--smooth is '{text}', but {kind} takes no numbers")
    numbers: dict[str, Any] = {}
    for part in rest.split(","):
        name, equals, value = part.rpartition("=")
        if not equals and not numbers:
            name = next(iter(usual))
        if name not in usual or name in numbers:
            shown = ",".join(f"{name}={number}" for name, number in usual.items())
            raise UsageError(
                f"--smooth is '{text}', '{part}' in it is none of the numbers of {kind}",
                hint=f"they are, with what they usually are: {kind}:{shown}",
            )
        numbers[name] = _smooth_number(text, name, value, type(usual[name]))
    try:
        settings(**numbers)
    except UsageError as error:
        raise UsageError(f"--smooth is '{text}': {error.message}") from error
    return numbers


def _smooth_number(text: str, name: str, value: str, kind: type[float]) -> float:
    """Return a number of ``--smooth``, whole where its setting is."""
    try:
        return kind(value)
    except ValueError as error:
        expected = "a whole number" if kind is int else "a number"
        raise UsageError(
            f"--smooth is '{text}': {name} is '{value}', expected {expected}"
        ) from error
