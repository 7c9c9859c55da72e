"""The network compiled by torch.compile: slow to start, fast for long runs on a GPU.

Shape letters: B crops, K keypoints, H W crop height and width.
"""

import contextlib
import shutil
import sys
import sysconfig
import threading
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from hrnet_cli.config import ModelSpec
from hrnet_cli.errors import DeviceError, UsageError
from hrnet_cli.runtimes import TOLERANCES, RuntimeSettings
from hrnet_cli.runtimes.crops import run_in_batches, split_batch
from hrnet_cli.runtimes.torch_eager import DTYPES, compute, prepare, to_pixels, use_threads
from hrnet_cli.runtimes.torch_people import people_finder


class TorchCompiled:
    """Runs a folded network through torch.compile, once compiled for each size of batch.

    Args:
        network: See `torch_eager.TorchEager`; it stays as it is.
        spec: The model.
        settings: Device, precision and threads.

    Raises:
        UsageError: The machine has no C++ compiler, which compiling for a processor needs.
    """

    name = "compiled"

    def __init__(self, network: nn.Module, spec: ModelSpec, settings: RuntimeSettings) -> None:
        _check_compiler(settings.device)
        use_threads(settings.threads)
        self.spec = spec
        self.device = settings.device
        self.tolerance = TOLERANCES[settings.precision]
        self.dtype = DTYPES[settings.precision]
        # Sizes come in few kinds (`run_in_batches`); each is compiled for itself.
        self.network = torch.compile(prepare(network, settings), dynamic=False)
        self._turn = threading.Lock()
        self.find_people = people_finder(self._in_parts, spec, self.device, self.dtype, self._turn)

    def __call__(self, crops_BHW3: np.ndarray) -> np.ndarray:
        """Return the heatmaps of crops, as `torch_eager.TorchEager` does."""
        with self._turn:
            return run_in_batches(crops_BHW3, self.spec, self._compute)

    def _compute(self, crops_BHW3: np.ndarray) -> np.ndarray:
        pixels = to_pixels(crops_BHW3, self.spec, self.device, self.dtype)
        with self._compiling():
            return compute(self.network, pixels, self.device)

    def _in_parts(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        spans = split_batch(len(pixels_B3HW))
        with self._compiling():
            return torch.cat([self.network(pixels_B3HW[start : start + n]) for start, n in spans])

    @contextlib.contextmanager
    def _compiling(self) -> Iterator[None]:
        """Raise DeviceError where a compiler fails or, as Triton on Windows, is missing."""
        try:
            yield
        except TorchDynamoException as error:
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DeviceError(
                f"torch.compile cannot compile the network for {self.device}: {line}",
                hint="use --runtime torch",
            ) from error


def _check_compiler(device: str) -> None:
    if not device.startswith("cpu"):
        return
    wanted = (sysconfig.get_config_var("CXX") or "c++").split()[0]
    names = ("cl",) if sys.platform == "win32" else (wanted, "g++", "clang++")
    if not any(shutil.which(name) for name in names):
        raise UsageError(
            "--runtime compiled needs a C++ compiler on a processor, and none of"
            f" {', '.join(dict.fromkeys(names))} is on this machine",
            hint="use --runtime openvino, onnx or torch",
        )
