"""Runtimes: interchangeable ways to turn uint8 crops into heatmaps; built on demand.

A new runtime is a file with a `Runtime` and one line in `RUNTIMES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from hrnet_cli.config import ModelSpec
from hrnet_cli.engines import openvino_computes_in
from hrnet_cli.errors import DeviceError, UsageError
from hrnet_cli.limits import MOST_THREADS
from hrnet_cli.optional_packages import can_be_imported, check_installed

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

AUTO = "auto"
# Largest difference of heatmaps from those of PyTorch in float32, as a share of the highest peak
# (a trained network peaks near 1). Seen on a trained W32: fp32 1e-6, bf16 1.6e-2, int8 7.5e-2.
TOLERANCES = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 5e-2, "int8": 0.2}
PRECISIONS = tuple(TOLERANCES)
# That of float32 by Winograd's method. Seen on trained and random networks: 2e-4.
WINOGRAD_TOLERANCE = 1e-3


class Runtime(Protocol):
    """Computes heatmaps, and nothing else; mean and standard deviation are applied inside.

    Several threads may call one: those that share memory between calls take turns, with a lock.

    Attributes:
        name: Name in `RUNTIMES`, written into reports.
        tolerance: Largest difference of its heatmaps from the reference it was verified to, as a
            share of their highest peak; trained heatmaps peak near 1.
    """

    name: str
    tolerance: float

    def __call__(self, crops_BHW3: "np.ndarray") -> "np.ndarray":
        """Return float32 heatmaps (B, K, H/4, W/4) of uint8 RGB crops; B may be 0.

        Raises:
            DeviceError: The device ran out of memory.
        """
        ...


@dataclass(frozen=True)
class Computing:
    """How a model is to be computed, as it was asked for.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        runtime: ``auto`` or one of `RUNTIMES`.
        precision: One of `PRECISIONS`; None for that of an exported file, fp32 of a checkpoint.
        threads: Of the processor, 1 to `MOST_THREADS`; None for as many as this process may use.
    """

    device: str = AUTO
    runtime: str = AUTO
    precision: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        """Check the names and the number; `device.pick_device` checks the device."""
        names = (AUTO, *RUNTIMES)
        if self.runtime not in names:
            raise UsageError(f"runtime is '{self.runtime}', expected one of {', '.join(names)}")
        if self.precision not in (None, *PRECISIONS):
            raise UsageError(
                f"precision is '{self.precision}', expected one of {', '.join(PRECISIONS)}"
            )
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise UsageError(f"threads is {self.threads}, expected 1 to {MOST_THREADS}")


@dataclass(frozen=True)
class RuntimeSettings:
    """How a runtime computes.

    Attributes:
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        precision: Of the arithmetic, one of `PRECISIONS`; all but ``fp32`` change the result.
        threads: Of the processor; None for as many as this process may use.
    """

    device: str = "cpu"
    precision: str = "fp32"
    threads: int | None = None


@dataclass(frozen=True)
class RuntimeKind:
    """One way to compute.

    Attributes:
        build: Returns the runtime for a network of `models`, which stays as it is.
        precisions: What it computes in, of a checkpoint.
        packages: Optional packages it needs.
        devices: Kinds of devices it computes on.
    """

    build: "Callable[[nn.Module, ModelSpec, RuntimeSettings], Runtime]"
    precisions: tuple[str, ...]
    packages: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda", "mps")


def _build_torch(network: "nn.Module", spec: ModelSpec, settings: RuntimeSettings) -> Runtime:
    from hrnet_cli.runtimes.torch_eager import open_folded

    return open_folded(network, spec, settings)


def _build_compiled(network: "nn.Module", spec: ModelSpec, settings: RuntimeSettings) -> Runtime:
    from hrnet_cli.runtimes.torch_compiled import TorchCompiled

    return TorchCompiled(network, spec, settings)


def _build_onnx(network: "nn.Module", spec: ModelSpec, settings: RuntimeSettings) -> Runtime:
    from hrnet_cli.runtimes.onnx import open_network

    return open_network(network, spec, settings)


def _build_openvino(network: "nn.Module", spec: ModelSpec, settings: RuntimeSettings) -> Runtime:
    from hrnet_cli.runtimes.openvino import open_network

    return open_network(network, spec, settings)


def _build_mnn(network: "nn.Module", spec: ModelSpec, settings: RuntimeSettings) -> Runtime:
    from hrnet_cli.runtimes.mnn import open_network

    return open_network(network, spec, settings)


RUNTIMES: dict[str, RuntimeKind] = {
    "torch": RuntimeKind(_build_torch, ("fp32", "bf16", "fp16")),
    "compiled": RuntimeKind(_build_compiled, ("fp32", "bf16", "fp16"), devices=("cpu", "cuda")),
    "onnx": RuntimeKind(_build_onnx, ("fp32",), ("onnxruntime", "onnx"), ("cpu", "cuda")),
    "openvino": RuntimeKind(_build_openvino, ("fp32", "bf16"), ("openvino",), ("cpu",)),
    "mnn": RuntimeKind(_build_mnn, ("fp32",), ("MNN", "onnx"), ("cpu",)),
}


def pick_runtime(name: str, precision: str, device: str) -> str:
    """Return the runtime for a checkpoint, checked to be there and to compute in a precision.

    Args:
        name: One of `RUNTIMES`, or ``auto``: on a processor the first installed of openvino and
            onnx, which are the fastest there that give PyTorch's numbers to float32 rounding and
            start quickly; else torch. It never changes the precision.
        precision: One of `PRECISIONS`.
        device: Of `device.pick_device`.

    Raises:
        UsageError: A package is missing, or the precision is none of the runtime's.
        DeviceError: The runtime does not compute on the device.
    """
    kind = device.split(":")[0]
    if name == AUTO:
        able = (fast for fast in ("openvino", "onnx") if _can(fast, precision, kind))
        name = next(able, "torch")
    runtime = RUNTIMES[name]
    if precision not in runtime.precisions:
        raise UsageError(
            f"--precision is {precision}, but runtime {name} computes a weights file in"
            f" {', '.join(runtime.precisions)}",
            hint="hrnet export --precision int8 makes such a file, with photos to calibrate it"
            if precision == "int8"
            else "hrnet bench shows what this machine has",
        )
    for package in runtime.packages:
        check_installed(package, f"runtime {name}")
    if kind not in runtime.devices:
        raise DeviceError(
            f"runtime {name} computes on {', '.join(runtime.devices)}, not on {device}",
            hint="use --runtime torch, or --device cpu",
        )
    if precision == "fp16" and kind == "cpu":
        raise DeviceError(
            "fp16 needs a GPU, and this run is on the processor", hint="--precision bf16 or fp32"
        )
    return name


def _can(name: str, precision: str, device_kind: str) -> bool:
    runtime = RUNTIMES[name]
    return (
        # A processor's own engines; on a GPU PyTorch needs no extra.
        device_kind == "cpu"
        and precision in runtime.precisions
        and all(can_be_imported(package) for package in runtime.packages)
        and (precision == "fp32" or openvino_computes_in(precision))
    )
