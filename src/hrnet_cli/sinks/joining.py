"""Closed segments of a video -> one file, with the sound of its source; no picture is encoded anew.

The first picture is shown at time 0, and the sound keeps its distance to the pictures. What sounds
before the first picture is left out.
"""

import heapq
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from hrnet_cli.errors import OutputError
from hrnet_cli.sinks.encoding import Ticks, open_output, writing
from hrnet_cli.sinks.sound import NoSoundError, Sound, SoundError, SoundTrack


@dataclass(frozen=True)
class Segment:
    """A closed piece of a video.

    Attributes:
        path: The file, complete by itself; its first picture is at time 0.
        start: Number of its first frame, counted from the first one written.
        end: Number of the first frame behind it.
        first_pts: Timestamp of its first frame, as its source says it.
        last_pts: Timestamp of its last frame.
    """

    path: Path
    start: int
    end: int
    first_pts: int
    last_pts: int


def join(
    segments: Sequence[Segment], time_base: Fraction, target: Path, sound: Sound | None
) -> list[str]:
    """Write the segments one behind the other into a file.

    Args:
        segments: At least one, in order.
        time_base: Seconds of one step of the timestamps.
        target: The file; whole or not there afterwards.
        sound: What to take the sound from; None for a silent video.

    Returns:
        What there is to say about the sound.

    Raises:
        OutputError: The place cannot be written, or the segments do not fit together.
    """
    part = target.with_name(f".{target.stem}.part{target.suffix}")
    try:
        try:
            warnings = _join(segments, time_base, part, sound)
        except SoundError as error:
            _join(segments, time_base, part, None)
            silent = isinstance(error, NoSoundError)
            warnings = [] if silent else [f"the drawn video has no sound: {error}"]
        with writing(target):
            part.replace(target)
    except BaseException:  # Ctrl-C too: no leftovers
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    return warnings


def _join(
    segments: Sequence[Segment], time_base: Fraction, part: Path, sound: Sound | None
) -> list[str]:
    ticks = Ticks.of(time_base)
    with writing(part):
        out = open_output(part, ticks.scale)
        try:
            with av.open(f"file:{segments[0].path}") as first:
                template = first.streams.video[0]
                stream = out.add_stream_from_template(template)
                # Without it the file would say "ProRes 422" of 4444, and Apple would not play HEVC.
                stream.codec_context.codec_tag = template.codec_context.codec_tag
            pictures = _pictures(segments, ticks, stream)
            if sound is None:
                for packet in pictures:
                    out.mux(packet)
                warnings = []
            else:
                end_s = None if sound.whole else _length_s(segments, time_base)
                start_s = segments[0].first_pts * time_base
                warnings = _mux_both(out, pictures, SoundTrack(out, sound, start_s), end_s)
        except BaseException:
            with suppress(av.error.FFmpegError, OSError):
                out.close()
            raise
        out.close()
    return warnings


def _mux_both(
    out: OutputContainer, pictures: Iterator[Packet], track: SoundTrack, end_s: float | None
) -> list[str]:
    try:
        sounds = track.packets(end_s)
        try:
            out.start_encoding()
            for packet in heapq.merge(pictures, sounds, key=_seconds):
                out.mux(packet)
        except av.error.FFmpegError as error:
            if isinstance(error, OSError):  # the disk, not the sound
                raise
            raise SoundError(error.strerror or type(error).__name__) from error
    finally:
        track.close()
    return track.warnings


def _pictures(segments: Sequence[Segment], ticks: Ticks, stream: VideoStream) -> Iterator[Packet]:
    """Yield the packets of all segments with the times they have in the joined video.

    Each lasts until the next; the last one as long as the one before it.
    """
    waiting: Packet | None = None
    lasts = 1
    for segment in segments:
        shift = ticks(segment.first_pts) - ticks(segments[0].first_pts)
        for packet in _packets(segment, stream):
            packet.pts = packet.dts = (packet.pts or 0) + shift
            if waiting is not None:
                lasts = max(1, packet.pts - (waiting.pts or 0))
                waiting.duration = lasts
                yield waiting
            waiting = packet
    if waiting is not None:
        waiting.duration = lasts
        yield waiting


def _packets(segment: Segment, stream: VideoStream) -> Iterator[Packet]:
    count = 0
    with av.open(f"file:{segment.path}") as container:
        own = container.streams.video[0]
        if own.codec_context.extradata != stream.codec_context.extradata:
            raise OutputError(
                f"'{segment.path}' was encoded in another way than the pieces before it",
                hint="start anew with --overwrite",
            )
        for packet in container.demux(own):
            if packet.size:
                count += 1
                packet.stream = stream
                yield packet
    if count != segment.end - segment.start:
        raise OutputError(
            f"'{segment.path}' holds {count} frames, expected {segment.end - segment.start}",
            hint="start anew with --overwrite",
        )


def _length_s(segments: Sequence[Segment], time_base: Fraction) -> float:
    """Return how long the joined video lasts, its last frame as long as the mean one."""
    between = (segments[-1].last_pts - segments[0].first_pts) * time_base
    frames = segments[-1].end - segments[0].start
    return float(between * frames / max(1, frames - 1))


def _seconds(packet: Packet) -> float:
    return float((packet.dts or 0) * packet.time_base)
