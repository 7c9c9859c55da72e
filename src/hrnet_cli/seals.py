"""Graphs that tell whether they are still what was written: a hash at their end.

Engines read a graph with a hole in it without a word, and compute other keypoints. What is written
here ends with the sha256 of all that comes before it, in a form that their formats leave alone: an
XML comment after the document, in ONNX one more entry of its metadata (to a protocol buffer fields
may be appended), and in MNN and TorchScript bytes behind what the file says of its own length.
"""

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from hrnet_cli.errors import WeightsError

_KEY = b"content_sha256"
_HEX = 64
# Field 14, an entry of a key (field 1) and a value (field 2), each with its length before it.
_ENTRY = (
    bytes([0x72, 2 + len(_KEY) + 2 + _HEX, 0x0A, len(_KEY)]) + _KEY + bytes([0x12, _HEX]),
    b"",
)
_COMMENT = (b"\n<!-- sha256 ", b" -->\n")
_CHUNK_BYTES = 1 << 20


def seal(graph: Path) -> None:
    """Append to the files of a graph the hash of what is in each.

    Raises:
        OSError: One cannot be written.
    """
    for path in _files(graph):
        before, after = _around(path)
        with path.open("rb") as stream:
            digest = _digest(stream, path.stat().st_size)
        with path.open("ab") as stream:
            stream.write(before + digest + after)


def check_seal(graph: Path) -> None:
    """Raise WeightsError for a graph that is no longer what was sealed; others are left alone."""
    for path in _files(graph):
        _check(path)


def _files(graph: Path) -> list[Path]:
    """Return the files of a graph: OpenVINO keeps the weights in one of their own."""
    return [graph, graph.with_suffix(".bin")] if graph.suffix.lower() == ".xml" else [graph]


def _check(path: Path) -> None:
    before, after = _around(path)
    length = len(before) + _HEX + len(after)
    try:
        with path.open("rb") as stream:
            content = stream.seek(0, os.SEEK_END) - length
            if content < 0:
                return
            stream.seek(content)
            end = stream.read()
            if not (end.startswith(before) and end.endswith(after)):
                return
            stream.seek(0)
            whole = _digest(stream, content) == end[len(before) : len(before) + _HEX]
    except OSError:
        return  # The engine says what it cannot read.
    if not whole:
        raise WeightsError(
            f"{path}: is damaged: its content is not what was written, by its sha256",
            hint="export it again, or copy it again from where it is whole",
        )


def _around(path: Path) -> tuple[bytes, bytes]:
    """Return what stands before and after the hash."""
    return _COMMENT if path.suffix.lower() == ".xml" else _ENTRY


def _digest(stream: BinaryIO, length: int) -> bytes:
    """Return the hash of the next bytes, in hexadecimal digits."""
    digest = hashlib.sha256()
    while length > 0 and (chunk := stream.read(min(length, _CHUNK_BYTES))):
        digest.update(chunk)
        length -= len(chunk)
    return digest.hexdigest().encode()
