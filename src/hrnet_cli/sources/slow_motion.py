"""Videos that play slower than they were recorded: their frames with the times of the recording."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from hrnet_cli.sources import Damage, VideoInfo, VideoSource
from hrnet_cli.structures import Frame


class SlowMotion:
    """Gives the frames of another video at the times of the recording; see `sources.VideoSource`.

    What is drawn on them plays like the video: `info` and `Frame.pts` stay, and `Frame.time_s` and
    `Frame.time_base` change.

    Args:
        video: The other one.
        factor: How many times slower it plays, above 0.
    """

    def __init__(self, video: VideoSource, factor: Fraction) -> None:
        self._video = video
        self._factor = factor

    @property
    def source(self) -> str:
        """Return the path of the video as the user gave it."""
        return self._video.source

    @property
    def info(self) -> VideoInfo:
        """Return what is known of the video as it plays."""
        return self._video.info

    @property
    def damage(self) -> Damage:
        """Return what went wrong so far."""
        return self._video.damage

    def frames(self, *, skip: int = 0) -> Iterator[Frame]:
        """Yield the wanted frames; see `sources.VideoSource.frames`."""
        for frame in self._video.frames(skip=skip):
            time_s = None if frame.time_s is None else float(frame.time_s / self._factor)
            base = None if frame.time_base is None else frame.time_base / self._factor
            yield replace(frame, time_s=time_s, time_base=base)

    def close(self) -> None:
        """Let go of the video."""
        self._video.close()
