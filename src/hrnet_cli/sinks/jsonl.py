"""JSON Lines: one record for each picture, on disk as soon as it is known."""

import json
from pathlib import Path
from typing import BinaryIO

from hrnet_cli.records import SCHEMA
from hrnet_cli.sinks import RunInfo
from hrnet_cli.sinks.files import GrowingFile, OutputStream, open_at, open_lines
from hrnet_cli.sinks.record import record, to_json
from hrnet_cli.structures import Frame, Poses

_START = f'{{"schema":"{SCHEMA}"'.encode()


class JsonlSink:
    """Writes records, each one line.

    Args:
        target: Receives the lines.
        info: What all records share.
    """

    def __init__(self, target: GrowingFile | OutputStream, info: RunInfo) -> None:
        self._target = target
        self._info = info

    def write(self, frame: Frame, poses: Poses) -> None:
        """Add one record."""
        self._target.append(to_json(record(frame, poses, self._info)) + b"\n")

    @property
    def bytes_written(self) -> int:
        """Return how long the output is by now."""
        return self._target.length

    def close(self) -> None:
        """Close the file; every line is on disk already."""
        self._target.close()


def open_jsonl(path: Path, info: RunInfo, keep_bytes: int | None = None) -> JsonlSink:
    """Start a file of records, or go on with one.

    Args:
        path: Where it lies, or will.
        info: What all records share.
        keep_bytes: Go on behind so many bytes and cut off the rest; None to start anew or append.

    Raises:
        OutputError: It cannot be written, is shorter than that, or holds something else than
            records of this version.
    """
    if keep_bytes is not None:
        return JsonlSink(open_at(path, keep_bytes), info)
    return JsonlSink(open_lines(path, append=info.append, start=_START, is_whole=_is_json), info)


def stream_jsonl(stream: BinaryIO, info: RunInfo) -> JsonlSink:
    """Send records to a stream."""
    return JsonlSink(OutputStream(stream), info)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
