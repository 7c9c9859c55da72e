"""Cropping 8 people from a 1080p frame and decoding 10, against one person at a time.

"One at a time" does what the official HRNet code does for each person (lib/dataset/
JointsDataset.py and lib/core/inference.py): colour order, warp, scale to 0..1, normalise; then a
Python loop over people and keypoints for the quarter offset and for the way back to the picture.
Ours warps uint8 crops into one batch (normalising is the first step inside the network, on all
crops at once, where the device may be faster at it) and decodes all heatmaps at once.

Run: python benchmarks/crop_and_decode.py
"""

import math
import statistics
import time

import cv2
import numpy as np
import torch
from torchvision import transforms

from hrnet_cli import geometry, heatmap
from hrnet_cli.config import ModelSpec
from hrnet_cli.runtimes.torch_eager import TorchEager
from hrnet_cli.schema import load_schema

INPUT_HW = (256, 192)
CROP_PEOPLE, DECODE_PEOPLE, KEYPOINTS = 8, 10, 17
ROUNDS = 60
GOALS = {"crop": 6, "decode msra": 8}
SPEC = ModelSpec("benchmark", 32, INPUT_HW, "msra", load_schema("coco17"))
TO_INPUT = transforms.Compose(
    [transforms.ToTensor(), transforms.Normalize(SPEC.mean_rgb, SPEC.std_rgb)]
)


def three_point_affine(center, size, target_wh, *, inverse=False):
    """Return the affine map of one crop from three pairs of points, as the official code does."""
    width = target_wh[0]
    source = np.zeros((3, 2), np.float32)
    target = np.zeros((3, 2), np.float32)
    source[0], source[1] = center, center + np.array([0, -size[0] / 2])
    target[0] = width / 2, target_wh[1] / 2
    target[1] = target[0] + np.array([0, -width / 2], np.float32)
    for triple in (source, target):
        along = triple[0] - triple[1]
        triple[2] = triple[1] + np.array([-along[1], along[0]], np.float32)
    pair = (target, source) if inverse else (source, target)
    return cv2.getAffineTransform(*pair)


def crop_one_at_a_time(image, centers, sizes):
    """Return normalised crops, each made on its own."""
    height, width = INPUT_HW
    crops = []
    for center, size in zip(centers, sizes, strict=True):
        matrix = three_point_affine(center, size, (width, height))
        # The official loader turns the photo to RGB for each person anew.
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        crop = cv2.warpAffine(rgb, matrix, (width, height), flags=cv2.INTER_LINEAR)
        crops.append(TO_INPUT(crop))
    return torch.stack(crops)


def crop_all(image, centers, sizes):
    """Return uint8 crops of all people; our reader gives RGB already."""
    matrices = geometry.crop_matrices(centers, sizes, INPUT_HW, "msra")
    return geometry.warp_crops(image, matrices, INPUT_HW)


def decode_one_at_a_time(heatmaps, centers, sizes):
    """Return picture keypoints: a loop over people and keypoints around one argmax."""
    people, keypoints, height, width = heatmaps.shape
    flat = heatmaps.reshape(people, keypoints, -1)
    index, best = flat.argmax(2), flat.max(2)
    points = np.stack([index % width, index // width], axis=2).astype(np.float32)
    points *= (best > 0)[..., None]
    for person in range(people):
        for keypoint in range(keypoints):
            values = heatmaps[person][keypoint]
            x = math.floor(points[person][keypoint][0] + 0.5)
            y = math.floor(points[person][keypoint][1] + 0.5)
            if 1 < x < width - 1 and 1 < y < height - 1:
                slope = np.array(
                    [values[y][x + 1] - values[y][x - 1], values[y + 1][x] - values[y - 1][x]]
                )
                points[person][keypoint] += np.sign(slope) * 0.25
    placed = points.copy()
    for person in range(people):
        matrix = three_point_affine(centers[person], sizes[person], (width, height), inverse=True)
        for keypoint in range(keypoints):
            x, y = points[person][keypoint]
            placed[person][keypoint] = np.dot(matrix, np.array([x, y, 1.0]))[:2]
    return placed, best


def decode_all(heatmaps, matrices, codec="msra"):
    """Return picture keypoints of all people at once; the matrices came with the crops."""
    points, scores = heatmap.decode(heatmaps, codec, INPUT_HW)
    return geometry.apply_affines(points, geometry.invert_affines(matrices)), scores


def medians_ms(functions):
    """Return the median milliseconds of functions run in turn: A B C A B C."""
    times = {name: [] for name in functions}
    for round_number in range(ROUNDS + 3):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if round_number >= 3:  # the first rounds warm the caches
                times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def random_people(rng, count):
    """Return centres and sizes of crops of people 200 to 900 pixels tall in a 1080p frame."""
    heights = rng.uniform(200, 900, count)
    x, y = rng.uniform(0, 1400, count), rng.uniform(0, 400, count)
    xyxy = np.stack([x, y, x + heights * 0.45, y + heights], axis=1)
    return geometry.crop_boxes(xyxy, INPUT_HW)


def main() -> None:
    """Check that both ways agree, time them in turn and print a markdown table."""
    # One thread, as in a worker of the official data loader; torch's and OpenCV's threads would
    # also wait for each other.
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    frame = cv2.resize(rng.integers(0, 256, (135, 240, 3), np.uint8), (1920, 1080))
    crop_people = random_people(rng, CROP_PEOPLE)
    decode_people = random_people(rng, DECODE_PEOPLE)
    keypoints = rng.uniform((4, 4), (188, 252), (DECODE_PEOPLE, KEYPOINTS, 2))
    heatmaps, _ = heatmap.encode(keypoints, np.ones(keypoints.shape[:2]), INPUT_HW, "msra", 2)
    heatmaps += rng.normal(0, 0.01, heatmaps.shape).astype(np.float32)
    runtime = TorchEager(torch.nn.Identity(), SPEC, "cpu")

    decode_matrices = {
        codec: geometry.crop_matrices(*decode_people, INPUT_HW, codec)
        for codec in ("msra", "dark", "udp")
    }

    rgb_frame = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    crops = runtime.normalise(crop_all(rgb_frame, *crop_people))
    # One grey level is 1 / (255 * 0.22) after normalising.
    worst_grey = (crops - crop_one_at_a_time(frame, *crop_people)).abs().max().item() * 255 * 0.225
    points, _ = decode_all(heatmaps, decode_matrices["msra"])
    worst_px = np.abs(points - decode_one_at_a_time(heatmaps, *decode_people)[0]).max()

    crop_ms = medians_ms(
        {
            "crop one at a time": lambda: crop_one_at_a_time(frame, *crop_people),
            "crop": lambda: crop_all(rgb_frame, *crop_people),
        }
    )
    decode_ms = medians_ms(
        {
            "decode one at a time": lambda: decode_one_at_a_time(heatmaps, *decode_people),
            "decode msra": lambda: decode_all(heatmaps, decode_matrices["msra"]),
        }
    )
    # Apart: more of them in turn would only empty the caches between the two above.
    other_ms = medians_ms(
        {
            "decode dark": lambda: decode_all(heatmaps, decode_matrices["dark"], "dark"),
            "decode udp": lambda: decode_all(heatmaps, decode_matrices["udp"], "udp"),
        }
    )
    ms = crop_ms | decode_ms | other_ms
    print(f"{CROP_PEOPLE} people cropped from 1080p to {INPUT_HW[0]}x{INPUT_HW[1]}, ", end="")
    print(f"{DECODE_PEOPLE} decoded; medians of {ROUNDS} rounds on one thread.")
    print(f"Largest difference: {worst_grey:.2f} grey levels, {worst_px:.4f} px.\n")
    print("| stage | ms | times faster than one at a time | goal |\n|---|---|---|---|")
    for name, value in ms.items():
        ratio = ms[f"{name.split()[0]} one at a time"] / value
        goal = f"{GOALS[name]}" if name in GOALS else ""
        print(f"| {name} | {value:.3f} | {ratio:.1f} | {goal} |")


if __name__ == "__main__":
    main()
