"""The only reader and writer of image files: inside, a picture is upright 8-bit RGB.

Pillow reads: it knows more formats than OpenCV and refuses truncated files. OpenCV writes.
"""

import contextlib
import errno
import struct
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from hrnet_cli.errors import InputError, OutputError
from hrnet_cli.scratch import written_whole

Pixels = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif",
    ".jp2", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
# A photo with more pixels needs over 600 MB before anything is done with it.
MAX_PIXELS = 200_000_000
QUALITY = 95

# Pillow's other formats are left out: some start programs (EPS), some have no signature (TGA).
Image.init()
_FORMATS = tuple(
    name
    for name in ("JPEG", "MPO", "PNG", "WEBP", "BMP", "TIFF", "GIF", "AVIF", "JPEG2000", "PPM")
    if name in Image.OPEN
)
# Largest side of a picture by format: libjpeg-turbo's JPEG_MAX_DIMENSION, libwebp's
# WEBP_MAX_DIMENSION.
_LONGEST_SIDE = {".jpg": 65500, ".jpeg": 65500, ".webp": 16383}
_WITH_ALPHA = (".png", ".webp", ".tif", ".tiff")
_WRITABLE = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

_FETCH_AGAIN = "copy or download it again"

_WIDTH_TAG, _HEIGHT_TAG, _ORIENTATION_TAG = 0x0100, 0x0101, 0x0112
# Pixels copied from Pillow at a time: the strip stays in the processor's cache, which makes a
# 12 megapixel photo 1.4 times as fast to read as one large copy.
_STRIP_PIXELS = 65_536
_HEAD_BYTES = 4096
# What Pillow's decoders raise on damaged bytes.
_DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, RuntimeError,
    OverflowError, struct.error,
)  # fmt: skip
# First bytes of what is often met under a photo's name, compared without case.
_STRANGERS = (
    (b"<!doctype html", "the file is no picture but a web page"),
    (b"<html", "the file is no picture but a web page"),
    (b"<svg", "the file is an SVG drawing, which cannot be read"),
    (b"%pdf", "the file is no picture but a PDF"),
    (b"pk\x03\x04", "the file is no picture but a ZIP archive"),
    (b"\x1f\x8b", "the file is no picture but a gzip archive"),
    (b"8bps", "the file is a Photoshop document, which cannot be read"),
    (b"\xff\x0a", "the file is a JPEG XL photo, which cannot be read"),
    (b"\x00\x00\x00\x0cjxl ", "the file is a JPEG XL photo, which cannot be read"),
    (b"version https://git-lfs", "the file is a Git LFS pointer; git lfs pull fetches the photo"),
)
_SIGNATURES = (
    (b"\xff\xd8\xff", "a JPEG"),
    (b"\x89PNG", "a PNG"),
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\x00", "a TIFF"),
    (b"MM\x00*", "a TIFF"),
    (b"\x00\x00\x00\x0cjP", "a JPEG 2000"),
)

_HEIC = "the file is a HEIC photo, which cannot be read; export it as JPEG"
_AVIF = "the file starts like an AVIF, but is damaged or of a kind that cannot be read"
# By the brand of an ISO media file; the others are videos.
_MEDIA: dict[bytes, str] = {
    b"heic": _HEIC, b"heix": _HEIC, b"heim": _HEIC, b"heis": _HEIC, b"hevc": _HEIC,
    b"hevx": _HEIC, b"mif1": _HEIC, b"msf1": _HEIC, b"avif": _AVIF, b"avis": _AVIF,
}  # fmt: skip

_PILLOW_SETTINGS = threading.Lock()


def read_image(
    path: Path | str, max_pixels: int = MAX_PIXELS, *, apply_orientation: bool = True
) -> tuple[Pixels, int]:
    """Return the picture of a file.

    Grey becomes three equal channels. Of 16 bits the upper 8 count. Floating-point and 32-bit
    values are taken as 0..1, 0..255 or 0..65535, whichever holds them all. Transparency is
    dropped, and the colours below it stay, as with ``cv2.imread``. Of an animation the first
    picture counts. The content decides on the format, not the suffix.

    Args:
        path: Image file: JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF, JPEG 2000 or PPM.
        max_pixels: Width times height above which the photo is refused.
        apply_orientation: Turn the picture upright as its EXIF tag says; COCO's annotations speak
            of pictures that are not turned.

    Returns:
        uint8 RGB (H, W, 3), contiguous, and the EXIF orientation (1 to 8) that was applied.

    Raises:
        InputError: The file is missing, empty, truncated, no picture, or too large.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
            try:
                return _decode(path, file, max_pixels, apply_orientation)
            except UnidentifiedImageError as error:
                raise _no_picture(path, head) from error
            except MemoryError as error:
                raise InputError(
                    f"photo '{path}' needs more memory than is free", hint="make it smaller first"
                ) from error
            except _DECODE_ERRORS as error:
                raise InputError(
                    f"photo '{path}': {_damage(path, error)}", hint=_FETCH_AGAIN
                ) from error
    except OSError as error:
        reason = "it is a folder" if path.is_dir() else error.strerror or str(error)
        raise InputError(f"photo '{path}' cannot be opened: {reason}") from error
    except ValueError as error:  # a NUL byte in the name
        raise InputError(f"photo {str(path)!r} cannot be opened: {error}") from error


def read_header(path: Path) -> tuple[int, int, int] | None:
    """Return (width, height) as stored, and the EXIF orientation (1 to 8, 1 where not said).

    Pixels are decoded of PNGs only, whose EXIF may stand behind them. None for what `read_image`
    would refuse without a look at the pixels: a missing file, no picture, too many pixels.
    """
    try:
        with path.open("rb") as file:
            file.read(_HEAD_BYTES)  # a wait for the disk shall not keep other threads from Pillow
            file.seek(0)
            with _pillow_without_limit():
                image = Image.open(file, formats=_FORMATS)
            width, height = _stored_size(image)
            if width * height > MAX_PIXELS:
                return None
            if image.format == "PNG" and "exif" not in image.info:
                image.load()
            return width, height, _orientation(image)
    except (*_DECODE_ERRORS, MemoryError):
        return None


def write_image(path: Path | str, image: Pixels, quality: int = QUALITY) -> None:
    """Write a picture in the format its suffix names; whole or not at all.

    Args:
        path: Target; missing folders are made.
        image: See `encode_image`.
        quality: See `encode_image`.

    Raises:
        OutputError: The place cannot be written, or the format cannot hold the picture.
        ValueError: See `encode_image`.
    """
    path = Path(path)
    write_bytes_atomic(path, encode_image(image, path.suffix, quality))


def encode_image(image: Pixels, suffix: str, quality: int = QUALITY) -> bytes:
    """Return the bytes of an image file.

    Args:
        image: uint8 RGB (H, W, 3), or RGBA (H, W, 4) for PNG, WebP and TIFF.
        suffix: Format by its file suffix, such as ``.jpg``; case does not matter.
        quality: 1 to 100, for JPEG and WebP.

    Raises:
        OutputError: The format is not known, or cannot hold the picture.
        ValueError: The picture has another shape or type, or no pixel.
    """
    if image.ndim != 3 or image.shape[2] not in (3, 4) or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f"image: expected (H, W, 3) or (H, W, 4) uint8, got {image.shape} {image.dtype}"
        )
    height, width, channels = image.shape
    kind = suffix.lower()
    if kind not in _WRITABLE:
        raise OutputError(
            f"pictures cannot be written as '{suffix}', expected one of {' '.join(_WRITABLE)}"
        )
    if channels == 4 and kind not in _WITH_ALPHA:
        raise OutputError(
            f"'{suffix}' pictures cannot be transparent, expected one of {' '.join(_WITH_ALPHA)}"
        )
    longest = _LONGEST_SIDE.get(kind, max(width, height))
    if max(width, height) > longest:
        raise OutputError(
            f"a picture of {width}x{height} pixels does not fit into '{suffix}', which ends at"
            f" {longest} pixels a side",
            hint="write it as .png",
        )
    order = cv2.COLOR_RGBA2BGRA if channels == 4 else cv2.COLOR_RGB2BGR
    _, data = cv2.imencode(kind, cv2.cvtColor(image, order), _write_options(kind, quality))
    return data.tobytes()


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write a file under a temporary name in its folder, then rename it; whole or not at all.

    Args:
        path: Target; missing folders are made, an existing file is replaced.
        data: Its content.

    Raises:
        OutputError: No space, no permission, or the place is taken by a folder.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as part:
            part.write_bytes(data)
    except OSError as error:
        blocked = isinstance(error, FileExistsError | NotADirectoryError)
        reason = f"'{path.parent}' is not a folder" if blocked else error.strerror or str(error)
        raise OutputError(f"cannot write '{path}': {reason}", hint=_write_hint(error)) from error


def is_moving(path: Path) -> bool:
    """Tell whether a picture file has several pictures; one that cannot be read has none."""
    try:
        with _pillow_without_limit(), Image.open(path, formats=_FORMATS) as image:
            return getattr(image, "n_frames", 1) > 1
    except (OSError, ValueError, SyntaxError, EOFError):
        return False


def refuse_others(path: Path) -> None:
    """Raise InputError for a file that begins like no picture; damage is left to its reader."""
    head = b""
    try:
        with path.open("rb") as file, _pillow_without_limit():
            head = file.read(_HEAD_BYTES)
            file.seek(0)
            Image.open(file, formats=_FORMATS).close()
    except UnidentifiedImageError as error:
        raise _no_picture(path, head) from error
    except _DECODE_ERRORS:
        return


def _write_options(kind: str, quality: int) -> list[int]:
    if kind in (".jpg", ".jpeg"):
        # Full colour resolution: at half of it thin coloured lines turn grey.
        sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
        return [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling]
    return [cv2.IMWRITE_WEBP_QUALITY, quality] if kind == ".webp" else []


def _write_hint(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "make room, or write to another disk"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "name a folder you may write to"
    if error.errno == errno.ENAMETOOLONG:
        return "give the photo or video a shorter name: outputs are called like it, and longer"
    return "name another place"


def _decode(
    path: Path, file: BinaryIO, max_pixels: int, apply_orientation: bool
) -> tuple[Pixels, int]:
    file.seek(0)
    with _pillow_without_limit():
        image = Image.open(file, formats=_FORMATS)
        width, height = image.size
        if width * height > max_pixels:
            raise InputError(
                f"photo '{path}' is {width}x{height}, {width * height:,} pixels; the limit is"
                f" {max_pixels:,}",
                hint="make it smaller, or allow it with --max-megapixels",
            )
        tagged, turned = _orientation(image), False
        if image.format == "TIFF":
            # This decoder asks for Pillow's limit once more. It also turns the picture, and then
            # removes the tag.
            image.load()
            turned = _orientation(image) != tagged
    with image:
        image.load()
        # Before the pixels are decoded a PNG may not have come to its EXIF yet.
        tagged = tagged if turned else _orientation(image)
        pixels_HW3 = _to_rgb(image)
    if turned == apply_orientation or tagged == 1:
        return pixels_HW3, tagged if apply_orientation else 1
    if turned:  # back again: 6 and 8 undo each other, the others undo themselves
        return _turn(pixels_HW3, {6: 8, 8: 6}.get(tagged, tagged)), 1
    return _turn(pixels_HW3, tagged), tagged


@contextlib.contextmanager
def _pillow_without_limit() -> Iterator[None]:
    """Keep Pillow's own pixel limit and its warnings out of the way, in this block only.

    Both are settings of the whole process: changed for good they would also change the programs
    that use this package, and changed by two threads at once they would stay changed.
    """
    with _PILLOW_SETTINGS, warnings.catch_warnings(action="ignore"):
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Return (width, height) in the file; Pillow gives that of a TIFF as its tag turns it."""
    tags = getattr(image, "tag_v2", None)
    return image.size if tags is None else (tags[_WIDTH_TAG], tags[_HEIGHT_TAG])


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation tag, 1 where there is none or it makes no sense."""
    tags = getattr(image, "tag_v2", None)
    if tags is not None:
        value = tags.get(_ORIENTATION_TAG, 1)
    else:
        value = _orientation_in_exif(image.info.get("exif", b""))
    return value if value in range(1, 9) else 1


def _orientation_in_exif(exif: bytes) -> int:
    """Return the orientation in an EXIF block (EXIF 2.3 sec. 4.6.2), 0 where there is none.

    Read here and not by `Image.getexif`, which reads all tags, and warns or raises at each that is
    damaged.
    """
    tiff = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None:
        return 0
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for offset in range(start + 2, start + 2 + 12 * count, 12):
            tag, value = struct.unpack_from(f"{order}H6xH", tiff, offset)
            if tag == _ORIENTATION_TAG:
                return value
    except struct.error:  # damaged EXIF; the picture may be whole
        return 0
    return 0


def _turn(image_HW3: Pixels, orientation: int) -> Pixels:
    """Return the upright picture of an EXIF orientation other than 1."""
    turned = cv2.transpose(image_HW3) if orientation >= 5 else image_HW3
    # What is left to do: 0 top-bottom, 1 left-right, -1 both.
    flips = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
    if orientation in flips:
        turned = cv2.flip(turned, flips[orientation])
    return np.asarray(turned, dtype=np.uint8)


def _to_rgb(image: Image.Image) -> Pixels:
    """Return a loaded picture of any Pillow mode as contiguous 8-bit RGB."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _grey_to_rgb((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        return _grey_to_rgb(_scale_to_bytes(np.asarray(image, dtype=np.float32)))
    if image.mode == "L":
        return _grey_to_rgb(np.asarray(image))
    if image.mode in ("P", "PA", "LA", "RGBA"):
        # By way of RGBA: a palette's transparency may not fit into RGB, which Pillow warns of.
        return np.asarray(cv2.cvtColor(np.asarray(image.convert("RGBA")), cv2.COLOR_RGBA2RGB), "u1")
    return _copy_rgb(image if image.mode == "RGB" else image.convert("RGB"))


def _copy_rgb(image: Image.Image) -> Pixels:
    width, height = image.size
    rows = _STRIP_PIXELS // width
    if rows == 0:
        return np.array(image)
    image_HW3 = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        image_HW3[top:bottom] = np.asarray(image.crop((0, top, width, bottom)))
    return image_HW3


def _grey_to_rgb(grey_HW: Pixels) -> Pixels:
    return np.asarray(cv2.cvtColor(grey_HW, cv2.COLOR_GRAY2RGB), dtype=np.uint8)


def _scale_to_bytes(values_HW: npt.NDArray[np.float32]) -> Pixels:
    """Return values of an unstated range as 0..255; not-a-numbers and negative ones are black."""
    values_HW = np.nan_to_num(values_HW, nan=0.0, posinf=0.0, neginf=0.0)
    highest = float(values_HW.max())
    white = next((white for white in (1.0, 255.0, 65535.0) if highest <= white), highest)
    return np.clip(np.round(values_HW * (255 / white)), 0, 255).astype(np.uint8)


def _no_picture(path: Path, head: bytes) -> InputError:
    return InputError(f"photo '{path}': {_what_it_is(head)}", hint=_FETCH_AGAIN if not head else "")


def _what_it_is(head: bytes) -> str:
    """Return what a file that is no readable picture seems to be, from its first bytes."""
    if not head:
        return "the file is empty (0 bytes)"
    if head[4:8] == b"ftyp":
        return _MEDIA.get(head[8:12], "the file is no picture but a video")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for start, what in _STRANGERS:
        if text[: len(start)].lower() == start:
            return what
    for start, name in _SIGNATURES:
        if head.startswith(start):
            return f"the file starts like {name}, but is damaged or of a kind that cannot be read"
    if _is_text(head):
        return "the file is no picture but text"
    return "the file is damaged, or in no picture format that can be read"


def _is_text(head: bytes) -> bool:
    characters = head.decode("utf-8", errors="ignore")
    # The last character may be cut: up to 3 of its bytes lie behind the head.
    return len(characters.encode()) >= len(head) - 3 and all(
        letter.isprintable() or letter.isspace() for letter in characters
    )


def _damage(path: Path, error: BaseException) -> str:
    message = str(error) or type(error).__name__
    if "truncated" in message.lower() or isinstance(error, EOFError):
        return f"the file is truncated, its end is missing after {path.stat().st_size:,} bytes"
    return f"the file is damaged: {message}"
