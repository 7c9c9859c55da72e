"""Evaluating 100,000 detected poses on 5,000 photos, against the way of the official code.

The official way is what the official HRNet code does after the network (lib/dataset/coco.py,
`evaluate`; lib/nms/nms.py): a dictionary for each pose, loops over keypoints for the scores and
over pairs of poses for the OKS-NMS, an indented JSON file that is read back to check it,
`COCO.loadRes` from that file, and `COCOeval`. Ours works on arrays, writes the file once and
hands pycocotools (or faster-coco-eval) what it holds in memory.

Both start with poses in memory and the labels loaded, and end with the results file written and
the ten numbers, which must be the same to 1e-6.

Run: python benchmarks/evaluation.py [photos] [rounds]
"""

import contextlib
import io
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hrnet_cli import coco_metrics
from hrnet_cli.data.coco_results import CocoResults, write_results
from hrnet_cli.data.people import LabelledPeople
from hrnet_cli.evaluation import EvalSettings, select, to_results
from hrnet_cli.predictions import Predictions
from hrnet_cli.schema import load_schema

SCHEMA = load_schema("coco17")
PHOTOS, ROUNDS = 5000, 3
PEOPLE_PER_PHOTO, POSES_PER_PHOTO = 2.2, 20
KEYPOINT_THRESHOLD, OKS_THRESHOLD = 0.2, 0.9
GOALS = {"pycocotools": 3, "faster": 6}


def random_people(rng, photos):
    """Return labels of ``photos`` photos, as an annotation document and as arrays."""
    photo_of = np.repeat(np.arange(photos), rng.poisson(PEOPLE_PER_PHOTO, photos))
    count, keypoints = len(photo_of), len(SCHEMA)
    corners = rng.uniform(0, 300, (count, 2))
    sides = rng.uniform(20, 300, (count, 1)) * np.array([0.6, 1])
    points = np.round(corners[:, None] + rng.uniform(0, 1, (count, keypoints, 2)) * sides[:, None])
    visible = rng.choice([0, 1, 2], (count, keypoints), p=[0.3, 0.1, 0.6]).astype(np.uint8)
    points *= visible[..., None] > 0
    people = LabelledPeople(
        name="synthetic",
        folder=Path(),
        schema=SCHEMA,
        photos=tuple(f"{photo + 1:012d}.jpg" for photo in range(photos)),
        photo_ids_P=np.arange(photos) + 1,
        sizes_P2=np.full((photos, 2), 640),
        photo_of_N=photo_of,
        ids_N=np.arange(count) + 1,
        boxes_N4=np.concatenate([corners, sides], axis=1),
        areas_N=sides.prod(axis=1) * 0.6,
        keypoints_NK2=points,
        visible_NK=visible,
        weights_NK=(visible > 0).astype(np.float32),
        crowd_N=rng.uniform(size=count) < 0.01,
    )
    annotations = [
        {
            "id": int(people.ids_N[n]),
            "image_id": int(people.photo_ids_P[photo_of[n]]),
            "category_id": 1,
            "bbox": people.boxes_N4[n].tolist(),
            "area": float(people.areas_N[n]),
            "iscrowd": int(people.crowd_N[n]),
            "num_keypoints": int((visible[n] > 0).sum()),
            "keypoints": np.concatenate([points[n], visible[n, :, None]], axis=1).ravel().tolist(),
        }
        for n in range(count)
    ]
    images = [
        {"id": photo_id, "file_name": name, "width": 640, "height": 640}
        for photo_id, name in zip(people.photo_ids_P.tolist(), people.photos, strict=True)
    ]
    categories = [{"id": 1, "name": "person"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    return document, people


def random_predictions(rng, people):
    """Return poses near people and beside them, half of them found twice."""
    photos, keypoints = len(people.photos), len(SCHEMA)
    photo_of = np.repeat(np.arange(photos), POSES_PER_PHOTO)
    counts = np.bincount(people.photo_of_N, minlength=photos)
    starts = np.cumsum(counts) - counts
    poses = []
    for photo in range(photos):
        first = POSES_PER_PHOTO // 2
        own = people.keypoints_NK2[starts[photo] : starts[photo] + counts[photo]]
        found = rng.uniform(0, 640, (first, 1, 2)) + rng.uniform(0, 200, (first, keypoints, 2))
        near = rng.uniform(size=first) < 0.5
        if len(own):
            found[near] = own[rng.integers(0, len(own), near.sum())]
        spread = rng.choice([2.0, 8.0, 20.0], (first, 1, 1))
        found = found + rng.normal(0, 1, found.shape) * spread
        poses += [found, found + rng.normal(0, 0.5, found.shape)]
    count = len(photo_of)
    return Predictions(
        photos_P=np.arange(photos),
        unreadable=(),
        photo_of_N=photo_of,
        keypoints_NK2=np.concatenate(poses).astype(np.float32),
        scores_NK=rng.uniform(0, 1, (count, keypoints)).astype(np.float32),
        boxes_N4=np.zeros((count, 4), np.float32),
        box_scores_N=rng.uniform(0, 1, count).astype(np.float32),
        areas_N=rng.uniform(5000, 60000, count),
        truth_of_N=np.full(count, -1),
    )


def official_input(predictions, people):
    """Return predictions as the official loop over batches leaves them."""
    triples = np.concatenate([predictions.keypoints_NK2, predictions.scores_NK[..., None]], axis=2)
    boxes = np.zeros((len(predictions), 6))
    boxes[:, 4], boxes[:, 5] = predictions.areas_N, predictions.box_scores_N
    return triples, boxes, people.photo_ids_P[predictions.photo_of_N]


def official_oks(pose, others, area, areas):
    """Return the OKS of one pose with each of others, one after the other."""
    variances = (np.array(SCHEMA.oks_sigmas) * 2) ** 2
    overlaps = np.zeros(len(others))
    for n in range(len(others)):
        dx = others[n, 0::3] - pose[0::3]
        dy = others[n, 1::3] - pose[1::3]
        exponent = (dx**2 + dy**2) / variances / ((area + areas[n]) / 2 + np.spacing(1)) / 2
        overlaps[n] = np.sum(np.exp(-exponent)) / exponent.shape[0]
    return overlaps


def official_nms(poses):
    """Return the places of the poses of a photo that survive, best first."""
    scores = np.array([pose["score"] for pose in poses])
    flat = np.array([pose["keypoints"].flatten() for pose in poses])
    areas = np.array([pose["area"] for pose in poses])
    order = scores.argsort()[::-1]
    kept = []
    while order.size > 0:
        best, rest = order[0], order[1:]
        kept.append(best)
        overlaps = official_oks(flat[best], flat[rest], areas[best], areas[rest])
        order = rest[overlaps <= OKS_THRESHOLD]
    return kept


def official_rescore(pose):
    """Replace the box score of a pose by its person score."""
    total, count = 0, 0
    for keypoint in range(len(SCHEMA)):
        value = pose["keypoints"][keypoint][2]
        if value > KEYPOINT_THRESHOLD:
            total, count = total + value, count + 1
    pose["score"] = pose["score"] * (total / count if count else 0)


def official_rows(poses):
    """Return the entries of one photo in the results file."""
    points = np.array([pose["keypoints"] for pose in poses])
    flat = np.zeros((len(poses), len(SCHEMA) * 3))
    for keypoint in range(len(SCHEMA)):
        for part in range(3):
            flat[:, keypoint * 3 + part] = points[:, keypoint, part]
    return [
        {
            "image_id": pose["image"],
            "category_id": 1,
            "keypoints": list(flat[n]),
            "score": float(pose["score"]),
            "center": list(pose["center"]),
            "scale": list(pose["scale"]),
        }
        for n, pose in enumerate(poses)
    ]


def official_way(truth, triples, boxes, photo_ids, path):
    """Write the results and return the ten numbers as the official code does; and its times."""
    clock = [time.perf_counter()]
    by_photo = defaultdict(list)
    for n, keypoints in enumerate(triples):
        pose = {
            "keypoints": keypoints,
            "center": boxes[n][0:2],
            "scale": boxes[n][2:4],
            "area": boxes[n][4],
            "score": boxes[n][5],
            "image": int(photo_ids[n]),
        }
        by_photo[pose["image"]].append(pose)
    kept = []
    for poses in by_photo.values():
        for pose in poses:
            official_rescore(pose)
        kept.append([poses[place] for place in official_nms(poses)])
    clock.append(time.perf_counter())
    rows = [row for poses in kept for row in official_rows(poses)]
    with path.open("w") as file:
        json.dump(rows, file, sort_keys=True, indent=4)
    with path.open() as file:
        json.load(file)
    clock.append(time.perf_counter())
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(str(path)), "keypoints")
        evaluation.params.useSegm = None
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    clock.append(time.perf_counter())
    return np.array(evaluation.stats), np.diff(clock), len(rows)


def our_way(people, predictions, path, evaluator):
    """Write the results and return the ten numbers as `evaluation.score` does; and its times."""
    clock = [time.perf_counter()]
    settings = EvalSettings(KEYPOINT_THRESHOLD, OKS_THRESHOLD, evaluator=evaluator)
    kept, scores = select(predictions, SCHEMA.oks_sigmas, settings)
    results: CocoResults = to_results(people, predictions.pick(kept), scores)
    clock.append(time.perf_counter())
    write_results(path, results)
    clock.append(time.perf_counter())
    numbers = coco_metrics.coco_numbers(
        people, predictions.photos_P, results, evaluator, keep_matches=False
    )
    clock.append(time.perf_counter())
    return np.array([numbers.stats[name] for name in coco_metrics.STATS]), np.diff(clock), len(kept)


def main() -> None:
    """Time the three ways in turn, check that they agree and print a markdown table."""
    photos, rounds = (int(value) for value in (*sys.argv[1:], PHOTOS, ROUNDS)[:2])
    rng = np.random.default_rng(0)
    document, people = random_people(rng, photos)
    predictions = random_predictions(rng, people)
    given = official_input(predictions, people)
    with tempfile.TemporaryDirectory() as folder:
        annotations = Path(folder, "annotations.json")
        annotations.write_text(json.dumps(document))
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(annotations))
        ways = {
            "official": lambda path: official_way(truth, *given, path),
            "ours, pycocotools": lambda path: our_way(people, predictions, path, "pycocotools"),
            "ours, faster": lambda path: our_way(people, predictions, path, "faster"),
        }
        times = {name: [] for name in ways}
        outcomes = {}
        for _ in range(rounds):
            for name, way in ways.items():
                outcomes[name] = way(Path(folder, f"{name}.json"))
                times[name].append(outcomes[name][1])
        sizes = {name: os.path.getsize(Path(folder, f"{name}.json")) for name in ways}  # noqa: PTH202
    numbers, _, kept = outcomes["official"]
    for name, (ours, _, ours_kept) in outcomes.items():
        assert ours_kept == kept, f"{name}: {ours_kept} poses stay, official {kept}"
        np.testing.assert_allclose(ours, numbers, rtol=0, atol=1e-6, err_msg=name)
    print(f"{os.cpu_count()} processors {platform.machine()}, Python {platform.python_version()}\n")
    print(
        f"{photos} photos, {len(people)} labelled people, {len(predictions)} poses of which", end=""
    )
    print(f" {kept} stay; AP {numbers[0]:.6f} in all three. Medians of {rounds} rounds in turn.\n")
    print(
        "| way | rescoring, NMS s | results file s | MB | COCO numbers s | all s | ratio | goal |"
    )
    print("|---|---|---|---|---|---|---|---|")
    alone = statistics.median(parts.sum() for parts in times["official"])
    for name, rows in times.items():
        parts = np.median(rows, axis=0)
        total = statistics.median(row.sum() for row in rows)
        cells = " | ".join(
            f"{value:.2f}" for value in (*parts[:2], sizes[name] / 1e6, parts[2], total)
        )
        goal = GOALS.get(name.removeprefix("ours, "), "")
        print(f"| {name} | {cells} | {alone / total:.1f} | {goal} |")


if __name__ == "__main__":
    main()
