"""Loading the labels of 150,000 people, against the official way.

The official way reads the file with pycocotools, which indexes it in Python, then goes through
every photo and person: cut the box, copy 17 keypoints one by one, make centre and scale (official
HRNet, lib/dataset/coco.py). Ours parses with orjson and works on all people at once, and the second
time takes the arrays from its cache. All three must end with equal numbers.

The file is made to the measure of COCO's person_keypoints_train2017.json: as many photos with
people, people with and without keypoints, and outlines of about as many points.

Run: python benchmarks/annotations.py
"""

import contextlib
import io
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import orjson
from pycocotools.coco import COCO

from hrnet_cli.data.coco import read_coco
from hrnet_cli.geometry import crop_boxes, xywh_to_xyxy
from hrnet_cli.schema import load_schema

PHOTOS, LABELLED, UNLABELLED = 64_115, 150_000, 112_000
OUTLINE_POINTS = 22
ROUNDS = 5
GOALS = {"parsed": 3, "from its cache": 20}
INPUT_HW = (256, 192)
PIXEL_STD = 200  # official scales are in units of 200 pixels


def write_annotations(path: Path) -> None:
    """Write a file of random people in COCO's form."""
    rng = np.random.default_rng(0)
    count = LABELLED + UNLABELLED
    sizes = np.array([640, 480])
    sides = np.round(rng.uniform(20, 300, (count, 2)), 2)
    corners = np.round(rng.uniform(-0.3, 0.9, (count, 2)) * sizes, 2).clip(0)
    boxes = np.concatenate([corners, sides], axis=1)
    keypoints = np.zeros((count, 17, 3), np.int64)
    keypoints[:LABELLED, :, :2] = rng.integers(1, sizes, (LABELLED, 17, 2))
    keypoints[:LABELLED, :, 2] = rng.integers(0, 3, (LABELLED, 17))
    keypoints[:LABELLED, 0, 2] = 2
    keypoints *= keypoints[:, :, 2:] > 0
    outlines = np.round(rng.uniform(0, 640, (count, 2 * OUTLINE_POINTS)), 2)
    photo_of = rng.integers(0, PHOTOS, count)
    order = rng.permutation(count)
    rows = zip(order.tolist(), boxes[order].tolist(), outlines[order].tolist(),
               keypoints[order].reshape(count, -1).tolist(), strict=True)  # fmt: skip
    annotations = [
        {
            "segmentation": [outline],
            "num_keypoints": sum(value > 0 for value in points[2::3]),
            "area": round(0.53 * box[2] * box[3], 4),
            "iscrowd": 0,
            "keypoints": points,
            "image_id": int(photo_of[number]) + 1,
            "bbox": box,
            "category_id": 1,
            "id": number + 1,
        }
        for number, box, outline, points in rows
    ]
    schema = load_schema("coco17")
    index = schema.index
    document = {
        "images": [
            {"id": n + 1, "file_name": f"{n + 1:012}.jpg", "width": 640, "height": 480}
            for n in range(PHOTOS)
        ],
        "annotations": annotations,
        "categories": [
            {
                "id": 1,
                "name": "person",
                "keypoints": list(schema.keypoints),
                "skeleton": [[index[a] + 1, index[b] + 1] for a, b in schema.skeleton],
            }
        ],
    }
    path.write_bytes(orjson.dumps(document))


def cut_box(box, width, height):
    """Return a box cut to its photo, None without area, as the official loader does."""
    x, y, w, h = box
    x1, y1 = max(0, x), max(0, y)
    x2 = min(width - 1, x1 + max(0, w - 1))
    y2 = min(height - 1, y1 + max(0, h - 1))
    return [x1, y1, x2 - x1, y2 - y1] if x2 >= x1 and y2 >= y1 else None


def centre_and_scale(box):
    """Return centre and scale of a crop, as the official loader does."""
    x, y, w, h = box
    ratio = INPUT_HW[1] / INPUT_HW[0]
    centre = np.zeros(2, dtype=np.float32)
    centre[0] = x + w * 0.5
    centre[1] = y + h * 0.5
    if w > ratio * h:
        h = w / ratio
    elif w < ratio * h:
        w = h * ratio
    scale = np.array([w / PIXEL_STD, h / PIXEL_STD], dtype=np.float32)
    if centre[0] != -1:
        scale = scale * 1.25
    return centre, scale


def load_one_at_a_time(path):
    """Return a record for each person, made the official way."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(path))
    records = []
    for image_id in coco.getImgIds():
        photo = coco.loadImgs(image_id)[0]
        people = coco.loadAnns(coco.getAnnIds(imgIds=image_id, iscrowd=False))
        cut = []
        for person in people:
            box = cut_box(person["bbox"], photo["width"], photo["height"])
            if person["area"] > 0 and box is not None:
                cut.append((person, box))
        for person, box in cut:
            if max(person["keypoints"]) == 0:
                continue
            points = np.zeros((17, 3), dtype=np.float64)
            visible = np.zeros((17, 3), dtype=np.float64)
            for keypoint in range(17):
                points[keypoint, 0] = person["keypoints"][keypoint * 3 + 0]
                points[keypoint, 1] = person["keypoints"][keypoint * 3 + 1]
                points[keypoint, 2] = 0
                seen = min(person["keypoints"][keypoint * 3 + 2], 1)
                visible[keypoint, 0] = seen
                visible[keypoint, 1] = seen
                visible[keypoint, 2] = 0
            centre, scale = centre_and_scale(box)
            records.append(
                {
                    "id": person["id"],
                    "image": f"train2017/{photo['file_name']}",
                    "center": centre,
                    "scale": scale,
                    "joints_3d": points,
                    "joints_3d_vis": visible,
                }
            )
    return records


def load_all(path, *, cache):
    """Return people of use, and centres and sizes of their crops."""
    people = read_coco(path, cache=cache).people.usable()
    return people, *crop_boxes(xywh_to_xyxy(people.boxes_N4), INPUT_HW)


def assert_equal(records, ours):
    """Raise unless both hold the same people with the same numbers."""
    people, centres, sizes = ours
    order = np.argsort([record["id"] for record in records])
    own = np.argsort(people.ids_N)
    assert len(records) == len(people) == LABELLED

    def official(field):
        return np.stack([records[index][field] for index in order])

    np.testing.assert_array_equal(official("joints_3d")[..., :2], people.keypoints_NK2[own])
    np.testing.assert_array_equal(official("joints_3d_vis")[..., 0], people.visible_NK[own] > 0)
    # The official numbers are single precision: 24 bits.
    np.testing.assert_allclose(official("center"), centres[own], rtol=2e-7, atol=1e-4)
    np.testing.assert_allclose(official("scale") * PIXEL_STD, sizes[own], rtol=4e-7)
    photos = [f"train2017/{people.photos[index]}" for index in people.photo_of_N[own]]
    assert photos == [records[index]["image"] for index in order]


def main() -> None:
    """Check that all ways agree, time them in turn and print a markdown table."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HRNET_HOME"] = folder
        path = Path(folder) / "person_keypoints_train2017.json"
        write_annotations(path)
        ways = {
            "official": lambda: load_one_at_a_time(path),
            "parsed": lambda: load_all(path, cache=False),
            "from its cache": lambda: load_all(path, cache=True),
        }
        records = ways["official"]()
        assert_equal(records, ways["parsed"]())
        ways["from its cache"]()  # writes it
        assert_equal(records, ways["from its cache"]())
        del records
        seconds = {name: [] for name in ways}
        for _ in range(ROUNDS):
            for name, way in ways.items():
                start = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - start)
        size_mb = path.stat().st_size / 1e6
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        f"{LABELLED:,} people with keypoints among {LABELLED + UNLABELLED:,} in {PHOTOS:,} photos"
    )
    print(f"({size_mb:.0f} MB of JSON), median of {ROUNDS} rounds in turn,")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores:\n")
    print("| way | seconds | times as fast | goal |")
    print("|---|---|---|---|")
    for name, value in medians.items():
        ratio = medians["official"] / value
        print(f"| {name} | {value:.2f} | {ratio:.1f} | {GOALS.get(name, '')} |")


if __name__ == "__main__":
    main()
