"""How many people a training step can take at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from hrnet_cli.errors import DeviceError
from hrnet_cli.limits import memory_left

# Share of the memory that the largest batch may fill.
MEMORY_SHARE = 0.85
# Batches whose memory is measured on a GPU; the line through them is extended.
TRIED_BATCHES = (8, 16)
# On a CPU larger batches are no faster.
MOST_ON_CPU = 32
# Beside what the backward pass keeps, it needs room for gradients on their way.
BACKWARD_EXTRA = 1.2
GB = 2**30


def largest_batch(
    network: nn.Module, input_hw: tuple[int, int], device: str, half: torch.dtype | None
) -> int:
    """Return the largest sensible batch of one process.

    The network keeps its weights and statistics; its gradients are cleared.

    Args:
        network: On the device, in training mode.
        input_hw: Crop (height, width).
        device: Where it computes.
        half: Type of its arithmetic, None for float32.

    Raises:
        DeviceError: Not even the smallest batch fits.
    """
    if not device.startswith("cuda"):
        return max(1, min(MOST_ON_CPU, fitting_on_cpu(network, input_hw, half)))
    try:
        with _untouched(network):
            needs = [_cuda_bytes(network, input_hw, device, half, size) for size in TRIED_BATCHES]
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"{device}: out of memory for {TRIED_BATCHES[-1]} people at"
            f" {input_hw[0]}x{input_hw[1]}",
            hint="a smaller --input or --width, or another --device",
        ) from error
    small, large = TRIED_BATCHES
    each = max(1.0, (needs[1] - needs[0]) / (large - small))
    # Adam keeps two more numbers for each weight from the first step on.
    fixed = needs[0] - small * each + 8 * sum(p.numel() for p in network.parameters())
    total = torch.cuda.get_device_properties(device).total_memory
    fits = int((MEMORY_SHARE * total - fixed) / each)
    return max(small, fits - fits % small)


def fitting_on_cpu(network: nn.Module, input_hw: tuple[int, int], half: torch.dtype | None) -> int:
    """Return how many people fit into the free memory of this machine; arguments as above."""
    free = free_bytes()
    if free is None:
        return MOST_ON_CPU
    weights = 16 * sum(p.numel() for p in network.parameters())  # gradients and Adam's averages
    return int((MEMORY_SHARE * free - weights) / cpu_bytes(network, input_hw, half))


def cpu_bytes(network: nn.Module, input_hw: tuple[int, int], half: torch.dtype | None) -> float:
    """Return the bytes that one person of a batch takes, from what the backward pass keeps."""
    kept: dict[int, int] = {}
    own = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    # Of two people one counts: weights in half precision are kept too, once for all.
    sizes: list[int] = []
    with _untouched(network):
        for size in (1, 2):
            kept.clear()
            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                heatmaps = _forward(network, input_hw, "cpu", half, size)
            sizes.append(sum(kept.values()))
            del heatmaps
    return max(1.0, BACKWARD_EXTRA * (sizes[1] - sizes[0]))


def free_bytes() -> int | None:
    """Return the memory that this process can still get, None where the system does not say.

    A container's limit is included.
    """
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    if "MemAvailable" not in lines:
        return None
    free = int(lines["MemAvailable"].split()[0]) * 1024
    left = memory_left()
    return free if left is None else min(free, left)


def _cuda_bytes(
    network: nn.Module,
    input_hw: tuple[int, int],
    device: str,
    half: torch.dtype | None,
    size: int,
) -> int:
    """Return the most bytes in use during a step of so many blank people."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    _forward(network, input_hw, device, half, size).float().square().mean().backward()
    return torch.cuda.max_memory_allocated(device)


def _forward(
    network: nn.Module,
    input_hw: tuple[int, int],
    device: str,
    half: torch.dtype | None,
    size: int,
) -> torch.Tensor:
    blank = torch.zeros(size, 3, *input_hw, device=device)
    blank = blank.to(memory_format=torch.channels_last)
    with torch.autocast(device.split(":")[0], dtype=half, enabled=half is not None):
        return network(blank)


@contextmanager
def _untouched(network: nn.Module) -> Iterator[None]:
    """Put statistics and gradients back as they were, the latter as none."""
    before = {name: tensor.clone() for name, tensor in network.named_buffers()}
    try:
        yield
    finally:
        network.zero_grad(set_to_none=True)
        for name, tensor in network.named_buffers():
            tensor.copy_(before[name])
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
