"""The poses of a whole video as arrays, and those arrays packed small for a page's script.

Shape letters: F frames, R rows (a person in a frame), K keypoints, A joint angles.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hrnet_cli.angles import ANGLES, joint_angles
from hrnet_cli.schema import KeypointSchema
from hrnet_cli.structures import Frame, Poses

# Coordinates are kept as 16-bit numbers in steps of this part of the picture's longer side, finer
# than the small video beside them and reaching four pictures to each side.
STEPS = 8192
SCORE_STEPS, ANGLE_STEPS = 200.0, 10.0
# What stands for no number.
NONE_16, NONE_8 = -32768, 255
# The time of a frame whose record has none, in frames a second.
USUAL_RATE = 25.0
# Frames whose times stand still or run back are shown this many seconds apart.
LEAST_STEP_S = 1e-4


@dataclass(frozen=True)
class PoseArrays:
    """Every person of every frame, sorted by identity and then by frame.

    Attributes:
        schema: What the keypoints are called.
        size_wh: (width, height) of the upright picture in pixels.
        indices_F: int64 `Frame.index` of each record.
        times_F: float64 seconds from the first frame of the video, rising.
        ids: The identities, rising; ``(None,)`` for the one person of a video without tracking in
            which nobody is ever beside somebody else; empty for several people without tracking.
        frames_R: uint32 position in ``times_F``.
        tracks_R: int32 position in ``ids``; -1 for a person without identity.
        boxes_R4: float32 (x1, y1, x2, y2) in pixels.
        keypoints_RK2: float32 (x, y) in pixels, NaN where there is none.
        scores_RK: float32 keypoint scores, NaN where there is none.
        raw_RK2: float32 keypoints before smoothing; None where none were smoothed.
        flags_RK: uint8 bits of `structures.FILLED` and `SWAPPED`.
        angle_names: Names of the joint angles that are known of anybody.
        angles_RA: float64 degrees, NaN where there is none.
    """

    schema: KeypointSchema
    size_wh: tuple[int, int]
    indices_F: np.ndarray
    times_F: np.ndarray
    ids: tuple[int | None, ...]
    frames_R: np.ndarray
    tracks_R: np.ndarray
    boxes_R4: np.ndarray
    keypoints_RK2: np.ndarray
    scores_RK: np.ndarray
    raw_RK2: np.ndarray | None
    flags_RK: np.ndarray
    angle_names: tuple[str, ...]
    angles_RA: np.ndarray

    @property
    def confidences(self) -> np.ndarray:
        """Return the mean keypoint score of each row, NaN where there is no keypoint."""
        known_RK = np.isfinite(self.scores_RK)
        total_R = np.where(known_RK, self.scores_RK, 0).sum(axis=1, dtype=np.float64)
        count_R = known_RK.sum(axis=1)
        return np.where(count_R > 0, total_R / np.maximum(count_R, 1), np.nan)

    @property
    def people_counts(self) -> np.ndarray:
        """Return the number of people in each frame."""
        return np.bincount(self.frames_R, minlength=len(self.times_F))


def collect(records: Sequence[tuple[Frame, Poses]], *, threshold: float) -> PoseArrays:
    """Return the arrays of a video's records, of which there is at least one.

    Args:
        records: Frames in order, with their poses; the pictures themselves are not looked at.
        threshold: Keypoints with a lower score have no part in joint angles.
    """
    first_frame, first_poses = records[0]
    schema, keypoints = first_poses.schema, len(first_poses.schema)
    people = [poses for _, poses in records if len(poses)]
    has_raw = any(poses.raw_keypoints_NK2 is not None for poses in people)
    ids_R = _stack([_ids(poses) for poses in people], (), np.int64)
    frames_R = np.repeat(np.arange(len(records)), [len(poses) for _, poses in records])
    ids: tuple[int | None, ...]
    if len(frames_R) and not (ids_R >= 0).any() and len(np.unique(frames_R)) == len(frames_R):
        ids, tracks_R = (None,), np.zeros(len(frames_R), np.int64)
    else:
        known = np.unique(ids_R[ids_R >= 0])
        ids = tuple(known.tolist())
        tracks_R = np.where(ids_R >= 0, np.searchsorted(known, ids_R), -1)
    order_R = np.lexsort((frames_R, tracks_R))

    def rows(parts: Sequence[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
        return _stack(parts, shape, np.float32)[order_R]

    keypoints_RK2 = rows([poses.keypoints_NK2 for poses in people], (keypoints, 2))
    scores_RK = rows([_scores(poses) for poses in people], (keypoints,))
    aspect = float(first_frame.pixel_aspect)
    angles_RA = joint_angles(
        keypoints_RK2, scores_RK, schema, threshold=threshold, pixel_aspect=aspect
    )
    known_A = np.atleast_1d(np.isfinite(angles_RA).any(axis=0))
    return PoseArrays(
        schema=schema,
        size_wh=first_frame.size_wh,
        indices_F=np.array([frame.index for frame, _ in records], np.int64),
        times_F=_times([frame for frame, _ in records]),
        ids=ids,
        frames_R=frames_R[order_R].astype(np.uint32),
        tracks_R=tracks_R[order_R].astype(np.int32),
        boxes_R4=rows([poses.boxes.xyxy_N4 for poses in people], (4,)),
        keypoints_RK2=keypoints_RK2,
        scores_RK=scores_RK,
        raw_RK2=rows([_raw(poses) for poses in people], (keypoints, 2)) if has_raw else None,
        flags_RK=_stack([_flags(poses) for poses in people], (keypoints,), np.uint8)[order_R],
        angle_names=tuple(name for name, known in zip(ANGLES, known_A, strict=True) if known),
        angles_RA=angles_RA[:, known_A],
    )


def pack(arrays: PoseArrays) -> tuple[list[dict[str, Any]], bytes]:
    """Return the arrays as zlib-compressed bytes, and the layout of those bytes.

    Returns:
        A table with an entry for each array, and the bytes, little-endian. An entry has the
        array's ``name``, ``type`` (of NumPy), ``offset`` in bytes, ``length`` in numbers, and what
        was taken away from its numbers (modulo 65,536) so that they compress well: with ``row``
        the number so many places before, with ``base`` that of another array. The arrays are those
        of `PoseArrays`, with ``xy`` for keypoints, ``degrees`` for angles, and ``confidence`` of
        each row. Coordinates are in longer picture sides / `STEPS`, scores in 1 / `SCORE_STEPS`,
        angles in 1 / `ANGLE_STEPS` degrees.
    """
    step = max(arrays.size_wh) / STEPS
    xy = _quantised(arrays.keypoints_RK2 / step)
    parts: list[tuple[str, np.ndarray, dict[str, Any]]] = [
        ("times", arrays.times_F, {}),
        ("indices", arrays.indices_F.astype(np.uint32), {}),
        ("frames", arrays.frames_R, {}),
        ("tracks", arrays.tracks_R, {}),
        _by_rows("boxes", _quantised(arrays.boxes_R4 / step)),
        _by_rows("xy", xy),
        _by_rows("degrees", _quantised(arrays.angles_RA * ANGLE_STEPS)),
    ]
    if arrays.raw_RK2 is not None:
        parts.append(("raw", _quantised(arrays.raw_RK2 / step) - xy, {"base": "xy"}))
    parts += [
        ("scores", _quantised_score(arrays.scores_RK), {}),
        ("confidence", _quantised_score(arrays.confidences), {}),
        ("flags", arrays.flags_RK, {}),
    ]
    layout: list[dict[str, Any]] = []
    data = bytearray()
    for name, array, coding in parts:
        kind = array.dtype.str[1:]
        layout.append(
            {"name": name, "type": kind, "offset": len(data), "length": array.size, **coding}
        )
        data += array.astype(f"<{kind}").tobytes()
        data += bytes(-len(data) % 8)  # a script's typed arrays begin at multiples of their size
    return layout, zlib.compress(bytes(data), 6)


def _by_rows(name: str, array: np.ndarray) -> tuple[str, np.ndarray, dict[str, Any]]:
    """Return 16-bit rows as differences to the row before: people move little in one frame."""
    differences = array.copy()
    differences[1:] -= array[:-1]
    return name, differences, {"row": math.prod(array.shape[1:])}


def _quantised(values: np.ndarray) -> np.ndarray:
    """Return whole 16-bit numbers, `NONE_16` for what is not finite or does not fit."""
    with np.errstate(invalid="ignore"):
        fits = np.abs(values) <= 32767
    return np.where(fits, np.rint(np.where(fits, values, 0)), NONE_16).astype(np.int16)


def _quantised_score(scores: np.ndarray) -> np.ndarray:
    known = np.isfinite(scores)
    steps = np.rint(np.clip(np.where(known, scores, 0) * SCORE_STEPS, 0, NONE_8 - 1))
    return np.where(known, steps, NONE_8).astype(np.uint8)


def _stack(parts: Sequence[np.ndarray], shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Return the rows of all parts; none at all still have their shape."""
    return np.concatenate([np.zeros((0, *shape), dtype), *parts]).astype(dtype)


def _ids(poses: Poses) -> np.ndarray:
    ids = poses.track_ids_N
    return np.full(len(poses), -1, np.int64) if ids is None else ids


def _scores(poses: Poses) -> np.ndarray:
    """Return keypoint scores, NaN for keypoints that are nowhere."""
    known_NK = np.isfinite(poses.keypoints_NK2).all(axis=-1)
    return np.where(known_NK, poses.scores_NK, np.nan)


def _raw(poses: Poses) -> np.ndarray:
    raw = poses.raw_keypoints_NK2
    return poses.keypoints_NK2 if raw is None else raw


def _flags(poses: Poses) -> np.ndarray:
    flags = poses.flags_NK
    return np.zeros(poses.scores_NK.shape, np.uint8) if flags is None else flags


def _times(frames: Sequence[Frame]) -> np.ndarray:
    """Return the seconds of each frame, made to rise where a file's own times do not."""
    told = [frame.time_s for frame in frames]
    times = [at / USUAL_RATE if time is None else time for at, time in enumerate(told)]
    steps = LEAST_STEP_S * np.arange(len(times))
    return np.maximum.accumulate(np.array(times, np.float64) - steps) + steps
