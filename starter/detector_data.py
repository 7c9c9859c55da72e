"""Write the training data of the starter person detector: photos and boxes in YOLO's layout.

    python starter/detector_data.py --data FOLDER --teacher yolo11n.pt --out starter-data/detector

FOLDER is that of `pose_data.py`. All people of a photo get a box: those with a label, with the
teacher's box where both mean the same person (labels of LSPET only enclose the keypoints), and
others that the teacher is sure of. Nothing of the teacher's weights gets into the detector. No
photo of COCO val2017 is read.
"""

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

from pose_data import COCO, COCO_TRAIN, LSPET, TRAIN, VAL, iou

# The teacher's person class, how sure it must be of people without a label, and the overlap from
# which two boxes are the same person.
PERSON, SURE, SAME = 0, 0.4, 0.5
# The teacher sees LSPET's small photos as they are, COCO's at their own size.
LSPET_INPUT, COCO_INPUT = 320, 640
VAL_PHOTOS = 200

Xywh = list[float]


def main() -> None:
    """Label photos until the time is over, and write the data set file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("starter-data/detector"))
    parser.add_argument("--repeat", type=int, default=6, help="how often COCO photos are listed")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop labelling then; 0: never")
    arguments = parser.parse_args()
    import quiet_yolo

    data, out = arguments.data.resolve(), arguments.out.resolve()
    teacher = quiet_yolo.load(arguments.teacher)
    ends = time.monotonic() + 60 * arguments.minutes if arguments.minutes else float("inf")
    coco = label_photos(data / COCO_TRAIN, data / COCO, out, teacher, COCO_INPUT, float("inf"))
    val = label_photos(
        data / VAL, data / LSPET, out, teacher, LSPET_INPUT, float("inf"), VAL_PHOTOS
    )
    train = label_photos(data / TRAIN, data / LSPET, out, teacher, LSPET_INPUT, ends)
    (out / "train.txt").write_text("\n".join(train + coco * arguments.repeat) + "\n")
    (out / "val.txt").write_text("\n".join(val) + "\n")
    (out / "detector.yaml").write_text(
        f"path: {json.dumps(str(out))}\ntrain: train.txt\nval: val.txt\nnames: [person]\n"
    )
    print(f"{len(train)} + {len(coco)} photos to train, {len(val)} to measure: {out}")


def label_photos(
    labels_file: Path,
    photos: Path,
    out: Path,
    teacher: Any,  # noqa: ANN401 - ultralytics is not typed
    input_size: int,
    ends: float,
    most: int | None = None,
) -> list[str]:
    """Link photos of a label file, in random order, below `out` with their boxes; return them."""
    labels = json.loads(labels_file.read_text())
    people: dict[int, list[Xywh]] = {}
    for person in labels["annotations"]:
        people.setdefault(person["image_id"], []).append(person["bbox"])
    for folder in ("images", "labels"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    written = []
    for image in random.Random(0).sample(labels["images"], len(labels["images"]))[:most]:
        if time.monotonic() > ends:
            break
        photo = photos / image["file_name"]
        boxes = all_people(people[image["id"]], teacher_boxes(teacher, photo, input_size))
        link = out / "images" / photo.name
        link.unlink(missing_ok=True)
        link.symlink_to(photo)
        size = image["width"], image["height"]
        lines = [yolo_line(box, size) for box in boxes]
        (out / "labels" / f"{photo.stem}.txt").write_text("\n".join(lines) + "\n")
        written.append(str(link))
    return written


def teacher_boxes(teacher: Any, photo: Path, input_size: int) -> list[Xywh]:  # noqa: ANN401
    """Return the boxes (x, y, width, height) in pixels of the people a detector is sure of."""
    (found,) = teacher.predict(
        photo, imgsz=input_size, conf=SURE, classes=[PERSON], verbose=False, device="cpu"
    )
    return [[x, y, x2 - x, y2 - y] for x, y, x2, y2 in found.boxes.xyxy.tolist()]


def all_people(labelled: list[Xywh], taught: list[Xywh]) -> list[Xywh]:
    """Return one box for each person: the teacher's, and labels that it has no box for."""
    missed = [box for box in labelled if all(iou(box, other) < SAME for other in taught)]
    return taught + missed


def yolo_line(box: Xywh, size: tuple[int, int]) -> str:
    """Return a label line: class, centre and size as parts of the photo, inside it."""
    x, y = max(box[0], 0), max(box[1], 0)
    x2, y2 = min(box[0] + box[2], size[0]), min(box[1] + box[3], size[1])
    parts = ((x + x2) / 2 / size[0], (y + y2) / 2 / size[1], (x2 - x) / size[0], (y2 - y) / size[1])
    return f"0 {' '.join(f'{part:.5f}' for part in parts)}"


if __name__ == "__main__":
    main()
