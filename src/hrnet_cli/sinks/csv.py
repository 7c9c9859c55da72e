"""CSV in long ("tidy") form: one row for each keypoint of each person."""

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from hrnet_cli.sinks import RunInfo
from hrnet_cli.sinks.files import GrowingFile, OutputStream, open_at, open_lines
from hrnet_cli.sinks.record import record
from hrnet_cli.structures import Frame, Poses

COLUMNS = (
    *("source", "frame", "time_s", "person", "id"),
    *("box_x1", "box_y1", "box_x2", "box_y2", "box_score", "person_score"),
    *("keypoint", "x", "y", "score", "in_frame"),
    *("pts", "x_raw", "y_raw", "flags"),
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
        self._target.append(to_csv(rows_of(fields, poses.schema.keypoints)))

    @property
    def bytes_written(self) -> int:
        """Return how long the output is by now."""
        return self._target.length

    def close(self) -> None:
        """Close the file; every row is on disk already."""
        self._target.close()


def open_csv(path: Path, info: RunInfo, keep_bytes: int | None = None) -> CsvSink:
    """Start a file of rows, or go on with one.

    Args:
        path: Where it lies, or will.
        info: What all pictures share.
        keep_bytes: Go on behind so many bytes and cut off the rest; None to start anew or append.

    Raises:
        OutputError: It cannot be written, is shorter than that, or has other columns.
    """
    if keep_bytes is not None:
        return _with_header(open_at(path, keep_bytes), info)
    header = to_csv([COLUMNS])
    return _with_header(open_lines(path, append=info.append, start=header, is_whole=_is_row), info)


def stream_csv(stream: BinaryIO, info: RunInfo) -> CsvSink:
    """Send the header and then rows to a stream."""
    return _with_header(OutputStream(stream), info)


def rows_of(fields: dict[str, Any], keypoint_names: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield the record of a picture, flattened in the order of `COLUMNS`.

    Args:
        fields: What `record` returned.
        keypoint_names: Names of its keypoints, in order.
    """
    picture = (fields["source"], fields["frame"], fields["time_s"])
    pts = fields.get("pts")
    nothing = [None] * len(keypoint_names)
    for number, person in enumerate(fields["people"]):
        box = person["box"] or (None, None, None, None)
        about = (number, person["id"], *box, person["box_score"], person["score"])
        points = zip(
            keypoint_names,
            person["keypoints"],
            person["in_frame"],
            person.get("keypoints_raw", nothing),
            person.get("flags", nothing),
            strict=True,
        )
        for name, triple, in_frame, raw, flags in points:
            xy_score = triple or (None, None, None)
            xy_raw = raw or (None, None)
            yield (*picture, *about, name, *xy_score, in_frame, pts, *xy_raw, flags)


def to_csv(rows: Iterable[tuple[Any, ...]]) -> bytes:
    """Return lines of CSV: cells are empty for None, ``true`` or ``false`` for bools."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([map(_cell, row) for row in rows])
    return text.getvalue().encode("utf-8", errors="backslashreplace")


def _cell(value: Any) -> Any:  # noqa: ANN401 - what the csv module takes
    return str(value).lower() if isinstance(value, bool) else value


def _with_header(target: GrowingFile | OutputStream, info: RunInfo) -> CsvSink:
    if target.length == 0:
        target.append(to_csv([COLUMNS]))
    return CsvSink(target, info)


def _is_row(line: bytes) -> bool:
    row = next(csv.reader([line.decode("utf-8", errors="replace")]))
    return len(row) == len(COLUMNS)
