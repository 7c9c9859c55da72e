"""Each labelled person beside the pose that is taken for it: OKS, PCK, and what hands count.

Shape letters: N labelled people, K keypoints, C people that count, Q pairs of a pose and a person.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hrnet_cli import metrics
from hrnet_cli.data.people import Array, Ints, LabelledPeople
from hrnet_cli.errors import ConfigError
from hrnet_cli.predictions import Predictions

# Below this OKS a pose has nothing to do with a person; two neighbours may reach as much.
MATCH_OKS = 0.1
# Pairs compared at a time: with 133 keypoints they take about 100 MB.
_PAIRS_AT_ONCE = 50_000


@dataclass(frozen=True)
class PeopleScores:
    """Each labelled person that counts, and the pose that is taken for it.

    Crowds and people without labelled keypoints do not count.

    Attributes:
        person_C: int64 index of the labelled person.
        pose_C: int64 index into the predictions, -1 for a person without a pose.
        keypoints_CK2: float64 (x, y) of the pose in pixels; not-a-number without one.
        scores_CK: float64 heatmap peaks of the pose; not-a-number without one.
        oks_C: OKS with its pose, 0 without one.
        similarity_CK: OKS of each keypoint alone; not-a-number where there is no label or no pose.
    """

    person_C: Ints
    pose_C: Ints
    keypoints_CK2: Array
    scores_CK: Array
    oks_C: Array
    similarity_CK: Array

    def __len__(self) -> int:
        """Return the number of people that count."""
        return len(self.person_C)

    def worst(self, count: int = 24) -> Ints:
        """Return the positions of the people with the lowest OKS, worst first."""
        return np.argsort(self.oks_C, kind="stable")[:count]

    def mean_keypoint_oks(self) -> Array:
        """Return the mean OKS of each keypoint over the people with a pose, NaN for nobody."""
        there_CK = ~np.isnan(self.similarity_CK)
        counts_K = there_CK.sum(axis=0)
        sums_K = np.where(there_CK, self.similarity_CK, 0).sum(axis=0)
        return np.where(counts_K > 0, sums_K / np.maximum(counts_K, 1), np.nan)


def own_poses(people: LabelledPeople, predictions: Predictions) -> Ints:
    """Return the pose from each labelled person's own box, (N,) indices; -1 for people without."""
    pose_of_N = np.full(len(people), -1, np.int64)
    known = np.flatnonzero(predictions.truth_of_N >= 0)
    pose_of_N[predictions.truth_of_N[known]] = known
    return pose_of_N


def nearest_poses(people: LabelledPeople, predictions: Predictions, kept_M: Ints) -> Ints:
    """Return the pose that fits each labelled person best, (N,) indices; -1 for people without.

    Poses and people of a photo are paired by falling OKS, each once, down to `MATCH_OKS`.

    Args:
        people: The labels.
        predictions: All poses.
        kept_M: Indices of the poses to choose from, those that survived NMS.
    """
    counted = np.flatnonzero(_who_counts(people))
    pose_Q, person_Q = _pairs_in_photos(predictions, kept_M, people, counted)
    oks_Q = np.concatenate(
        [np.zeros(0)]
        + [
            _mean_similarity(
                keypoint_similarity(people, person_Q[span], predictions.keypoints_NK2[pose_Q[span]])
            )
            for start in range(0, len(pose_Q), _PAIRS_AT_ONCE)
            for span in (slice(start, start + _PAIRS_AT_ONCE),)
        ]
    )
    near_Q = np.flatnonzero(oks_Q >= MATCH_OKS)
    near_Q = near_Q[np.argsort(-oks_Q[near_Q], kind="stable")]
    pose_of_N = np.full(len(people), -1, np.int64)
    taken: set[int] = set()
    for pose, person in zip(pose_Q[near_Q].tolist(), person_Q[near_Q].tolist(), strict=True):
        if pose_of_N[person] < 0 and pose not in taken:
            pose_of_N[person] = pose
            taken.add(pose)
    return pose_of_N


def score_people(people: LabelledPeople, predictions: Predictions, pose_of_N: Ints) -> PeopleScores:
    """Return how well each person that counts was met.

    Args:
        people: The labels.
        predictions: The poses; people in photos they do not speak of do not count.
        pose_of_N: Index of the pose of each labelled person, -1 for none.
    """
    looked_at_N = np.isin(people.photo_of_N, predictions.photos_P)
    person_C = np.flatnonzero(_who_counts(people) & looked_at_N)
    pose_C = pose_of_N[person_C]
    keypoints_CK2 = np.full((len(person_C), len(people.schema), 2), np.nan)
    scores_CK = np.full((len(person_C), len(people.schema)), np.nan)
    with_pose = pose_C >= 0
    keypoints_CK2[with_pose] = predictions.keypoints_NK2[pose_C[with_pose]]
    scores_CK[with_pose] = predictions.scores_NK[pose_C[with_pose]]
    similarity_CK = keypoint_similarity(people, person_C, keypoints_CK2)
    return PeopleScores(
        person_C,
        pose_C,
        keypoints_CK2,
        scores_CK,
        np.where(with_pose, np.nan_to_num(_mean_similarity(similarity_CK)), 0),
        similarity_CK,
    )


def keypoint_similarity(
    people: LabelledPeople, person_Q: Ints, keypoints_QK2: npt.ArrayLike
) -> Array:
    """Return the OKS of each keypoint alone, whose mean over a person's labels is the OKS.

    exp(-d^2 / (2 s^2 k^2)) with k = 2 sigma and s^2 the labelled area (COCO keypoint evaluation).

    Args:
        people: The labels.
        person_Q: Index of the labelled person of each pair.
        keypoints_QK2: The keypoints beside it, (x, y) in pixels.

    Returns:
        (Q, K), 0 to 1; not-a-number for keypoints without a label.
    """
    side_Q = np.sqrt(people.areas_N[person_Q] + np.spacing(1))
    distances_QK = metrics.keypoint_distances(
        keypoints_QK2, people.keypoints_NK2[person_Q], np.stack([side_Q, side_Q], axis=1)
    )
    doubled_sigmas_K = 2 * np.array(people.schema.oks_sigmas)
    similarity_QK = np.exp(-((distances_QK / doubled_sigmas_K) ** 2) / 2)
    return np.where(people.visible_NK[person_Q] > 0, similarity_QK, np.nan)


def box_pck(people: LabelledPeople, scored: PeopleScores, threshold: float = 0.2) -> Array:
    """Return for each keypoint the part that lies near its label, NaN for nobody.

    Near is less than ``threshold`` times the longer side of the labelled box (as MMPose's PCK of
    boxes). People without a pose do not count.
    """
    longer_C = people.boxes_N4[scored.person_C, 2:].max(axis=1, initial=0)
    return metrics.pck(
        scored.keypoints_CK2,
        people.keypoints_NK2[scored.person_C],
        ~np.isnan(scored.similarity_CK),
        np.stack([longer_C, longer_C], axis=1),
        threshold,
    )


def span_pck(
    people: LabelledPeople,
    scored: PeopleScores,
    ends: tuple[str, str] = ("left_shoulder", "right_hip"),
    threshold: float = 0.2,
) -> Array:
    """Return for each keypoint the part that lies near its label, NaN for nobody.

    Near is less than ``threshold`` times the person's labelled distance between two keypoints, by
    default the torso (Leeds Sports Pose: left shoulder to right hip). A person without a pose is
    wrong in every labelled keypoint; one that lacks a label of the two does not count.

    Args:
        people: The labels.
        scored: The people that count.
        ends: Names of the two keypoints.
        threshold: Largest distance, as a part of the span, that is not near any more.

    Raises:
        ConfigError: The schema has no keypoint of such a name.
    """
    for name in ends:
        if name not in people.schema.index:
            raise ConfigError(
                f"schema '{people.schema.name}' has no keypoint '{name}', expected one of"
                f" {', '.join(people.schema.keypoints)}",
                hint="name two of its keypoints",
            )
    one, other = (people.schema.index[name] for name in ends)
    true_CK2 = people.keypoints_NK2[scored.person_C]
    labelled_CK = people.visible_NK[scored.person_C] > 0
    span_C = np.linalg.norm(true_CK2[:, one] - true_CK2[:, other], axis=1)
    span_C = np.where(labelled_CK[:, one] & labelled_CK[:, other], span_C, 0)
    return metrics.pck(
        scored.keypoints_CK2, true_CK2, labelled_CK, np.stack([span_C, span_C], axis=1), threshold
    )


def hand_numbers(
    people: LabelledPeople, scored: PeopleScores, threshold: float = 0.2
) -> dict[str, float | None]:
    """Return what hand benchmarks count: PCK of the box, AUC up to 30 pixels, mean error in pixels.

    PCK and EPE count all labels at once; people without a pose do not count in any of them.
    """
    true_CK2 = people.keypoints_NK2[scored.person_C]
    counted_CK = ~np.isnan(scored.similarity_CK)
    if not counted_CK.any():
        return {"PCK": None, "AUC": None, "EPE": None}
    pck_K = box_pck(people, scored, threshold)
    return {
        "PCK": metrics.mean_over_keypoints(pck_K),
        "AUC": metrics.auc(scored.keypoints_CK2, true_CK2, counted_CK),
        "EPE": metrics.epe(scored.keypoints_CK2, true_CK2, counted_CK),
    }


def mpii_pckh(
    people: LabelledPeople,
    scored: PeopleScores,
    head_boxes_N4: npt.ArrayLike,
    threshold: float = 0.5,
) -> Array:
    """Return MPII's PCKh of each keypoint, NaN for nobody; people without a pose are wrong.

    Args:
        people: The labels.
        scored: The people that count.
        head_boxes_N4: Head box (x1, y1, x2, y2) of each labelled person.
        threshold: See `metrics.pckh`.
    """
    return metrics.pckh(
        scored.keypoints_CK2,
        people.keypoints_NK2[scored.person_C],
        people.visible_NK[scored.person_C] > 0,
        np.asarray(head_boxes_N4, np.float64)[scored.person_C],
        threshold,
    )


def _who_counts(people: LabelledPeople) -> npt.NDArray[np.bool_]:
    return (people.visible_NK > 0).any(axis=1) & ~people.crowd_N


def _mean_similarity(similarity_QK: Array) -> Array:
    """Return the OKS: the mean over labelled keypoints, at least one of which each person has."""
    labelled_QK = ~np.isnan(similarity_QK)
    sums_Q = np.where(labelled_QK, similarity_QK, 0).sum(axis=1)
    return sums_Q / np.maximum(labelled_QK.sum(axis=1), 1)


def _pairs_in_photos(
    predictions: Predictions, kept_M: Ints, people: LabelledPeople, counted: Ints
) -> tuple[Ints, Ints]:
    """Return all pairs of a kept pose and a person that counts in one photo, as indices."""
    in_order = counted[np.argsort(people.photo_of_N[counted], kind="stable")]
    photo_in_order = people.photo_of_N[in_order]
    photo_of_M = predictions.photo_of_N[kept_M]
    first_M = np.searchsorted(photo_in_order, photo_of_M, side="left")
    count_M = np.searchsorted(photo_in_order, photo_of_M, side="right") - first_M
    pose_Q = np.repeat(kept_M, count_M)
    within_Q = np.arange(len(pose_Q)) - np.repeat(np.cumsum(count_M) - count_M, count_M)
    return pose_Q, in_order[np.repeat(first_M, count_M) + within_Q]
