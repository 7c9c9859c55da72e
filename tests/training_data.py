"""A small labelled data set for training tests, and what processes of a test team do.

Processes can only run functions of modules they can import, which tests are not.
"""

import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hrnet_cli.distributed import join_team
from hrnet_cli.errors import TrainingError
from hrnet_cli.recipe import load_config
from hrnet_cli.run_events import StepReport
from hrnet_cli.run_folder import open_run
from hrnet_cli.training import Place, train
from hrnet_cli.training_data import open_training_data

NAMES = ["left_spot", "right_spot", "middle_spot"]
COLORS = np.array([[255, 40, 40], [40, 255, 40], [60, 60, 255]], np.uint8)


def write_spots(folder: Path, *, photos=8, names=NAMES, seed=0, size=72) -> Path:
    """Write photos and their COCO-style JSON, and return the JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for number in range(1, photos + 1):
        pixels = rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
        points = rng.uniform(14, size - 14, (len(names), 2)).round(1)
        for point, color in zip(points, COLORS, strict=False):
            cv2.circle(pixels, tuple(np.rint(point).astype(int).tolist()), 4, color.tolist(), -1)
        cv2.imwrite(str(folder / f"{number:03d}.png"), pixels[..., ::-1])
        images.append(
            {"id": number, "file_name": f"{number:03d}.png", "width": size, "height": size}
        )
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [6, 6, size - 12, size - 12],
                "area": float((size - 12) ** 2),
                "num_keypoints": len(names),
                "keypoints": [value for x, y in points.tolist() for value in (x, y, 2)],
            }
        )
    category = {"id": 1, "name": "spots", "keypoints": names, "skeleton": [[1, 2]]}
    path = folder / "spots.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [category]})
    )
    return path


# Small enough for a step in some 50 ms.
SMALL = {
    "model.width": 4,
    "model.input_hw": [64, 64],
    "model.codec": "dark",
    "model.start": "scratch",
    "augment.half_body_prob": 0.0,
    "optimizer.epochs": 2,
    "run.batch_size": 4,
    "optimizer.learning_rate_batch": 4,
    "run.precision": "fp32",
    "run.deterministic": True,
    "run.samples": 1,
    "data.workers": 0,
}


def configure(spots, **overrides):
    changed = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_config(None, {**SMALL, "data.train": str(spots), "data.val": str(spots), **changed})


def train_as_rank(rank, size, port, spots, folder, overrides):
    os.environ.update(
        RANK=str(rank), WORLD_SIZE=str(size), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    torch.set_num_threads(1)
    losses = []

    def keep(event):
        if isinstance(event, StepReport) and event.step:
            losses.append(event.loss)

    config = configure(spots, **overrides)
    data = open_training_data(config.data)
    train(config, data, Place(open_run(folder, exist_ok=rank > 0)), keep)
    if rank == 0:
        (folder / "losses.json").write_text(json.dumps(losses))


def come_late(rank, port, folder):
    os.environ.update(
        RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    team = join_team("cpu", 2)
    team.meet("the start")
    if rank == 0:
        with pytest.raises(TrainingError) as caught:
            team.meet("the end of epoch 1")
        (folder / "message").write_text(caught.value.message)
    else:
        time.sleep(4)
    os._exit(0)
