"""How well detectors find the people of labelled photos, and a one-stage pose model beside them.

    python benchmarks/person_boxes.py --data COCO_FOLDER --detector starter-detector

Person AP is COCO's for boxes, by pycocotools, over the people that have labels. `--pose FILE`
measures the keypoints of an ultralytics pose model on the same photos. Intervals: the photos are
drawn with replacement, 2.5 % and 97.5 % of the AP of the draws.

COCO_FOLDER holds annotations/person_keypoints_val2017.json and val2017/. Some minutes on one core.
"""

import argparse
import contextlib
import copy
import io
import os
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hrnet_cli.cli.model_files import find_detector
from hrnet_cli.detectors import DetectorSettings, open_detector
from hrnet_cli.detectors.yolo import _import_ultralytics, _nothing_sent, _process_left_as_it_was
from hrnet_cli.images import read_image
from hrnet_cli.structures import Frame

THRESHOLD = 0.001
PERSON = 1


def main() -> None:
    """Measure and print a line for each detector and pose model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("HRNET_TEST_DATA", "data")
    parser.add_argument("--data", type=Path, default=Path(default) / "coco-mini")
    parser.add_argument("--split", default="val2017")
    parser.add_argument("--detector", action="append", default=[])
    parser.add_argument("--pose", type=Path, action="append", default=[])
    parser.add_argument("--resamples", type=int, default=200)
    arguments = parser.parse_args()
    labels = arguments.data / "annotations" / f"person_keypoints_{arguments.split}.json"
    if not labels.is_file():
        print(f"no {labels}: nothing measured (--data)")
        return
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(labels))
    photos = arguments.data / arguments.split
    for name in arguments.detector or ["starter-detector"]:
        report(name, truth, boxes_of(name, truth, photos), "bbox", arguments.resamples)
    for path in arguments.pose:
        report(path.name, truth, poses_of(path, truth, photos), "keypoints", arguments.resamples)


def boxes_of(name: str, truth: COCO, photos: Path) -> list[dict]:
    """Return a detector's boxes as COCO results."""
    found, path, trusted = find_detector(name, offline=True, quiet=True)
    settings = DetectorSettings(person_threshold=THRESHOLD, max_people=100)
    detector = open_detector(found, path, settings, trusted=trusted, on_warning=print)
    results = []
    for image in truth.loadImgs(truth.getImgIds()):
        pixels_HW3, _ = read_image(photos / image["file_name"])
        (boxes,) = detector([Frame(pixels_HW3, image["file_name"], image["file_name"])])
        for (x, y, x2, y2), score in zip(boxes.xyxy_N4.tolist(), boxes.scores_N, strict=True):
            results.append(result(image["id"], score) | {"bbox": [x, y, x2 - x, y2 - y]})
    return results


def poses_of(path: Path, truth: COCO, photos: Path) -> list[dict]:
    """Return the poses of an ultralytics pose model, with its own boxes, as COCO results."""
    with _process_left_as_it_was(), _nothing_sent():
        model = _import_ultralytics()(str(path))
    results = []
    for image in truth.loadImgs(truth.getImgIds()):
        (found,) = model.predict(photos / image["file_name"], conf=THRESHOLD, verbose=False)
        for points_K3, score in zip(
            found.keypoints.data.cpu().numpy(), found.boxes.conf.cpu().numpy(), strict=True
        ):
            flat = points_K3.astype(float).ravel().tolist()
            results.append(result(image["id"], score) | {"keypoints": flat})
    return results


def result(image_id: int, score: float) -> dict:
    """Return what boxes and poses have in common in COCO's results."""
    return {"image_id": image_id, "category_id": PERSON, "score": float(score)}


def report(name: str, truth: COCO, results: list[dict], kind: str, resamples: int) -> None:
    """Print AP with its interval, AP50 and AR."""
    with contextlib.redirect_stdout(io.StringIO()):
        scores = COCOeval(truth, truth.loadRes(results), kind)
        scores.evaluate()
        scores.accumulate()
        scores.summarize()
    rng = np.random.default_rng(0)
    draws = [
        ap_of_photos(scores, rng.integers(0, len(scores.params.imgIds), len(scores.params.imgIds)))
        for _ in range(resamples)
    ]
    low, high = np.percentile(draws, [2.5, 97.5])
    ap, ap50 = scores.stats[:2]
    recall = scores.stats[8] if kind == "bbox" else scores.stats[5]
    print(
        f"{name}: {'person' if kind == 'bbox' else 'keypoint'} AP {ap:.3f}"
        f" (95% interval {low:.3f} to {high:.3f}), AP50 {ap50:.3f}, AR {recall:.3f}"
    )


def ap_of_photos(scores: COCOeval, rows: np.ndarray) -> float:
    """Return AP over photos, each counted as often as it was drawn.

    `evalImgs` holds a photo's matches for each category and area range, photos fastest.
    """
    drawn = copy.copy(scores)
    count = len(scores.params.imgIds)
    drawn.evalImgs = [
        scores.evalImgs[start + row]
        for start in range(0, len(scores.evalImgs), count)
        for row in rows
    ]
    # `accumulate` looks photos up by their position in the list.
    with contextlib.redirect_stdout(io.StringIO()):
        drawn.accumulate()
    precision = drawn.eval["precision"][:, :, :, 0, -1]
    return float(precision[precision > -1].mean())


if __name__ == "__main__":
    main()
