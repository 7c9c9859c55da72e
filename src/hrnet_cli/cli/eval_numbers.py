"""What `hrnet eval` counts beside COCO's numbers, where the keypoints and labels allow it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hrnet_cli.config import WeightsEntry
    from hrnet_cli.data.people import Array, LabelledPeople
    from hrnet_cli.eval_report import PublishedNumber
    from hrnet_cli.evaluation import EvalColumn

# Number -> what it counts.
FURTHER = {
    "PCK_torso": "keypoints closer than 0.2 of left shoulder to right hip, mean over keypoints",
    "PCK_box": "keypoints closer than 0.2 of the longer side of the labelled box",
    "AUC": "area under the PCK curve up to 30 pixels",
    "EPE_px": "mean distance in pixels",
    "PCKh50": "keypoints closer than 0.5 of the head (MPII), mean over labels",
    "PCKh10": "the same at 0.1, which the benchmark takes at 0.11",
}
MPII_THRESHOLDS = {"PCKh50": 0.5, "PCKh10": 0.11}
TORSO = ("left_shoulder", "right_hip")
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
    """

    crowd_index_P: "Array | None" = None
    head_boxes_N4: "Array | None" = None


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
        from hrnet_cli.data.head_boxes import read_head_boxes

        return LabelExtras(head_boxes_N4=read_head_boxes(path, people))
    return LabelExtras()


def further_numbers(
    people: "LabelledPeople", column: "EvalColumn", extras: LabelExtras
) -> dict[str, float | None]:
    """Return what the benchmarks of these keypoints count, by the names of `FURTHER`.

    None where there is nobody to count.
    """
    import numpy as np

    from hrnet_cli import person_metrics

    numbers: dict[str, float | None] = {}
    if all(name in people.schema.index for name in TORSO):
        values_K = person_metrics.span_pck(people, column.people, TORSO)
        there_K = ~np.isnan(values_K)
        numbers["PCK_torso"] = float(values_K[there_K].mean()) if there_K.any() else None
    if people.schema.name == HAND:
        hand = person_metrics.hand_numbers(people, column.people)
        numbers |= {"PCK_box": hand["PCK"], "AUC": hand["AUC"], "EPE_px": hand["EPE"]}
    if extras.head_boxes_N4 is not None:
        for name, threshold in MPII_THRESHOLDS.items():
            pckh_K = person_metrics.mpii_pckh(
                people, column.people, extras.head_boxes_N4, threshold
            )
            numbers[name] = _mean_over_labels(people, column, pckh_K)
    return numbers


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
    names = (
        pattern.format(split=layout.splits.get(split, split)) for pattern in layout.annotations
    )
    return next((root / name for name in names if (root / name).is_file()), None)


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
