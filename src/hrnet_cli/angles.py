"""Joint angles from 2-D keypoints, in degrees.

They are angles *in the picture*: the body's angles seen by the camera, equal to the true ones only
where the limb moves in a plane parallel to it. A bend seen from its front looks straight.

Signs follow the anatomical zero position (standing upright, arms hanging, feet at right angles to
the shanks), where all angles are 0. Shape letters: K keypoints; ``...`` people, frames or both.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from hrnet_cli.schema import KeypointSchema

# Names of keypoints of which the first present ones make a point: their mean.
_Point = tuple[tuple[str, ...], ...]
_SHOULDERS: _Point = (("left_shoulder", "right_shoulder"),)
_HIPS: _Point = (("left_hip", "right_hip"),)
# Crown and ears give other inclinations, but each schema has one of them throughout.
_HEAD: _Point = (("left_ear", "right_ear"), ("head_top",), ("top_head",), ("head",))


def _one(name: str) -> _Point:
    return ((name,),)


def _bend(first_2: np.ndarray, joint_2: np.ndarray, last_2: np.ndarray) -> np.ndarray:
    """Return by how much the line through three points bends at the middle one: 0 is straight."""
    return _between(joint_2 - first_2, last_2 - joint_2)


def _opening(first_2: np.ndarray, joint_2: np.ndarray, last_2: np.ndarray) -> np.ndarray:
    """Return the angle between two limbs that meet in the middle point: 0 is side by side."""
    return _between(first_2 - joint_2, last_2 - joint_2)


def _dorsiflexion(
    knee_2: np.ndarray, ankle_2: np.ndarray, heel_2: np.ndarray, toe_2: np.ndarray
) -> np.ndarray:
    """Return by how much the toes are lifted from a right angle to the shank."""
    return 90.0 - _between(knee_2 - ankle_2, toe_2 - heel_2)


def _inclination(low_2: np.ndarray, high_2: np.ndarray) -> np.ndarray:
    """Return the angle of a line from the vertical, positive towards the right of the picture."""
    line = high_2 - low_2
    degrees = np.degrees(np.arctan2(line[..., 0], -line[..., 1]))  # y points down
    return np.where(np.any(line != 0, axis=-1), degrees, np.nan)


def _between(a_2: np.ndarray, b_2: np.ndarray) -> np.ndarray:
    """Return the angle between vectors, 0 to 180 degrees; NaN where one has no length."""
    cross = a_2[..., 0] * b_2[..., 1] - a_2[..., 1] * b_2[..., 0]
    dot = np.sum(a_2 * b_2, axis=-1)
    # Exact near 0 and 180, where the arc cosine is not.
    degrees = np.degrees(np.arctan2(np.abs(cross), dot))
    return np.where((cross != 0) | (dot != 0), degrees, np.nan)


_Rule = tuple[Callable[..., np.ndarray], tuple[_Point, ...]]


def _rules() -> dict[str, _Rule]:
    rules: dict[str, _Rule] = {}
    for side in ("left", "right"):
        shoulder, elbow, wrist, hip, knee, ankle, heel, toe = (
            _one(f"{side}_{part}")
            for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle", "heel", "big_toe")
        )
        rules[f"{side}_knee_flexion"] = (_bend, (hip, knee, ankle))
        rules[f"{side}_hip_flexion"] = (_bend, (shoulder, hip, knee))
        rules[f"{side}_ankle_dorsiflexion"] = (_dorsiflexion, (knee, ankle, heel, toe))
        rules[f"{side}_elbow_flexion"] = (_bend, (shoulder, elbow, wrist))
        rules[f"{side}_shoulder_elevation"] = (_opening, (hip, shoulder, elbow))
    rules["trunk_inclination"] = (_inclination, (_HIPS, _SHOULDERS))
    rules["neck_inclination"] = (_inclination, (_SHOULDERS, _HEAD))
    return rules


_RULES: Mapping[str, _Rule] = _rules()
# All angles, whatever the schema; the order of the columns.
ANGLES: tuple[str, ...] = tuple(_RULES)


def joint_angles(
    keypoints_K2: np.ndarray,
    scores_K: np.ndarray,
    schema: KeypointSchema,
    *,
    threshold: float,
    pixel_aspect: float = 1.0,
) -> np.ndarray:
    """Return all `ANGLES` in degrees, as docs/output.md defines them.

    Args:
        keypoints_K2: (..., K, 2) x right and y down, any unit.
        scores_K: (..., K) keypoint scores.
        schema: What the keypoints are called.
        threshold: Keypoints with a lower score are not used.
        pixel_aspect: Width of a unit of x over height of a unit of y.

    Returns:
        (..., A) float64, one for each of `ANGLES`; NaN where a keypoint is missing, below the
        threshold, or not part of the schema.
    """
    points = np.array(keypoints_K2, dtype=np.float64) * [pixel_aspect, 1]
    points[~(np.asarray(scores_K) >= threshold)] = np.nan
    find = partial(_find, points, schema)
    degrees = [rule(*map(find, names)) for rule, names in _RULES.values()]
    return np.stack(degrees, axis=-1)


def _find(points_K2: np.ndarray, schema: KeypointSchema, point: _Point) -> np.ndarray:
    """Return (..., 2): the mean of the first group of keypoints that the schema has, or NaN."""
    for names in point:
        if all(name in schema.index for name in names):
            return points_K2[..., [schema.index[name] for name in names], :].mean(axis=-2)
    return np.full((*points_K2.shape[:-2], 2), np.nan)
