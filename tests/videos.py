"""Small videos written by PyAV; each picture shows its own number."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

SIZE_WH = (64, 48)
# Display matrices (a, b, c, d) by what they make of a stored picture.
UPRIGHT = (1, 0, 0, 1)
TURNED_90 = (0, 1, -1, 0)
TURNED_180 = (-1, 0, 0, -1)
TURNED_270 = (0, -1, 1, 0)
MIRRORED = (-1, 0, 0, 1)

Picture = Callable[[int], np.ndarray]


def numbered_picture(number: int, size_wh: tuple[int, int] = SIZE_WH) -> np.ndarray:
    """Return RGB (H, W, 3): 16 bits as black and white cells above, red left and blue right below.

    No turn and no mirroring leaves it as it is.
    """
    width, height = size_wh
    image = np.zeros((height, width, 3), np.uint8)
    for bit in range(16):
        if number >> bit & 1:
            row, column = divmod(bit, 8)
            image[
                row * height // 4 : (row + 1) * height // 4,
                column * width // 8 : (column + 1) * width // 8,
            ] = 255
    image[height // 2 :, : width // 2] = (200, 40, 40)
    image[height // 2 :, width // 2 :] = (40, 40, 200)
    return image


def number_in(image: np.ndarray) -> int:
    """Return the number a picture shows; checks that the picture is upright and not mirrored."""
    height, width = image.shape[:2]
    below = image[height * 3 // 4].astype(int)
    left, right = below[width // 4], below[width * 3 // 4]
    assert left[0] > left[2] + 60, f"red is not below left: {left}"
    assert right[2] > right[0] + 60, f"blue is not below right: {right}"
    number = 0
    for bit in range(16):
        row, column = divmod(bit, 8)
        y, x = (2 * row + 1) * height // 8, (2 * column + 1) * width // 16
        number |= int(image[y, x].mean() > 127) << bit
    return number


def write_video(
    path: Path,
    frames: int = 12,
    *,
    size_wh: tuple[int, int] = SIZE_WH,
    rate: Fraction | int = 25,
    time_base: Fraction | None = None,
    pts: Sequence[int] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    picture: Picture | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    format: str | None = None,  # noqa: A002 - PyAV's word
    audio: str | None = None,
    audio_s: float | None = None,
    colorspace: int | None = None,
    full_range: bool = False,
    pixel_aspect: Fraction | None = None,
    gop: int = 5,
) -> Path:
    """Write a video and return its path.

    Args:
        pts: Timestamps in ``time_base``; one a frame at ``rate`` when left out.
        picture: Frame number -> stored RGB picture; numbered ones when left out.
        container_options: Options of the muxer.
        audio: Codec of a sound track with one tone; None for no sound.
        audio_s: Length of the sound; that of the video when left out.
    """
    time_base = time_base or 1 / Fraction(rate)
    if container_options is None and path.suffix in (".mp4", ".mov"):
        container_options = {"video_track_timescale": str(time_base.denominator)}
    with av.open(str(path), "w", format=format, container_options=container_options or {}) as out:
        stream = out.add_stream(codec, rate=Fraction(rate))
        stream.width, stream.height = size_wh
        stream.pix_fmt = pix_fmt
        context = stream.codec_context
        context.time_base = time_base
        context.gop_size = gop
        if colorspace is not None:
            context.colorspace = colorspace
        if pixel_aspect is not None:
            context.sample_aspect_ratio = pixel_aspect
        context.color_range = 2 if full_range else 1
        defaults = {"crf": "10", "preset": "ultrafast", "threads": "1"}
        stream.options = (defaults if codec == "libx264" else {}) | (options or {})
        sound = out.add_stream(audio, rate=48000) if audio else None
        if sound is not None:
            sound.codec_context.layout = "stereo"
        for number in range(frames):
            image = picture(number) if picture else numbered_picture(number, size_wh)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame = frame.reformat(
                format=pix_fmt,
                dst_colorspace=colorspace,
                dst_color_range=2 if full_range else 1,
            )
            frame.time_base = time_base
            frame.pts = pts[number] if pts is not None else number
            out.mux(stream.encode(frame))
        if sound is not None:
            for chunk in tone(audio_s if audio_s is not None else frames / float(rate)):
                out.mux(sound.encode(chunk))
            out.mux(sound.encode(None))
        out.mux(stream.encode(None))
    return path


def tone(seconds: float, rate: int = 48000) -> list[av.AudioFrame]:
    """Return stereo sound of 440 Hz as frames of 20 ms."""
    frames = []
    for start in range(0, round(seconds * rate), rate // 50):
        wave = np.sin(2 * np.pi * 440 / rate * np.arange(start, start + rate // 50)) * 0.3
        samples = np.stack([wave, wave]).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
        frame.sample_rate = rate
        frame.pts = start
        frame.time_base = Fraction(1, rate)
        frames.append(frame)
    return frames


def set_display_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Put a display matrix into the first track of an MP4 or MOV file (ISO 14496-12 sec. 8.3.2)."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    struct.pack_into(">9i", data, start, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def stored_for(matrix: tuple[int, int, int, int], size_wh: tuple[int, int] = SIZE_WH) -> Picture:
    """Return the stored pictures that a display matrix makes upright numbered ones of a size."""

    def picture(number: int) -> np.ndarray:
        upright = numbered_picture(number, size_wh)
        turns = {TURNED_90: 1, TURNED_180: 2, TURNED_270: 3}
        if matrix == MIRRORED:
            return upright[:, ::-1]
        # np.rot90 turns counterclockwise: back from what the player turns clockwise.
        return np.rot90(upright, turns.get(matrix, 0))

    return picture


def video_times(path: Path) -> tuple[Fraction, list[int]]:
    """Return the time base and the timestamps of the decoded frames of a file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.time_base, [frame.pts for frame in container.decode(stream)]


def video_numbers(path: Path) -> list[int]:
    """Return the numbers that the decoded pictures of a file show, read as any player would."""
    with av.open(str(path)) as container:
        return [number_in(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


@dataclass(frozen=True)
class Decoded:
    """A video as a player sees it.

    Attributes:
        times: Of the frames, seconds.
        images: Decoded pictures in the file's own pixel format.
        size_wh: (width, height).
        has_audio: Whether there is sound.
    """

    times: list[Fraction]
    images: list[np.ndarray]
    size_wh: tuple[int, int]
    has_audio: bool


def read_video(path: Path) -> Decoded:
    """Return all frames of a video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        return Decoded(
            [frame.pts * stream.time_base for frame in frames],
            [np.concatenate([np.frombuffer(bytes(p), np.uint8) for p in f.planes]) for f in frames],
            (stream.width, stream.height),
            bool(container.streams.audio),
        )
