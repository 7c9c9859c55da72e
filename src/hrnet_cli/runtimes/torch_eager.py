"""The plain PyTorch runtime, the reference that the others are compared with.

Shape letters: B crops, K keypoints, H W crop height and width.
"""

import threading
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from hrnet_cli.config import ModelSpec
from hrnet_cli.pixels import normalise
from hrnet_cli.runtimes import TOLERANCES, RuntimeSettings
from hrnet_cli.runtimes.crops import check_crops, no_heatmaps
from hrnet_cli.runtimes.cuda_graphs import CudaGraphs
from hrnet_cli.runtimes.folding import fold_batch_norms
from hrnet_cli.runtimes.fusing import fuse
from hrnet_cli.runtimes.torch_people import out_of_memory, people_finder

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEager:
    """Runs a network as it is, layer by layer.

    Args:
        network: Maps normalised pixels (B, 3, H, W) to heatmaps; moved to the device and put
            into evaluation mode.
        spec: Gives crop size, colour statistics and the number of keypoints.
        device: Device name that torch knows, such as ``cpu`` or ``cuda:1``.
        precision: ``fp32``, or ``bf16`` or ``fp16`` where the network's parameters are of it.

    Attributes:
        find_people: On a GPU, finds keypoints without leaving it; see `torch_people`.
    """

    name = "torch"

    def __init__(
        self, network: nn.Module, spec: ModelSpec, device: str, precision: str = "fp32"
    ) -> None:
        self.network = network.to(device).eval()
        self.spec = spec
        self.device = device
        self.tolerance = TOLERANCES[precision]
        self.dtype = DTYPES[precision]
        # Recordings and what is laid out once are shared.
        self._turn = threading.Lock()
        self.find_people = people_finder(self.network, spec, device, self.dtype, self._turn)

    def __call__(self, crops_BHW3: np.ndarray) -> np.ndarray:
        """Return the heatmaps of crops.

        Args:
            crops_BHW3: uint8 RGB crops of the model's input size; B may be 0.

        Returns:
            float32 (B, K, H/4, W/4), unbounded; a trained network peaks near 1.

        Raises:
            DeviceError: The device ran out of memory.
            ValueError: The crops have another type or size.
        """
        check_crops(crops_BHW3, self.spec)
        if not len(crops_BHW3):
            return no_heatmaps(self.spec)
        with self._turn:
            return compute(self.network, self.normalise(crops_BHW3), self.device)

    def normalise(self, crops_BHW3: np.ndarray) -> torch.Tensor:
        """Return crops as the network takes them, (B, 3, H, W) on its device."""
        return to_pixels(crops_BHW3, self.spec, self.device, self.dtype)


def open_folded(network: nn.Module, spec: ModelSpec, settings: RuntimeSettings) -> TorchEager:
    """Return a network at work with its batch norms folded; the network itself stays as it is.

    Its sums and ReLUs are folded in, too (`fusing`), and a CUDA device plays back the steps it did
    before (`cuda_graphs`).
    """
    use_threads(settings.threads)
    prepared = fuse(prepare(network, settings), spec.input_hw)
    if settings.device.startswith("cuda"):
        prepared = CudaGraphs(prepared)
    return TorchEager(prepared, spec, settings.device, settings.precision)


def prepare(network: nn.Module, settings: RuntimeSettings) -> nn.Module:
    """Return a folded copy of a network in the precision and memory layout that run fastest."""
    keep_precision(settings)
    folded = fold_batch_norms(network).to(settings.device, DTYPES[settings.precision])
    # Convolutions on processors and tensor cores want the channels innermost; pixels come so.
    for parameter in folded.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return folded


def keep_precision(settings: RuntimeSettings) -> None:
    """Have a GPU compute float32 where float32 is asked for, in this process.

    By itself PyTorch lets its convolutions use TF32, which has 10 bits of mantissa; whoever wants
    speed asks for bf16 or fp16, which are faster still.
    """
    if settings.device.startswith("cuda") and settings.precision == "fp32":
        torch.backends.cudnn.allow_tf32 = False


def use_threads(threads: int | None) -> None:
    """Let torch compute with so many threads in this process; None leaves it as it is."""
    if threads is not None:
        torch.set_num_threads(threads)


def to_pixels(
    crops_BHW3: np.ndarray, spec: ModelSpec, device: str, dtype: torch.dtype
) -> torch.Tensor:
    """Return normalised crops (B, 3, H, W) on a device."""
    # torch.from_numpy wants memory it could write to.
    bytes_BHW3 = torch.from_numpy(np.require(crops_BHW3, requirements=["C", "W"]))
    return normalise(bytes_BHW3.to(device), spec.mean_rgb, spec.std_rgb).to(dtype)


def compute(
    network: Callable[[torch.Tensor], torch.Tensor], pixels_B3HW: torch.Tensor, device: str
) -> np.ndarray:
    """Return the heatmaps of a network as float32.

    Raises:
        DeviceError: The device ran out of memory.
    """
    try:
        with torch.inference_mode():
            return network(pixels_B3HW).float().cpu().numpy()
    except torch.OutOfMemoryError as error:
        count, _, *input_hw = pixels_B3HW.shape
        raise out_of_memory(device, count, (input_hw[0], input_hw[1])) from error
