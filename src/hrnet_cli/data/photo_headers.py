"""What the first bytes of a photo say of it, without decoding it."""

import struct
from pathlib import Path

from PIL import Image

_ORIENTATION = 0x0112
_ERRORS = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error)


def read_header(path: Path) -> tuple[int, int, int] | None:
    """Return (width, height) as stored, and the EXIF orientation (1 to 8, 1 where not said).

    None when the file is missing or no photo.
    """
    try:
        with Image.open(path) as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
            return image.width, image.height, orientation if orientation in range(1, 9) else 1
    except (*_ERRORS, Image.DecompressionBombError):
        return None
