"""How good poses are: COCO's numbers, each keypoint, each person. `predictions` makes the poses.

Training and `hrnet eval` call the same two functions: `predictions.predict` on each process's share
of the photos, then `score` once on what `predictions.merge` puts together.

Shape letters: P photos, M poses that stay, K keypoints.
"""

from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt

from hrnet_cli import coco_matches, coco_metrics, oks
from hrnet_cli.coco_metrics import CocoNumbers
from hrnet_cli.data.coco_results import CocoResults
from hrnet_cli.data.people import Array, Ints, LabelledPeople
from hrnet_cli.errors import UsageError
from hrnet_cli.person_metrics import (
    ErrorSummary,
    PeopleScores,
    keypoint_pck,
    nearest_poses,
    own_poses,
    score_people,
    summarise_errors,
)
from hrnet_cli.predictions import Predictions, by_photo
from hrnet_cli.schema import KeypointSchema

SCHEMA = "hrnet-eval/1"
NMS = ("hard", "soft", "none")


@dataclass(frozen=True)
class EvalSettings:
    """The test settings; the defaults are those of the official code.

    Attributes:
        keypoint_threshold: Keypoint scores above it count in the score of a person.
        oks_threshold: Of two poses with a higher OKS only the better stays.
        nms: ``hard``, ``soft`` or ``none``.
        label_areas: Take the areas of the labels for OKS; otherwise `oks.AREA_PER_BOX` of the box,
            as CrowdPose and AIC count (xtcocotools, ``use_area=False``).
        evaluator: ``pycocotools``, or ``faster`` for the same numbers sooner.
        resamples: Draws of photos for the interval of AP; 0 for no interval.
        seed: Of these draws.
        pck_threshold: Largest distance of a correct keypoint, as a part of ``norm``.
        norm: What distances are divided by for PCK and NME: ``box``, ``torso``, ``head`` or two
            keypoints, ``A,B`` (see `person_metrics.norm_sizes`).
    """

    keypoint_threshold: float = 0.2
    oks_threshold: float = 0.9
    nms: str = "hard"
    label_areas: bool = True
    evaluator: str = "pycocotools"
    resamples: int = 200
    seed: int = 0
    pck_threshold: float = 0.2
    norm: str = "box"

    def __post_init__(self) -> None:
        """Check the values."""
        if self.nms not in NMS:
            raise UsageError(f"nms is '{self.nms}', expected one of {', '.join(NMS)}")
        for name in ("keypoint_threshold", "oks_threshold"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UsageError(f"{name} is {value}, expected 0 to 1")
        if not 0 < self.pck_threshold < inf:
            raise UsageError(f"pck_threshold is {self.pck_threshold}, expected a number above 0")
        if self.resamples < 0:
            raise UsageError(f"resamples is {self.resamples}, expected 0 or more")


@dataclass(frozen=True)
class EvalColumn:
    """What came of one source of boxes.

    Attributes:
        boxes: Name of the source, such as ``gt``.
        schema: The keypoints.
        stats: COCO's ten numbers, 0 to 1, by the names of `coco_metrics.STATS`, and for CrowdPose
            ``APeasy``, ``APmedium`` and ``APhard``; None where there is nothing to count.
        missing: Why, for each number that is None.
        AP_interval: 95% bootstrap interval of AP over photos.
        published_AP: What the authors of the model report, or None.
        keypoint_oks_K: Mean OKS of each keypoint over the people with a pose, 0 to 1; not-a-number
            for a keypoint that nobody has.
        keypoint_pck_K: Part of those keypoints within ``pck_threshold``.
        errors: How far all keypoints lie from their labels.
        keypoint_errors: The same for each keypoint.
        people: Each labelled person.
        predictions: All poses, before NMS.
        kept_M: int64 indices of the poses that survived NMS, in the order of ``results``.
        results: Those poses as COCO ranks them.
        numbers: COCO's evaluation: precision and recall, and what AP is made of.
    """

    boxes: str
    schema: KeypointSchema
    stats: dict[str, float | None]
    missing: dict[str, str]
    AP_interval: tuple[float, float] | None
    published_AP: float | None
    keypoint_oks_K: Array
    keypoint_pck_K: Array
    errors: ErrorSummary
    keypoint_errors: tuple[ErrorSummary, ...]
    people: PeopleScores
    predictions: Predictions
    kept_M: Ints
    results: CocoResults
    numbers: CocoNumbers

    @property
    def ms_per_person(self) -> float | None:
        """Return the milliseconds of crop, network and decoding for a person, None for nobody."""
        poses = len(self.predictions)
        return 1000 * self.predictions.seconds / poses if poses else None

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values; those that do not exist are None."""
        keypoints = zip(
            self.schema.keypoints,
            self.keypoint_oks_K,
            self.keypoint_pck_K,
            self.keypoint_errors,
            strict=True,
        )
        return {
            "boxes": self.boxes,
            "AP": self.stats["AP"],
            "AP_interval": None if self.AP_interval is None else list(self.AP_interval),
            **{name: value for name, value in self.stats.items() if name != "AP"},
            "published_AP": self.published_AP,
            "missing": self.missing,
            "photos": len(self.predictions.photos_P),
            "unreadable": list(self.predictions.unreadable),
            "people": len(self.people.person_C),
            "people_without_pose": int((self.people.pose_C < 0).sum()),
            "poses": len(self.predictions),
            "poses_after_nms": len(self.kept_M),
            "ms_per_person": self.ms_per_person,
            "keypoints": [
                {
                    "name": name,
                    "oks": _number(similarity),
                    "pck": _number(correct),
                    "labels": errors.count,
                    "mean_px": _number(errors.mean_px),
                    "median_px": _number(errors.median_px),
                    "p95_px": _number(errors.p95_px),
                    "nme": _number(errors.nme),
                }
                for name, similarity, correct, errors in keypoints
            ],
        }


@dataclass(frozen=True)
class EvalReport:
    """The columns of one evaluation side by side.

    Attributes:
        model: Name of the model.
        dataset: Name of the data set.
        columns: One for each source of boxes.
        settings: What was asked for.
        flip_test: Whether mirrored crops counted too.
    """

    model: str
    dataset: str
    columns: tuple[EvalColumn, ...]
    settings: EvalSettings = field(default_factory=EvalSettings)
    flip_test: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the report as ``hrnet eval --json`` prints it; fractions from 0 to 1."""
        settings = {name: getattr(self.settings, name) for name in self.settings.__annotations__}
        return {
            "schema": SCHEMA,
            "model": self.model,
            "dataset": self.dataset,
            "settings": {"flip_test": self.flip_test, **settings},
            "columns": [column.to_json() for column in self.columns],
        }


def score(
    people: LabelledPeople,
    predictions: Predictions,
    settings: EvalSettings | None = None,
    *,
    boxes: str = "gt",
    published_ap: float | None = None,
    crowd_index_P: npt.ArrayLike | None = None,
) -> EvalColumn:
    """Return how good predictions are: rescoring, OKS-NMS, COCO's numbers and those of each person.

    Only the photos of ``predictions.photos_P`` count; a person there without a pose is missed.

    Args:
        people: The data set.
        predictions: Poses of all photos to count, each once (see `predictions.merge`).
        settings: None for the official ones.
        boxes: What the source of the boxes is called.
        published_ap: What the authors of the model report for such boxes.
        crowd_index_P: Crowd index of each photo of the data set (CrowdPose), 0 to 1; adds the AP on
            easy, medium and hard photos.

    Raises:
        UsageError: The evaluator's package is not installed, or the keypoints have no such norm.
    """
    settings = settings or EvalSettings()
    if not settings.label_areas:
        people = replace(people, areas_N=oks.AREA_PER_BOX * people.boxes_N4[:, 2:].prod(axis=1))
    kept_M, person_scores_M = select(predictions, people.schema.oks_sigmas, settings)
    results = to_results(people, predictions.pick(kept_M), person_scores_M)
    numbers = coco_metrics.coco_numbers(
        people,
        predictions.photos_P,
        results,
        settings.evaluator,
        keep_matches=settings.resamples > 0 or crowd_index_P is not None,
    )
    stats, missing, interval = dict(numbers.stats), dict(numbers.missing), None
    if numbers.matches is not None:
        interval = coco_matches.ap_interval(numbers.matches, settings.resamples, settings.seed)
    if numbers.matches is not None and crowd_index_P is not None:
        index_P = np.asarray(crowd_index_P, np.float64)[predictions.photos_P]
        for level, value in coco_matches.crowd_levels(numbers.matches, index_P).items():
            stats[f"AP{level}"] = value
            if value is None:
                missing[f"AP{level}"] = f"no labelled person in {level} photos"
    if (predictions.truth_of_N >= 0).any():
        pose_of_N = own_poses(people, predictions)
    else:
        pose_of_N = nearest_poses(people, predictions, kept_M)
    scored = score_people(people, predictions, pose_of_N)
    errors, keypoint_errors = summarise_errors(people, scored, settings.norm)
    return EvalColumn(
        boxes=boxes,
        schema=people.schema,
        stats=stats,
        missing=missing,
        AP_interval=interval,
        published_AP=published_ap,
        keypoint_oks_K=scored.mean_keypoint_oks(),
        keypoint_pck_K=keypoint_pck(people, scored, settings.norm, settings.pck_threshold),
        errors=errors,
        keypoint_errors=keypoint_errors,
        people=scored,
        predictions=predictions,
        kept_M=kept_M,
        results=results,
        numbers=numbers,
    )


def select(
    predictions: Predictions, oks_sigmas: npt.ArrayLike, settings: EvalSettings
) -> tuple[Ints, Array]:
    """Return the poses that survive OKS-NMS and their person scores.

    Args:
        predictions: Poses, photo by photo.
        oks_sigmas: Per-keypoint constants of the data set's schema.
        settings: Thresholds and kind of NMS.

    Returns:
        Indices (M,) into the predictions, photo by photo and best first, as the official code
        writes them, and the scores of these poses.
    """
    scores_N = oks.rescore(
        predictions.box_scores_N, predictions.scores_NK, settings.keypoint_threshold
    )
    suppress = {"hard": oks.oks_nms, "soft": oks.soft_oks_nms}.get(settings.nms)
    kept = [np.zeros(0, np.int64)]
    for _, own in by_photo(predictions.photo_of_N):
        if suppress is None or len(own) == 1:
            kept.append(own)
            continue
        places = suppress(
            predictions.keypoints_NK2[own],
            scores_N[own],
            predictions.areas_N[own],
            oks_sigmas,
            settings.oks_threshold,
        )
        kept.append(own[places])
    kept_M = np.concatenate(kept)
    return kept_M, scores_N[kept_M]


def to_results(people: LabelledPeople, kept: Predictions, scores_M: Array) -> CocoResults:
    """Return the poses that stay as COCO ranks them."""
    return CocoResults(
        people.photo_ids_P[kept.photo_of_N],
        kept.keypoints_NK2,
        kept.scores_NK,
        scores_M,
        people.category_id,
    )


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
