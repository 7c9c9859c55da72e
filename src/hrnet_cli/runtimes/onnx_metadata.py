"""The metadata of an ONNX file, read without a package: its network is skipped, not loaded.

An ONNX file is a protocol buffer (onnx.proto, ModelProto); its metadata are the entries of field
14, each with a key (field 1) and a value (field 2).
"""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from hrnet_cli.errors import WeightsError

_METADATA_FIELD = 14
# How a field's value is stored (protobuf.dev/programming-guides/encoding).
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
_LONGEST_TEXT = 10_000_000


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of an ONNX file.

    Raises:
        WeightsError: The file cannot be read, or is none.
    """
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            return dict(_entry(text) for text in _texts(stream, _METADATA_FIELD, size))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise WeightsError(
            f"{path}: is damaged or no ONNX file: {error}",
            hint="export it again with hrnet export",
        ) from error


def _entry(text: bytes) -> tuple[str, str]:
    parts = [b"".join(_texts(BytesIO(text), field, len(text))).decode("utf-8") for field in (1, 2)]
    return parts[0], parts[1]


def _texts(stream: BinaryIO, wanted: int, size: int) -> Iterator[bytes]:
    """Yield the values of a field that holds bytes; the others are skipped."""
    while stream.tell() < size:
        field, kind = divmod(_varint(stream), 8)
        if kind == _VARINT:
            _varint(stream)
            continue
        length = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}.get(kind)
        if kind == _BYTES:
            length = _varint(stream)
        if length is None or not field or stream.tell() + length > size:
            raise ValueError(f"no field of a protocol buffer at byte {stream.tell()}")
        if field == wanted and kind == _BYTES and length <= _LONGEST_TEXT:
            yield stream.read(length)
        else:
            stream.seek(length, 1)


def _varint(stream: BinaryIO) -> int:
    """Return the next whole number: seven bits a byte, lowest first."""
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            raise ValueError("it ends within a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number of more than ten bytes")
