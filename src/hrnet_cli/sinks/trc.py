"""TRC: marker trajectories as text, as OpenSim and Pose2Sim read them; one file for each person."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from hrnet_cli.records import Track
from hrnet_cli.schema import KeypointSchema
from hrnet_cli.sinks import RunInfo
from hrnet_cli.sinks.motion import MotionSink, open_motion
from hrnet_cli.sinks.record import COORDINATE_DECIMALS, TIME_DECIMALS

UNITS = "px"
_KEYS = (
    *("DataRate", "CameraRate", "NumFrames", "NumMarkers", "Units"),
    *("OrigDataRate", "OrigDataStartFrame", "OrigNumFrames"),
)


def open_trc(folder: Path, info: RunInfo) -> MotionSink:
    """Make the folder of the files.

    Raises:
        OutputError: It cannot be made.
    """
    return open_motion(folder, "trc", to_trc, info)


def to_trc(track: Track, schema: KeypointSchema, rate: float, file_name: str) -> bytes:
    """Return the content of the file of one person.

    Args:
        track: Its motion, y up.
        schema: What the keypoints are called.
        rate: Mean frames a second.
        file_name: Name of the file, written into it.
    """
    lines = [*_header(track, schema, rate, file_name), "", *_rows(track)]
    return "".join(f"{line}\n" for line in lines).encode("utf-8", errors="backslashreplace")


def _header(track: Track, schema: KeypointSchema, rate: float, file_name: str) -> Iterator[str]:
    count, first = len(track.frames_T), int(track.frames_T[0])
    markers = range(1, len(schema) + 1)
    yield f"PathFileType\t4\t(X/Y/Z)\t{file_name}"
    yield "\t".join(_KEYS)
    yield _line([f"{rate:g}", f"{rate:g}", count, len(schema), UNITS, f"{rate:g}", first, count])
    # A name stands above the first of its three columns.
    yield "Frame#\tTime\t" + "".join(f"{name}\t\t\t" for name in schema.keypoints)
    yield "\t\t" + "".join(f"X{number}\tY{number}\tZ{number}\t" for number in markers)


def _rows(track: Track) -> Iterator[str]:
    points_TK2 = np.round(track.keypoints_TK2, COORDINATE_DECIMALS) + 0.0
    given_TK = np.all(np.isfinite(points_TK2), axis=-1)
    rows = zip(
        track.frames_T.tolist(),
        track.times_T.tolist(),
        points_TK2.tolist(),
        given_TK.tolist(),
        strict=True,
    )
    for frame, time_s, points_K2, given_K in rows:
        cells = [
            f"{x}\t{y}\t0.0" if given else "\t\t"
            for (x, y), given in zip(points_K2, given_K, strict=True)
        ]
        # The last tab ends the last cell: without it readers miss one that is empty.
        yield _line([frame, round(time_s, TIME_DECIMALS), *cells]) + "\t"


def _line(cells: Iterable[object]) -> str:
    return "\t".join(map(str, cells))
