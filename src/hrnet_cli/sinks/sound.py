"""The sound of a drawn video: that of its source, copied where the file can hold it, else AAC."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet

# What is copied: MP4 and MOV hold it, and QuickTime or browsers play it.
_COPIED = ("aac", "mp3", "ac3", "eac3", "alac", "opus", "flac")
# Sample rates of AAC (ISO 14496-3 table 1.18) that players know; others become 48 kHz.
_AAC_RATES = (16000, 22050, 24000, 32000, 44100, 48000)
_AAC_BITS = 160_000


class SoundError(Exception):
    """Sound that cannot be read, or not be stored."""


class NoSoundError(SoundError):
    """A source without sound, which is nothing to speak of."""


@dataclass(frozen=True)
class Sound:
    """Where sound is taken from.

    Attributes:
        path: The video that the pictures were read from.
        whole: Keep what sounds after the last picture.
    """

    path: Path
    whole: bool = True


class SoundTrack:
    """Copies sound into an output file; the better of several tracks by FFmpeg's choice.

    Args:
        out: The file; a stream is added to it.
        sound: Where to take it from.
        start_s: Time in the source that becomes 0.

    Attributes:
        warnings: What there is to say about it.

    Raises:
        SoundError: There is none, or none that can be read.
    """

    def __init__(self, out: OutputContainer, sound: Sound, start_s: Fraction) -> None:
        self.warnings: list[str] = []
        self._start_s = start_s
        self._broken = 0
        try:
            self._source = av.open(
                f"file:{sound.path}",
                options={"protocol_whitelist": "file"},
                metadata_errors="replace",
            )
        except av.error.FFmpegError as error:
            raise SoundError(_reason(error)) from error
        try:
            self._stream = _best_track(self._source)
            self._copied = self._stream.codec_context.name in _COPIED
            self.stream = self._add_stream(out)
        except (av.error.FFmpegError, ValueError) as error:  # ValueError: a codec MP4 cannot hold
            self._source.close()
            raise SoundError(_reason(error)) from error
        except SoundError:
            self._source.close()
            raise

    def packets(self, end_s: float | None) -> Iterator[Packet]:
        """Yield the sound from time 0 on, in the order of its times.

        Args:
            end_s: Where it ends, seconds from time 0; None for its own end.
        """
        read = self._copy() if self._copied else self._encode()
        last_s = -math.inf
        try:
            for packet in read:
                time_s = _seconds(packet)
                if end_s is not None and time_s >= end_s:
                    return
                if time_s > last_s:  # in a damaged file times may go back, which MP4 refuses
                    last_s = time_s
                    yield packet
        except av.error.FFmpegError as error:
            self.warnings.append(f"the sound ends at {max(0.0, last_s):.1f} s: {_reason(error)}")

    def close(self) -> None:
        """Close the file the sound is read from."""
        self._source.close()

    def _add_stream(self, out: OutputContainer) -> AudioStream:
        if self._copied:
            return out.add_stream_from_template(self._stream)
        context = self._stream.codec_context
        rate = context.sample_rate if context.sample_rate in _AAC_RATES else _AAC_RATES[-1]
        stream = out.add_stream("aac", rate=rate)
        assert isinstance(stream, AudioStream)
        stream.codec_context.layout = "mono" if context.channels == 1 else "stereo"
        stream.codec_context.bit_rate = _AAC_BITS
        return stream

    def _copy(self) -> Iterator[Packet]:
        for packet in self._source.demux(self._stream):
            if not packet.size or packet.pts is None:
                continue
            time_base = Fraction(packet.time_base)
            shift = round(self._start_s / time_base)
            packet.pts -= shift
            packet.dts = packet.pts  # sound has no other order
            # A piece that ends at 0 stays: players start an AAC track with one they do not play.
            if packet.pts + (packet.duration or 0) >= 0:
                packet.stream = self.stream
                yield packet

    def _encode(self) -> Iterator[Packet]:
        context = self.stream.codec_context
        resampler = AudioResampler("fltp", context.layout, context.sample_rate)
        for packet in self._source.demux(self._stream):
            for frame in self._decode(packet):
                if frame.pts is None or frame.time_base is None:
                    continue
                frame.pts -= round(self._start_s / frame.time_base)
                if (frame.pts * frame.time_base + Fraction(frame.samples, frame.sample_rate)) <= 0:
                    continue
                for resampled in resampler.resample(frame):
                    yield from self.stream.encode(resampled)
        for resampled in resampler.resample(None):
            yield from self.stream.encode(resampled)
        yield from self.stream.encode(None)
        if self._broken:
            self.warnings.append(f"{self._broken} pieces of the sound could not be decoded")

    def _decode(self, packet: Packet) -> list[AudioFrame]:
        try:
            return self._stream.decode(packet)
        except av.error.FFmpegError:
            self._broken += 1
            return []


def _best_track(source: InputContainer) -> AudioStream:
    if not source.streams.audio:
        raise NoSoundError("there is none")
    stream = source.streams.best("audio")
    if not isinstance(stream, AudioStream) or stream.codec_context is None:
        raise SoundError("its form is not known to FFmpeg")
    return stream


def _seconds(packet: Packet) -> float:
    return float(packet.pts * packet.time_base) if packet.pts is not None else 0.0


def _reason(error: av.error.FFmpegError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
