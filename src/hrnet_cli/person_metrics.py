"""Each labelled person beside the pose that is taken for it: OKS, PCK, pixels, what hands count.

Shape letters: N labelled people, K keypoints, C people that count, Q pairs of a pose and a person.
"""

from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt

from hrnet_cli import metrics
from hrnet_cli.data.people import Array, Ints, LabelledPeople
from hrnet_cli.errors import UsageError
from hrnet_cli.predictions import Predictions
from hrnet_cli.schema import KeypointSchema

# Below this OKS a pose has nothing to do with a person; two neighbours may reach as much.
MATCH_OKS = 0.1
# Leeds Sports Pose.
TORSO = ("left_shoulder", "right_hip")
# The ends of the head segment as schemas call them: MPII, AIC, CrowdPose, Halpe.
HEADS = (("head_top", "upper_neck"), ("head_top", "neck"), ("top_head", "neck"), ("head", "neck"))
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


@dataclass(frozen=True)
class ErrorSummary:
    """How far keypoints lie from their labels; not-a-number where there is nothing to count.

    Attributes:
        count: Labelled keypoints of people that have a pose; the others do not count.
        mean_px: Mean distance in pixels of the photo (end-point error, EPE).
        median_px: Median of the distances.
        p95_px: Their 95th percentile.
        nme: Mean distance after dividing by each person's norm, of the people who have one
            (normalised mean error).
    """

    count: int
    mean_px: float
    median_px: float
    p95_px: float
    nme: float


def norm_ends(schema: KeypointSchema, norm: str) -> tuple[str, str] | None:
    """Return the two keypoints whose distance a norm is; None for the box.

    Args:
        schema: The keypoints.
        norm: ``box``; ``torso``, see `TORSO`; ``head``, the head segment, see `HEADS`; or two
            names, ``A,B``.

    Raises:
        UsageError: The schema has no such keypoints.
    """
    if norm == "box":
        return None
    if norm == "head":
        for pair in HEADS:
            if set(pair) <= schema.index.keys():
                return pair
        raise UsageError(
            f"schema '{schema.name}' has no head segment, expected keypoints"
            f" {' or '.join(f'{a} and {b}' for a, b in HEADS)}",
            hint=f"name two of its keypoints: {', '.join(schema.keypoints)}",
        )
    one, _, other = norm.partition(",")
    ends = TORSO if norm == "torso" else (one.strip(), other.strip())
    _check_ends(schema, ends)
    return ends


def norm_words(schema: KeypointSchema, norm: str) -> str:
    """Return what a norm is, in words."""
    ends = norm_ends(schema, norm)
    return "the longer side of the labelled box" if ends is None else "{} to {}".format(*ends)


def norm_sizes(people: LabelledPeople, norm: str = "box") -> Array:
    """Return what each labelled person's distances are divided by, (N,) in pixels.

    The longer side of the labelled box (PCK of Yang and Ramanan, PAMI 2013, and of MMPose), or the
    labelled distance between two keypoints: the torso; the head segment (PCKh of Andriluka et al.,
    CVPR 2014, whose benchmark takes `mpii_pckh`); the outer corners of the eyes (NME of faces,
    Sagonas et al., ICCVW 2013). 0 for people without a label of both.

    Args:
        people: The labels.
        norm: As for `norm_ends`.

    Raises:
        UsageError: As `norm_ends`.
    """
    ends = norm_ends(people.schema, norm)
    if ends is None:
        return people.boxes_N4[:, 2:].max(axis=1, initial=0)
    one, other = (people.schema.index[name] for name in ends)
    span_N = np.linalg.norm(people.keypoints_NK2[:, one] - people.keypoints_NK2[:, other], axis=1)
    return np.where((people.visible_NK[:, [one, other]] > 0).all(axis=1), span_N, 0)


def summarise_errors(
    people: LabelledPeople, scored: PeopleScores, norm: str = "box"
) -> tuple[ErrorSummary, tuple[ErrorSummary, ...]]:
    """Return how far poses lie from their labels: over all keypoints at once, and for each.

    Args:
        people: The labels.
        scored: The people that count and the pose taken for each; those without one do not count.
        norm: What NME divides by, see `norm_sizes`.

    Raises:
        UsageError: As `norm_ends`.
    """
    true_CK2 = people.keypoints_NK2[scored.person_C]
    sizes_C = norm_sizes(people, norm)[scored.person_C]
    usable_C1 = sizes_C[:, None] > 0
    norm_C1 = np.where(usable_C1, sizes_C[:, None], 1)
    distances_CK = metrics.keypoint_distances(scored.keypoints_CK2, true_CK2, np.ones((1, 2)))
    counted_CK = ~np.isnan(scored.similarity_CK)

    def summary(part: slice) -> ErrorSummary:
        counted = counted_CK[:, part]
        chosen = (scored.keypoints_CK2[:, part], true_CK2[:, part])
        distances = distances_CK[:, part][counted]
        return ErrorSummary(
            count=distances.size,
            mean_px=metrics.epe(*chosen, counted),
            median_px=float(np.median(distances)) if distances.size else float("nan"),
            p95_px=float(np.percentile(distances, 95)) if distances.size else float("nan"),
            nme=metrics.nme(*chosen, counted & usable_C1, norm_C1),
        )

    each = tuple(summary(slice(k, k + 1)) for k in range(len(people.schema)))
    return summary(slice(None)), each


def keypoint_pck(
    people: LabelledPeople, scored: PeopleScores, norm: str = "box", threshold: float = 0.2
) -> Array:
    """Return for each keypoint the part that lies near its label, NaN for nobody.

    Near is less than ``threshold`` times the person's norm, see `norm_sizes`. People without a pose
    or a norm do not count.

    Raises:
        UsageError: As `norm_ends`.
    """
    sizes_C = norm_sizes(people, norm)[scored.person_C]
    return metrics.pck(
        scored.keypoints_CK2,
        people.keypoints_NK2[scored.person_C],
        ~np.isnan(scored.similarity_CK),
        np.stack([sizes_C, sizes_C], axis=1),
        threshold,
    )


def span_pck(
    people: LabelledPeople,
    scored: PeopleScores,
    ends: tuple[str, str] = TORSO,
    threshold: float = 0.2,
) -> Array:
    """Return for each keypoint the part that lies near its label, NaN for nobody.

    Near is less than ``threshold`` times the person's labelled distance between two keypoints, by
    default the torso. A person without a pose is wrong in every labelled keypoint; one that lacks a
    label of the two does not count.

    Args:
        people: The labels.
        scored: The people that count.
        ends: Names of the two keypoints.
        threshold: Largest distance, as a part of the span, that is not near any more.

    Raises:
        UsageError: The schema has no keypoint of such a name.
    """
    span_C = norm_sizes(people, ",".join(ends))[scored.person_C]
    return metrics.pck(
        scored.keypoints_CK2,
        people.keypoints_NK2[scored.person_C],
        people.visible_NK[scored.person_C] > 0,
        np.stack([span_C, span_C], axis=1),
        threshold,
    )


def hand_numbers(
    people: LabelledPeople, scored: PeopleScores, threshold: float = 0.2
) -> dict[str, float | None]:
    """Return what hand benchmarks count beside EPE: PCK of the box, and AUC up to 30 pixels.

    People without a pose do not count in any of them.
    """
    true_CK2 = people.keypoints_NK2[scored.person_C]
    counted_CK = ~np.isnan(scored.similarity_CK)
    if not counted_CK.any():
        return {"PCK": None, "AUC": None}
    return {
        "PCK": metrics.mean_over_keypoints(keypoint_pck(people, scored, threshold=threshold)),
        "AUC": metrics.auc(scored.keypoints_CK2, true_CK2, counted_CK),
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


def _check_ends(schema: KeypointSchema, ends: tuple[str, str]) -> None:
    for name in ends:
        if name not in schema.index:
            close = get_close_matches(name, schema.keypoints, n=1)
            guess = f"did you mean '{close[0]}'? " if close else ""
            raise UsageError(
                f"schema '{schema.name}' has no keypoint '{name}', expected one of"
                f" {', '.join(schema.keypoints)}",
                hint=f"{guess}name two of its keypoints",
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
