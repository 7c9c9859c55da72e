"""A drawn video that grows in closed segments: a run that is broken goes on at the last of them.

Pictures are encoded into segments of a fixed number of frames, each a complete file with its own
encoder, so that a run broken at any moment and gone on with gives the same pictures as one in one
go. At the end they are joined without encoding anew, and the sound of the source is added.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from hrnet_cli.errors import OutputError
from hrnet_cli.images import Pixels, write_image
from hrnet_cli.sinks.encoding import Encoder, Ticks, VideoSettings, check_encoder, writing
from hrnet_cli.sinks.files import make_folder, reporting
from hrnet_cli.sinks.joining import Segment, join
from hrnet_cli.sinks.sound import Sound

# Frames of one segment. Fewer cost size, as each starts with a whole picture (100 about 4%); more
# are more work to do again after a crash.
SEGMENT_FRAMES = 100
_SEGMENT = re.compile(r"frames_(\d+)_(\d+)_pts_(-?\d+)_(-?\d+)\.(?:mp4|mov)")
_PICTURE = re.compile(r"(\d{6,})\.png")
_START_ANEW = "start anew with --overwrite"


@dataclass(frozen=True)
class VideoSummary:
    """What was written.

    Attributes:
        path: The video file, or the folder of pictures.
        frames: Number of frames in it.
        warnings: What there is to say, such as sound that could not be copied.
    """

    path: Path
    frames: int
    warnings: tuple[str, ...] = ()


class VideoWriter(Protocol):
    """Receives the drawn pictures of one video."""

    @property
    def frames(self) -> int:
        """Return the pictures received, those of the run before included."""
        ...

    def append(self, image: Pixels, pts: int) -> None:
        """Add one picture.

        Args:
            image: uint8 RGB (H, W, 3), or RGBA (H, W, 4) where the codec keeps transparency.
            pts: When it is shown, in steps of the time base; later than the one before.

        Raises:
            OutputError: It cannot be written; the closed segments stay.
        """
        ...

    def finish(self, sound: Sound | None = None) -> VideoSummary:
        """Complete the video; what it was made of stays.

        Raises:
            OutputError: It cannot be written; nothing half-written has its name.
        """
        ...

    def close(self) -> None:
        """Without `finish`: leave a video of what there is, without sound, and all to go on.

        Raises:
            OutputError: It cannot be written, and that was not known before.
        """
        ...


def open_video_file(
    path: Path,
    size_wh: tuple[int, int],
    time_base: Fraction,
    settings: VideoSettings,
    *,
    parts: Path,
    resume_frames: int = 0,
) -> VideoWriter:
    """Start a video, or go on with one.

    Args:
        path: The file, with ``settings.suffix``; for PNG the folder of the pictures.
        size_wh: (width, height) of the pictures.
        time_base: Seconds of one step of the timestamps.
        settings: How to encode; for a resumed video the same as before.
        parts: Folder of the segments; made where it is missing.
        resume_frames: Frames of the run before to keep: a multiple of `SEGMENT_FRAMES`, or all.

    Raises:
        UsageError: This installation has no such encoder.
        OutputError: The place cannot be written, or the frames to keep are not there.
    """
    check_encoder(settings)
    if not settings.suffix:
        return PictureSequence(path, resume_frames)
    segments = _keep_segments(parts, resume_frames)
    make_folder(path.parent)
    return SegmentedVideo(path, size_wh, time_base, settings, parts, segments)


class SegmentedVideo:
    """A video file made of segments; see `VideoWriter`.

    Args:
        path: See `open_video_file`.
        size_wh: See `open_video_file`.
        time_base: See `open_video_file`.
        settings: See `open_video_file`.
        parts: See `open_video_file`.
        segments: Closed segments of the run before.
    """

    def __init__(
        self,
        path: Path,
        size_wh: tuple[int, int],
        time_base: Fraction,
        settings: VideoSettings,
        parts: Path,
        segments: list[Segment],
    ) -> None:
        self.frames = segments[-1].end if segments else 0
        self._path = path
        self._size_wh = size_wh
        self._time_base = time_base
        self._ticks = Ticks.of(time_base)
        self._settings = settings
        self._parts = parts
        self._segments = segments
        self._encoder: Encoder | None = None
        self._pts = (0, 0)  # of the first and last frame of the open segment
        self._failed = False
        self._done = False

    def append(self, image: Pixels, pts: int) -> None:
        """Add one picture; see `VideoWriter.append`."""
        try:
            self._append(image, pts)
        except OutputError:
            self._failed = True
            self._abandon()
            raise

    def finish(self, sound: Sound | None = None) -> VideoSummary:
        """Complete the video; see `VideoWriter.finish`."""
        self._close_segment()
        self._done = True
        if not self._segments:
            return VideoSummary(self._path, 0, ("no frame was drawn, so there is no video",))
        warnings = join(self._segments, self._time_base, self._path, sound)
        return VideoSummary(self._path, self.frames, tuple(warnings))

    def close(self) -> None:
        """Leave a video of what there is; see `VideoWriter.close`."""
        if self._done:
            return
        self._done = True
        try:
            self._close_segment()
            if self._segments:
                join(self._segments, self._time_base, self._path, None)
        except OutputError:
            self._abandon()
            if not self._failed:
                raise

    def _append(self, image: Pixels, pts: int) -> None:
        before = self._segments[-1].last_pts if self._segments else None
        last = self._pts[1] if self._encoder is not None else before
        if last is not None and pts <= last:
            raise ValueError(f"pts: expected more than {last}, got {pts}")
        if self._encoder is None:
            if self._segments and not _is_full(self._segments[-1]):
                raise ValueError("a video that ended with a short segment cannot go on")
            self._encoder = Encoder(
                self._open_path, self._size_wh, self._ticks.scale, self._settings
            )
            self._pts = (pts, pts)
        self._encoder.append(image, self._ticks(pts) - self._ticks(self._pts[0]))
        self._pts = (self._pts[0], pts)
        self.frames += 1
        if self.frames % SEGMENT_FRAMES == 0:
            self._close_segment()

    @property
    def _open_path(self) -> Path:
        return self._parts / f".open{self._path.suffix}"

    def _close_segment(self) -> None:
        if self._encoder is None:
            return
        encoder, self._encoder = self._encoder, None
        start = self._segments[-1].end if self._segments else 0
        first_pts, last_pts = self._pts
        name = f"frames_{start:08d}_{self.frames:08d}_pts_{first_pts}_{last_pts}"
        path = self._parts / f"{name}{self._path.suffix}"
        try:
            encoder.close()
            with writing(path):
                self._open_path.replace(path)
        except OutputError:
            encoder.abandon()
            self._failed = True
            self.frames = start
            raise
        self._segments.append(Segment(path, start, self.frames, first_pts, last_pts))

    def _abandon(self) -> None:
        if self._encoder is not None:
            self._encoder.abandon()
            self._encoder = None
            self.frames = self._segments[-1].end if self._segments else 0


class PictureSequence:
    """A folder of pictures, ``000000.png`` and on, which may be transparent; see `VideoWriter`.

    Args:
        folder: Their folder.
        resume_frames: Pictures of the run before to keep.

    Raises:
        OutputError: It cannot be made, or the pictures to keep are not there.
    """

    def __init__(self, folder: Path, resume_frames: int) -> None:
        make_folder(folder)
        self._folder = folder
        self.frames = resume_frames
        with reporting(folder):
            found = {
                int(m[1]): path for path in folder.iterdir() if (m := _PICTURE.fullmatch(path.name))
            }
            missing = next((n for n in range(resume_frames) if n not in found), None)
            if missing is not None:
                raise OutputError(
                    f"cannot go on with '{folder}': picture {missing:06d}.png is missing",
                    hint=_START_ANEW,
                )
            for number, path in found.items():
                if number >= resume_frames:
                    path.unlink()

    def append(self, image: Pixels, pts: int) -> None:
        """Add one picture; see `VideoWriter.append`."""
        with reporting(self._folder):
            if not self._folder.is_dir():
                raise FileNotFoundError(2, "the folder was removed during the run")
        write_image(self._folder / f"{self.frames:06d}.png", image)
        self.frames += 1

    def finish(self, sound: Sound | None = None) -> VideoSummary:
        """Return what was written; see `VideoWriter.finish`."""
        silent = ("the sound was not copied: pictures have none",) if sound is not None else ()
        return VideoSummary(self._folder, self.frames, silent)

    def close(self) -> None:
        """Do nothing: every picture is complete."""


def _is_full(segment: Segment) -> bool:
    return segment.end - segment.start == SEGMENT_FRAMES


def _keep_segments(parts: Path, frames: int) -> list[Segment]:
    """Return the segments that hold the first frames, and remove what else is there of a video."""
    make_folder(parts)
    with reporting(parts):
        kept: list[Segment] = []
        for path in sorted(parts.iterdir()):
            segment = _segment_of(path)
            if segment is not None and segment.end <= frames:
                kept.append(segment)
            elif segment is not None or path.stem == ".open":
                path.unlink()
    end = 0
    for segment in kept:
        end = segment.end if segment.start == end else -1
    if end != frames:
        raise OutputError(
            f"cannot go on with the video in '{parts}': the pieces with its first {frames} frames"
            " are not all there",
            hint=_START_ANEW,
        )
    return kept


def _segment_of(path: Path) -> Segment | None:
    match = _SEGMENT.fullmatch(path.name)
    if match is None:
        return None
    start, end, first_pts, last_pts = (int(value) for value in match.groups())
    return Segment(path, start, end, first_pts, last_pts)
