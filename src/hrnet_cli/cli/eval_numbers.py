"""What `hrnet eval` counts beside COCO's numbers: pixels, and what keypoints and labels allow."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hrnet_cli.config import WeightsEntry
    from hrnet_cli.data.people import Array, LabelledPeople
    from hrnet_cli.eval_report import PublishedNumber
    from hrnet_cli.evaluation import EvalColumn, EvalSettings
    from hrnet_cli.schema import KeypointSchema

# Number of some keypoints or labels -> what it counts.
FURTHER = {
    "PCK_torso": "keypoints closer than 0.2 of left shoulder to right hip, mean over keypoints",
    "PCK_box": "keypoints closer than 0.2 of the longer side of the labelled box",
    "AUC": "area under the PCK curve up to 30 pixels",
    "AP_body": "AP of the body's 17 keypoints alone, AP_foot and so on of those of the other parts"
    " (COCO-WholeBody); AP is that of all 133",
    "PCKh50": "keypoints closer than 0.5 of the head (MPII), mean over labels",
    "PCKh10": "the same at 0.1, which the benchmark takes at 0.11",
}
# Of all keypoints.
ERRORS = ("PCK", "NME", "EPE_px", "EPE_median_px", "EPE_p95_px")
MPII_THRESHOLDS = {"PCKh50": 0.5, "PCKh10": 0.11}
HAND = "hand21"
MPII = "mpii16"
CROWDPOSE = "crowdpose14"
# Their benchmarks take the area from the box (xtcocotools, ``use_area=False``).
BOX_AREA_SCHEMAS = (CROWDPOSE, "aic14")
# MPII's mean leaves these out (official HRNet, lib/dataset/mpii.py, `evaluate`).
MPII_LEFT_OUT = ("pelvis", "thorax")
# How the boxes behind the zoo's COCO figures are called, and what those figures count.
OFFICIAL_BOXES = "AP_H_56"
OFFICIAL_METRIC = "AP COCO val2017, detector boxes (human AP 56.4)"
OFFICIAL_SPLIT, OFFICIAL_PHOTOS = "coco val2017", 5000


@dataclass(frozen=True)
class LabelExtras:
    """What an annotation file says beyond the people, for the benchmarks that need it.

    Attributes:
        crowd_index_P: CrowdPose's crowd index of each photo, or None.
        head_boxes_N4: MPII's head box (x1, y1, x2, y2) of each person, or None.
        missing: Why, for each number that cannot be counted without such additions.
    """

    crowd_index_P: "Array | None" = None
    head_boxes_N4: "Array | None" = None
    missing: dict[str, str] = field(default_factory=dict[str, str])


def read_extras(
    dataset: str, split: str, data: Path | None, people: "LabelledPeople"
) -> LabelExtras:
    """Return what the annotation file of a data set says for its own benchmark.

    Raises:
        InputError: It says so for a part only.
    """
    path = _annotation_file(dataset, split, data)
    if path is None:
        return LabelExtras()
    if people.schema.name == CROWDPOSE:
        from hrnet_cli.data.crowd_index import read_crowd_index

        return LabelExtras(crowd_index_P=read_crowd_index(path, people))
    if people.schema.name == MPII:
        return _read_head_boxes(path, people)
    return LabelExtras()


def _read_head_boxes(path: Path, people: "LabelledPeople") -> LabelExtras:
    from hrnet_cli.data import head_boxes, mpii

    if not mpii.is_mpii(path):
        return LabelExtras(head_boxes_N4=head_boxes.read_head_boxes(path, people))
    matlab = path.with_name(f"gt_{path.stem}.mat")
    if matlab.is_file():
        return LabelExtras(head_boxes_N4=mpii.read_head_boxes(matlab, people))
    why = f"the head boxes of '{matlab}' are not there; --norm head takes the head segment"
    return LabelExtras(missing=dict.fromkeys(MPII_THRESHOLDS, why))


def further_numbers(
    people: "LabelledPeople",
    column: "EvalColumn",
    extras: LabelExtras,
    evaluator: str = "pycocotools",
) -> dict[str, float | None]:
    """Return what is counted by the names of `ERRORS`, and of `FURTHER` where keypoints allow it.

    None where there is nobody to count.
    """
    import numpy as np

    from hrnet_cli import person_metrics
    from hrnet_cli.coco_metrics import part_numbers
    from hrnet_cli.schema import WHOLE_BODY, WHOLE_BODY_PARTS

    def mean(values_K: "Array") -> float | None:
        there_K = ~np.isnan(values_K)
        return float(values_K[there_K].mean()) if there_K.any() else None

    errors = column.errors
    found = (errors.nme, errors.mean_px, errors.median_px, errors.p95_px)
    numbers: dict[str, float | None] = {"PCK": mean(column.keypoint_pck_K)}
    numbers |= {
        name: None if np.isnan(value) else value
        for name, value in zip(ERRORS[1:], found, strict=True)
    }
    if all(name in people.schema.index for name in person_metrics.TORSO):
        numbers["PCK_torso"] = mean(person_metrics.span_pck(people, column.people))
    if people.schema.name == HAND:
        hand = person_metrics.hand_numbers(people, column.people)
        numbers |= {"PCK_box": hand["PCK"], "AUC": hand["AUC"]}
    if people.schema.name == WHOLE_BODY:
        photos_P = column.predictions.photos_P
        for part, span in WHOLE_BODY_PARTS.items():
            found_part = part_numbers(people, photos_P, column.results, span, evaluator)
            numbers[f"AP_{part}"] = found_part["AP"]
    if extras.head_boxes_N4 is not None:
        for name, threshold in MPII_THRESHOLDS.items():
            pckh_K = person_metrics.mpii_pckh(
                people, column.people, extras.head_boxes_N4, threshold
            )
            numbers[name] = _mean_over_labels(people, column, pckh_K)
    return numbers | dict.fromkeys(extras.missing)


def number_words(schema: "KeypointSchema", settings: "EvalSettings") -> dict[str, str]:
    """Return what the numbers beside COCO's count, by name."""
    from hrnet_cli.person_metrics import norm_words

    return {
        "PCK": f"keypoints closer than {settings.pck_threshold:g} of"
        f" {norm_words(schema, settings.norm)}, mean over keypoints",
        "NME": f"mean distance as a part of {norm_words(schema, settings.norm)}",
        "EPE_px": "mean distance in pixels of the photo between keypoint and label, of people with"
        " a pose; beside it median and 95th percentile",
        **FURTHER,
    }


def published_number(
    entry: "WeightsEntry | None", dataset: str, boxes: Path | None
) -> "PublishedNumber | None":
    """Return what was published for a model with such boxes on such photos, or None.

    Only COCO val2017 with the boxes file that the published figures count is such a case; the
    file is told by its name.

    Args:
        entry: The model in weights.toml, None for another one.
        dataset: Name of the data set.
        boxes: The boxes file, None for other sources.
    """
    from hrnet_cli.eval_report import PublishedNumber

    if (
        entry is None
        or entry.published_ap is None
        or not entry.metric.startswith(OFFICIAL_METRIC)
        or dataset != OFFICIAL_SPLIT
        or boxes is None
        or OFFICIAL_BOXES not in boxes.name
    ):
        return None
    return PublishedNumber(entry.metric, entry.source, OFFICIAL_PHOTOS)


def _annotation_file(dataset: str, split: str, data: Path | None) -> Path | None:
    """Return the annotation file of a data set whose form can hold such additions."""
    from hrnet_cli.data.opening import LAYOUTS

    if Path(dataset).suffix.lower() == ".json":
        return Path(dataset)
    layout = LAYOUTS.get(dataset)
    if layout is None:
        return None
    root = data or Path(layout.folder)
    return next((path for path in layout.annotation_files(root, split) if path.is_file()), None)


def _mean_over_labels(
    people: "LabelledPeople", column: "EvalColumn", values_K: "Array"
) -> float | None:
    counts_K = (people.visible_NK[column.people.person_C] > 0).sum(axis=0)
    for name in MPII_LEFT_OUT:
        counts_K[people.schema.index[name]] = 0
    total = counts_K.sum()
    if not total:
        return None
    return float((values_K[counts_K > 0] * counts_K[counts_K > 0]).sum() / total)
