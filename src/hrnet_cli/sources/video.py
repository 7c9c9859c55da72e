"""Frames of a video file, upright and with their timestamps; damage is counted, not fatal."""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from math import ceil
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from hrnet_cli.errors import InputError
from hrnet_cli.images import MAX_PIXELS
from hrnet_cli.sources import Damage, Span, VideoInfo
from hrnet_cli.sources.decoding import (
    Choice,
    Clock,
    Converter,
    Picker,
    frame_rate,
    pixel_aspect,
    reason_of,
    turn_of,
)
from hrnet_cli.sources.seeking import ONE_FRAME_PACKETS, KeyFrame, key_frames_before
from hrnet_cli.structures import Frame

# A demuxer that fails this often in a row has come to the end of what can be read.
_READ_ATTEMPTS = 20
# Frames of files up to this size are counted where the file does not say how many there are.
_COUNTED_BYTES = 64 * 2**20
# The announced length may be off by the last frame and by rounding.
_END_SLACK_S = 0.5
_FETCH_AGAIN = "copy or download it again"


class VideoFileSource:
    """Gives the frames of one video file; see `sources.VideoSource`.

    Args:
        source: The path as the user gave it.
        path: Where the file lies.
        name: Output name of its frames.
        span: Which frames are wanted.
        opened: What was found when it was opened.
    """

    def __init__(self, source: str, path: Path, name: str, span: Span, opened: "_Opened") -> None:
        self.source = source
        self.info = opened.info
        self.damage = Damage()
        self._path = path
        self._name = name
        self._span = span
        self._first_pts = opened.first_pts
        self._converter = opened.converter
        self._closed = threading.Event()

    def frames(self, *, skip: int = 0) -> Iterator[Frame]:
        """Yield the wanted frames; see `sources.VideoSource.frames`."""
        self.damage = damage = Damage()
        picker = Picker(self._span)
        clock = Clock(self.info.time_base, self.info.rate)
        for index, frame in self._numbered(damage):
            pts = clock.next(frame.pts)
            damage.guessed_times = clock.guessed
            time_s = float((pts - self._first_pts) * self.info.time_base)
            choice = picker.choose(time_s)
            if choice is Choice.END:
                break
            if choice is Choice.TAKE and picker.taken > skip:
                damage.resized += not self._converter.fits(frame)
                yield Frame(
                    self._converter.to_rgb(frame),
                    self.source,
                    self._name,
                    index=index,
                    time_s=time_s,
                    pts=pts,
                    time_base=self.info.time_base,
                    rotation=self.info.rotation,
                    pixel_aspect=self.info.pixel_aspect,
                )
            if picker.full:
                break
        if not picker.taken and not self._closed.is_set():
            raise InputError(
                f"video '{self.source}' has no frame in the wanted span, from"
                f" {self._span.start_s:g} s{_until(self._span)}",
                hint="change --start and --end; they count seconds from the first frame",
            )

    def close(self) -> None:
        """Make a running `frames` end; the file is closed with it."""
        self._closed.set()

    def _numbered(self, damage: Damage) -> Iterator[tuple[int, VideoFrame]]:
        """Yield decoded frames with their numbers, from a key frame before the span on."""
        keys = self._keys_before_start()
        if keys:
            decoded = self._decoded(damage, max(keys.values(), key=lambda key: key.pts))
            first = next(decoded, None)
            if first is not None and (key := keys.get(first.pts or 0)):
                yield key.index, first
                yield from enumerate(decoded, start=key.index + 1)
                return
            damage.broken_packets = 0
        yield from enumerate(self._decoded(damage, None))

    def _keys_before_start(self) -> dict[int, KeyFrame]:
        if not self._span.start_s:
            return {}
        start_pts = self._first_pts + int(self._span.start_s / self.info.time_base)
        try:
            with open_container(self._path) as container:
                keys = key_frames_before(container, video_stream(container), start_pts)
        except av.error.FFmpegError:
            return {}  # damaged on the way; decoding all of it counts what is lost
        keys.pop(self._first_pts, None)  # from there on all is decoded anyway
        return keys

    def _decoded(self, damage: Damage, key: KeyFrame | None) -> Iterator[VideoFrame]:
        """Yield the decoded frames, all of them whatever happens at the end of the file."""
        given = 0
        decoding = _Decoding(self._path, key, damage, self._closed)
        for frame in decoding.frames():
            given += 1
            yield frame
        if decoding.tail_lost:
            # An error while the last frames came out of the decoder's threads took others along.
            # Without threads each error belongs to one packet.
            again = replace(damage, broken_packets=0)
            careful = _Decoding(self._path, key, again, self._closed, threads=False)
            yield from islice(careful.frames(), given, None)
            damage.broken_packets = again.broken_packets


class _Decoding:
    """One pass over a file.

    Args:
        path: The file.
        key: Where to start; None for the beginning.
        damage: Receives what is lost.
        closed: Set when the pass should end.
        threads: Decode on several threads.

    Attributes:
        tail_lost: Frames may be missing at the end; a pass without threads gives them.
    """

    def __init__(
        self,
        path: Path,
        key: KeyFrame | None,
        damage: Damage,
        closed: threading.Event,
        *,
        threads: bool = True,
    ) -> None:
        self._path = path
        self._key = key
        self._damage = damage
        self._closed = closed
        self._threads = threads
        self.tail_lost = False
        self._packets = 0  # in the file up to here
        self._pending = 0  # frames in the decoder
        self._time = (0, 0)  # of the last frame, and from the one before to it

    def frames(self) -> Iterator[VideoFrame]:
        """Yield the frames that can be decoded, in the order they are shown."""
        with open_container(self._path) as container:
            stream = video_stream(container)
            decoder = stream.codec_context
            decoder.thread_type = "AUTO" if self._threads else "NONE"
            if not self._threads:
                decoder.thread_count = 1
            if self._key is not None:
                container.seek(self._key.pts, stream=stream)
                self._packets = self._key.packets
            for packet in self._read(container, stream):
                for frame in self._decode(decoder, packet):
                    yield frame
                    if self._closed.is_set():
                        return
            if not self._damage.ended_early:
                self._damage.ended_early = self._early_end(container, stream)

    def _read(self, container: InputContainer, stream: VideoStream) -> Iterator[Packet | None]:
        """Yield the packets of the stream, and None at the end."""
        attempts = 0
        while attempts < _READ_ATTEMPTS:
            try:
                for packet in container.demux(stream):
                    if packet.size:  # AVI has empty ones, which would end the decoding
                        self._packets += 1
                        self._pending += not packet.is_discard
                        yield packet
                        attempts = 0
            except av.error.FFmpegError:
                self._damage.broken_packets += attempts == 0
                attempts += 1
            else:
                break
        if attempts == _READ_ATTEMPTS:
            self._damage.ended_early = "the rest of the file cannot be read"
        yield None

    def _decode(self, decoder: VideoCodecContext, packet: Packet | None) -> list[VideoFrame]:
        try:
            frames = decoder.decode(packet)
        except av.error.EOFError:
            frames = []
        except av.error.FFmpegError:
            frames = []
            self._damage.broken_packets += 1
            self._pending -= 1
            self.tail_lost = packet is None
        for frame in frames:
            self._pending -= 1
            self._damage.broken_packets += frame.is_corrupt
            if frame.pts is not None:
                self._time = (frame.pts, frame.pts - self._time[0])
        if packet is None and decoder.name in ONE_FRAME_PACKETS:
            self.tail_lost |= self._pending > 0
        self.tail_lost &= self._threads
        return frames

    def _early_end(self, container: InputContainer, stream: VideoStream) -> str:
        """Return how much of an announced length is missing; empty where nothing is."""
        if stream.frames:
            if self._packets < stream.frames:
                return f"the file ends after {self._packets} of {stream.frames} frames"
            return ""
        announced = _announced_s(container, stream)
        if announced is None or stream.time_base is None:
            return ""
        pts, step = self._time
        end = float((pts + step - (stream.start_time or 0)) * stream.time_base)
        if end + _END_SLACK_S < announced:
            return f"the file ends after {end:.1f} of {announced:.1f} s"
        return ""


@dataclass(frozen=True)
class _Opened:
    """What was found when a file was opened."""

    info: VideoInfo
    first_pts: int
    converter: Converter


def open_video(
    source: str, path: Path, name: str, span: Span, *, max_pixels: int = MAX_PIXELS
) -> VideoFileSource:
    """Return the frames of a video file; its first frame is decoded to learn what they are like.

    Args:
        source: The path as the user gave it, for messages and records.
        path: Where the file lies; its content decides what it is, not its suffix.
        name: Output name of its frames.
        span: Which frames are wanted.
        max_pixels: Width times height above which it is refused.

    Raises:
        InputError: It cannot be opened, is no video, has no frame, or is too large.
    """
    try:
        with open_container(path) as container:
            stream = _stream_with_pictures(source, container)
            _check_size(source, (stream.width, stream.height), max_pixels)
            first = next(_Decoding(path, None, Damage(), threading.Event()).frames(), None)
            if first is None:
                raise InputError(
                    f"video '{source}' has no frame that can be decoded, of {stream.frames}"
                    " announced",
                    hint=_FETCH_AGAIN,
                )
            _check_size(source, (first.width, first.height), max_pixels)
            return VideoFileSource(
                source, path, name, span, _opened(container, stream, first, span)
            )
    except av.error.FFmpegError as error:
        raise InputError(
            f"video '{source}' {_what_is_wrong(path, error)}", hint=_hint(path, error)
        ) from error


def open_container(path: Path) -> InputContainer:
    """Return the opened file; a name such as ``concat:x`` or ``-`` is a file as well.

    A play list under a video's name may not make this program ask a server.
    """
    options = {"protocol_whitelist": "file"}
    return av.open(f"file:{path}", options=options, metadata_errors="replace")


def video_stream(container: InputContainer) -> VideoStream:
    """Return the stream of moving pictures; cover pictures of music are none."""
    stream = container.streams.best("video")
    assert isinstance(stream, VideoStream)
    return stream


def _stream_with_pictures(source: str, container: InputContainer) -> VideoStream:
    stream = container.streams.best("video")
    cover = stream is not None and "attached_pic" in str(getattr(stream, "disposition", ""))
    if stream is None or cover:
        what = ", only sound" if container.streams.audio else ""
        raise InputError(
            f"video '{source}' has no moving pictures{what}", hint="expected a file with a video"
        )
    if stream.codec_context is None:
        raise InputError(
            f"video '{source}' is encoded in a way that FFmpeg cannot decode",
            hint="convert it to H.264 first",
        )
    assert isinstance(stream, VideoStream)
    return stream


def _check_size(source: str, size_wh: tuple[int, int], max_pixels: int) -> None:
    width, height = size_wh
    if width * height > max_pixels:
        raise InputError(
            f"video '{source}' is {width}x{height}, {width * height:,} pixels a frame; the limit"
            f" is {max_pixels:,}",
            hint="make it smaller first, or allow it with --max-megapixels",
        )


def _opened(
    container: InputContainer, stream: VideoStream, first: VideoFrame, span: Span
) -> _Opened:
    turn = turn_of(first)
    size_wh = turn.size((first.width, first.height))
    rate = frame_rate(stream)
    info = VideoInfo(
        size_wh,
        Fraction(stream.time_base or Fraction(1, 1000)),
        rate,
        _expected_frames(container, stream, span, rate),
        turn.rotation,
        bool(container.streams.audio),
        stream.codec_context.name,
        pixel_aspect=pixel_aspect(stream, turn),
    )
    return _Opened(info, Clock(info.time_base, rate).next(first.pts), Converter(turn, size_wh))


def _expected_frames(
    container: InputContainer, stream: VideoStream, span: Span, rate: Fraction | None
) -> int | None:
    """Return about how many frames a span gives.

    The file says how many it has, or the frames of a small file are counted, or its length and
    rate must do.
    """
    announced_s = _announced_s(container, stream)
    frames = stream.frames
    if not frames and container.size <= _COUNTED_BYTES:
        frames = _count_packets(container, stream)
    if not frames and announced_s and rate:
        frames = round(announced_s * float(rate))
    if not frames:
        return None
    if rate and (span.start_s or span.end_s is not None):
        first = min(frames, ceil(span.start_s * float(rate) - 1e-6))
        last = frames if span.end_s is None else min(frames, ceil(span.end_s * float(rate) - 1e-6))
        frames = last - first
    frames = ceil(frames / span.every)
    return frames if span.max_frames is None else min(frames, span.max_frames)


def _count_packets(container: InputContainer, stream: VideoStream) -> int:
    count = 0
    try:
        for packet in container.demux(stream):
            count += packet.size > 0
    except av.error.FFmpegError:
        return 0  # reading the frames will tell what is broken
    return count


def _announced_s(container: InputContainer, stream: VideoStream) -> float | None:
    """Return the length of the pictures as the file announces it, in seconds, or None."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    match = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if match:  # Matroska
        hours, minutes, seconds = (float(part) for part in match.groups())
        return 3600 * hours + 60 * minutes + seconds
    if container.duration and not container.streams.audio:
        return container.duration / av.time_base
    return None


def _until(span: Span) -> str:
    return f" to {span.end_s:g} s" if span.end_s is not None else " on"


def _what_is_wrong(path: Path, error: av.error.FFmpegError) -> str:
    if path.is_dir():
        return "is a folder"
    if not isinstance(error, OSError):
        size = path.stat().st_size
        if not size:
            return "is empty (0 bytes)"
        if _lacks_index(path):
            return f"is truncated: the index at its end is missing after {size:,} bytes"
        return f"cannot be read as a video: {reason_of(error)}"
    return f"cannot be opened: {reason_of(error)}"


def _hint(path: Path, error: av.error.FFmpegError) -> str:
    if isinstance(error, OSError):
        return ""
    if path.is_file() and _lacks_index(path):
        return "copy it again; a recording that was cut off needs a repair tool such as untrunc"
    return _FETCH_AGAIN


def _lacks_index(path: Path) -> bool:
    """Tell whether an MP4 or MOV file ends before its index, the ``moov`` box."""
    size, position = path.stat().st_size, 0
    with path.open("rb") as file:
        while position < size:
            file.seek(position)
            head = file.read(16)
            length = int.from_bytes(head[:4], "big")
            if position == 0 and head[4:8] != b"ftyp":
                return False
            if head[4:8] == b"moov":
                return position + length > size
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            if length < 8:
                return True
            position += length
    return True
