"""COCO keypoint AP and AR through pycocotools or faster-coco-eval, and how sure an AP is.

Shape letters: P photos, N labelled people, M poses, K keypoints, T OKS thresholds, R recall levels.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hrnet_cli.data.coco_results import CATEGORY_ID, CocoResults
from hrnet_cli.data.people import Ints, LabelledPeople
from hrnet_cli.errors import UsageError

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# In the order of pycocotools' `stats` for keypoints.
STATS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
EVALUATORS = ("pycocotools", "faster")
THRESHOLDS = 10  # of OKS: 0.5, 0.55, ..., 0.95
# Photos by crowd index, as in CrowdPose's own evaluation (`get_type_result`): below the first it
# is easy, from the second on hard.
CROWD_LEVELS = (0.2, 0.8)
# Square pixels of a person in a tightly labelled box, where a data set has no areas: COCO's people
# fill about this part of theirs (xtcocotools, `use_area=False`; CrowdPose, AIC).
AREA_OF_BOX = 0.53
_SIZES = {
    "M": "no labelled person has a medium area, 32² to 96² pixels",
    "L": "no labelled person has a large area, above 96² pixels",
}


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


@dataclass(frozen=True)
class CocoNumbers:
    """What COCO's evaluation says of some poses.

    Attributes:
        stats: The ten numbers by the names of `STATS`, 0 to 1; None where there is nothing to
            count (pycocotools prints -1).
        missing: Why, for each number that is None.
        precision_TR: Precision at each OKS threshold and recall level; empty without people.
        oks_thresholds_T: 0.5 to 0.95.
        recalls_R: 0 to 1.
        matches: What AP is made of.
    """

    stats: dict[str, float | None]
    missing: dict[str, str]
    precision_TR: Array
    oks_thresholds_T: Array
    recalls_R: Array
    matches: Matches


def coco_numbers(
    people: LabelledPeople,
    photos_P: Ints,
    results: CocoResults,
    evaluator: str = "pycocotools",
) -> CocoNumbers:
    """Return AP and AR of poses on some photos, as pycocotools counts them.

    Crowds and people without labelled keypoints are neither found nor missed, at most 20 poses of a
    photo count, and OKS takes the labelled areas and the sigmas of the data set's schema.

    Args:
        people: The labels.
        photos_P: Indices of the photos to count; their people without a pose are missed.
        results: Poses in these photos.
        evaluator: ``pycocotools``, or ``faster`` for faster-coco-eval: the same numbers sooner.

    Raises:
        UsageError: There is no such evaluator, or its package is not installed.
    """
    if evaluator not in EVALUATORS:
        raise UsageError(f"evaluator is '{evaluator}', expected one of {', '.join(EVALUATORS)}")
    coco_class, evaluation_class = _faster() if evaluator == "faster" else (COCO, COCOeval)
    truth, found = _truth(people, photos_P), _found(results)
    found["images"], found["categories"] = truth["images"], truth["categories"]
    # Both packages print.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = evaluation_class(
            _indexed(coco_class, truth), _indexed(coco_class, found), "keypoints"
        )
        evaluation.params.catIds = [CATEGORY_ID]
        evaluation.params.kpt_oks_sigmas = np.array(people.schema.oks_sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        photo_results = _photo_results(evaluation, truth, found)
    stats = {
        name: None if value < 0 else float(value)
        for name, value in zip(STATS, evaluation.stats, strict=True)
    }
    precision_TR = np.asarray(evaluation.eval["precision"])[:, :, 0, 0, 0]
    return CocoNumbers(
        stats,
        {name: _why_missing(name, stats) for name, value in stats.items() if value is None},
        precision_TR,
        np.asarray(evaluation.params.iouThrs),
        np.asarray(evaluation.params.recThrs),
        # Both packages go through the photos in the order of their ids.
        _matches(photo_results, np.argsort(people.photo_ids_P[photos_P], kind="stable")),
    )


def average_precision(matches: Matches, recalls_R: Array, times_P: npt.ArrayLike) -> float | None:
    """Return the AP with each photo counted some number of times.

    The same sums as pycocotools' `accumulate`, as an average over OKS thresholds.

    Args:
        matches: Of all photos.
        recalls_R: Levels at which precision is read.
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
        places_R = np.searchsorted(recall_M, recalls_R, side="left")
        total += float(precision_M[places_R[places_R < len(precision_M)]].sum())
    return total / (len(precision_TM) * len(recalls_R))


def ap_interval(
    numbers: CocoNumbers, resamples: int = 200, seed: int = 0, level: float = 0.95
) -> tuple[float, float] | None:
    """Return the bootstrap interval of the AP over photos.

    Photos are drawn with replacement, as many as there are, and the AP of each draw is worked out
    anew; the interval lies between the percentiles of these (Efron, 1979). It says how much the AP
    would vary with other photos of the same kind, not with another training run.

    Args:
        numbers: What COCO's evaluation said.
        resamples: Number of draws; 0 for no interval.
        seed: Of the draws.
        level: Share of the draws inside the interval.

    Returns:
        (lower, upper), or None with fewer than two photos or without people.
    """
    photos = len(numbers.matches.truths_P)
    if photos < 2 or resamples < 1 or numbers.stats["AP"] is None:
        return None
    random = np.random.default_rng(seed)
    chances_P = np.full(photos, 1 / photos)
    drawn = (
        average_precision(numbers.matches, numbers.recalls_R, random.multinomial(photos, chances_P))
        for _ in range(resamples)
    )
    values = [value for value in drawn if value is not None]
    if not values:
        return None
    outside = 100 * (1 - level) / 2
    lower, upper = np.percentile(values, [outside, 100 - outside])
    return float(lower), float(upper)


def crowd_levels(numbers: CocoNumbers, crowd_index_P: npt.ArrayLike) -> dict[str, float | None]:
    """Return the AP on easy, medium and hard photos, as CrowdPose counts them.

    Args:
        numbers: What COCO's evaluation said of these photos.
        crowd_index_P: Crowd index of each of them, 0 to 1.
    """
    level_P = np.digitize(np.asarray(crowd_index_P, np.float64), CROWD_LEVELS)
    return {
        name: average_precision(numbers.matches, numbers.recalls_R, level_P == level)
        for level, name in enumerate(("easy", "medium", "hard"))
    }


def _faster() -> tuple[Any, Any]:
    """Return the two classes of faster-coco-eval."""
    try:
        import faster_coco_eval
    except ImportError as error:
        raise UsageError(
            f"evaluator 'faster' needs the package faster-coco-eval, which is not here: {error}",
            hint="pip install 'hrnet-cli[faster]', or leave --evaluator out: the numbers are equal",
        ) from error
    return faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster


def _indexed(coco_class: Any, document: dict[str, Any]) -> Any:  # noqa: ANN401 - either package
    coco = coco_class()
    coco.dataset = document
    coco.createIndex()
    return coco


def _truth(people: LabelledPeople, photos_P: Ints) -> dict[str, Any]:
    """Return the labels of some photos as a COCO annotation document, in their order."""
    counted = people.pick(np.isin(people.photo_of_N, photos_P))
    flat_NL = np.concatenate([counted.keypoints_NK2, counted.visible_NK[..., None]], axis=2)
    keys = ("id", "image_id", "keypoints", "bbox", "area", "num_keypoints", "iscrowd")
    columns = (
        # pycocotools takes a match with person 0 for none: see `COCOeval.evaluateImg`.
        range(1, len(counted) + 1),
        people.photo_ids_P[counted.photo_of_N].tolist(),
        flat_NL.reshape(len(counted), -1),
        counted.boxes_N4.tolist(),
        counted.areas_N.tolist(),
        (counted.visible_NK > 0).sum(axis=1).tolist(),
        counted.crowd_N.astype(int).tolist(),
    )
    return {
        "images": [{"id": photo_id} for photo_id in people.photo_ids_P[photos_P].tolist()],
        "categories": [{"id": CATEGORY_ID, "name": "person"}],
        "annotations": [
            dict(zip(keys, values, strict=True), category_id=CATEGORY_ID)
            for values in zip(*columns, strict=True)
        ],
    }


def _found(results: CocoResults) -> dict[str, Any]:
    """Return poses as `COCO.loadRes` would, with the areas their keypoints cover."""
    points_MK2 = results.keypoints_MK2.astype(np.float64)
    flat_ML = np.concatenate([points_MK2, results.keypoint_scores_MK[..., None]], axis=2)
    sides_M2 = points_MK2.max(axis=1) - points_MK2.min(axis=1)
    keys = ("id", "image_id", "keypoints", "area", "score")
    columns = (
        range(1, len(results) + 1),
        results.photo_ids_M.tolist(),
        flat_ML.reshape(len(results), -1),
        sides_M2.prod(axis=1).tolist(),
        results.scores_M.tolist(),
    )
    return {
        "annotations": [
            dict(zip(keys, values, strict=True), category_id=CATEGORY_ID)
            for values in zip(*columns, strict=True)
        ]
    }


def _photo_results(
    evaluation: Any,  # noqa: ANN401 - of either package
    truth: dict[str, Any],
    found: dict[str, Any],
) -> Sequence[dict[str, Any] | None]:
    """Return pycocotools' results of each photo, people of all sizes."""
    photo_ids = evaluation.params.imgIds
    if isinstance(evaluation, COCOeval):
        return cast("Any", evaluation).evalImgs[: len(photo_ids)]
    # faster-coco-eval keeps its own; with its OKS pycocotools repeats only the matching.
    again: Any = COCOeval(_indexed(COCO, truth), _indexed(COCO, found), "keypoints")
    again.ious = evaluation.ious
    again._prepare()  # what its `evaluate` does first
    limit = again.params.maxDets[-1]
    return [
        again.evaluateImg(photo_id, CATEGORY_ID, again.params.areaRng[0], limit)
        for photo_id in photo_ids
    ]


def _matches(photo_results: Sequence[dict[str, Any] | None], position_P: Ints) -> Matches:
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
    nothing = np.zeros((THRESHOLDS, 0), bool)
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


def _why_missing(name: str, stats: dict[str, float | None]) -> str:
    if stats["AP"] is None:
        return "no labelled person with keypoints in these photos"
    return _SIZES[name[-1]]
