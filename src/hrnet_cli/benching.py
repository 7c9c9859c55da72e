"""How fast the stages and runtimes are on this machine, and what it could do at most.

Everything is timed in turn, A B C A B C, so that what else the machine does slows all alike.
Shape letters: B crops, N people, K keypoints, H W height and width.
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hrnet_cli import geometry, heatmap
from hrnet_cli.config import ModelSpec
from hrnet_cli.draw import draw_poses
from hrnet_cli.errors import DeviceError, UsageError
from hrnet_cli.estimator import PoseEstimator
from hrnet_cli.images import read_image
from hrnet_cli.model_opening import OpenedModel, open_model
from hrnet_cli.optional_packages import import_quietly, is_installed
from hrnet_cli.runtimes import Computing, Runtime
from hrnet_cli.structures import Boxes, Poses

# Channels and side of the convolution whose speed counts as the most a machine can do: 3x3, as
# most of an HRNet's, and large enough to keep every unit busy.
PEAK_CHANNELS, PEAK_SIDE, PEAK_BATCH = 256, 32, 8


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one thing.

    Attributes:
        name: Stage, or runtime and precision.
        people: People, or pictures, that each round dealt with.
        rounds_ms: Of each round.
    """

    name: str
    people: int
    rounds_ms: tuple[float, ...]

    @property
    def ms(self) -> float:
        """Return the median of the rounds."""
        return statistics.median(self.rounds_ms)

    @property
    def per_second(self) -> float:
        """Return people, or pictures, a second."""
        return 1000 * self.people / self.ms

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "name": self.name,
            "people": self.people,
            "ms": self.ms,
            "best_ms": min(self.rounds_ms),
            "per_second": self.per_second,
        }


@dataclass(frozen=True)
class Contender:
    """A runtime that takes part.

    Attributes:
        runtime: Its name.
        precision: Of its arithmetic.
        opened: It at work.
    """

    runtime: str
    precision: str
    opened: OpenedModel

    @property
    def name(self) -> str:
        """Return runtime and precision."""
        return f"{self.runtime} {self.precision}"


def open_contenders(
    path: Path,
    spec: ModelSpec | None,
    runtimes: Sequence[str],
    precisions: Sequence[str],
    computing: Computing,
) -> tuple[list[Contender], dict[str, str]]:
    """Return every runtime in every precision that this machine has, and why others are missing.

    Args:
        path: Model file.
        spec: What it is; None where the file says it.
        runtimes: Names of `runtimes.RUNTIMES`.
        precisions: Of `runtimes.PRECISIONS`.
        computing: Device and threads.
    """
    contenders: list[Contender] = []
    left_out: dict[str, str] = {}
    for name in runtimes:
        for precision in precisions:
            wish = Computing(computing.device, name, precision, computing.threads)
            try:
                opened = open_model(path, spec, wish)
            except (UsageError, DeviceError) as error:
                left_out[f"{name} {precision}"] = error.message
            else:
                contenders.append(Contender(name, precision, opened))
    return contenders, left_out


def time_in_turn(
    tasks: Mapping[str, Callable[[], object]], people: int, rounds: int
) -> list[Timing]:
    """Return the times of tasks that are run one after the other in every round.

    Args:
        tasks: What to run, by name; each runs once before it counts.
        people: What each deals with.
        rounds: How often each counts.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()
    for _ in range(rounds):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            times[name].append(1000 * (time.perf_counter() - start))
    return [Timing(name, people, tuple(values)) for name, values in times.items()]


def stage_tasks(
    photo: Path, spec: ModelSpec, runtime: Runtime, people: int
) -> dict[str, Callable[[], object]]:
    """Return the stages around the network as tasks, for so many people in a photo."""
    image_HW3, _ = read_image(photo)
    boxes = some_boxes(image_HW3.shape[:2], people)
    centers, sizes = geometry.crop_boxes(boxes.xyxy_N4, spec.input_hw, spec.box_padding)
    matrices = geometry.crop_matrices(centers, sizes, spec.input_hw, spec.codec)
    crops_BHW3 = geometry.warp_crops(image_HW3, matrices, spec.input_hw)
    heatmaps_BKHW = runtime(crops_BHW3)
    poses = _poses(runtime, spec, image_HW3, boxes)
    return {
        "decode photo": lambda: read_image(photo),
        "crop": lambda: geometry.warp_crops(image_HW3, matrices, spec.input_hw),
        "decode heatmaps": lambda: heatmap.decode(heatmaps_BKHW, spec.codec, spec.input_hw),
        "draw": lambda: draw_poses(image_HW3, poses),
    }


def network_tasks(
    photo: Path, contenders: Sequence[Contender], people: int
) -> dict[str, Callable[[], object]]:
    """Return the networks as tasks, for the crops of so many people in a photo."""
    image_HW3, _ = read_image(photo)
    boxes = some_boxes(image_HW3.shape[:2], people)
    spec = contenders[0].opened.spec
    centers, sizes = geometry.crop_boxes(boxes.xyxy_N4, spec.input_hw, spec.box_padding)
    matrices = geometry.crop_matrices(centers, sizes, spec.input_hw, spec.codec)
    crops_BHW3 = geometry.warp_crops(image_HW3, matrices, spec.input_hw)

    def task(runtime: Runtime) -> Callable[[], object]:
        return lambda: runtime(crops_BHW3)

    return {one.name: task(one.opened.runtime) for one in contenders}


def some_boxes(image_hw: tuple[int, ...], people: int) -> Boxes:
    """Return boxes as of people side by side, overlapping where there are many."""
    height, width = image_hw[:2]
    box_width = min(width, 0.5 * height)
    left_N = np.linspace(0, width - box_width, people)
    columns = [left_N, np.full(people, 0.1 * height), left_N + box_width, np.full(people, height)]
    return Boxes(np.stack(columns, axis=1), np.ones(people))


def measure_peak(threads: int, rounds: int) -> dict[str, float]:
    """Return the multiplications a second of a large 3x3 convolution, by precision.

    The best round counts: nothing makes a machine faster than it is.
    """
    peaks: dict[str, float] = {}
    work = PEAK_BATCH * PEAK_SIDE**2 * 9 * PEAK_CHANNELS**2
    for precision, task in _peak_tasks(threads):
        (timing,) = time_in_turn({precision: task}, 1, rounds)
        peaks[precision] = work / (min(timing.rounds_ms) / 1000)
    return peaks


def peak_memory_mb() -> float | None:
    """Return the most memory this process had, None where the system does not say."""
    if sys.platform == "win32":
        return None
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used / 1e6 if sys.platform == "darwin" else used / 1e3


def _poses(runtime: Runtime, spec: ModelSpec, image_HW3: np.ndarray, boxes: Boxes) -> Poses:
    return PoseEstimator(runtime, spec).estimate([image_HW3], [boxes])[0]


def _peak_tasks(threads: int) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield a convolution in each precision, in OpenVINO if it is installed, else in torch."""
    generator = np.random.default_rng(0)
    shape = (PEAK_BATCH, PEAK_CHANNELS, PEAK_SIDE, PEAK_SIDE)
    pixels = generator.random(shape, np.float32)
    weight = generator.random((PEAK_CHANNELS, PEAK_CHANNELS, 3, 3), np.float32)
    if not is_installed("openvino"):
        import torch
        from torch.nn.functional import conv2d

        for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            x, w = (
                torch.from_numpy(array).to(dtype, memory_format=torch.channels_last)
                for array in (pixels, weight)
            )
            yield precision, lambda x=x, w=w: conv2d(x, w, padding=1)
        return
    from hrnet_cli.engines import open_openvino

    ov: Any = import_quietly("openvino", "hrnet bench")
    op: Any = import_quietly("openvino.opset13", "hrnet bench")
    source = op.parameter(list(shape), np.float32)
    one, sides = [1, 1], [1, 1]
    # Only a corner comes back, so that copying the result is no part of it.
    result = op.reduce_max(op.convolution(source, weight, one, sides, sides, one), [1, 2, 3], False)
    model = ov.Model([result], [source], "peak")
    for precision in ("fp32", "bf16"):
        try:
            compiled = open_openvino(
                model, precision=precision, threads=threads, wanted_by="hrnet bench"
            )
        except DeviceError:
            continue
        yield precision, lambda compiled=compiled: compiled(pixels)
