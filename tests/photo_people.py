"""People on small photos written to a folder, for the tests of the training data path."""

from pathlib import Path

import cv2
import numpy as np

from hrnet_cli.data.people import LabelledPeople
from hrnet_cli.schema import load_schema


def people_on_photos(folder: Path, *, photos: int = 3, size_wh=(80, 60)) -> LabelledPeople:
    """Return two people on each photo; photos are noise, so that each pixel tells its place."""
    rng = np.random.default_rng(0)
    names = tuple(f"{number}.png" for number in range(photos))
    for name in names:
        pixels = rng.integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
        cv2.imwrite(str(folder / name), pixels)
    count = 2 * photos
    near = rng.uniform(5, 20, (count, 2))
    boxes_N4 = np.concatenate([near, rng.uniform(15, 40, (count, 2))], axis=1)
    keypoints_NK2 = boxes_N4[:, None, :2] + rng.random((count, 17, 2)) * boxes_N4[:, None, 2:]
    visible_NK = np.full((count, 17), 2, np.uint8)
    visible_NK[:, 3] = 0
    return LabelledPeople(
        name="noise",
        folder=folder,
        schema=load_schema("coco17"),
        photos=names,
        photo_ids_P=np.arange(1, photos + 1),
        sizes_P2=np.tile(size_wh, (photos, 1)),
        photo_of_N=np.repeat(np.arange(photos), 2),
        ids_N=np.arange(count) + 100,
        boxes_N4=boxes_N4,
        areas_N=boxes_N4[:, 2] * boxes_N4[:, 3],
        keypoints_NK2=keypoints_NK2,
        visible_NK=visible_NK,
        weights_NK=(visible_NK > 0).astype(np.float32),
        crowd_N=np.zeros(count, bool),
    )
