"""Frames of cameras and network streams, read ahead on a thread so that none of them waits.

Of a live picture the newest frames count: what comes faster than it is taken is dropped and
counted. A recording on a server is read whole. A lost connection is opened again; a live stream
then goes on by the clock, a recording where it broke off.
"""

import re
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.container import InputContainer
from av.device import enumerate_input_devices
from av.format import Flags
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
from hrnet_cli.structures import Frame

# Frames kept for who takes them: more would show the past, fewer would lose some at each pause.
_KEPT = 4
_LONGEST_PAUSE_S = 16.0
# A recording may end this much before the length it announces: sound, and rounding.
_END_SLACK_S = 1.0
_USUAL_TIME_BASE = Fraction(1, 1000)
# Frames that bear no times, such as those of MJPEG cameras over HTTP, have those they come at.
_ARRIVAL_TIME_BASE = Fraction(1, 1_000_000)


@dataclass(frozen=True)
class Patience:
    """How long a camera or stream is waited for.

    Attributes:
        stall_s: Seconds without anything after which a connection counts as lost.
        attempts: Attempts to connect again, one after the other, before giving up.
        pause_s: Seconds before the first of them; twice as long before each next one.
    """

    stall_s: float = 10.0
    attempts: int = 5
    pause_s: float = 1.0


@dataclass(frozen=True)
class _Address:
    """What to open.

    Attributes:
        source: As the user gave it.
        file: As FFmpeg wants it.
        device: FFmpeg's name of the kind of device; None for a stream.
    """

    source: str
    file: str
    device: str | None = None

    @property
    def what(self) -> str:
        """Return what messages call it."""
        return "camera" if self.device else "stream"

    def open(self, patience: Patience) -> InputContainer:
        """Return the open camera or stream."""
        options = {"rtsp_transport": "tcp"} if self.file.startswith("rtsp") else {}
        return av.open(
            self.file,
            format=self.device,
            options=options,
            timeout=patience.stall_s,
            metadata_errors="replace",
        )


@dataclass(frozen=True)
class _Arrival:
    """A decoded frame and when it came.

    Attributes:
        frame: The frame.
        index: Its number among all that came.
        pts: Its time in steps of the source's time base, only ever growing.
    """

    frame: VideoFrame
    index: int
    pts: int


class LiveSource:
    """Gives the frames of a camera or stream; see `sources.VideoSource`.

    Args:
        reader: Reads them; not started yet.
        name: Output name of the frames.
        span: Which frames are wanted, in seconds from the first that comes.
        info: What is known beforehand.
        converter: Makes them upright RGB pictures.
    """

    def __init__(
        self, reader: "_Reader", name: str, span: Span, info: VideoInfo, converter: Converter
    ) -> None:
        self.source = reader.address.source
        self.info = info
        self.damage = reader.damage
        self._reader = reader
        self._name = name
        self._picker = Picker(span)
        self._converter = converter
        self._first_pts: int | None = None

    def frames(self, *, skip: int = 0) -> Iterator[Frame]:
        """Yield the wanted frames from now on; see `sources.VideoSource.frames`."""
        self._reader.start_once()
        while not self._picker.full and (arrival := self._reader.take()):
            if self._first_pts is None:
                self._first_pts = arrival.pts
            time_s = float((arrival.pts - self._first_pts) * self.info.time_base)
            choice = self._picker.choose(time_s)
            if choice is Choice.END:
                break
            if choice is Choice.TAKE:
                self.damage.resized += not self._converter.fits(arrival.frame)
                yield Frame(
                    self._converter.to_rgb(arrival.frame),
                    self.source,
                    self._name,
                    index=arrival.index,
                    time_s=time_s,
                    pts=arrival.pts,
                    time_base=self.info.time_base,
                    rotation=self.info.rotation,
                    pixel_aspect=self.info.pixel_aspect,
                )

    def close(self) -> None:
        """Let go of the camera or stream; a waiting `frames` ends."""
        self._reader.close()


class _Reader:
    """Reads a camera or stream on a thread of its own.

    Args:
        address: What to read.
        session: The first connection.
        patience: How long to wait.
    """

    def __init__(self, address: _Address, session: "_Session", patience: Patience) -> None:
        self.address = address
        self.damage = Damage()
        self._session = session
        self._patience = patience
        # Only what has a length or size is a recording; the rest has no end, and never waits.
        self._recording = session.is_recording and not address.device
        self._time_base = session.time_base
        self._clock = Clock(session.time_base, session.rate)
        self._index = 0
        self._last: tuple[int, float] | None = None  # time of the last frame, and when it came
        self._frames: deque[_Arrival] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start_once(self) -> None:
        """Begin to read, unless that has begun."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
            self._thread.start()

    def take(self) -> _Arrival | None:
        """Return the next frame, waiting for it; None when there are no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._ended or self._closed.is_set())
            if self._closed.is_set() or not self._frames:
                return None
            arrival = self._frames.popleft()
            self._changed.notify_all()
            return arrival

    def close(self) -> None:
        """End the reading and whoever waits for it."""
        with self._changed:
            self._closed.set()
            self._changed.notify_all()
        if self._thread is not None:
            # It may hang in a read that ends by itself after the stall time.
            self._thread.join(timeout=1.0)
        else:
            self._session.close()

    def _run(self) -> None:
        try:
            self._read_and_reconnect()
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _read_and_reconnect(self) -> None:
        failures = 0
        session: _Session | None = self._session
        while not self._closed.is_set():
            before, problem = self._index, "it ended"
            try:
                session = session or _Session(self.address, self._patience)
                self._read(session)
                if self._recording:
                    self.damage.ended_early = self._missing(session)
                    return
            except av.error.FFmpegError as error:
                problem = _why(error, self._patience)
            except InputError as error:  # it came back without pictures
                problem = error.message
            finally:
                if session is not None:
                    session.close()
                session = None
            failures = 0 if self._index > before else failures
            if self.address.device or failures >= self._patience.attempts:
                self.damage.ended_early = f"{self.address.what} '{self.address.source}': {problem}"
                return
            pause_s = min(self._patience.pause_s * 2**failures, _LONGEST_PAUSE_S)
            failures += 1
            if not self._closed.wait(pause_s):
                self.damage.reconnects += 1

    def _read(self, session: "_Session") -> None:
        """Take the frames of one connection, those behind the frames of the one before."""
        before = self._last
        shift = 0
        for frame in session.frames(self.damage):
            if self._closed.is_set():
                return
            now = time.monotonic()
            pts = self._pts_of(frame, session, now)
            if before is not None:
                if self._recording and pts is not None and pts <= before[0]:
                    continue
                if not self._recording:
                    gap = max(1, round((now - before[1]) / self._time_base))
                    shift = before[0] + gap - (pts or 0)
                before = None
            time_pts = self._clock.next(None if pts is None else pts + shift)
            self.damage.guessed_times = self._clock.guessed
            self._last = (time_pts, now)
            self._put(_Arrival(frame, self._index, time_pts))
            self._index += 1

    def _pts_of(self, frame: VideoFrame, session: "_Session", now: float) -> int | None:
        """Return the time of a frame in steps of the first connection's time base.

        Frames of a live source that have none are as late as they come; what FFmpeg makes up for
        them counts 25 a second, whatever the camera does.
        """
        if session.timed and frame.pts is not None:
            return round(frame.pts * (session.time_base / self._time_base))
        if self._recording:
            return None
        if self._last is None:
            return 0
        return self._last[0] + max(1, round((now - self._last[1]) / self._time_base))

    def _put(self, arrival: _Arrival) -> None:
        with self._changed:
            if self._recording:
                self._changed.wait_for(lambda: len(self._frames) < _KEPT or self._closed.is_set())
            elif len(self._frames) == _KEPT:
                self._frames.popleft()
                self.damage.dropped += 1
            self._frames.append(arrival)
            self._changed.notify_all()

    def _missing(self, session: "_Session") -> str:
        """Return how much of a recording's announced length did not come, though it was wanted."""
        if self._closed.is_set() or session.length_s is None or self._last is None:
            return ""
        end_s = float((self._last[0] + self._clock.step) * self._time_base) - session.start_s
        if end_s + _END_SLACK_S >= session.length_s:
            return ""
        return f"the recording ends after {end_s:.1f} of {session.length_s:.1f} s"


class _Session:
    """One connection.

    Args:
        address: What to open.
        patience: How long to wait for it.

    Raises:
        av.error.FFmpegError: It cannot be opened.
        InputError: It has no pictures.
    """

    def __init__(self, address: _Address, patience: Patience) -> None:
        self._container = address.open(patience)
        self._ahead: list[VideoFrame] = []
        self._decoded: Iterator[VideoFrame] | None = None
        stream = self._container.streams.best("video")
        if not isinstance(stream, VideoStream) or stream.codec_context is None:
            self._container.close()
            raise InputError(
                f"{address.what} '{address.source}' has no moving pictures that can be decoded",
                hint="expected a stream with a video",
            )
        self.stream = stream
        length = self._container.duration
        self.length_s = length / av.time_base if length and length > 0 else None
        # The size of an HLS stream is that of its play list.
        sized = self._container.format.name != "hls" and self._container.size > 0
        self.is_recording = self.length_s is not None or sized
        # A recording without times has at least its rate.
        self.timed = self.is_recording or not (
            self._container.format.flags & Flags.no_timestamps.value
        )
        self.time_base = Fraction(stream.time_base or _USUAL_TIME_BASE)
        self.rate = frame_rate(stream)
        if not self.timed:
            self.time_base, self.rate = _ARRIVAL_TIME_BASE, None
        self.start_s = float((stream.start_time or 0) * self.time_base)
        # Threads over frames would show a live picture late.
        stream.codec_context.thread_type = "AUTO" if self.is_recording else "SLICE"
        self.has_audio = bool(self._container.streams.audio)

    def first(self, damage: Damage) -> VideoFrame | None:
        """Return the first frame, which `frames` will give as well."""
        if not self._ahead:
            self._decoded = self._decode(damage)
            self._ahead.extend(frame for frame in [next(self._decoded, None)] if frame)
        return self._ahead[0] if self._ahead else None

    def frames(self, damage: Damage) -> Iterator[VideoFrame]:
        """Yield the frames that can be decoded; damage is counted."""
        yield from self._ahead
        yield from self._decoded or self._decode(damage)

    def close(self) -> None:
        """End the connection."""
        self._container.close()

    def _decode(self, damage: Damage) -> Iterator[VideoFrame]:
        for packet in self._container.demux(self.stream):
            try:
                frames = self.stream.decode(packet)
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                damage.broken_packets += 1
                continue
            for frame in frames:
                damage.broken_packets += frame.is_corrupt
                yield frame


def open_camera(
    source: str,
    name: str,
    span: Span,
    *,
    max_pixels: int = MAX_PIXELS,
    patience: Patience | None = None,
    shown: str = "",
) -> LiveSource:
    """Return the frames of a camera or network stream, whose first frame is waited for.

    Args:
        source: ``camera:0``, ``camera:NAME``, or an address that starts with ``rtsp://``,
            ``http://`` and the like.
        name: Output name of its frames.
        span: Which frames are wanted, in seconds from the first that comes.
        max_pixels: Width times height above which it is refused.
        patience: How long to wait; None for the usual times.
        shown: How messages and records call it: without a password; empty for ``source``.

    Raises:
        InputError: It cannot be opened, gives no picture, or is too large.
    """
    patience = patience or Patience()
    address = replace(_address_of(source), source=shown or source)
    try:
        session = _Session(address, patience)
    except av.error.FFmpegError as error:
        raise InputError(
            f"{address.what} '{address.source}' cannot be opened: {_why(error, patience)}",
            hint=_hint(address, error),
        ) from error
    try:
        return _opened(address, session, name, span, max_pixels, patience)
    except av.error.FFmpegError as error:
        session.close()
        raise InputError(
            f"{address.what} '{address.source}' gives no picture: {_why(error, patience)}",
            hint=_hint(address, error),
        ) from error
    except InputError:
        session.close()
        raise


def _opened(
    address: _Address,
    session: _Session,
    name: str,
    span: Span,
    max_pixels: int,
    patience: Patience,
) -> LiveSource:
    reader = _Reader(address, session, patience)
    first = session.first(reader.damage)
    if first is None:
        raise InputError(f"{address.what} '{address.source}' ended before its first picture")
    if first.width * first.height > max_pixels:
        raise InputError(
            f"{address.what} '{address.source}' is {first.width}x{first.height},"
            f" {first.width * first.height:,} pixels a frame; the limit is {max_pixels:,}",
            hint="choose a smaller stream, or allow it with --max-megapixels",
        )
    turn = turn_of(first)
    size_wh = turn.size((first.width, first.height))
    info = VideoInfo(
        size_wh,
        session.time_base,
        session.rate,
        None,
        turn.rotation,
        has_audio=False,
        codec=session.stream.codec_context.name,
        live=True,
        pixel_aspect=pixel_aspect(session.stream, turn),
    )
    return LiveSource(reader, name, span, info, Converter(turn, size_wh))


def _address_of(source: str) -> _Address:
    match = re.fullmatch(r"camera:(.*)", source, re.IGNORECASE)
    if match is None:
        return _Address(source, source)
    which = match[1] or "0"
    if sys.platform == "darwin":
        return _Address(source, which, "avfoundation")
    if sys.platform == "win32":
        return _Address(source, f"video={_windows_name(source, which)}", "dshow")
    return _Address(source, f"/dev/video{which}" if which.isdecimal() else which, "v4l2")


def _windows_name(source: str, which: str) -> str:
    """Return the name of a camera given by number, counted as Windows lists them."""
    if not which.isdecimal():
        return which
    names = [
        device.name for device in enumerate_input_devices("dshow") if "video" in device.media_types
    ]
    if int(which) >= len(names):
        raise InputError(f"camera '{source}' is not there", hint=_cameras(names))
    return names[int(which)]


def _why(error: av.error.FFmpegError, patience: Patience) -> str:
    if isinstance(error, av.error.ExitError | av.error.TimeoutError):
        return f"nothing came for {patience.stall_s:g} s"
    return reason_of(error)


def _hint(address: _Address, error: av.error.FFmpegError) -> str:
    if not address.device:
        return "check the address, and that this machine can reach it"
    if isinstance(error, PermissionError):
        return "you may not use it; on Linux: sudo usermod -aG video $USER, and log in again"
    if address.device != "v4l2":
        return "check that it is plugged in and that no other program uses it"
    numbers = sorted(path.name[5:] for path in Path("/dev").glob("video*"))
    return _cameras([number for number in numbers if number.isdecimal()])


def _cameras(names: list[str]) -> str:
    found = ", ".join(f"camera:{name}" for name in names)
    return f"this machine has {found}" if found else "this machine has no camera"
