"""C3D: marker trajectories in the binary form of motion capture; one file for each person."""

import io
import warnings
from pathlib import Path

import c3d
import numpy as np

from hrnet_cli.errors import OutputError
from hrnet_cli.records import Track
from hrnet_cli.schema import KeypointSchema
from hrnet_cli.sinks import RunInfo
from hrnet_cli.sinks.motion import MotionSink, open_motion
from hrnet_cli.sinks.record import COORDINATE_DECIMALS

UNITS = "px"
# A negative scale says that numbers are floating point.
_AS_FLOATS = -1.0
_SEEN, _MISSING = 0.0, -1.0  # residuals
_BLOCK_BYTES = 512
# Sizes of parameters are bytes.
_MOST_LABELS = 255


def open_c3d(folder: Path, info: RunInfo) -> MotionSink:
    """Make the folder of the files.

    Raises:
        OutputError: It cannot be made.
    """
    return open_motion(folder, "c3d", to_c3d, info)


def to_c3d(track: Track, schema: KeypointSchema, rate: float, _file_name: str) -> bytes:
    """Return the content of the file of one person.

    Args:
        track: Its motion, y up.
        schema: What the keypoints are called.
        rate: Mean frames a second; frame f is at (f - 1) / rate seconds.

    Raises:
        OutputError: There are more keypoints than a file can name.
    """
    writer = c3d.Writer(point_rate=rate, point_scale=_AS_FLOATS, point_units=UNITS)
    writer.set_point_labels(_labels(schema))
    writer.set_screen_axis("+X", "+Y")
    writer.set_start_frame(round(float(track.times_T[0]) * rate) + 1)
    points_TK4 = _points(track)
    # The numbers are put in below: the package writes old ones in place of missing ones.
    empty = (np.zeros((len(schema), 5)), np.empty((0, 0)))
    for _ in points_TK4:
        writer.add_frames(empty)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No analog data found")
        writer.write(stream)
    content = bytearray(stream.getvalue())
    start = (int(writer.header.data_block) - 1) * _BLOCK_BYTES
    numbers = points_TK4.tobytes()
    content[start : start + len(numbers)] = numbers
    return bytes(content)


def _labels(schema: KeypointSchema) -> list[str]:
    """Return the names of the keypoints in ASCII, the only letters that C3D knows."""
    if len(schema) > _MOST_LABELS:
        raise OutputError(
            f"C3D holds at most {_MOST_LABELS} keypoints, schema '{schema.name}' has {len(schema)}",
            hint="choose another --format, such as trc",
        )
    return [name.encode("ascii", errors="backslashreplace").decode() for name in schema.keypoints]


def _points(track: Track) -> np.ndarray:
    """Return (T, K, 4) little-endian float32 x, y, 0 and residual; all 0 but that where missing."""
    given_TK = np.all(np.isfinite(track.keypoints_TK2), axis=-1)
    points_TK4 = np.zeros((*given_TK.shape, 4), dtype="<f4")
    rounded_TK2 = np.round(track.keypoints_TK2, COORDINATE_DECIMALS)
    points_TK4[..., :2] = np.where(given_TK[..., None], rounded_TK2, 0.0)
    points_TK4[..., 3] = np.where(given_TK, _SEEN, _MISSING)
    return points_TK4
