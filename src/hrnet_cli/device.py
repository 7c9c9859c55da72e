"""Which processor computes, and the seed of a run."""

import os
import random
import re
import sys
from pathlib import Path

from hrnet_cli.errors import DeviceError
from hrnet_cli.limits import processors_allowed

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
    if name == "cpu" or (name == "auto" and not _may_have_gpu()):
        # Every machine has one: torch, which takes seconds to import, need not be asked.
        return "cpu"
    available = _available_devices()
    if name == "auto":
        return available[0]
    if name not in available:
        raise DeviceError(
            f"device '{name}' is not available; available: {', '.join(available)}",
            hint="use --device auto to take the best one there is",
        )
    return name


def processors() -> int:
    """Return the number of processors this process may use, a container's limit included."""
    if hasattr(os, "sched_getaffinity"):
        found = len(os.sched_getaffinity(0))
    else:
        found = os.cpu_count() or 1
    return min(found, processors_allowed() or found)


def set_seed(seed: int) -> None:
    """Seed the generators of Python and of torch, on every device.

    NumPy is left out on purpose: what draws numbers with it takes a `numpy.random.Generator`.
    """
    import torch

    random.seed(seed)
    torch.manual_seed(seed)


def _may_have_gpu() -> bool:
    """Return whether torch may know more devices than the processor; False is sure."""
    if "torch" in sys.modules or sys.platform not in ("linux", "win32"):
        return True
    if sys.platform == "win32":
        root = Path(os.environ.get("SYSTEMROOT", r"C:\Windows"))
        return (root / "System32" / "nvcuda.dll").exists()
    # Drivers of NVIDIA and AMD, and the one of Windows' Linux subsystem.
    names = ("nvidiactl", "nvhost-ctrl", "kfd", "dxg")
    return any(Path("/dev", name).exists() for name in names)


def _available_devices() -> list[str]:
    """Return the names that can be picked, the fastest first."""
    import torch

    cards = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    cuda = ["cuda", *cards] if cards else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]


def pick_precision(name: str, device: str) -> str:
    """Return the arithmetic of a training's network on a device.

    Args:
        name: ``auto``, ``fp32``, ``bf16`` or ``fp16``. ``auto`` takes bf16 where the device
            computes in it (GPUs since Ampere, processors with AVX512-BF16 or AMX), else fp16 on
            CUDA, else fp32.
        device: Of `pick_device`.

    Raises:
        DeviceError: The device does not compute in it.
    """
    import torch

    kind = device.split(":")[0]
    if kind == "cuda":
        fast = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    else:
        fast = "bf16" if kind == "cpu" and cpu_has_bf16() else "fp32"
    if name == "fp16" and kind != "cuda":
        raise DeviceError(
            f"fp16 training needs CUDA, this run is on {device}", hint="--precision bf16 or fp32"
        )
    return fast if name == "auto" else name


def cpu_has_bf16() -> bool:
    """Return whether the processor multiplies bfloat16; only then is it faster than float32."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    if not capability.startswith("AVX512"):
        return False
    try:
        words = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(words))
