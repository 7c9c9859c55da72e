"""Boxes and a photo to keypoints, W32 256x192, 8 people: each runtime against a plain frame loop.

"Plain" is what most programs around HRNet do for a frame: each person is cut out, scaled and
normalised on its own, the frame's people pass an eager float32 network as one batch, and a loop
over people and keypoints takes the highest pixel of each heatmap. Weights are random, which speed
does not notice. Where a machine does other things too, trust the ratios by processor time.

Run: python benchmarks/runtimes.py [--rounds 5] [--people 8]
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from hrnet_cli import checkpoint
from hrnet_cli.benching import measure_peak, some_boxes
from hrnet_cli.config import ModelSpec
from hrnet_cli.device import processors
from hrnet_cli.errors import HrnetError
from hrnet_cli.estimator import PoseEstimator
from hrnet_cli.images import read_image
from hrnet_cli.model_crops import installed_photos
from hrnet_cli.model_opening import open_model
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.runtimes import Computing
from hrnet_cli.runtimes.folding import fold_batch_norms
from hrnet_cli.runtimes.graph import trace
from hrnet_cli.schema import load_schema

SPEC = ModelSpec("w32", 32, (256, 192), "msra", load_schema("coco17"))
WAYS = (("torch", "fp32"), ("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))


def plain_frame(network, image, boxes):
    """Return keypoints and scores of a frame's people, the usual way."""
    height, width = SPEC.input_hw
    mean, std = np.array(SPEC.mean_rgb), np.array(SPEC.std_rgb)
    crops, places = [], []
    for x1, y1, x2, y2 in boxes.astype(int):
        grown_height = max(y2 - y1, (x2 - x1) * height / width)
        grown_width = grown_height * width / height
        left, top = (x1 + x2 - grown_width) / 2, (y1 + y2 - grown_height) / 2
        rows = slice(max(0, int(top)), int(top + grown_height))
        columns = slice(max(0, int(left)), int(left + grown_width))
        crop = cv2.resize(image[rows, columns], (width, height))
        pixels = ((crop / 255.0 - mean) / std).transpose(2, 0, 1)
        crops.append(torch.from_numpy(pixels.astype(np.float32)))
        places.append((left, top, grown_width, grown_height))
    with torch.no_grad():
        heatmaps = network(torch.stack(crops)).numpy()
    found = np.zeros((len(crops), heatmaps.shape[1], 3))
    for person, (left, top, grown_width, grown_height) in enumerate(places):
        for keypoint, values in enumerate(heatmaps[person]):
            row, column = np.unravel_index(np.argmax(values), values.shape)
            found[person, keypoint] = (
                left + column / values.shape[1] * grown_width,
                top + row / values.shape[0] * grown_height,
                values[row, column],
            )
    return found


def lively_network():
    """Return a W32 with random weights whose values neither vanish nor overflow."""
    torch.manual_seed(0)
    network = HRNet(32, 17).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.xavier_uniform_(module.weight)
    return network


def open_ways(weights):
    """Return an estimator for every runtime and precision that this machine has."""
    estimators = {}
    for runtime, precision in WAYS:
        try:
            opened = open_model(weights, None, Computing("cpu", runtime, precision))
        except HrnetError as error:
            print(f"{runtime} {precision}: {error.message}", file=sys.stderr)
        else:
            estimators[f"{runtime} {precision}"] = PoseEstimator(opened.runtime, opened.spec)
    return estimators


def main() -> None:
    """Time all in turn and print a markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--people", type=int, default=8)
    options = parser.parse_args()
    photo = installed_photos()[0]
    image = cv2.resize(read_image(photo)[0], (1920, 1080))
    boxes = some_boxes(image.shape[:2], options.people)
    network = lively_network()
    with tempfile.TemporaryDirectory() as place:
        weights = Path(place) / "w32.safetensors"
        checkpoint.save_model(
            weights, network.state_dict(), SPEC, provenance="random", licence="none"
        )
        ways = {"plain eager fp32": lambda: plain_frame(network, image, boxes.xyxy_N4)}
        for name, estimator in open_ways(weights).items():
            ways[name] = lambda estimator=estimator: estimator.estimate([image], [boxes])
        seconds, processor = ({name: [] for name in ways} for _ in range(2))
        for run in range(options.rounds + 1):
            for name, way in ways.items():
                start, used = time.perf_counter(), time.process_time()
                way()
                if run:
                    seconds[name].append(time.perf_counter() - start)
                    processor[name].append(time.process_time() - used)
    peak = measure_peak(processors(), 5)
    work = trace(fold_batch_norms(network), SPEC).multiplications()
    plain = seconds["plain eager fp32"]
    print(f"W32 256x192, {options.people} people, {options.rounds} rounds in turn.\n")
    print("| way | people/s, median | best | times plain | best | by processor time | % of peak |")
    print("|---|---|---|---|---|---|---|")
    used = {name: statistics.median(values) for name, values in processor.items()}
    for name, values in seconds.items():
        best = options.people / min(values)
        limit = peak.get(name.split()[-1])
        share = f"{best * work / limit:.0%}" if limit else ""
        print(
            f"| {name} | {options.people / statistics.median(values):.2f} | {best:.2f} |"
            f" {statistics.median(plain) / statistics.median(values):.2f} |"
            f" {min(plain) / min(values):.2f} | {used['plain eager fp32'] / used[name]:.2f} |"
            f" {share} |"
        )


if __name__ == "__main__":
    main()
