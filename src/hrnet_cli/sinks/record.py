"""The documented record of one picture, which every format writes in its own form.

Rounding, dropped keypoints and ``in_frame`` are decided here, so the formats cannot disagree.
"""

import json
import math
from typing import Any

import numpy as np

from hrnet_cli.geometry import points_in_frame
from hrnet_cli.records import SCHEMA
from hrnet_cli.schema import SCHEMAS, KeypointSchema, load_schema
from hrnet_cli.sinks import RunInfo
from hrnet_cli.structures import Frame, Poses

# A thousandth of a pixel is far below the error of any keypoint.
COORDINATE_DECIMALS = 3
SCORE_DECIMALS = 4
# COCO's AP ranks people by score, and ties would be broken by their order in the file.
PERSON_SCORE_DECIMALS = 6
TIME_DECIMALS = 6


def record(frame: Frame, poses: Poses, info: RunInfo) -> dict[str, Any]:
    """Return the record of one picture as plain values: a JSON object of docs/output.md.

    Args:
        frame: The picture.
        poses: Its people, in pixels of the upright picture; may be nobody.
        info: Names written into the record, and what happens to low keypoints.
    """
    width, height = frame.size_wh
    fields: dict[str, Any] = {
        "schema": SCHEMA,
        "source": frame.source,
        "frame": frame.index,
        "time_s": None if frame.time_s is None else round(frame.time_s, TIME_DECIMALS),
        "width": width,
        "height": height,
        "orientation": frame.orientation,
        **_video_fields(frame),
        "keypoint_schema": poses.schema.name,
        "model": info.model,
        "detector": info.detector,
    }
    if not is_built_in(poses.schema):
        fields["keypoint_names"] = list(poses.schema.keypoints)
    fields["people"] = _people(frame, poses, info)
    return fields


def is_built_in(schema: KeypointSchema) -> bool:
    """Tell whether the name of a schema says all: it is shipped, with these keypoints."""
    return schema.name in SCHEMAS and load_schema(schema.name).keypoints == schema.keypoints


def flat_triples(keypoints: list[list[float] | None]) -> list[float]:
    """Return x, y, score of one keypoint after the other; a keypoint left out is 0, 0, 0."""
    return [value for triple in keypoints for value in (triple or (0.0, 0.0, 0.0))]


def to_json(value: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Return compact UTF-8 JSON.

    Raises:
        ValueError: A number is not finite; JSON has no such numbers.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    # A file name that is not UTF-8 holds lone surrogates; written as JSON escapes they come back
    # unchanged in a reader.
    return text.encode("utf-8", errors="backslashreplace")


def keypoints_as_written(poses: Poses, info: RunInfo) -> tuple[np.ndarray, np.ndarray]:
    """Return keypoints and scores as records hold them, so that derived numbers agree with them.

    Args:
        poses: The people of one picture.
        info: What happens to low keypoints.

    Returns:
        float64 (N, K, 2) pixels and (N, K) scores, rounded; NaN where a keypoint is left out.
    """
    left_out_NK = ~_given(poses, info)
    keypoints_NK2 = _rounded(poses.keypoints_NK2, COORDINATE_DECIMALS)
    scores_NK = _rounded(poses.scores_NK, SCORE_DECIMALS)
    keypoints_NK2[left_out_NK] = np.nan
    scores_NK[left_out_NK] = np.nan
    return keypoints_NK2, scores_NK


def _video_fields(frame: Frame) -> dict[str, Any]:
    """Return what only the frames of videos carry: nothing for a photo."""
    if frame.pts is None:
        return {}
    base, aspect = frame.time_base, frame.pixel_aspect
    square = aspect == 1
    return {
        "pts": frame.pts,
        "time_base": None if base is None else f"{base.numerator}/{base.denominator}",
        "rotation": frame.rotation,
        **({} if square else {"pixel_aspect": f"{aspect.numerator}/{aspect.denominator}"}),
    }


def _people(frame: Frame, poses: Poses, info: RunInfo) -> list[dict[str, Any]]:
    ids = [None] * len(poses) if poses.track_ids_N is None else poses.track_ids_N.tolist()
    keypoints_NK2, scores_NK = keypoints_as_written(poses, info)
    columns: dict[str, list[Any]] = {
        "id": ids,
        "box": _box_lists(poses.boxes.xyxy_N4),
        "box_score": _finite_or_none(poses.boxes.scores_N, SCORE_DECIMALS),
        "score": _finite_or_none(poses.person_scores_N, PERSON_SCORE_DECIMALS),
        "keypoints": _point_lists(np.concatenate([keypoints_NK2, scores_NK[..., None]], axis=-1)),
        # Of the written numbers, so that a reader who computes it agrees.
        "in_frame": points_in_frame(keypoints_NK2, frame.size_wh).tolist(),
    }
    if poses.raw_keypoints_NK2 is not None:
        raw_NK2 = _rounded(poses.raw_keypoints_NK2, COORDINATE_DECIMALS)
        raw_NK2[_low(poses, info)] = np.nan
        columns["keypoints_raw"] = _point_lists(raw_NK2)
    if poses.flags_NK is not None:
        columns["flags"] = poses.flags_NK.tolist()
    return [
        dict(zip(columns, person, strict=True)) for person in zip(*columns.values(), strict=True)
    ]


def _low(poses: Poses, info: RunInfo) -> np.ndarray:
    """Return (N, K) bool: the keypoints that are left out for their score."""
    if not info.drop_low:
        return np.zeros(poses.scores_NK.shape, dtype=bool)
    return poses.scores_NK < info.keypoint_threshold


def _given(poses: Poses, info: RunInfo) -> np.ndarray:
    """Return (N, K) bool: the keypoints that are written."""
    finite_NK = np.all(np.isfinite(poses.keypoints_NK2), axis=-1) & np.isfinite(poses.scores_NK)
    return finite_NK & ~_low(poses, info)


def _point_lists(values_NKC: np.ndarray) -> list[list[list[float] | None]]:
    """Return the numbers of each keypoint of each person; None where one is not finite."""
    finite_NK = np.all(np.isfinite(values_NKC), axis=-1)
    return [
        [numbers if finite else None for numbers, finite in zip(*person, strict=True)]
        for person in zip(values_NKC.tolist(), finite_NK.tolist(), strict=True)
    ]


def _box_lists(xyxy_N4: np.ndarray) -> list[list[float] | None]:
    boxes = _rounded(xyxy_N4, COORDINATE_DECIMALS).tolist()
    return [box if all(map(math.isfinite, box)) else None for box in boxes]


def _finite_or_none(values_N: np.ndarray, decimals: int) -> list[float | None]:
    values = _rounded(values_N, decimals).tolist()
    return [value if math.isfinite(value) else None for value in values]


def _rounded(values: np.ndarray, decimals: int) -> np.ndarray:
    """Return float64, in which the rounded number prints short; 0 has no sign."""
    return np.round(values.astype(np.float64), decimals) + 0.0
