"""Training samples per second and core, with and without a cache, against the official way.

"Official" does for each person what official HRNet does (lib/dataset/JointsDataset.py,
`__getitem__`): read the photo anew, turn it to RGB, mirror all of it, find the affine map from
three points, warp, scale to 0..1 and normalise, move the keypoints one by one, paint the targets
one by one; then collate the samples and what is known of them into a batch. Ours decodes, warps
once, and hands over bytes; normalisation and targets are made for the batch at once. On a GPU they
are made there; here they are timed on the same core, and the table says both.

One thread, official augmentation for COCO, W32 at 256x192, batches of 32; rounds of all ways take
turns, and medians of processor time count. "One photo, one decoding" keeps the people of a photo
together in a batch (`EpochSampler`'s ``photo_of_N``); the others shuffle people.

Run: HRNET_TEST_DATA=... python benchmarks/data_path.py [rounds]
"""

import argparse
import copy
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils.data import default_collate
from torchvision import transforms

from hrnet_cli import targets
from hrnet_cli.config import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB
from hrnet_cli.data.augment import AugmentConfig
from hrnet_cli.data.crops import CropDataset, CropFrame, EpochSampler, Key, crop_reach
from hrnet_cli.data.people import LabelledPeople
from hrnet_cli.data.photo_cache import open_packed, pack_photos
from hrnet_cli.data.photos import PhotoFiles, load_into_memory, read_photo, simplejpeg
from hrnet_cli.pixels import normalise
from hrnet_cli.schema import load_schema

INPUT_WH, HEATMAP_WH, SIGMA, BATCH = (192, 256), (48, 64), 2, 32
FRAME = CropFrame((256, 192), "msra")
SCHEMA = load_schema("coco17")
TO_INPUT = transforms.Compose(
    [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN_RGB, IMAGENET_STD_RGB)]
)
PAIRS = [(SCHEMA.index[left], SCHEMA.index[right]) for left, right in SCHEMA.flip_pairs]
UPPER = [SCHEMA.index[name] for name in SCHEMA.upper_body]


def read_people(folder: Path) -> LabelledPeople:
    """Return the labelled people of coco-mini's training photos."""
    data = json.loads((folder / "annotations/person_keypoints_train2017.json").read_text())
    photos, people = data["images"], data["annotations"]
    place = {photo["id"]: position for position, photo in enumerate(photos)}
    keypoints = np.array([p["keypoints"] for p in people], float).reshape(-1, 17, 3)
    return LabelledPeople(
        "coco-mini",
        folder / "train2017",
        SCHEMA,
        tuple(photo["file_name"] for photo in photos),
        np.array([photo["id"] for photo in photos]),
        np.array([(photo["width"], photo["height"]) for photo in photos]),
        np.array([place[p["image_id"]] for p in people]),
        np.array([p["id"] for p in people]),
        np.array([p["bbox"] for p in people], float),
        np.array([p["area"] for p in people], float),
        keypoints[..., :2],
        keypoints[..., 2].astype(np.uint8),
        (keypoints[..., 2] > 0).astype(np.float32),
        np.array([bool(p.get("iscrowd")) for p in people]),
    ).usable()


class OfficialWay:
    """One person at a time, as in the official loader."""

    def __init__(self, people: LabelledPeople) -> None:
        ratio = INPUT_WH[0] / INPUT_WH[1]
        self.records = []
        for row in range(len(people)):
            x, y, width, height = people.boxes_N4[row]
            center = np.array([x + width * 0.5, y + height * 0.5], np.float32)
            if width > ratio * height:
                height = width / ratio
            else:
                width = height * ratio
            joints = np.zeros((17, 3))
            visible = np.zeros((17, 3))
            joints[:, :2] = people.keypoints_NK2[row]
            visible[:, :2] = (people.visible_NK[row] > 0)[:, None]
            self.records.append(
                {
                    "image": str(people.photo_path(int(people.photo_of_N[row]))),
                    "center": center,
                    "scale": np.array([width, height], np.float32) / 200 * 1.25,
                    "joints_3d": joints,
                    "joints_3d_vis": visible,
                    "filename": "",
                    "imgnum": 0,
                }
            )

    def batch(self, indices):
        """Return inputs, targets, target weights and what is known of some people."""
        return default_collate([self.sample(index) for index in indices])

    def sample(self, index):
        """Return the input, targets, target weights of one person and what is known of it."""
        record = copy.deepcopy(self.records[index])
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        photo = cv2.imread(record["image"], flags)
        if photo is None:
            raise ValueError(record["image"])
        photo = cv2.cvtColor(photo, cv2.COLOR_BGR2RGB)
        joints, visible = record["joints_3d"], record["joints_3d_vis"]
        center, scale = record["center"], record["scale"]
        if np.sum(visible[:, 0]) > 8 and np.random.rand() < 0.3:  # noqa: NPY002
            center, scale = half_body(joints, visible, center, scale)
        scale = scale * np.clip(np.random.randn() * 0.35 + 1, 0.65, 1.35)  # noqa: NPY002
        turned = random.random() <= 0.6
        rotation = np.clip(np.random.randn() * 45, -90, 90) if turned else 0  # noqa: NPY002
        if random.random() <= 0.5:
            photo = photo[:, ::-1, :]
            joints, visible = mirrored(joints, visible, photo.shape[1])
            center[0] = photo.shape[1] - center[0] - 1
        matrix = three_point_affine(center, scale, rotation)
        crop = cv2.warpAffine(photo, matrix, INPUT_WH, flags=cv2.INTER_LINEAR)
        pixels = TO_INPUT(crop)
        for joint in range(17):
            if visible[joint, 0] > 0:
                point = np.array([joints[joint, 0], joints[joint, 1], 1.0])
                joints[joint, 0:2] = np.dot(matrix, point)
        target, weight = painted(joints, visible)
        meta = {
            "image": record["image"],
            "filename": record["filename"],
            "imgnum": record["imgnum"],
            "joints": joints,
            "joints_vis": visible,
            "center": center,
            "scale": scale,
            "rotation": rotation,
            "score": 1,
        }
        return pixels, torch.from_numpy(target), torch.from_numpy(weight), meta


def half_body(joints, visible, center, scale):
    """Return the crop around half a body, or the one given."""
    upper = [joints[k] for k in range(17) if visible[k][0] > 0 and k in UPPER]
    lower = [joints[k] for k in range(17) if visible[k][0] > 0 and k not in UPPER]
    if np.random.randn() < 0.5 and len(upper) > 2:  # noqa: NPY002
        chosen = upper
    else:
        chosen = lower if len(lower) > 2 else upper
    if len(chosen) < 2:
        return center, scale
    points = np.array(chosen, np.float32)
    width, height = (points.max(axis=0) - points.min(axis=0))[:2]
    ratio = INPUT_WH[0] / INPUT_WH[1]
    width, height = max(width, height * ratio), max(height, width / ratio)
    return points.mean(axis=0)[:2], np.array([width, height], np.float32) / 200 * 1.5


def mirrored(joints, visible, width):
    """Return joints of a mirrored photo; left and right change places."""
    joints[:, 0] = width - joints[:, 0] - 1
    for left, right in PAIRS:
        joints[left, :], joints[right, :] = joints[right, :], joints[left, :].copy()
        visible[left, :], visible[right, :] = visible[right, :], visible[left, :].copy()
    return joints * visible, visible


def three_point_affine(center, scale, rotation):
    """Return the affine map of a crop from three pairs of points."""
    angle = np.pi * rotation / 180
    half = scale[0] * 200 * -0.5
    source = np.zeros((3, 2), np.float32)
    target = np.zeros((3, 2), np.float32)
    source[0] = center
    source[1] = center + np.array([-half * np.sin(angle), half * np.cos(angle)])
    target[0] = INPUT_WH[0] * 0.5, INPUT_WH[1] * 0.5
    target[1] = target[0] + np.array([0, INPUT_WH[0] * -0.5], np.float32)
    for triple in (source, target):
        along = triple[0] - triple[1]
        triple[2] = triple[1] + np.array([-along[1], along[0]], np.float32)
    return cv2.getAffineTransform(source, target)


def painted(joints, visible):
    """Return target heatmaps and weights, one Gaussian after another."""
    weight = np.ones((17, 1), np.float32)
    weight[:, 0] = visible[:, 0]
    target = np.zeros((17, HEATMAP_WH[1], HEATMAP_WH[0]), np.float32)
    reach = SIGMA * 3
    stride = np.array(INPUT_WH) / np.array(HEATMAP_WH)
    for joint in range(17):
        x = int(joints[joint][0] / stride[0] + 0.5)
        y = int(joints[joint][1] / stride[1] + 0.5)
        left, top, right, bottom = x - reach, y - reach, x + reach + 1, y + reach + 1
        if left >= HEATMAP_WH[0] or top >= HEATMAP_WH[1] or right < 0 or bottom < 0:
            weight[joint] = 0
            continue
        size = 2 * reach + 1
        columns = np.arange(size, dtype=np.float32)
        rows = columns[:, np.newaxis]
        middle = size // 2
        bump = np.exp(-((columns - middle) ** 2 + (rows - middle) ** 2) / (2 * SIGMA**2))
        if weight[joint] > 0.5:
            x1, x2 = max(0, left), min(right, HEATMAP_WH[0])
            y1, y2 = max(0, top), min(bottom, HEATMAP_WH[1])
            target[joint][y1:y2, x1:x2] = bump[y1 - top : y2 - top, x1 - left : x2 - left]
    return target, weight


def on_the_device(batch):
    """Return the inputs, targets and weights of a batch, as the training step makes them."""
    pixels = normalise(batch.crops_BHW3, IMAGENET_MEAN_RGB, IMAGENET_STD_RGB)
    encoded = targets.encode(batch.keypoints_BK2, batch.weights_BK, FRAME.input_hw, "msra", SIGMA)
    return pixels, *encoded


def decode_only(people: LabelledPeople, keys):
    """Decode the photo of each person, to know what no order of work can do without."""
    for _, index in keys:
        read_photo(people.photo_path(int(people.photo_of_N[index])))


def measure(people: LabelledPeople, folder: Path, rounds: int):
    """Return samples per second of each way, one value a round, and the size of the cache."""
    config = AugmentConfig()
    reach = crop_reach(people, FRAME, config)
    packed = folder / "photos.packed"
    pack_photos(packed, people, reach)
    sources = {
        "photo files": PhotoFiles(people),
        "packed file": open_packed(packed, people, reach),
        "memory": load_into_memory(people, reach, 4_000_000_000),
    }
    datasets = {
        name: CropDataset(people, FRAME, config, seed=0, photos=source)
        for name, source in sources.items()
    }
    official = OfficialWay(people)
    sampler = EpochSampler(len(people), batch_size=BATCH, seed=0)
    together = EpochSampler(len(people), batch_size=BATCH, seed=0, photo_of_N=people.photo_of_N)
    rates: dict[str, list[float]] = {}
    for epoch in range(rounds + 1):
        sampler.set_epoch(epoch)
        together.set_epoch(epoch)
        ways: dict[str, Callable[[list[Key]], object]]
        ways = {"decoding the JPEG, nothing else": lambda keys: decode_only(people, keys)}
        ways |= {"official": lambda keys: official.batch([index for _, index in keys])}
        for name, dataset in datasets.items():
            ways[f"{name}, bytes only"] = dataset.__getitems__
            ways[name] = lambda keys, dataset=dataset: on_the_device(dataset.__getitems__(keys))
        for name in ("photo files, bytes only", "photo files"):
            ways[f"{name}, --share-photos"] = ways[name]
        for name, way in ways.items():
            batches = list(together if "--share-photos" in name else sampler)
            start = time.process_time()
            for keys in batches:
                way(keys)
            if epoch:  # the first round warms up
                rate = len(people) / (time.process_time() - start)
                rates.setdefault(name, []).append(rate)
    return rates, packed.stat().st_size


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=9)
    rounds = parser.parse_args().rounds
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    people = read_people(Path(os.environ["HRNET_TEST_DATA"]) / "coco-mini")
    with tempfile.TemporaryDirectory() as folder:
        rates, size = measure(people, Path(folder), rounds)
    files = {people.photo_path(photo) for photo in people.photo_of_N.tolist()}
    print(
        f"{len(people)} people on {len(files)} photos of"
        f" {statistics.mean(file.stat().st_size for file in files) / 1e3:.0f} kB;"
        f" packed file {size / len(people) / 1e3:.0f} kB a person."
    )
    print(
        f"Medians of {rounds} rounds, one thread, OpenCV {cv2.__version__},"
        f" {'with' if simplejpeg else 'without'} simplejpeg.\n"
    )
    print("| way | samples/s | ms a sample | times official (median, lowest) | goal |")
    print("|---|---|---|---|---|")
    goals = {
        "photo files": "1.8, better 2.3",
        "photo files, --share-photos": "1.8, better 2.3",
        "packed file": "5, better 7",
        "memory": "5",
    }
    for name, values in rates.items():
        ratios = [a / b for a, b in zip(values, rates["official"], strict=True)]
        rate = statistics.median(values)
        print(
            f"| {name} | {rate:.0f} | {1e3 / rate:.2f} | {statistics.median(ratios):.2f},"
            f" {min(ratios):.2f} | {goals.get(name, '')} |"
        )


if __name__ == "__main__":
    main()
