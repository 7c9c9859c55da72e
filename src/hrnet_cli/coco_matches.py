"""Which poses found which people, and the AP of any selection of photos that follows from it.

Shape letters: P photos, M poses, D poses of one photo, G labelled people of one photo, T OKS
thresholds, R recall levels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hrnet_cli.data.coco_results import CATEGORY_ID, CocoResults
from hrnet_cli.data.people import Array, Ints, LabelledPeople

Mask = npt.NDArray[np.bool_]

# pycocotools' `Params`, `setKpParams`.
OKS_THRESHOLDS_T = np.linspace(0.5, 0.95, 10)
RECALLS_R = np.linspace(0, 1, 101)
MAX_POSES = 20  # of a photo, the best
# Photos by crowd index, as in CrowdPose's own evaluation (`get_type_result`): below the first it
# is easy, from the second on hard.
CROWD_LEVELS = (0.2, 0.8)


@dataclass(frozen=True)
class Matches:
    """Which poses found a person, photo by photo: all that an AP is made of.

    Poses are in falling order of their scores, at most 20 of a photo.

    Attributes:
        photo_of_M: Position of the photo of each pose among those evaluated.
        scores_M: Person scores.
        right_TM: The pose has the OKS with a person of its own.
        wrong_TM: It has not. Neither right nor wrong: it fits a person that does not count.
        truths_P: Number of people that count in each photo.
    """

    photo_of_M: Ints
    scores_M: Array
    right_TM: Mask
    wrong_TM: Mask
    truths_P: Ints


def average_precision(matches: Matches, times_P: npt.ArrayLike) -> float | None:
    """Return the AP with each photo counted some number of times.

    The same sums as pycocotools' `accumulate`, as an average over OKS thresholds.

    Args:
        matches: Of all photos.
        times_P: How often each photo counts, 0 or more.

    Returns:
        0 to 1; None when no person is left.
    """
    times = np.asarray(times_P, np.float64)
    truths = float(times @ matches.truths_P)
    if truths == 0:
        return None
    weights_M = times[matches.photo_of_M]
    used_M = weights_M > 0
    weights_M = weights_M[used_M]
    right_TM = np.cumsum(matches.right_TM[:, used_M] * weights_M, axis=1)
    wrong_TM = np.cumsum(matches.wrong_TM[:, used_M] * weights_M, axis=1)
    precision_TM = right_TM / (right_TM + wrong_TM + np.spacing(1))
    # The best precision at this recall or a higher one.
    precision_TM = np.maximum.accumulate(precision_TM[:, ::-1], axis=1)[:, ::-1]
    recall_TM = right_TM / truths
    total = 0.0
    for precision_M, recall_M in zip(precision_TM, recall_TM, strict=True):
        places_R = np.searchsorted(recall_M, RECALLS_R, side="left")
        total += float(precision_M[places_R[places_R < len(precision_M)]].sum())
    return total / (len(precision_TM) * len(RECALLS_R))


def ap_interval(
    matches: Matches, resamples: int = 200, seed: int = 0, level: float = 0.95
) -> tuple[float, float] | None:
    """Return the bootstrap interval of the AP over photos.

    Photos are drawn with replacement, as many as there are, and the AP of each draw is worked out
    anew; the interval lies between the percentiles of these (Efron, 1979). It says how much the AP
    would vary with other photos of the same kind, not with another training run.

    Args:
        matches: Of all photos.
        resamples: Number of draws; 0 for no interval.
        seed: Of the draws.
        level: Share of the draws inside the interval.

    Returns:
        (lower, upper), or None with fewer than two photos or without people.
    """
    photos = len(matches.truths_P)
    if photos < 2:
        return None
    random = np.random.default_rng(seed)
    chances_P = np.full(photos, 1 / photos)
    drawn = (
        average_precision(matches, random.multinomial(photos, chances_P)) for _ in range(resamples)
    )
    values = [value for value in drawn if value is not None]
    if not values:
        return None
    outside = 100 * (1 - level) / 2
    lower, upper = np.percentile(values, [outside, 100 - outside])
    return float(lower), float(upper)


def crowd_levels(matches: Matches, crowd_index_P: npt.ArrayLike) -> dict[str, float | None]:
    """Return the AP on easy, medium and hard photos, as CrowdPose counts them.

    Args:
        matches: Of all photos.
        crowd_index_P: Crowd index of each of these photos, 0 to 1.
    """
    level_P = np.digitize(np.asarray(crowd_index_P, np.float64), CROWD_LEVELS)
    return {
        name: average_precision(matches, level_P == level)
        for level, name in enumerate(("easy", "medium", "hard"))
    }


def find_matches(
    people: LabelledPeople,
    photos_P: Ints,
    results: CocoResults,
    oks: Mapping[tuple[int, int], npt.ArrayLike],
) -> Matches:
    """Return the matches that pycocotools would find, from known OKS.

    faster-coco-eval gives its numbers without its matches; repeating them with pycocotools would
    take as long as doing without faster-coco-eval.

    Args:
        people: The labels.
        photos_P: Indices of the photos to count.
        results: Poses in these photos.
        oks: OKS (D, G) by photo id and category id, as both packages keep it: the best
            `MAX_POSES` poses in falling order of their scores, people in the order of the labels.
    """
    counts_N = (people.visible_NK > 0).any(axis=1) & ~people.crowd_N
    own_people = _indices_by(people.photo_ids_P[people.photo_of_N])
    own_poses = _indices_by(results.photo_ids_M)
    nobody = np.zeros(0, np.int64)
    photo_results: list[dict[str, Any]] = []
    ids_in_order = np.sort(people.photo_ids_P[photos_P])
    for photo_id in ids_in_order.tolist():
        person_G, pose_D = own_people.get(photo_id, nobody), own_poses.get(photo_id, nobody)
        pose_D = pose_D[np.argsort(-results.scores_M[pose_D], kind="stable")][:MAX_POSES]
        oks_DG = np.asarray(oks[photo_id, CATEGORY_ID], np.float64)
        matched_TD, ignored_TD = _match_photo(
            oks_DG.reshape(len(pose_D), len(person_G)), counts_N[person_G], people.crowd_N[person_G]
        )
        photo_results.append(
            {
                "dtMatches": matched_TD,
                "dtIgnore": ignored_TD,
                "dtScores": results.scores_M[pose_D],
                "gtIgnore": ~counts_N[person_G],
            }
        )
    return join_matches(photo_results, np.argsort(people.photo_ids_P[photos_P], kind="stable"))


def join_matches(photo_results: Sequence[dict[str, Any] | None], position_P: Ints) -> Matches:
    """Return the matches of all photos.

    Args:
        photo_results: pycocotools' result of each photo; None without people and poses.
        position_P: Position of each of these photos among those evaluated.
    """
    results = [
        (position, result)
        for position, result in zip(position_P.tolist(), photo_results, strict=True)
        if result is not None
    ]
    truths_P = np.zeros(len(position_P), np.int64)
    for position, result in results:
        truths_P[position] = np.count_nonzero(result["gtIgnore"] == 0)
    nothing = np.zeros((len(OKS_THRESHOLDS_T), 0), bool)
    matched_TM = np.concatenate([nothing, *(r["dtMatches"] > 0 for _, r in results)], axis=1)
    ignored_TM = np.concatenate([nothing, *(r["dtIgnore"] for _, r in results)], axis=1)
    scores_M = np.array([score for _, r in results for score in r["dtScores"]], np.float64)
    photo_of_M = np.repeat(
        np.array([position for position, _ in results], np.int64),
        [len(r["dtScores"]) for _, r in results],
    )
    order_M = np.argsort(-scores_M, kind="stable")
    return Matches(
        photo_of_M[order_M],
        scores_M[order_M],
        (matched_TM & ~ignored_TM)[:, order_M],
        (~matched_TM & ~ignored_TM)[:, order_M],
        truths_P,
    )


def _match_photo(oks_DG: Array, counts_G: Mask, crowd_G: Mask) -> tuple[Mask, Mask]:
    """Return which poses find a person at each OKS threshold, and which find one not to count.

    Each pose in turn takes the free person with the highest OKS, of equal ones the last; one that
    does not count only when no other reaches the threshold. Crowds are never used up (pycocotools,
    `COCOeval.evaluateImg`).
    """
    matched_TD = np.zeros((len(OKS_THRESHOLDS_T), len(oks_DG)), bool)
    ignored_TD = np.zeros_like(matched_TD)
    if oks_DG.size == 0:
        return matched_TD, ignored_TD
    # Lists: a photo has few people, and numpy would be five times as slow on arrays of two.
    counts, crowd, best_D = counts_G.tolist(), crowd_G.tolist(), oks_DG.max(axis=1)
    for t, threshold in enumerate(OKS_THRESHOLDS_T.tolist()):
        free = set(range(len(counts)))
        near_D = np.flatnonzero(best_D >= threshold)
        for pose, row in zip(near_D.tolist(), oks_DG[near_D].tolist(), strict=True):
            fits = [(counts[g], row[g], g) for g in free if row[g] >= threshold]
            if not fits:
                continue
            counted, _, person = max(fits)
            matched_TD[t, pose], ignored_TD[t, pose] = True, not counted
            if not crowd[person]:
                free.remove(person)
    return matched_TD, ignored_TD


def _indices_by(keys: Ints) -> dict[int, Ints]:
    """Return the indices of each value, in their order."""
    order = np.argsort(keys, kind="stable")
    values, starts = np.unique(keys[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order, starts[1:]), strict=False))
