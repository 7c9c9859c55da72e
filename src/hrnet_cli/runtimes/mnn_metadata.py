"""The metadata of an MNN file, read without a package: its network is skipped, not loaded.

An MNN file is a FlatBuffer (flatbuffers.dev/internals) of the table ``Net`` (MNN's
schema/default/MNN.fbs), whose first field is a text that engines leave alone, ``bizCode``. The
metadata stand there as JSON.
"""

import json
import struct
from pathlib import Path
from typing import BinaryIO

from hrnet_cli.errors import WeightsError

_LONGEST_TEXT = 10_000_000
# A table's list of fields begins with two sizes; that of the first field comes next.
_FIRST_FIELD = 4


def write_metadata(metadata: dict[str, str]) -> str:
    """Return metadata as the text that `read_metadata` finds in a file."""
    return json.dumps(metadata)


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of an MNN file, empty for one that has no such text.

    Raises:
        WeightsError: The file cannot be read, or is none.
    """
    try:
        with path.open("rb") as stream:
            text = _first_text(stream)
        metadata = json.loads(text) if text.startswith("{") else {}
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path}: is damaged or no MNN file: {error}",
            hint="export it again with hrnet export",
        ) from error
    return {str(key): str(value) for key, value in metadata.items()}


def _first_text(stream: BinaryIO) -> str:
    """Return the first field of the root table, a text."""
    table = _number(stream, 0, "<I")
    fields = table - _number(stream, table, "<i")
    if _number(stream, fields, "<H") <= _FIRST_FIELD:
        return ""
    offset = _number(stream, fields + _FIRST_FIELD, "<H")
    if not offset:
        return ""
    place = table + offset
    place += _number(stream, place, "<I")
    length = _number(stream, place, "<I")
    text = stream.read(length) if length <= _LONGEST_TEXT else b""
    if len(text) != length:
        raise ValueError(f"a text of {length} bytes at byte {place} is not there")
    return text.decode("utf-8")


def _number(stream: BinaryIO, place: int, kind: str) -> int:
    size = struct.calcsize(kind)
    if place < 0:
        raise ValueError(f"it points to byte {place}")
    stream.seek(place)
    content = stream.read(size)
    if len(content) != size:
        raise ValueError(f"it ends before byte {place + size}")
    return int(struct.unpack(kind, content)[0])
