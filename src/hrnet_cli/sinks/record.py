"""The documented record of one picture, which every format writes in its own form.

Rounding, dropped keypoints and ``in_frame`` are decided here, so the formats cannot disagree.
"""

import json
import math
from typing import Any

import numpy as np

from hrnet_cli.geometry import points_in_frame
from hrnet_cli.schema import SCHEMAS, KeypointSchema, load_schema
from hrnet_cli.sinks import RunInfo
from hrnet_cli.structures import Frame, Poses

SCHEMA = "hrnet-poses/1"
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


def _people(frame: Frame, poses: Poses, info: RunInfo) -> list[dict[str, Any]]:
    ids = [None] * len(poses) if poses.track_ids_N is None else poses.track_ids_N.tolist()
    given_NK = _given(poses, info)
    fields = zip(
        ids,
        _box_lists(poses.boxes.xyxy_N4),
        _finite_or_none(poses.boxes.scores_N, SCORE_DECIMALS),
        _finite_or_none(poses.person_scores_N, PERSON_SCORE_DECIMALS),
        _keypoint_lists(poses, given_NK),
        (given_NK & points_in_frame(poses.keypoints_NK2, frame.size_wh)).tolist(),
        strict=True,
    )
    keys = ("id", "box", "box_score", "score", "keypoints", "in_frame")
    return [dict(zip(keys, person, strict=True)) for person in fields]


def _given(poses: Poses, info: RunInfo) -> np.ndarray:
    """Return (N, K) bool: the keypoints that are written."""
    given_NK = np.all(np.isfinite(poses.keypoints_NK2), axis=-1) & np.isfinite(poses.scores_NK)
    return given_NK & (poses.scores_NK >= info.keypoint_threshold) if info.drop_low else given_NK


def _keypoint_lists(poses: Poses, given_NK: np.ndarray) -> list[list[list[float] | None]]:
    triples_NK3 = np.concatenate(
        [
            _rounded(poses.keypoints_NK2, COORDINATE_DECIMALS),
            _rounded(poses.scores_NK, SCORE_DECIMALS)[..., None],
        ],
        axis=-1,
    )
    return [
        [triple if given else None for triple, given in zip(*person, strict=True)]
        for person in zip(triples_NK3.tolist(), given_NK.tolist(), strict=True)
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
