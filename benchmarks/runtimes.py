"""Boxes and a photo to keypoints, W32 256x192, 8 people: each runtime against a plain frame loop.

"Plain" is what most programs around HRNet do for a frame: each person is cut out, scaled and
normalised on its own, the frame's people pass an eager float32 network as one batch, and a loop
over people and keypoints takes the highest pixel of each heatmap. Weights are random, which speed
does not notice. Where a machine does other things too, trust the ratios by processor time.

8 bits are calibrated on parts of two photos: enough for speed, which is all that counts here.
Others run in environments of their own, on the same image, given as an array, and the same boxes:
rtmlib (`pip install rtmlib openvino`) with the same network, person by person as it does, and
LibreYOLO (`pip install libreyolo`) with its own HRNet.

Run: python benchmarks/runtimes.py [--rounds 5] [--people 8] [--rtmlib ITS_PYTHON]
     [--libreyolo ITS_PYTHON]
"""

import argparse
import contextlib
import statistics
import subprocess
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
from hrnet_cli.model_crops import installed_photos, photo_crops
from hrnet_cli.model_metadata import ARCHITECTURE, spec_to_metadata
from hrnet_cli.model_opening import open_model
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.runtimes import Computing, RuntimeSettings
from hrnet_cli.runtimes.exported import open_exported, read_exported
from hrnet_cli.runtimes.folding import fold_batch_norms
from hrnet_cli.runtimes.graph import PIXELS, trace
from hrnet_cli.runtimes.graph_files import write_graph_file
from hrnet_cli.runtimes.onnx_graph import write_graph
from hrnet_cli.schema import load_schema

SPEC = ModelSpec("w32", 32, (256, 192), "msra", load_schema("coco17"))
WAYS = (
    ("torch", "fp32"),
    ("onnx", "fp32"),
    ("openvino", "fp32"),
    ("mnn", "fp32"),
    ("openvino", "bf16"),
)
EIGHT_BITS = {"onnx": ".onnx", "openvino": ".xml"}
CALIBRATION_CROPS = 32
# Parts of the photos, (x1, y1, x2, y2) as shares of width and height.
PARTS = tuple((x / 8, y / 8, x / 8 + 0.5, y / 8 + 0.5) for x in range(4) for y in range(4))
RTMLIB_BACKENDS = ("onnxruntime", "openvino")
PREPARING_NODES = 4


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


def open_eight_bits(network, place, spec=SPEC):
    """Return an estimator for every runtime that computes in 8 bits."""
    calibration = photo_crops(installed_photos(), spec, CALIBRATION_CROPS, PARTS)
    graph = trace(fold_batch_norms(network), spec)
    metadata = {**spec_to_metadata(spec), "architecture": ARCHITECTURE, "precision": "int8"}
    estimators = {}
    for runtime, suffix in EIGHT_BITS.items():
        path = place / f"w32-int8{suffix}"
        write_graph_file(path, graph, metadata, precision="int8", calibration_BHW3=calibration)
        settings = RuntimeSettings(precision="int8")
        opened = open_exported(read_exported(path), runtime, settings, None)
        estimators[f"{runtime} int8"] = PoseEstimator(opened, spec)
    return estimators


@contextlib.contextmanager
def rtmlib_loops(python, network, image, boxes, place):
    """Yield, for each of rtmlib's engines, what runs it once and returns both its seconds."""
    model = write_graph(trace(fold_batch_norms(network), SPEC), {}, 1)
    # rtmlib makes the pixels itself.
    del model.graph.node[:PREPARING_NODES]
    shape = model.graph.input[0].type.tensor_type
    model.graph.input[0].name, shape.elem_type = PIXELS, 1
    for dim, size in zip(shape.shape.dim, (1, 3, *SPEC.input_hw), strict=True):
        dim.dim_value = size
    (place / "w32.onnx").write_bytes(model.SerializeToString())
    files = [place / "w32.onnx", *save_arrays(image, boxes, place)]
    with contextlib.ExitStack() as stack:
        yield {
            f"rtmlib {backend}": stack.enter_context(peer_loop(python, "rtmlib", *files, backend))
            for backend in RTMLIB_BACKENDS
        }


def save_arrays(image, boxes, place):
    """Return files of the image, blue first as others have it, and of the boxes."""
    paths = [place / "image.npy", place / "boxes.npy"]
    np.save(paths[0], image[:, :, ::-1])
    np.save(paths[1], boxes.xyxy_N4)
    return paths


@contextlib.contextmanager
def peer_loop(python, name, *words):
    """Yield what has another program run once, and returns both its seconds."""
    script = Path(__file__).parent / "peers" / f"{name}_loop.py"
    command = [python, *map(str, (script, *words))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as peer:
        while peer.stdout.readline().strip() != "ready":
            if peer.poll() is not None:
                sys.exit(f"{name} did not start")
        yield lambda: ask(peer)


def ask(peer):
    """Return the seconds of one run of a peer, of the clock and of the processor."""
    peer.stdin.write("\n")
    peer.stdin.flush()
    return tuple(float(text) for text in peer.stdout.readline().split())


def timed(way):
    """Return the seconds of one run, of the clock and of the processor."""
    start, used = time.perf_counter(), time.process_time()
    way()
    return time.perf_counter() - start, time.process_time() - used


def main() -> None:
    """Time all in turn and print a markdown table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--people", type=int, default=8)
    parser.add_argument("--rtmlib", help="Python of an environment that has rtmlib and openvino")
    parser.add_argument("--libreyolo", help="Python of an environment that has libreyolo")
    options = parser.parse_args()
    photo = installed_photos()[0]
    image = cv2.resize(read_image(photo)[0], (1920, 1080))
    boxes = some_boxes(image.shape[:2], options.people)
    network = lively_network()
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory())
        weights = Path(place) / "w32.safetensors"
        checkpoint.save_model(
            weights, network.state_dict(), SPEC, provenance="random", licence="none"
        )
        ways = {
            "plain eager fp32": lambda: timed(lambda: plain_frame(network, image, boxes.xyxy_N4))
        }
        estimators = open_ways(weights) | open_eight_bits(network, Path(place))
        for name, estimator in estimators.items():
            ways[name] = lambda estimator=estimator: timed(
                lambda: estimator.estimate([image], [boxes])
            )
        if options.rtmlib:
            ways |= stack.enter_context(
                rtmlib_loops(options.rtmlib, network, image, boxes, Path(place))
            )
        if options.libreyolo:
            arrays = save_arrays(image, boxes, Path(place))
            loop = peer_loop(options.libreyolo, "libreyolo", *arrays)
            ways["libreyolo"] = stack.enter_context(loop)
        seconds, processor = ({name: [] for name in ways} for _ in range(2))
        for run in range(options.rounds + 1):
            for name, way in ways.items():
                clock_s, processor_s = way()
                if run:
                    seconds[name].append(clock_s)
                    processor[name].append(processor_s)
    peak = measure_peak(processors(), 5)
    work = trace(fold_batch_norms(network), SPEC).multiplications()
    plain = seconds["plain eager fp32"]
    print(f"W32 256x192, {options.people} people, {options.rounds} rounds in turn.\n")
    print("| way | people/s, median | best | times plain | best | by processor time | % of peak |")
    print("|---|---|---|---|---|---|---|")
    used = {name: statistics.median(values) for name, values in processor.items()}
    for name, values in seconds.items():
        best = options.people / min(values)
        peer = name.startswith(("rtmlib", "libreyolo"))
        limit = peak.get("fp32" if peer else name.split()[-1])
        share = f"{best * work / limit:.0%}" if limit else ""
        print(
            f"| {name} | {options.people / statistics.median(values):.2f} | {best:.2f} |"
            f" {statistics.median(plain) / statistics.median(values):.2f} |"
            f" {min(plain) / min(values):.2f} | {used['plain eager fp32'] / used[name]:.2f} |"
            f" {share} |"
        )


if __name__ == "__main__":
    main()
