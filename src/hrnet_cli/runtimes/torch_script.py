"""A network exported as TorchScript: normalisation inside, run by torch without the model's code.

Shape letters: B crops, K keypoints, H W crop height and width.
"""

import contextlib
import io
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hrnet_cli.config import ModelSpec
from hrnet_cli.errors import WeightsError
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.pixels import normalise
from hrnet_cli.runtimes import TOLERANCES, RuntimeSettings
from hrnet_cli.runtimes.crops import run_in_batches
from hrnet_cli.runtimes.torch_eager import DTYPES, compute, keep_precision, use_threads

_METADATA_FILE = "hrnet.json"


class TorchScript:
    """Runs a TorchScript file that maps uint8 crops to heatmaps.

    Args:
        path: The file.
        spec: The model.
        settings: Device, precision and threads.

    Raises:
        WeightsError: The file cannot be read.
    """

    name = "torch"

    def __init__(self, path: Path, spec: ModelSpec, settings: RuntimeSettings) -> None:
        use_threads(settings.threads)
        keep_precision(settings)
        self.spec = spec
        self.device = settings.device
        self.tolerance = TOLERANCES[settings.precision]
        self.network, _ = _load(path, settings.device)

    def __call__(self, crops_BHW3: np.ndarray) -> np.ndarray:
        """Return the heatmaps of crops, as `torch_eager.TorchEager` does."""
        return run_in_batches(crops_BHW3, self.spec, self._compute)

    def _compute(self, crops_BHW3: np.ndarray) -> np.ndarray:
        crops = torch.from_numpy(np.require(crops_BHW3, requirements=["C", "W"]))
        return compute(self.network, crops.to(self.device), self.device)


class CropsToHeatmaps(nn.Module):
    """Normalisation and network as one module, from uint8 crops (B, H, W, 3)."""

    def __init__(self, network: HRNet, spec: ModelSpec, precision: str) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.dtype = DTYPES[precision]

    def forward(self, crops_BHW3: torch.Tensor) -> torch.Tensor:
        """Return float32 heatmaps (B, K, H/4, W/4)."""
        pixels = normalise(crops_BHW3, self.spec.mean_rgb, self.spec.std_rgb)
        return self.network.heatmaps(pixels.to(self.dtype)).float()


def write_script(
    path: Path, network: HRNet, spec: ModelSpec, precision: str, metadata: Mapping[str, str]
) -> None:
    """Write a folded network as TorchScript."""
    module = CropsToHeatmaps(network, spec, precision).eval()
    # A batch of one would be taken for a constant.
    example = torch.zeros(2, *spec.input_hw, 3, dtype=torch.uint8)
    with torch.no_grad(), _no_advice():
        script = torch.jit.freeze(torch.jit.trace(module, example, check_trace=False))
        files = {_METADATA_FILE: json.dumps(dict(metadata))}
        # Not to the file itself: on a full disk torch ends the process.
        content = io.BytesIO()
        torch.jit.save(script, content, _extra_files=files)
    path.write_bytes(content.getbuffer())


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a TorchScript file, empty for one that `write_script` did not make.

    Raises:
        WeightsError: The file cannot be read.
    """
    return _load(path, "cpu")[1]


@contextlib.contextmanager
def _no_advice() -> Iterator[None]:
    """Keep torch's advice to use another format, which was asked for, from the terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def _load(path: Path, device: str) -> tuple[nn.Module, dict[str, str]]:
    files = {_METADATA_FILE: ""}
    try:
        with _no_advice():
            script = torch.jit.load(str(path), map_location=device, _extra_files=files)
    except (RuntimeError, ValueError, OSError) as error:
        raise WeightsError(
            f"{path}: is damaged or no TorchScript file", hint="export it again with hrnet export"
        ) from error
    text = files[_METADATA_FILE]
    return script, json.loads(text) if text else {}
