"""Runtimes: interchangeable ways to turn uint8 crops into heatmaps; built on demand."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from hrnet_cli.config import ModelSpec

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


class Runtime(Protocol):
    """Computes heatmaps, and nothing else; mean and standard deviation are applied inside.

    Attributes:
        name: Name in `RUNTIMES`, written into reports.
        tolerance: Largest absolute difference of its heatmaps from the reference it was verified
            to, where trained heatmaps peak near 1.
    """

    name: str
    tolerance: float

    def __call__(self, crops_BHW3: "np.ndarray") -> "np.ndarray":
        """Return float32 heatmaps (B, K, H/4, W/4) of uint8 RGB crops; B may be 0.

        Raises:
            DeviceError: The device ran out of memory.
        """
        ...


def _build_torch(network: "nn.Module", spec: ModelSpec, device: str) -> Runtime:
    from hrnet_cli.runtimes.torch_eager import TorchEager

    return TorchEager(network, spec, device)


RUNTIMES: "dict[str, Callable[[nn.Module, ModelSpec, str], Runtime]]" = {
    "torch": _build_torch,
}
