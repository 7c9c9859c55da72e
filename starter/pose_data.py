"""Write the training data of the starter pose model: one label file over the photos of two sets.

    python starter/pose_data.py --data FOLDER --out starter-data [--teacher yolov8n-pose.pt]

FOLDER holds `lspet/` (Leeds Sports Pose Extended with COCO-17 labels) and `coco-mini/` (COCO
train2017 photos). The people of COCO are few and repeated, so that a mini-batch has some of them.
With a teacher, people of the COCO photos without a label get the keypoints it is sure of.

Written: `pose-train.json` and `pose.toml`, which `hrnet train --dataset` takes. No photo of COCO
val2017 is read.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

import numpy as np

LSPET, COCO = "lspet/images", "coco-mini/train2017"
TRAIN, VAL = "lspet/annotations/coco17_train.json", "lspet/annotations/coco17_val.json"
COCO_TRAIN = "coco-mini/annotations/person_keypoints_train2017.json"
# What counts as a sure person, a sure keypoint, and as somebody who has a label already.
SURE_PERSON, SURE_KEYPOINT, SAME_PERSON = 0.5, 0.5, 0.3
FEWEST_KEYPOINTS = 5
# Left and right, among COCO's 17 keypoints.
SHOULDERS, HIPS = [5, 6], [11, 12]


def main() -> None:
    """Read the labels, add the teacher's, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("starter-data"))
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--repeat", type=int, default=8, help="copies of each person of COCO")
    parser.add_argument("--upright", type=int, help="so many upright people of LSPET only")
    arguments = parser.parse_args()
    data: Path = arguments.data.resolve()
    lspet, coco = (
        json.loads((data / TRAIN).read_text()),
        json.loads((data / COCO_TRAIN).read_text()),
    )
    if arguments.upright:
        lspet["annotations"] = some_upright(lspet["annotations"], arguments.upright)
    if arguments.teacher:
        coco["annotations"] += taught_people(arguments.teacher, coco, data / COCO)
    merged = merge(lspet, coco, arguments.repeat)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    (out / "pose-train.json").write_text(json.dumps(merged))
    (out / "pose.toml").write_text(dataset_toml(data))
    print(
        f"{len(merged['images'])} photos, {len(merged['annotations'])} people: {out / 'pose.toml'}"
    )


def merge(lspet: dict[str, Any], coco: dict[str, Any], repeat: int) -> dict[str, Any]:
    """Return both label files as one, with new ids; each person of COCO stands `repeat` times."""
    images: list[dict[str, Any]] = []
    people: list[dict[str, Any]] = []
    for labels, folder, copies in ((lspet, LSPET, 1), (coco, COCO, repeat)):
        ids = {}
        for image in labels["images"]:
            ids[image["id"]] = len(images) + 1
            file_name = f"{folder}/{image['file_name']}"
            images.append({**image, "id": len(images) + 1, "file_name": file_name})
        for person in labels["annotations"] * copies:
            image_id = ids[person["image_id"]]
            people.append({**person, "id": len(people) + 1, "image_id": image_id})
    return {"images": images, "annotations": people, "categories": lspet["categories"]}


def some_upright(people: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Return people whose shoulders are above their hips, as most people of COCO's are, by lot.

    Leaning by up to 45 degrees counts as upright; who lacks a shoulder or hip on both sides does
    not.
    """
    upright = []
    for person in people:
        rows = np.array(person["keypoints"]).reshape(-1, 3)
        shoulders, hips = (rows[part][rows[part][:, 2] > 0] for part in (SHOULDERS, HIPS))
        if len(shoulders) and len(hips):
            x, y = (hips.mean(axis=0) - shoulders.mean(axis=0))[:2]
            if y > abs(x):
                upright.append(person)
    return random.Random(0).sample(upright, min(most, len(upright)))


def dataset_toml(data: Path) -> str:
    """Return the data set file: train is the merged file, val the LSPET people kept apart."""
    val = f"annotations = {json.dumps(str(data / VAL))}, photos = {json.dumps(str(data / LSPET))}"
    return (
        'name = "starter"\nschema = "coco17"\n'
        f'train = {{annotations = "pose-train.json", photos = {json.dumps(str(data))}}}\n'
        f"val = {{{val}}}\n"
    )


def taught_people(teacher: Path, coco: dict[str, Any], photos: Path) -> list[dict[str, Any]]:
    """Return people that a YOLO pose model is sure of and that have no label yet."""
    import quiet_yolo

    model = quiet_yolo.load(teacher)
    people = []
    for image in coco["images"]:
        labelled = [p["bbox"] for p in coco["annotations"] if p["image_id"] == image["id"]]
        found = model.predict(photos / image["file_name"], conf=SURE_PERSON, verbose=False)[0]
        for xyxy, keypoints in zip(
            found.boxes.xyxy.numpy().tolist(), found.keypoints.data.numpy(), strict=True
        ):
            x, y, x2, y2 = xyxy
            box = [x, y, x2 - x, y2 - y]
            sure = keypoints[:, 2] >= SURE_KEYPOINT
            if sure.sum() < FEWEST_KEYPOINTS or any(iou(box, o) > SAME_PERSON for o in labelled):
                continue
            rows = np.where(sure[:, None], np.c_[keypoints[:, :2].round(1), sure], 0)
            people.append(
                {
                    "image_id": image["id"],
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": [round(side, 1) for side in box],
                    "area": round(0.53 * box[2] * box[3], 1),
                    "num_keypoints": int(sure.sum()),
                    "keypoints": rows.ravel().tolist(),
                    "source": "pseudo",
                }
            )
    print(f"{len(people)} people of COCO photos labelled by {teacher.name}")
    return people


def iou(one: list[float], other: list[float]) -> float:
    """Return the overlap of two boxes (x, y, width, height) as a part of their union."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    both = max(width, 0) * max(height, 0)
    return both / max(one[2] * one[3] + other[2] * other[3] - both, 1e-9)


if __name__ == "__main__":
    main()
