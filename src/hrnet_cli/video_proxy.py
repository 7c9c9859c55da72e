"""A small copy of a video for a page: H.264 that every browser plays, a frame for each record."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import av
import cv2
import numpy as np
from av.codec.codec import Codec, UnknownCodecError
from av.container import OutputContainer

from hrnet_cli.errors import InputError
from hrnet_cli.structures import Frame

# Longer side of the copy; a keypoint is still placed to a pixel or two of the original.
LONGEST_PX = 640
# H.264 wants even sizes, and encoders a few pixels at least.
LEAST_PX = 16
# Beyond these a page gets too heavy for a browser; it links to the original instead.
MOST_SECONDS, MOST_BYTES = 600.0, 32_000_000
# 90,000 steps a second hold the times of all usual frame rates to 6 microseconds.
TIME_BASE = Fraction(1, 90_000)
# No frames that wait for later ones: each shows at its own time, and the first at 0. A whole
# picture twice a second or so keeps single steps backwards quick.
OPTIONS = {
    "preset": "veryfast",
    "crf": "27",
    "bf": "0",
    "g": "24",
    "x264-params": "colormatrix=smpte170m",
}


@dataclass(frozen=True)
class Proxy:
    """The small copy, or why there is none.

    Attributes:
        mp4: An MP4 file without sound; empty when there is none.
        reason: Why there is none, as the end of a sentence; empty when there is one.
    """

    mp4: bytes = b""
    reason: str = ""


def make_proxy(
    pictures: Iterable[Frame], indices: Sequence[int], times_s: Sequence[float]
) -> Proxy:
    """Return a small copy of the frames that have records.

    Args:
        pictures: The video's frames, upright, in order; frames without a record are passed over.
        indices: `Frame.index` of each record, rising.
        times_s: When each of them shows, in seconds, rising; the copy begins with the first.

    Returns:
        An MP4 with exactly one frame for each record, whose time counts from the first record. A
        record whose picture is missing shows the picture before it.
    """
    seconds = times_s[-1] - times_s[0]
    if seconds > MOST_SECONDS:
        return Proxy(reason=f"it is longer than {MOST_SECONDS / 60:g} minutes")
    try:
        Codec("libx264", "w")
    except UnknownCodecError:
        return Proxy(reason="this installation of PyAV cannot write H.264")
    try:
        mp4 = _encode(_matched(pictures, indices), _ticks(times_s))
    except InputError as error:
        return Proxy(reason=f"it could not be read again: {error.message}")
    if not mp4:
        return Proxy(reason="no picture of it could be read again")
    if len(mp4) > MOST_BYTES:
        return Proxy(reason=f"its small copy is larger than {MOST_BYTES / 1e6:g} MB")
    return Proxy(mp4)


def _ticks(times_s: Sequence[float]) -> list[int]:
    """Return times as steps of `TIME_BASE` from the first, each at least one after the last."""
    ticks: list[int] = []
    for time_s in times_s:
        tick = round((time_s - times_s[0]) / TIME_BASE)
        ticks.append(max(tick, ticks[-1] + 1) if ticks else 0)
    return ticks


def _matched(pictures: Iterable[Frame], indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield a small picture for each record: its own, or else the one before."""
    waiting = iter(indices)
    wanted = next(waiting, None)
    small_HW3: np.ndarray | None = None
    size_wh: tuple[int, int] | None = None
    for frame in pictures:
        while wanted is not None and wanted < frame.index and small_HW3 is not None:
            yield small_HW3
            wanted = next(waiting, None)
        if wanted is None:
            return
        size_wh = size_wh or _small_size(frame.size_wh)
        small_HW3 = _resized(frame.image_HW3, size_wh)
        if wanted <= frame.index:
            yield small_HW3
            wanted = next(waiting, None)
    while wanted is not None and small_HW3 is not None:
        yield small_HW3
        wanted = next(waiting, None)


def _small_size(size_wh: tuple[int, int]) -> tuple[int, int]:
    zoom = min(1.0, LONGEST_PX / max(size_wh))
    width, height = (max(LEAST_PX, 2 * round(side * zoom / 2)) for side in size_wh)
    return width, height


def _resized(image_HW3: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    height, width = image_HW3.shape[:2]
    if size_wh == (width, height):
        return image_HW3
    how = cv2.INTER_AREA if size_wh[0] < width else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image_HW3, size_wh, interpolation=how), np.uint8)


def _encode(pictures: Iterable[np.ndarray], ticks: Sequence[int]) -> bytes:
    """Return an MP4 file; it ends early, too large, once it is larger than it may be."""
    lengths = [later - tick for tick, later in pairwise(ticks)]
    lengths.append(lengths[-1] if lengths else round(Fraction(1, 25) / TIME_BASE))
    length_of = dict(zip(ticks, lengths, strict=True))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = None
        for tick, image_HW3 in zip(ticks, pictures, strict=False):
            if stream is None:
                stream = container.add_stream("libx264", options=OPTIONS)
                stream.height, stream.width = image_HW3.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = stream.time_base = TIME_BASE
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image_HW3), format="rgb24")
            picture.pts, picture.time_base = tick, TIME_BASE
            _mux(container, stream.encode(picture), length_of)
            if file.tell() > MOST_BYTES:
                break
        if stream is None:
            return b""
        _mux(container, stream.encode(None), length_of)
    return file.getvalue()


def _mux(container: OutputContainer, packets: list[av.Packet], length_of: dict[int, int]) -> None:
    for packet in packets:
        if packet.pts is not None:
            packet.duration = length_of.get(packet.pts, 0)
        container.mux(packet)
