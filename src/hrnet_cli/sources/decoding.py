"""What video files, cameras and streams share: frames of PyAV -> upright RGB pictures with times.

Pictures keep the pixel grid of the file. Pixels that are not square (DV, HDV) are not stretched:
keypoints must fit what other programs decode. Interlaced pictures are not deinterlaced. Pictures
of another size than the first are fitted into it, with black bars, so that one size holds for all.
"""

import struct
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

import av
import av.error
import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from hrnet_cli.images import Pixels
from hrnet_cli.sources import Span

# Frames a second where neither the file nor its frames say anything.
_USUAL_RATE = Fraction(25)
# Conversions on several threads are not repeatable: where the stripes of two threads meet, now and
# then one overwrites pixels of the other (seen with PyAV 17 and 18, RGBA to yuva444p10le).
CONVERSION_THREADS = 1
# Untagged video of more lines than standard television has BT.709 colours, the rest BT.601: what
# players assume (mpv and Chromium among them). Without this all untagged video would be read as
# BT.601.
_STANDARD_LINES = 576
_UNSPECIFIED = 2  # ITU-T H.273, matrix coefficients
_BT709 = 1
# A step back in time of more than this is a new recording behind the first, and goes on after it;
# less is a single timestamp that is off.
_JUMP_S = 1.0


@dataclass(frozen=True)
class Turn:
    """How pictures are made upright: transposed first, then mirrored.

    Attributes:
        transpose: Rows become columns.
        mirror_x: Left and right change places.
        mirror_y: Top and bottom change places.
    """

    transpose: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @property
    def rotation(self) -> int:
        """Return the clockwise degrees of the turn; a mirroring besides is not counted."""
        if self.transpose:
            return 270 if self.mirror_y else 90
        return 180 if self.mirror_x and self.mirror_y else 0

    def size(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        """Return the (width, height) that pictures of a size have afterwards."""
        return (size_wh[1], size_wh[0]) if self.transpose else size_wh

    def apply(self, image_HW3: Pixels) -> Pixels:
        """Return the upright picture."""
        turned = cv2.transpose(image_HW3) if self.transpose else image_HW3
        if self.mirror_x or self.mirror_y:
            turned = cv2.flip(turned, -1 if self.mirror_x and self.mirror_y else int(self.mirror_x))
        return np.asarray(turned, np.uint8)


def turn_of(frame: VideoFrame) -> Turn:
    """Return how a frame is made upright, by its display matrix (ISO 14496-12 sec. 6.2.2).

    A corner (x, y) of the stored picture is shown at (a x + c y, b x + d y).
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Turn()
    a, b, _, c, d = struct.unpack_from("=5i", memoryview(matrix))
    if abs(b) > abs(a):
        return Turn(transpose=True, mirror_x=c < 0, mirror_y=b < 0)
    return Turn(mirror_x=a < 0, mirror_y=d < 0)


class Converter:
    """Turns decoded frames into upright RGB pictures of one size.

    Args:
        turn: How they are made upright.
        size_wh: (width, height) of the upright pictures.
    """

    def __init__(self, turn: Turn, size_wh: tuple[int, int]) -> None:
        self._turn = turn
        self._size_wh = size_wh
        self._stored_wh = turn.size(size_wh)
        self._reformatter = VideoReformatter()

    def fits(self, frame: VideoFrame) -> bool:
        """Tell whether a frame has the size of the first one."""
        return (frame.width, frame.height) == self._stored_wh

    def to_rgb(self, frame: VideoFrame) -> Pixels:
        """Return uint8 RGB (H, W, 3), contiguous; other sizes are fitted in, with black bars."""
        untagged = frame.colorspace == _UNSPECIFIED and not frame.format.is_rgb
        guessed = _BT709 if untagged and frame.height > _STANDARD_LINES else None
        rgb = self._reformatter.reformat(
            frame, format="rgb24", src_colorspace=guessed, threads=CONVERSION_THREADS
        )
        image_HW3 = np.ascontiguousarray(rgb.to_ndarray(), np.uint8)
        return fit_into(self._turn.apply(image_HW3), self._size_wh)


def fit_into(image_HW3: Pixels, size_wh: tuple[int, int]) -> Pixels:
    """Return a picture scaled to fit a size, its shape kept, in the middle of black bars."""
    width, height = size_wh
    if image_HW3.shape[:2] == (height, width):
        return image_HW3
    scale = min(width / image_HW3.shape[1], height / image_HW3.shape[0])
    inner_wh = (
        max(1, min(width, round(image_HW3.shape[1] * scale))),
        max(1, min(height, round(image_HW3.shape[0] * scale))),
    )
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    fitted_HW3 = np.zeros((height, width, 3), np.uint8)
    left, top = (width - inner_wh[0]) // 2, (height - inner_wh[1]) // 2
    fitted_HW3[top : top + inner_wh[1], left : left + inner_wh[0]] = cv2.resize(
        image_HW3, inner_wh, interpolation=method
    )
    return fitted_HW3


class Clock:
    """Makes timestamps that only go forward out of those of a file.

    Args:
        time_base: Seconds of one step.
        rate: Frames a second, for frames without a timestamp; None where unknown.

    Attributes:
        guessed: Timestamps that had to be made up.
        step: Steps between two frames at that rate.
    """

    def __init__(self, time_base: Fraction, rate: Fraction | None) -> None:
        self.guessed = 0
        self.step = max(1, round(1 / ((rate or _USUAL_RATE) * time_base)))
        self._jump = _JUMP_S / time_base
        self._shift = 0
        self._last: int | None = None

    def next(self, pts: int | None) -> int:
        """Return the timestamp of the next frame, later than the one before."""
        if self._last is None:
            self.guessed += pts is None
            self._last = pts or 0
        elif pts is None:
            self.guessed += 1
            self._last += self.step
        elif pts + self._shift > self._last:
            self._last = pts + self._shift
        else:
            self.guessed += 1
            if self._last - (pts + self._shift) > self._jump:
                self._shift = self._last + self.step - pts
                self._last = pts + self._shift
            else:
                # Less than a step, so that the next true timestamp is still later.
                self._last += max(1, self.step // 2)
        return self._last


class Choice(Enum):
    """What becomes of a frame."""

    SKIP = "skip"
    TAKE = "take"
    END = "end"


class Picker:
    """Applies a span to the frames of a video, one after the other.

    Attributes:
        taken: Frames taken so far.
    """

    def __init__(self, span: Span) -> None:
        self._span = span
        self._seen = 0
        self.taken = 0

    def choose(self, time_s: float) -> Choice:
        """Return what becomes of the frame shown at a time, seconds from the first frame."""
        span = self._span
        if self.full or (span.end_s is not None and time_s >= span.end_s):
            return Choice.END
        if time_s < span.start_s:
            return Choice.SKIP
        self._seen += 1
        if (self._seen - 1) % span.every:
            return Choice.SKIP
        self.taken += 1
        return Choice.TAKE

    @property
    def full(self) -> bool:
        """Return whether no more frames are wanted."""
        return self._span.max_frames is not None and self.taken >= self._span.max_frames


def frame_rate(stream: VideoStream) -> Fraction | None:
    """Return the mean frames a second as the file says, or None."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate:
            return Fraction(rate)
    return None


def pixel_aspect(stream: VideoStream, turn: Turn) -> Fraction:
    """Return width over height of one upright pixel; 1 where unknown."""
    stored = stream.sample_aspect_ratio
    if not stored or stored <= 0:
        return Fraction(1)
    return 1 / Fraction(stored) if turn.transpose else Fraction(stored)


def reason_of(error: av.error.FFmpegError) -> str:
    """Return what FFmpeg says about an error, without code and path."""
    return (error.strerror or type(error).__name__).rstrip(".")
