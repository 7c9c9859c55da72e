"""People a second of a training step: as the official code trains, and as `hrnet train` does.

Official: float32, channels first, Adam over all parameters, the loss keypoint by keypoint; targets
and normalised pixels are made beforehand. Ours: what `hrnet train` runs, from uint8 crops on. Both
on one device, in turn; medians. W32 at 256x192 unless said otherwise.

    python benchmarks/training_step.py [--device cuda --batch 128 --precision auto]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from hrnet_cli.config import ModelSpec
from hrnet_cli.data.augment import AugmentConfig
from hrnet_cli.data.crops import CropBatch, CropDataset, CropFrame
from hrnet_cli.data.people import LabelledPeople
from hrnet_cli.distributed import Team
from hrnet_cli.models import MODELS
from hrnet_cli.recipe import load_config
from hrnet_cli.run_folder import hardware, versions
from hrnet_cli.run_state import Run, build_run
from hrnet_cli.schema import load_schema

KEYPOINTS = 17


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--input", default="256x192", metavar="HxW")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--graphs", action="store_true")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    height, width = map(int, arguments.input.split("x"))
    arguments.input_hw = (height, width)
    crops = random_crops(arguments.batch, arguments.input_hw)
    run = our_run(arguments)
    ways: dict[str, Callable[[], torch.Tensor]] = {
        "official": official_step(crops, arguments.width, arguments.device),
        "ours": lambda: our_step(run, crops),
    }
    for step in ways.values():  # The first steps choose kernels.
        step()
        step()
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, step in ways.items():
            finish(arguments.device)
            began = time.perf_counter()
            for _ in range(arguments.steps):
                step()
            finish(arguments.device)
            times[name].append((time.perf_counter() - began) / arguments.steps)
    report(arguments, run, times)


def random_crops(batch: int, input_hw: tuple[int, int]) -> CropBatch:
    """Return noise with keypoints somewhere."""
    rng = np.random.default_rng(0)
    crops = torch.from_numpy(rng.integers(0, 256, (batch, *input_hw, 3), dtype=np.uint8))
    points = torch.from_numpy(rng.uniform(0, input_hw[1], (batch, KEYPOINTS, 2)).astype(np.float32))
    return CropBatch(crops, points, torch.ones(batch, KEYPOINTS), torch.arange(batch))


def our_run(arguments: argparse.Namespace) -> Run:
    """Return a run as `hrnet train` builds it, on one made-up person."""
    config = load_config(
        "official",
        {
            "model.width": arguments.width,
            "model.input_hw": arguments.input_hw,
            "run.precision": arguments.precision,
            "run.compile": arguments.compile,
            "run.graphs": arguments.graphs,
            "run.batch_size": arguments.batch,
        },
    )
    schema = load_schema("coco17")
    spec = ModelSpec("benchmark", arguments.width, arguments.input_hw, "msra", schema)
    network = MODELS["hrnet"](arguments.width, KEYPOINTS)
    data = CropDataset(nobody(), CropFrame(arguments.input_hw, "msra"), AugmentConfig(), seed=0)
    run = build_run(config, spec, data, network, Team(), arguments.device)
    run.set_training()
    return run


def our_step(run: Run, crops: CropBatch) -> torch.Tensor:
    """Do what `training._step` does, without its bookkeeping."""
    for group in run.optimizer.param_groups:
        group["lr"] = 1e-3
    loss = run.go_backward(crops.to(run.device))
    run.scaler.step(run.optimizer)
    run.scaler.update()
    return loss


def official_step(crops: CropBatch, width: int, device: str) -> Callable[[], torch.Tensor]:
    """Return a step in the manner of the official code (lib/core/function.py, lib/core/loss.py)."""
    network = MODELS["hrnet"](width, KEYPOINTS).to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    pixels = crops.crops_BHW3.permute(0, 3, 1, 2).contiguous().float() / 255
    height, width_px = pixels.shape[2:]
    targets = torch.rand(len(crops), KEYPOINTS, height // 4, width_px // 4)
    weights = torch.ones(len(crops), KEYPOINTS, 1)
    square = nn.MSELoss()

    def step() -> torch.Tensor:
        heatmaps = network(pixels.to(device))
        wanted, weight = targets.to(device), weights.to(device)
        flat = heatmaps.reshape(len(crops), KEYPOINTS, -1)
        wanted = wanted.reshape(len(crops), KEYPOINTS, -1)
        loss = torch.zeros((), device=device)
        for keypoint in range(KEYPOINTS):
            one = weight[:, keypoint]
            loss = loss + 0.5 * square(flat[:, keypoint] * one, wanted[:, keypoint] * one)
        loss = loss / KEYPOINTS
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def nobody() -> LabelledPeople:
    """Return a data set of one person, whom no step looks at."""
    from pathlib import Path

    return LabelledPeople(
        name="none",
        folder=Path(),
        schema=load_schema("coco17"),
        photos=("none",),
        photo_ids_P=np.ones(1, np.int64),
        sizes_P2=np.full((1, 2), 100),
        photo_of_N=np.zeros(1, np.int64),
        ids_N=np.ones(1, np.int64),
        boxes_N4=np.array([[0.0, 0.0, 50.0, 50.0]]),
        areas_N=np.full(1, 2500.0),
        keypoints_NK2=np.ones((1, KEYPOINTS, 2)),
        visible_NK=np.full((1, KEYPOINTS), 2, np.uint8),
        weights_NK=np.ones((1, KEYPOINTS), np.float32),
        crowd_N=np.zeros(1, bool),
    )


def finish(device: str) -> None:
    """Wait for the device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def report(arguments: argparse.Namespace, run: Run, times: dict[str, list[float]]) -> None:
    """Print people a second and their ratio."""
    where = hardware(arguments.device)
    print(f"W{arguments.width} {arguments.input}, batch {arguments.batch}, {where}")
    print(f"torch {versions()['torch']}, {arguments.rounds} rounds of {arguments.steps} steps\n")
    base = statistics.median(times["official"])
    print("| way | people/s | best | ratio |\n|---|---|---|---|")
    for name, taken in times.items():
        median = statistics.median(taken)
        label = "official fp32" if name == "official" else f"ours {run.precision} channels last"
        speeds = f"{arguments.batch / median:.2f} | {arguments.batch / min(taken):.2f}"
        print(f"| {label} | {speeds} | {base / median:.2f} |")
    if arguments.device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated(arguments.device) / 2**30
        print(f"\npeak memory of both together {peak:.1f} GB")


if __name__ == "__main__":
    main()
