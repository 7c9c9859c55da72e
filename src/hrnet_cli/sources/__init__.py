"""Sources: where pictures come from. `plan` tells what there is to read, the siblings read it.

Photos are single pictures; everything else (files, cameras, streams, numbered pictures) is a
`VideoSource`. Only the standard library is imported here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

from hrnet_cli.errors import UsageError

if TYPE_CHECKING:
    from hrnet_cli.structures import Frame


@dataclass(frozen=True)
class Span:
    """Which frames of a video are wanted.

    Attributes:
        start_s: Frames shown earlier are left out, seconds from the first frame.
        end_s: Frames shown at this time or later are left out; None for all.
        every: Of the frames between, the first and then each ``every``-th is taken.
        max_frames: Most frames taken; None for all.
    """

    start_s: float = 0.0
    end_s: float | None = None
    every: int = 1
    max_frames: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.start_s < 0 or (self.end_s is not None and self.end_s <= self.start_s):
            raise UsageError(
                f"--start {self.start_s:g} --end {self.end_s} leave no frame",
                hint="expected 0 <= start < end, in seconds",
            )
        for name in ("every", "max_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}, expected at least 1")


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video before its frames are read.

    Attributes:
        size_wh: (width, height) of the upright pictures in pixels.
        time_base: Seconds of one step of `Frame.pts`.
        rate: Mean frames a second; None where unknown.
        frames: Frames that the span is expected to give; None where unknown.
        rotation: Clockwise degrees by which the decoded pictures are turned: 0, 90, 180, 270.
        has_audio: Whether there is sound to copy.
        codec: What it is encoded with, such as ``h264``; for reports.
        live: A camera or stream: it cannot be read twice, and lateness shows.
        pixel_aspect: Width over height of one pixel as it should be shown; pictures are not
            stretched for it.
    """

    size_wh: tuple[int, int]
    time_base: Fraction
    rate: Fraction | None = None
    frames: int | None = None
    rotation: int = 0
    has_audio: bool = False
    codec: str = ""
    live: bool = False
    pixel_aspect: Fraction = Fraction(1)


@dataclass
class Damage:
    """What a source could not give, counted while it is read.

    Attributes:
        broken_packets: Pieces of the file that could not be decoded, wholly or in part.
        reconnects: How often a stream was opened anew.
        ended_early: Why the source ended before its announced end; empty when it did not.
        guessed_times: Frames whose timestamp was missing or went back, and had to be made up.
        resized: Frames of another size than the first, which were fitted into it.
        dropped: Frames of a live source that came faster than they were taken.
        missing: What numbered pictures leave out, in words; empty when nothing.
    """

    broken_packets: int = 0
    reconnects: int = 0
    ended_early: str = ""
    guessed_times: int = 0
    resized: int = 0
    dropped: int = 0
    missing: str = ""


class VideoSource(Protocol):
    """Gives the frames of one video, in the order of their times.

    Attributes:
        source: The path or address as the user gave it.
        info: What is known beforehand.
        damage: What went wrong so far; complete when the frames have ended.
    """

    @property
    def source(self) -> str: ...  # noqa: D102 - see above

    @property
    def info(self) -> VideoInfo: ...  # noqa: D102

    @property
    def damage(self) -> Damage: ...  # noqa: D102

    def frames(self, *, skip: int = 0) -> Iterator["Frame"]:
        """Yield the wanted frames, upright, with `index`, `time_s`, `pts`, `time_base`, `rotation`.

        Each call starts anew at the first wanted frame; a live source goes on where it is.

        Args:
            skip: Wanted frames to leave out at the beginning: they were done by an earlier run.
                The others are the very same frames, with the same numbers.

        Raises:
            InputError: The source cannot be opened, or has no frame at all.
        """
        ...

    def close(self) -> None:
        """Let go of the file or device; twice does no harm, and a waiting `frames` ends."""
        ...
