"""Time of a whole `hrnet detect photo.jpg`, from the shell to the records, by runtime.

Every run is a new process. OpenVINO runs from the cache that the run before it left, as for anybody
who uses a model twice, and from an exported file; with an exported detector too when one is named.

Beside the time on the clock stands the time on the processor: where a machine does other things
too, the clock says little.

Run: python benchmarks/cold_start.py [--model MODEL] [--detector EXPORTED_YOLO] [--runs 5]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hrnet_cli.model_crops import installed_photos

RECORDS = "poses.jsonl"


def command(folder, model, detector, *words):
    """Return the words of a run that writes into a folder."""
    return [
        sys.executable, "-m", "hrnet_cli", "detect", str(installed_photos()[0]),
        "--model", str(model), "--detector", detector, "--device", "cpu", "--offline",
        "--overwrite", "--quiet", "--out", str(folder), *words,
    ]  # fmt: skip


def processor_seconds():
    """Return the processor time of all runs so far, which a busy machine stretches little."""
    times = os.times()
    return times.children_user + times.children_system


def points(folder):
    """Return the keypoints of everybody in the records of a run."""
    record = json.loads((folder / RECORDS).read_text().splitlines()[0])
    return [point[:2] for person in record["people"] for point in person["keypoints"]]


def main() -> None:
    """Run the ways in turn and print a markdown table of medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="starter")
    parser.add_argument("--detector", default="whole-image")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        environment = os.environ | {
            "HRNET_HOME": os.environ.get("HRNET_HOME", str(folder / "home"))
        }
        exported = folder / "exported_openvino"
        subprocess.run(
            [sys.executable, "-m", "hrnet_cli", "export", options.model, "--to", "openvino",
             "--out", str(exported), "--quiet", "--offline"],
            check=True, env=environment,
        )  # fmt: skip
        ways = {
            "torch": (options.model, "--runtime", "torch"),
            "openvino, graph kept from the run before": (options.model, "--runtime", "openvino"),
            "openvino, exported file": (exported, "--runtime", "openvino"),
        }
        seconds, processor = ({name: [] for name in ways} for _ in range(2))
        found = {}
        for run in range(options.runs + 1):
            for name, (model, *words) in ways.items():
                out = folder / "out"
                start, used = time.perf_counter(), processor_seconds()
                subprocess.run(
                    command(out, model, options.detector, *words), check=True, env=environment
                )
                if run:  # the first round fills the caches
                    seconds[name].append(time.perf_counter() - start)
                    processor[name].append(processor_seconds() - used)
                found[name] = points(out)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    print(f"Model {options.model}, detector {options.detector}, {options.runs} runs in turn.\n")
    print(
        "| runtime | median s | best s | of torch | processor s | of torch | keypoints move, px |"
    )
    print("|---|---|---|---|---|---|---|")
    used = {name: statistics.median(values) for name, values in processor.items()}
    for name, values in seconds.items():
        pairs = zip(found[name], found["torch"], strict=True)
        worst = max(abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True))
        print(
            f"| {name} | {medians[name]:.2f} | {min(values):.2f} |"
            f" {medians[name] / medians['torch']:.2f} | {used[name]:.2f} |"
            f" {used[name] / used['torch']:.2f} | {worst:.3f} |"
        )


if __name__ == "__main__":
    main()
