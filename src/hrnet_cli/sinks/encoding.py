"""How drawn videos are encoded: the codecs, and one encoder with its file."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from hrnet_cli.errors import OutputError, UsageError
from hrnet_cli.images import Pixels
from hrnet_cli.sinks.files import reporting

# A fixed number, so that the same pictures give the same video on every machine: x264's output
# depends on it. Four keep up with any network on a processor.
_THREADS = "4"
# Conversions on several threads are not repeatable; see `sources.decoding.CONVERSION_THREADS`.
_CONVERSION_THREADS = 1
# Nothing is written with finer time steps than this: MP4 stores durations in 32 bits, which at a
# microsecond hold gaps of half an hour.
_FINEST = 1_000_000


@dataclass(frozen=True)
class Codec:
    """One way to encode.

    Attributes:
        encoder: FFmpeg's name of the encoder.
        suffix: Of the video file; empty where the video is a folder of pictures.
        pix_fmt: FFmpeg's name of the pixel format.
        alpha: Whether transparency is kept.
        quality: Usual value, best and worst of ``--quality``; None where there is no choice.
        options: Of the encoder; ``{quality}`` and ``{threads}`` are filled in. All without
            B-frames, so that frames are stored in the order they are shown and closed segments can
            be put one behind the other.
        tag: Four letters that name the codec in the file, where FFmpeg's own do not play
            everywhere.
    """

    encoder: str
    suffix: str
    pix_fmt: str
    alpha: bool = False
    quality: tuple[int, int, int] | None = None
    options: dict[str, str] = field(default_factory=dict[str, str])
    tag: str = ""


CODECS = {
    "h264": Codec(
        "libx264",
        ".mp4",
        "yuv420p",
        quality=(20, 0, 51),
        options={"preset": "veryfast", "crf": "{quality}", "bf": "0", "threads": "{threads}"},
    ),
    "hevc": Codec(
        "libx265",
        ".mp4",
        "yuv420p",
        quality=(24, 0, 51),
        options={
            "preset": "veryfast",
            "crf": "{quality}",
            "x265-params": "bframes=0:log-level=none:pools={threads}:frame-threads=2",
        },
        tag="hvc1",  # Apple's players want it
    ),
    "prores": Codec(
        "prores_ks",
        ".mov",
        "yuva444p10le",
        alpha=True,
        options={"profile": "4444", "vendor": "apl0", "threads": "{threads}"},
    ),
    "png": Codec("", "", "rgba", alpha=True),
}


@dataclass(frozen=True)
class VideoSettings:
    """How a video is encoded.

    Attributes:
        codec: A key of `CODECS`.
        quality: Number of the encoder's own scale, CRF, where less is better and larger; None for
            the usual one.
        pixel_aspect: Width over height of one pixel as players should show it.
    """

    codec: str = "h264"
    quality: int | None = None
    pixel_aspect: Fraction = Fraction(1)

    def __post_init__(self) -> None:
        """Check codec and quality."""
        if self.codec not in CODECS:
            close = get_close_matches(self.codec, CODECS, n=1)
            raise UsageError(
                f"video codec '{self.codec}' is not known, expected one of {', '.join(CODECS)}",
                hint=f"did you mean '{close[0]}'?" if close else "",
            )
        scale = CODECS[self.codec].quality
        if self.quality is None:
            return
        if scale is None:
            raise UsageError(
                f"--quality {self.quality} means nothing to --video-codec {self.codec}, which"
                " has one quality only",
                hint="leave --quality out",
            )
        if not scale[1] <= self.quality <= scale[2]:
            raise UsageError(
                f"--quality {self.quality} is outside {scale[1]} to {scale[2]}, the scale of"
                f" {self.codec}",
                hint=f"less is better and larger; {scale[0]} is usual",
            )

    @property
    def suffix(self) -> str:
        """Return the suffix of the video file, or an empty one for a folder of pictures."""
        return CODECS[self.codec].suffix


def check_encoder(settings: VideoSettings) -> None:
    """Check that this installation can encode so.

    Raises:
        UsageError: The encoder is not part of it.
    """
    name = CODECS[settings.codec].encoder
    if name and name not in av.codecs_available:
        others = [key for key, codec in CODECS.items() if codec.encoder in av.codecs_available]
        raise UsageError(
            f"--video-codec {settings.codec} needs the encoder {name}, which the FFmpeg inside PyAV"
            f" {av.__version__} lacks",
            hint=f"use --video-codec {others[0]}"
            if others
            else "install PyAV from a wheel: pip install av",
        )


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn what PyAV raises while it writes into one line; see `files.reporting`.

    Raises:
        OutputError: The place cannot be written, or the encoder refuses the pictures.
    """
    try:
        with reporting(place):
            yield
    except av.error.FFmpegError as error:
        raise OutputError(
            f"cannot write '{place}': FFmpeg says: {error.strerror or type(error).__name__}",
            hint="try another --video-codec",
        ) from error


@dataclass(frozen=True)
class Ticks:
    """How timestamps of a source are written: as whole numbers of ``1 / scale`` seconds.

    Exact unless the source has steps finer than a microsecond.

    Attributes:
        scale: Steps a second.
        factor: Steps of the written file in one of the source.
    """

    scale: int
    factor: Fraction

    @staticmethod
    def of(time_base: Fraction) -> "Ticks":
        """Return how times in steps of ``time_base`` seconds are written."""
        scale = min(time_base.denominator, _FINEST)
        return Ticks(scale, time_base * scale)

    def __call__(self, pts: int) -> int:
        """Return a timestamp of the source in steps of the file."""
        return round(pts * self.factor)


class Encoder:
    """Encodes pictures into one file, complete once it is closed.

    Args:
        path: The file.
        size_wh: (width, height) of the pictures; odd ones get one more row or column, a copy of
            the last, as half-size colour needs even sizes.
        scale: Steps a second of the timestamps.
        settings: How to encode.

    Raises:
        OutputError: The place cannot be written, or the encoder refuses.
    """

    def __init__(
        self, path: Path, size_wh: tuple[int, int], scale: int, settings: VideoSettings
    ) -> None:
        self._path = path
        self._codec = codec = CODECS[settings.codec]
        self._reformatter = VideoReformatter()
        self._time_base = Fraction(1, scale)
        with writing(path):
            self._container = open_output(path, scale)
            stream = self._container.add_stream(codec.encoder, rate=25)
            assert isinstance(stream, VideoStream)
            self._stream = stream
            stream.width, stream.height = (side + side % 2 for side in size_wh)
            stream.pix_fmt = codec.pix_fmt
            context = stream.codec_context
            context.time_base = self._time_base
            context.color_range = int(ColorRange.MPEG)
            context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
            if codec.tag:
                context.codec_tag = codec.tag
            if settings.pixel_aspect != 1:
                context.sample_aspect_ratio = settings.pixel_aspect
            quality = (
                settings.quality if settings.quality is not None else (codec.quality or [0])[0]
            )
            stream.options = {
                key: value.format(quality=quality, threads=_THREADS)
                for key, value in codec.options.items()
            }

    def append(self, image: Pixels, ticks: int) -> None:
        """Add one picture.

        Args:
            image: uint8 RGB (H, W, 3), or RGBA (H, W, 4) where the codec keeps transparency.
            ticks: When it is shown, in steps of the file.

        Raises:
            OutputError: The disk is full, or the encoder refuses.
        """
        image = _even(image)
        frame = av.VideoFrame.from_ndarray(image, "rgba" if image.shape[2] == 4 else "rgb24")
        frame = self._reformatter.reformat(
            frame,
            format=self._codec.pix_fmt,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            threads=_CONVERSION_THREADS,
        )
        frame.pts, frame.time_base = ticks, self._time_base
        with writing(self._path):
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is left in the encoder, and the end of the file.

        Raises:
            OutputError: See `append`.
        """
        with writing(self._path):
            self._container.mux(self._stream.encode(None))
            self._container.close()

    def abandon(self) -> None:
        """Remove the file, whatever its state."""
        with suppress(av.error.FFmpegError, OSError):
            self._container.close()
        with suppress(OSError):
            self._path.unlink()


def open_output(path: Path, scale: int) -> OutputContainer:
    """Return an MP4 or MOV file to write, by the path's suffix but one or last.

    Args:
        path: The file.
        scale: Steps a second of the timestamps of its video.
    """
    options = {"video_track_timescale": str(scale), "movflags": "+faststart"}
    kind = "mov" if ".mov" in path.suffixes else "mp4"
    return av.open(f"file:{path}", "w", format=kind, container_options=options)


def _even(image: Pixels) -> Pixels:
    height, width = image.shape[:2]
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(image)
