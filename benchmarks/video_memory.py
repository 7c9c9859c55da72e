"""Resident memory of a long video: it must not grow with the number of frames.

A clip of 160x120 is made and worked through as `hrnet detect --detector whole-image --model starter
--skeleton --track --smooth one-euro --format jsonl,csv` does it, records and drawn video included;
the resident memory of the process is read at frame 500 and at the last. With `--fake-network` the
network gives heatmaps of zeros at once, so that the many frames take minutes and not hours: what
grows with the frames would still grow.

Run: OMP_NUM_THREADS=1 python benchmarks/video_memory.py --fake-network
     OMP_NUM_THREADS=1 python benchmarks/video_memory.py --frames 3000
"""

import argparse
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import psutil

from hrnet_cli.config import ModelSpec
from hrnet_cli.detectors.whole_image import WholeImageDetector
from hrnet_cli.estimator import PoseEstimator, load_model
from hrnet_cli.sinks import RunInfo
from hrnet_cli.sources import Span
from hrnet_cli.sources.video import open_video
from hrnet_cli.streaming import Finders, Following, Seen
from hrnet_cli.tracking import TrackerSettings
from hrnet_cli.video_job import process_video
from hrnet_cli.video_task import Drawing, VideoResult, VideoTask, Watch

SIZE_WH = (160, 120)
EARLY = 500
ALLOWED_MB = 100


class ZeroNetwork:
    """A runtime whose heatmaps are zeros."""

    name = "zeros"
    tolerance = 0.0

    def __init__(self, spec: ModelSpec) -> None:
        height, width = spec.input_hw
        self._shape = (len(spec.schema), height // 4, width // 4)

    def __call__(self, crops_BHW3: np.ndarray) -> np.ndarray:
        """Return zeros."""
        return np.zeros((len(crops_BHW3), *self._shape), np.float32)


def make_clip(path: Path, frames: int) -> None:
    """Write a video of a bright spot that wanders over noise that drifts."""
    width, height = SIZE_WH
    noise_HW = np.random.default_rng(0).integers(0, 90, (height, 4 * width), dtype=np.uint8)
    y_H1, x_1W = np.ogrid[:height, :width]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "30"})
        stream.width, stream.height = SIZE_WH
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            x, y = 80 + 60 * np.sin(number / 40), 60 + 40 * np.cos(number / 31)
            spot_HW = ((x_1W - x) ** 2 + (y_H1 - y) ** 2 < 15**2) * 150
            start = number % (3 * width)
            grey_HW = (noise_HW[:, start : start + width] + spot_HW).astype(np.uint8)
            rgb_HW3 = np.repeat(grey_HW[..., None], 3, axis=2)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(rgb_HW3, format="rgb24")))
        out.mux(stream.encode(None))


def estimator(*, fake: bool) -> PoseEstimator:
    """Return the starter model, or the same with a network of zeros."""
    real = load_model("starter", device="cpu", offline=True)
    return PoseEstimator(ZeroNetwork(real.spec), real.spec) if fake else real


def task(clip: Path, out: Path) -> VideoTask:
    """Return what the command makes of its options."""
    return VideoTask(
        source=open_video(str(clip), clip, "clip.mp4", Span()),
        target=out / "clip",
        formats=("jsonl", "csv"),
        info=RunInfo("starter", "whole-image", 0.2),
        following=Following(tracking=TrackerSettings(), smoothing="one-euro"),
        settings={},
        drawing=Drawing(("keypoints", "skeleton")),
    )


def main() -> None:
    """Work through the clip and print a markdown table."""
    parser = argparse.ArgumentParser(description="Memory of a long video.")
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--fake-network", action="store_true")
    options = parser.parse_args()
    resident_mb: dict[int, float] = {}

    def on_frame(seen: Seen, _picture: np.ndarray | None) -> bool:
        if seen.number % EARLY == 0 or seen.number == options.frames:
            resident_mb[seen.number] = psutil.Process().memory_info().rss / 2**20
        return True

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_clip(folder / "clip.mp4", options.frames)
        finders = Finders(WholeImageDetector(), estimator(fake=options.fake_network))
        result, start = VideoResult(), time.perf_counter()
        process_video(task(folder / "clip.mp4", folder / "out"), finders, Watch(on_frame), result)
        seconds = time.perf_counter() - start
        after = psutil.Process().memory_info().rss / 2**20
    network = "zeros" if options.fake_network else "starter"
    growth = resident_mb[options.frames] - resident_mb[EARLY]
    print(
        "| network | frames | s | MB at 500 | most MB | MB at the last frame | joined and closed |"
    )
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {network} | {result.frames} | {seconds:.0f} | {resident_mb[EARLY]:.0f} |"
        f" {max(resident_mb.values()):.0f} | {resident_mb[options.frames]:.0f} | {after:.0f} |"
    )
    print(f"\nGrowth {growth:.0f} MB from frame 500 to the last, at most {ALLOWED_MB} MB wanted.")
    if growth > ALLOWED_MB or not result.complete:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
