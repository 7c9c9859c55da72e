"""Which processor computes, and the seed of a run."""

import random
import re

from hrnet_cli.errors import DeviceError

DEVICES = "auto, cpu, cuda, cuda:N or mps"


def pick_device(name: str) -> str:
    """Return the device to compute on, checked to be there.

    Args:
        name: ``auto`` (CUDA if there is any, else MPS, else the CPU), ``cpu``, ``cuda``,
            ``cuda:1`` (the second card) or ``mps``.

    Raises:
        DeviceError: The name is not known, or this machine has no such device.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise DeviceError(f"device '{name}' is not known; expected {DEVICES}")
    available = _available_devices()
    if name == "auto":
        return available[0]
    if name not in available:
        raise DeviceError(
            f"device '{name}' is not available; available: {', '.join(available)}",
            hint="use --device auto to take the best one there is",
        )
    return name


def set_seed(seed: int) -> None:
    """Seed the generators of Python and of torch, on every device.

    NumPy is left out on purpose: what draws numbers with it takes a `numpy.random.Generator`.
    """
    import torch

    random.seed(seed)
    torch.manual_seed(seed)


def _available_devices() -> list[str]:
    """Return the names that can be picked, the fastest first."""
    import torch

    cards = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    cuda = ["cuda", *cards] if cards else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]
