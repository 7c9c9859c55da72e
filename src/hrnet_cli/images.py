"""The only reader and writer of image files; everything inside is upright 8-bit RGB.

Pillow reads (it knows more formats than OpenCV, refuses truncated files and turns EXIF
orientations), OpenCV writes.
"""

import contextlib
import os
import tempfile
import warnings
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from hrnet_cli.errors import InputError, OutputError

Pixels = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif",
    ".jp2", ".ppm", ".pgm", ".pbm",
)  # fmt: skip
# A photo with more pixels needs over 600 MB before anything is done with it.
MAX_PIXELS = 200_000_000
JPEG_QUALITY = 95

_EXIF_ORIENTATION = 0x0112
# Files that are often met under a photo's name, by their first bytes.
_STRANGERS = (
    (b"<!DOCTYPE", "a web page"),
    (b"<html", "a web page"),
    (b"%PDF", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"version https://git-lfs", "a Git LFS pointer"),
)


def read_image(
    path: Path, max_pixels: int = MAX_PIXELS, *, apply_orientation: bool = True
) -> tuple[Pixels, int]:
    """Return the picture of a file.

    Grey becomes three equal channels; 16-bit and floating-point values are scaled to 8 bits;
    transparency is dropped, the colours below it stay; of an animation the first picture counts.
    What the name says the file is does not matter.

    Args:
        path: Image file in any format that Pillow reads.
        max_pixels: Width times height above which the photo is refused.
        apply_orientation: Turn the picture upright as its EXIF tag says; COCO's annotations speak
            of pictures that are not turned.

    Returns:
        uint8 RGB (H, W, 3), and the EXIF orientation (1 to 8) that was applied.

    Raises:
        InputError: The file is missing, empty, truncated, no picture, or too large.
    """
    try:
        # Our own limit stands in the place of Pillow's warning.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
            _check_pixels(path, image.size, max_pixels)
            orientation = _orientation(image) if apply_orientation else 1
            if orientation != 1:
                image = ImageOps.exif_transpose(image)
            return _to_rgb(image), orientation
    except UnidentifiedImageError as error:
        raise InputError(f"photo '{path}': {_why_unidentified(path)}") from error
    except Image.DecompressionBombError as error:
        raise InputError(
            f"photo '{path}' has more pixels than the limit of {max_pixels / 1e6:g} megapixels",
            hint="make it smaller first",
        ) from error
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise InputError(f"photo '{path}': {_why_unreadable(path, error)}") from error


def write_image(path: Path, image: Pixels) -> None:
    """Write a picture in the format its suffix names; whole or not at all.

    Args:
        path: Target; missing folders are made.
        image: uint8 RGB (H, W, 3), or RGBA (H, W, 4) for PNG, WebP and TIFF.

    Raises:
        OutputError: The place cannot be written, or the suffix is none that can be.
    """
    write_bytes_atomic(path, encode_image(image, path.suffix))


def encode_image(image: Pixels, suffix: str) -> bytes:
    """Return the bytes of an image file.

    Args:
        image: uint8 RGB (H, W, 3) or RGBA (H, W, 4).
        suffix: Format by its file suffix, such as ``.jpg``.

    Raises:
        OutputError: The format cannot be written.
    """
    order = cv2.COLOR_RGBA2BGRA if image.shape[2] == 4 else cv2.COLOR_RGB2BGR
    options = (
        [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix.lower() in (".jpg", ".jpeg") else []
    )
    try:
        done, data = cv2.imencode(suffix.lower() or ".", cv2.cvtColor(image, order), options)
    except cv2.error as error:
        raise OutputError(
            f"pictures of {image.shape[1]}x{image.shape[0]} pixels cannot be written as '{suffix}'",
            hint="png takes all of them",
        ) from error
    if not done:
        raise OutputError(f"pictures cannot be written as '{suffix}'", hint="png takes all of them")
    return data.tobytes()


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write a file under a temporary name beside its place, then rename it.

    Raises:
        OutputError: No space, no permission, or the folder is no folder.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=".", suffix=".part", delete=False
        ) as file:
            temporary = Path(file.name)
            file.write(data)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise OutputError(f"'{path}' cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _check_pixels(path: Path, size_wh: tuple[int, int], max_pixels: int) -> None:
    width, height = size_wh
    if width * height > max_pixels:
        raise InputError(
            f"photo '{path}' is {width}x{height}, {width * height / 1e6:.0f} megapixels; the limit"
            f" is {max_pixels / 1e6:g}",
            hint="make it smaller first",
        )


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(_EXIF_ORIENTATION, 1)
    return value if value in range(1, 9) else 1


def _to_rgb(image: Image.Image) -> Pixels:
    """Return any Pillow mode as 8-bit RGB."""
    if image.mode.startswith(("I", "F")):
        return _grey_to_rgb(_scaled_to_bytes(np.asarray(image)))
    if image.mode in ("P", "PA", "RGBA", "LA", "La", "RGBa"):
        # Two steps: convert("RGB") alone would paint a palette's transparent colour black.
        image = image.convert("RGBA")
        return np.ascontiguousarray(np.asarray(image)[:, :, :3])
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _scaled_to_bytes(values_HW: npt.NDArray[np.generic]) -> Pixels:
    """Scale 16-bit integers, or floats, to 0..255."""
    values = values_HW.astype(np.float64)
    if values_HW.dtype.kind == "f":
        low, high = 0.0, float(np.nanmax(values, initial=0.0))
        high = 1.0 if high <= 1 else high
    else:
        low, high = (
            0.0,
            65535.0 if values.max(initial=0) > 255 or values_HW.itemsize == 2 else 255.0,
        )
    scaled = np.nan_to_num((values - low) / (high - low) * 255)
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def _grey_to_rgb(grey_HW: Pixels) -> Pixels:
    return np.repeat(grey_HW[:, :, None], 3, axis=2)


def _why_unidentified(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        return "the file is empty (0 bytes)"
    for start, name in _STRANGERS:
        if head.lstrip().lower().startswith(start.lower()):
            return f"the file is {name}, not a picture"
    if all(32 <= byte < 127 or byte in b"\r\n\t" for byte in head):
        return "the file holds text, not a picture"
    return "the file is damaged, or in no picture format that can be read"


def _why_unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened: {error.strerror}"
    if "truncated" in str(error) or isinstance(error, EOFError):
        return f"the file is truncated, its end is missing after {path.stat().st_size} bytes"
    return f"the file is damaged: {error}"
