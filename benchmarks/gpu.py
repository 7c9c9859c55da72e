"""People a second on a CUDA device: `--runtime torch` against eager PyTorch, with random weights.

"Eager" is the network as its code says, channels first, on normalised pixels that lie on the
device already; in float32 with TF32 allowed, as PyTorch does by itself. Ours begins with uint8
crops on the device and ends with the peaks of the heatmaps and the squares around them. All ways
take turns, at several batches; the best batch of each counts. The peak is a bf16 matrix product of
8192 rows and columns in the same run.

Run: python benchmarks/gpu.py [--rounds 3] [--compiled] [--models w32 w48] [--batches 8 256]
"""

import argparse
import statistics
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from hrnet_cli.config import ModelSpec
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.pixels import normalise
from hrnet_cli.run_folder import hardware, versions
from hrnet_cli.runtimes import RuntimeSettings
from hrnet_cli.runtimes.cuda_graphs import CudaGraphs
from hrnet_cli.runtimes.torch_compiled import TorchCompiled
from hrnet_cli.runtimes.torch_eager import DTYPES, open_folded
from hrnet_cli.runtimes.torch_people import Network, find_keypoints
from hrnet_cli.schema import load_schema

MODELS = {"w32": (32, (256, 192)), "w48": (48, (384, 288))}
# What is timed lasts about so long, after a warm-up that records graphs and picks kernels.
SECONDS, WARM_UPS = 0.15, 4
PEAK_SIDE = 8192

Task = Callable[[], object]


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", choices=sorted(MODELS), default=sorted(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[8, 64, 128, 256])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16", "fp16"])
    parser.add_argument("--compiled", action="store_true")
    arguments = parser.parse_args()
    device = arguments.device
    print(f"{hardware(device)}, torch {versions()['torch']}, {arguments.rounds} rounds")
    side = torch.randn(PEAK_SIDE, PEAK_SIDE, device=device, dtype=torch.bfloat16)
    peak = 2 * PEAK_SIDE**3 / (milliseconds(lambda: side @ side) / 1000)
    print(f"bf16 matrix product of {PEAK_SIDE}: {peak / 1e12:.0f} TFLOP/s\n")
    for name in arguments.models:
        width, input_hw = MODELS[name]
        spec = ModelSpec(name, width, input_hw, "msra", load_schema("coco17"))
        measure(spec, arguments, peak)


def measure(spec: ModelSpec, arguments: argparse.Namespace, peak: float) -> None:
    """Time all ways of one network and print them."""
    device: str = arguments.device
    torch.manual_seed(0)
    network = HRNet(spec.width, len(spec.schema)).eval().requires_grad_(False)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, *spec.input_hw))
    work = counter.get_total_flops()
    times: dict[tuple[str, int], list[float]] = {}
    tasks: dict[tuple[str, int], Task] = {}
    networks = open_networks(network, spec, arguments)
    for batch in arguments.batches:
        generator = np.random.default_rng(batch)
        crops = torch.from_numpy(generator.integers(0, 256, (batch, *spec.input_hw, 3), np.uint8))
        for way, (one, dtype) in networks.items():
            make = eager_task if way.startswith("eager") else our_task
            task = make(one, crops.to(device), spec, dtype)
            try:
                for _ in range(WARM_UPS):
                    task()
                torch.cuda.synchronize(device)
            except torch.OutOfMemoryError:
                continue
            tasks[way, batch] = task
    for _ in range(arguments.rounds):
        for key, task in tasks.items():
            times.setdefault(key, []).append(milliseconds(task))
    medians = {key: statistics.median(values) for key, values in times.items()}
    base = max(batch / ms for (way, batch), ms in medians.items() if way == "eager fp32")
    print(f"{spec.name} {spec.input_hw[0]}x{spec.input_hw[1]}, {work / 1e9:.1f} GFLOP a person\n")
    print("| way | best batch | people/s | ratio | of peak | ms for 8 people |")
    print("|---|---|---|---|---|---|")
    for way in dict.fromkeys(way for way, _ in medians):
        speed, batch = max((b / ms * 1000, b) for (w, b), ms in medians.items() if w == way)
        few = medians.get((way, 8), float("nan"))
        share = speed * work / peak
        row = (way, batch, f"{speed:,.0f}", f"{speed / base / 1000:.2f}", f"{share:.1%}")
        print(f"| {' | '.join(map(str, row))} | {few:.2f} |")
    print(flush=True)


def open_networks(
    network: HRNet, spec: ModelSpec, arguments: argparse.Namespace
) -> dict[str, tuple[Network, torch.dtype]]:
    """Return the networks to time and their arithmetic, by name."""
    device: str = arguments.device
    networks: dict[str, tuple[Network, torch.dtype]] = {}
    for precision in ("fp32", "bf16"):
        copy = HRNet(spec.width, len(spec.schema)).eval().to(device, DTYPES[precision])
        copy.load_state_dict(network.state_dict())
        networks[f"eager {precision}"] = copy, DTYPES[precision]
    for precision in arguments.precisions:
        settings = RuntimeSettings(device=device, precision=precision)
        graphs = open_folded(network, spec, settings).network
        networks[f"torch {precision}"] = graphs, DTYPES[precision]
        if precision == "bf16" and isinstance(graphs, CudaGraphs):
            networks["torch bf16 without graphs"] = graphs.network, DTYPES[precision]
    if arguments.compiled:
        settings = RuntimeSettings(device=device, precision="bf16")
        networks["compiled bf16"] = TorchCompiled(network, spec, settings)._in_parts, torch.bfloat16
    return networks


def eager_task(
    network: Network, crops_BHW3: torch.Tensor, spec: ModelSpec, dtype: torch.dtype
) -> Task:
    """Return the bare network at work."""
    pixels = normalise(crops_BHW3, spec.mean_rgb, spec.std_rgb).to(dtype).contiguous()

    def task() -> object:
        torch.backends.cudnn.allow_tf32 = True
        with torch.inference_mode():
            return network(pixels)

    return task


def our_task(
    network: Network, crops_BHW3: torch.Tensor, spec: ModelSpec, dtype: torch.dtype
) -> Task:
    """Return what `hrnet detect` does on the device with crops."""

    def task() -> object:
        torch.backends.cudnn.allow_tf32 = dtype != torch.float32
        return find_keypoints(network, crops_BHW3, spec, dtype, flip_test=False)

    return task


def milliseconds(task: Task) -> float:
    """Return how long a task takes on the device, over enough runs of it."""
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    wanted_ms, runs = 1000 * SECONDS, 1
    while True:
        begun.record()
        for _ in range(runs):
            task()
        ended.record()
        ended.synchronize()
        took_ms = begun.elapsed_time(ended)
        if took_ms >= wanted_ms:
            return took_ms / runs
        runs = max(runs + 1, int(1.2 * runs * wanted_ms / max(took_ms, 0.01)))


if __name__ == "__main__":
    main()
