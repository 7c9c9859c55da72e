"""Peak memory of `hrnet detect` on 200 and on 2,000 photos: it must not grow with the number.

Run: python benchmarks/photo_memory.py
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from hrnet_cli import write_image

HRNET = str(Path(sys.executable).with_name("hrnet"))
COUNTS = (200, 2000)
# The promise: the larger run stays within this of the smaller one.
ALLOWED_MB = 200


def make_photos(folder: Path, count: int) -> None:
    """Write photos of several sizes, each with its own noise."""
    random = np.random.default_rng(0)
    for number in range(20):
        size = (480 + 40 * (number % 5), 640 + 64 * (number % 3), 3)
        small = random.integers(0, 255, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
        write_image(folder / f"{number:05d}.jpg", small.repeat(8, axis=0).repeat(8, axis=1))
    for number in range(20, count):
        os.link(folder / f"{number % 20:05d}.jpg", folder / f"{number:05d}.jpg")


def peak_mb(photos: Path, out: Path) -> float:
    """Return the highest resident memory of a run in a process of its own, in MB."""
    command = [HRNET, "detect", str(photos), "--out", str(out), "--quiet", "--skeleton"]
    command += ["--model", "starter", "--detector", "whole-image", "--format", "jsonl,csv,coco"]
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"hrnet ended with status {status}")
    return usage.ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def main() -> None:
    """Measure both and print a markdown table."""
    print("| photos | peak MB |\n|---|---|")
    peaks = []
    for count in COUNTS:
        with tempfile.TemporaryDirectory() as folder:
            photos = Path(folder) / "photos"
            photos.mkdir()
            make_photos(photos, count)
            peaks.append(peak_mb(photos, Path(folder) / "out"))
        print(f"| {count} | {peaks[-1]:.0f} |", flush=True)
    print(f"\nGrowth {peaks[1] - peaks[0]:.0f} MB, at most {ALLOWED_MB} MB promised.")


if __name__ == "__main__":
    main()
