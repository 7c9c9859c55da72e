"""Where to start decoding a video: frames from a time on, and their numbers, stay exact."""

from collections.abc import Iterator
from dataclasses import dataclass

from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

# Where one packet is one frame and its timestamp that of the frame, so that counting packets
# counts frames. VP8 has packets without a frame, AVI no timestamps.
_FORMATS = ("mp4", "mov", "matroska", "webm")
ONE_FRAME_PACKETS = ("h264", "hevc", "av1", "vp9", "mpeg4", "prores", "mjpeg", "ffv1", "dnxhd")


@dataclass(frozen=True)
class KeyFrame:
    """A frame that can be decoded without those before it.

    Attributes:
        pts: Its timestamp.
        index: Number of frames shown before it.
        packets: Number of packets in front of it in the file.
    """

    pts: int
    index: int
    packets: int


def key_frames_before(
    container: InputContainer, stream: VideoStream, pts: int
) -> dict[int, KeyFrame]:
    """Return the key frames shown up to a time, by timestamp; empty where numbers would be unsure.

    Reads the file up to that time, and decodes nothing.

    Raises:
        av.error.FFmpegError: The file cannot be read so far.
    """
    kinds = container.format.name.split(",")
    if stream.codec_context.name not in ONE_FRAME_PACKETS or not set(kinds) & set(_FORMATS):
        return {}
    times: list[int] = []
    keys: list[tuple[int, int]] = []
    for number, packet in enumerate(_packets(container, stream)):
        if packet.pts is None or packet.dts is None or packet.is_corrupt:
            return {}
        if packet.dts > pts:
            break
        if packet.is_discard:
            continue
        times.append(packet.pts)
        if packet.is_keyframe and packet.pts <= pts:
            keys.append((packet.pts, number))
    if len(set(times)) < len(times):
        return {}
    return {
        key: KeyFrame(key, sum(time < key for time in times), number) for key, number in keys[-2:]
    }


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    for packet in container.demux(stream):
        if packet.size:
            yield packet
