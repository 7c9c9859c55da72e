"""CSV in long ("tidy") form: one row for each keypoint of each person."""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from hrnet_cli.sinks import RunInfo
from hrnet_cli.sinks.files import GrowingFile, OutputStream, open_lines
from hrnet_cli.sinks.record import record
from hrnet_cli.structures import Frame, Poses

COLUMNS = (
    *("source", "frame", "time_s", "person", "id"),
    *("box_x1", "box_y1", "box_x2", "box_y2", "box_score", "person_score"),
    *("keypoint", "x", "y", "score", "in_frame"),
)


class CsvSink:
    """Writes the rows of one picture after the other.

    Args:
        target: Receives the rows; its header is written already.
        info: What all pictures share.
    """

    def __init__(self, target: GrowingFile | OutputStream, info: RunInfo) -> None:
        self._target = target
        self._info = info

    def write(self, frame: Frame, poses: Poses) -> None:
        """Add the rows of one picture: none when nobody is in it."""
        fields = record(frame, poses, self._info)
        self._target.append(_to_csv(_rows(fields, poses.schema.keypoints)))

    def close(self) -> None:
        """Close the file; every row is on disk already."""
        self._target.close()


def open_csv(path: Path, info: RunInfo) -> CsvSink:
    """Start a file of rows, or go on with one.

    Raises:
        OutputError: It cannot be written, or has other columns.
    """
    header = _to_csv([COLUMNS])
    file = open_lines(path, append=info.append, start=header, is_whole=_is_row)
    if file.is_empty():
        file.append(header)
    return CsvSink(file, info)


def stream_csv(stream: BinaryIO, info: RunInfo) -> CsvSink:
    """Send the header and then rows to a stream."""
    target = OutputStream(stream)
    target.append(_to_csv([COLUMNS]))
    return CsvSink(target, info)


def _rows(fields: dict[str, Any], keypoint_names: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield the record of a picture, flattened in the order of `COLUMNS`."""
    picture = (fields["source"], fields["frame"], fields["time_s"])
    empty = (None, None, None)
    for number, person in enumerate(fields["people"]):
        box = person["box"] or (None, None, None, None)
        about = (number, person["id"], *box, person["box_score"], person["score"])
        points = zip(keypoint_names, person["keypoints"], person["in_frame"], strict=True)
        for name, triple, in_frame in points:
            yield (*picture, *about, name, *(triple or empty), "true" if in_frame else "false")


def _to_csv(rows: Iterable[tuple[Any, ...]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode("utf-8", errors="backslashreplace")


def _is_row(line: bytes) -> bool:
    return line.endswith((b",true", b",false"))
