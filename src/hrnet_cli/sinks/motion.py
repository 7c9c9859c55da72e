"""What the motion formats share: a folder with one file for each person of a video.

The y axis is turned up, as in motion capture: (0, 0) is the centre of the bottom left pixel. Both
axes have one unit, the height of a pixel, also where pixels are not square.
"""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hrnet_cli.images import write_bytes_atomic
from hrnet_cli.records import Track, TrackCollector, mean_rate
from hrnet_cli.schema import KeypointSchema
from hrnet_cli.sinks import RunInfo
from hrnet_cli.sinks.files import make_folder, reporting, require_folder
from hrnet_cli.sinks.record import keypoints_as_written
from hrnet_cli.structures import Frame, Poses

# A video of one frame has no rate, but the formats want one.
_RATE_OF_ONE_FRAME = 1.0
# Times are written in microseconds, so further decimals would be noise.
_RATE_DECIMALS = 4

# Content of a file: the person's motion, the schema, frames a second, the name of the file.
Encode = Callable[[Track, KeypointSchema, float, str], bytes]


class MotionSink:
    """Collects a video and writes one file for each person at its end.

    Args:
        folder: Receives the files; called ``<stem>_<suffix>``.
        suffix: Of the files, without a dot.
        encode: Makes the content of a file.
        info: What happens to low keypoints.
    """

    def __init__(self, folder: Path, suffix: str, encode: Encode, info: RunInfo) -> None:
        self._folder = folder
        self._suffix = suffix
        self._encode = encode
        self._info = info
        self._collector = TrackCollector()
        self._times: list[float] = []
        self._schema: KeypointSchema | None = None
        self._closed = False

    def write(self, frame: Frame, poses: Poses) -> None:
        """Take in one frame, people or not.

        Raises:
            InputError: The frame is a photo, or it is not clear who is who.
        """
        keypoints_NK2, scores_NK = keypoints_as_written(poses, self._info)
        keypoints_NK2[..., 0] *= float(frame.pixel_aspect)
        keypoints_NK2[..., 1] = frame.size_wh[1] - 1 - keypoints_NK2[..., 1]
        ids = None if poses.track_ids_N is None else poses.track_ids_N.tolist()
        self._collector.add(frame, ids, keypoints_NK2, scores_NK)
        self._times.append(frame.clock_s)
        self._schema = poses.schema

    def close(self) -> None:
        """Write the files; those of people of an earlier run are removed.

        Raises:
            OutputError: They cannot be written.
        """
        if self._closed:
            return
        self._closed = True
        with reporting(self._folder):
            require_folder(self._folder)
        stem = self._folder.name.removesuffix(f"_{self._suffix}")
        rate = round(mean_rate(np.array(self._times)) or _RATE_OF_ONE_FRAME, _RATE_DECIMALS)
        written: set[str] = set()
        for track in self._collector.tracks():
            name = f"{stem}_person{1 if track.id is None else track.id}.{self._suffix}"
            assert self._schema is not None, "a track comes from a frame"
            content = self._encode(track, self._schema, rate, name)
            write_bytes_atomic(self._folder / name, content)
            written.add(name)
        self._remove_others(stem, written)

    def _remove_others(self, stem: str, written: set[str]) -> None:
        ours = re.compile(rf"{re.escape(stem)}_person-?\d+\.{self._suffix}")
        with reporting(self._folder):
            for path in self._folder.iterdir():
                if ours.fullmatch(path.name) and path.name not in written:
                    path.unlink()


def open_motion(folder: Path, suffix: str, encode: Encode, info: RunInfo) -> MotionSink:
    """Make the folder of the files.

    Raises:
        OutputError: It cannot be made.
    """
    make_folder(folder)
    return MotionSink(folder, suffix, encode, info)
