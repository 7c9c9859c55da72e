"""The frames that the records of a video speak of, with the video's pictures or black ones."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from hrnet_cli.errors import InputError
from hrnet_cli.images import MAX_PIXELS
from hrnet_cli.records import mean_rate
from hrnet_cli.sources import Damage, Span, VideoInfo, VideoSource
from hrnet_cli.sources.video import open_video
from hrnet_cli.structures import Frame

# Records that do not tell the steps of a video's times have them to a millionth of a second.
_TIME_BASE = Fraction(1, 1_000_000)
# Times of a copy in another container may be rounded to milliseconds.
_SLACK_S = 0.002


class RecordedVideo:
    """Gives the frames of records; see `sources.VideoSource`.

    Args:
        frames: As `records.read_records` gives them, black, in order, at least one.
        video: Where their pictures are taken from; None leaves them black.
    """

    def __init__(self, frames: Sequence[Frame], video: VideoSource | None = None) -> None:
        self.source = frames[0].source
        self.info = _info(frames) if video is None else replace(video.info, frames=len(frames))
        self._frames = [_timed(frame, self.info.time_base) for frame in frames]
        self._video = video

    @property
    def damage(self) -> Damage:
        """Return what was wrong with the pictures so far."""
        return Damage() if self._video is None else self._video.damage

    def frames(self, *, skip: int = 0) -> Iterator[Frame]:
        """Yield the frames that have a record; see `sources.VideoSource.frames`.

        Raises:
            InputError: The video is not the one of which the records speak.
        """
        wanted = self._frames[skip:]
        if self._video is None:
            yield from wanted
        else:
            yield from self._with_pictures(wanted, self._video)

    def close(self) -> None:
        """Let go of the video."""
        if self._video is not None:
            self._video.close()

    def _with_pictures(self, wanted: Sequence[Frame], video: VideoSource) -> Iterator[Frame]:
        pictures = video.frames()
        for frame in wanted:
            picture = next((found for found in pictures if found.index >= frame.index), None)
            if picture is None or _differ(picture, frame):
                raise InputError(
                    f"'{video.source}' has no frame {frame.index} of"
                    f" {frame.size_wh[0]}x{frame.size_wh[1]} pixels"
                    f" at {frame.time_s or 0.0:.3f} s, of which the records speak",
                    hint="was it cut or converted since? --media names another file or folder",
                )
            # The times stay those of the record, which may be of a recording in slow motion.
            base = frame.time_base if frame.pts == picture.pts else picture.time_base
            yield replace(picture, time_s=frame.time_s, time_base=base)


def open_recorded(
    frames: Sequence[Frame], video: Path | None, name: str, *, max_pixels: int = MAX_PIXELS
) -> RecordedVideo:
    """Return the frames of which the records of a video speak.

    Args:
        frames: As `records.read_records` gives them, in order, at least one.
        video: The file with their pictures; None leaves them black.
        name: Output name of the frames.
        max_pixels: Width times height above which the file is refused.

    Raises:
        InputError: The file cannot be opened, or is no video.
    """
    source = frames[0].source
    if video is None:
        return RecordedVideo(frames)
    return RecordedVideo(frames, open_video(source, video, name, Span(), max_pixels=max_pixels))


def _differ(picture: Frame, frame: Frame) -> bool:
    """Tell whether a picture is not the one that a record is about."""
    # To the rounding of records; a copy may count its times in other steps.
    late_s = abs((picture.time_s or 0.0) - (frame.time_s or 0.0))
    other_time = picture.pts != frame.pts and late_s > _SLACK_S
    return picture.index != frame.index or picture.size_wh != frame.size_wh or other_time


def _timed(frame: Frame, time_base: Fraction) -> Frame:
    """Return a frame with the time as videos have it, where its record does not tell it."""
    if frame.pts is not None:
        return frame
    return replace(frame, pts=round((frame.time_s or 0.0) / time_base), time_base=time_base)


def _info(frames: Sequence[Frame]) -> VideoInfo:
    """Return what records tell of their video."""
    first = frames[0]
    rate = mean_rate(np.array([frame.clock_s for frame in frames]))
    return VideoInfo(
        first.size_wh,
        first.time_base or _TIME_BASE,
        rate=None if rate is None else Fraction(rate).limit_denominator(1001),
        frames=len(frames),
        rotation=first.rotation,
        pixel_aspect=first.pixel_aspect,
    )
