"""Joint angles as CSV: one row for each person of each picture, one column for each angle."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hrnet_cli.angles import ANGLES, joint_angles
from hrnet_cli.sinks import RunInfo
from hrnet_cli.sinks.csv import to_csv
from hrnet_cli.sinks.files import GrowingFile, open_lines
from hrnet_cli.sinks.record import keypoints_as_written, record
from hrnet_cli.structures import Frame, Poses

COLUMNS = ("source", "frame", "time_s", "person", "id", *ANGLES)
# Keypoints are no better than that.
_DEGREE_DECIMALS = 2


class AnglesSink:
    """Writes the angles of one picture after the other.

    Args:
        file: Receives the rows; its header is written already.
        info: Says below which score keypoints are not used.
    """

    def __init__(self, file: GrowingFile, info: RunInfo) -> None:
        self._file = file
        self._info = info

    def write(self, frame: Frame, poses: Poses) -> None:
        """Add the rows of one picture: none when nobody is in it."""
        self._file.append(to_csv(_rows(frame, poses, self._info)))

    def close(self) -> None:
        """Close the file; every row is on disk already."""
        self._file.close()


def open_angles(path: Path, info: RunInfo) -> AnglesSink:
    """Start a file of angles, or go on with one.

    Raises:
        OutputError: It cannot be written, or has other columns.
    """
    header = to_csv([COLUMNS])
    file = open_lines(path, append=info.append, start=header, is_whole=_never)
    if file.length == 0:
        file.append(header)
    return AnglesSink(file, info)


def _rows(frame: Frame, poses: Poses, info: RunInfo) -> Iterator[tuple[Any, ...]]:
    # Of the keypoints as they are written, so that the table follows from the records.
    degrees_NA = joint_angles(
        *keypoints_as_written(poses, info),
        poses.schema,
        threshold=info.keypoint_threshold,
        pixel_aspect=float(frame.pixel_aspect),
    )
    fields = record(frame, poses, info)
    for number, person in enumerate(fields["people"]):
        angles = [_cell(value) for value in degrees_NA[number].tolist()]
        yield (*(fields[key] for key in COLUMNS[:3]), number, person["id"], *angles)


def _cell(degrees: float) -> float | None:
    return round(degrees, _DEGREE_DECIMALS) + 0.0 if math.isfinite(degrees) else None


def _never(_line: bytes) -> bool:
    """Tell that a last line without its end is not whole: its last number may be cut."""
    return False
