"""COCO keypoint AP and AR through pycocotools or faster-coco-eval.

Shape letters: P photos, N labelled people, M poses, K keypoints, T OKS thresholds, R recall levels.
"""

import contextlib
import io
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hrnet_cli.coco_matches import OKS_THRESHOLDS_T, RECALLS_R, Matches, find_matches, join_matches
from hrnet_cli.data.coco_results import CATEGORY_ID, CocoResults
from hrnet_cli.data.people import Ints, LabelledPeople
from hrnet_cli.errors import UsageError
from hrnet_cli.schema import KeypointSchema

Array = npt.NDArray[np.float64]

__all__ = ("EVALUATORS", "OKS_THRESHOLDS_T", "RECALLS_R", "STATS", "CocoNumbers", "coco_numbers")
# In the order of pycocotools' `stats` for keypoints.
STATS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
EVALUATORS = ("pycocotools", "faster")
_SIZES = {
    "M": "no labelled person has a medium area, 32² to 96² pixels",
    "L": "no labelled person has a large area, above 96² pixels",
}


@dataclass(frozen=True)
class CocoNumbers:
    """What COCO's evaluation says of some poses.

    Attributes:
        stats: The ten numbers by the names of `STATS`, 0 to 1; None where there is nothing to
            count (pycocotools prints -1).
        missing: Why, for each number that is None.
        precision_TR: Precision at each of `OKS_THRESHOLDS_T` and `RECALLS_R`; -1 without people.
        matches: What AP is made of, where it was asked for.
    """

    stats: dict[str, float | None]
    missing: dict[str, str]
    precision_TR: Array
    matches: Matches | None


def coco_numbers(
    people: LabelledPeople,
    photos_P: Ints,
    results: CocoResults,
    evaluator: str = "pycocotools",
    *,
    keep_matches: bool = True,
) -> CocoNumbers:
    """Return AP and AR of poses on some photos, as pycocotools counts them.

    Crowds and people without labelled keypoints are neither found nor missed, at most 20 poses of a
    photo count, and OKS takes the labelled areas and the sigmas of the data set's schema.

    Args:
        people: The labels.
        photos_P: Indices of the photos to count; their people without a pose are missed.
        results: Poses in these photos.
        evaluator: ``pycocotools``, or ``faster`` for faster-coco-eval: the same numbers sooner.
        keep_matches: Also fill in `CocoNumbers.matches`, for its interval.

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
    matches = None
    if keep_matches and evaluator == "pycocotools":
        photo_count = len(evaluation.params.imgIds)
        # The first of its three ranges of areas holds all people.
        in_order = cast("Any", evaluation).evalImgs[:photo_count]
        matches = join_matches(in_order, np.argsort(people.photo_ids_P[photos_P], kind="stable"))
    elif keep_matches:
        matches = find_matches(people, photos_P, results, evaluation.ious)
    stats = {
        name: None if value < 0 else float(value)
        for name, value in zip(STATS, evaluation.stats, strict=True)
    }
    precision_TR = np.asarray(evaluation.eval["precision"])[:, :, 0, 0, 0]
    return CocoNumbers(
        stats,
        {name: _why_missing(name, stats) for name, value in stats.items() if value is None},
        precision_TR,
        matches,
    )


def part_numbers(
    people: LabelledPeople,
    photos_P: Ints,
    results: CocoResults,
    span: tuple[int, int],
    evaluator: str = "pycocotools",
) -> dict[str, float | None]:
    """Return AP and AR of a part of the keypoints, as the benchmark of COCO-WholeBody counts them.

    People without a label in the part are neither found nor missed; areas and the scores that rank
    the poses are those of the whole person (Jin et al., ECCV 2020; xtcocotools, COCOeval with
    ``iouType`` such as ``keypoints_foot`` on results without part scores).

    Args:
        people: The labels.
        photos_P: As for `coco_numbers`.
        results: As for `coco_numbers`.
        span: First keypoint of the part and its end.
        evaluator: As for `coco_numbers`.
    """
    part = slice(*span)
    schema = people.schema
    labels = replace(
        people,
        schema=KeypointSchema(
            schema.name, schema.keypoints[part], oks_sigmas=schema.oks_sigmas[part]
        ),
        keypoints_NK2=people.keypoints_NK2[:, part],
        visible_NK=people.visible_NK[:, part],
        weights_NK=people.weights_NK[:, part],
    )
    poses = replace(
        results,
        keypoints_MK2=results.keypoints_MK2[:, part],
        keypoint_scores_MK=results.keypoint_scores_MK[:, part],
    )
    return coco_numbers(labels, photos_P, poses, evaluator, keep_matches=False).stats


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
        flat_NL.reshape(len(counted), 3 * len(people.schema)),
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
    sides_M2 = np.ptp(points_MK2, axis=1)
    keys = ("id", "image_id", "keypoints", "area", "score")
    columns = (
        range(1, len(results) + 1),
        results.photo_ids_M.tolist(),
        flat_ML.reshape(len(results), 3 * flat_ML.shape[1]),
        sides_M2.prod(axis=1).tolist(),
        results.scores_M.tolist(),
    )
    return {
        "annotations": [
            dict(zip(keys, values, strict=True), category_id=CATEGORY_ID)
            for values in zip(*columns, strict=True)
        ]
    }


def _why_missing(name: str, stats: dict[str, float | None]) -> str:
    if stats["AP"] is None:
        return "no labelled person with keypoints in these photos"
    return _SIZES[name[-1]]
