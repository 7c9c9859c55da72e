"""The plain PyTorch runtime, the reference that the others are compared with.

Shape letters: B crops, K keypoints, H W crop height and width.
"""

import numpy as np
import torch
from torch import nn

from hrnet_cli.config import ModelSpec
from hrnet_cli.errors import DeviceError
from hrnet_cli.models.hrnet import HEATMAP_STRIDE
from hrnet_cli.pixels import normalise


class TorchEager:
    """Runs a network as it is, in float32.

    Args:
        network: Maps normalised pixels (B, 3, H, W) to heatmaps; moved to the device and put
            into evaluation mode.
        spec: Gives crop size, colour statistics and the number of keypoints.
        device: Device name that torch knows, such as ``cpu`` or ``cuda:1``.
    """

    name = "torch"
    # Against the official code with the same weights, heatmaps of up to 17 (values of untrained
    # networks; float32 itself was within 1e-5 of float64 there).
    tolerance = 1e-4

    def __init__(self, network: nn.Module, spec: ModelSpec, device: str) -> None:
        self.network = network.to(device).eval()
        self.spec = spec
        self.device = device

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
        height, width = self.spec.input_hw
        if crops_BHW3.shape[1:] != (height, width, 3) or crops_BHW3.dtype != np.uint8:
            raise ValueError(
                f"crops_BHW3: expected (B, {height}, {width}, 3) uint8,"
                f" got {crops_BHW3.shape} {crops_BHW3.dtype}"
            )
        if not len(crops_BHW3):
            size_hw = (height // HEATMAP_STRIDE, width // HEATMAP_STRIDE)
            return np.zeros((0, len(self.spec.schema), *size_hw), np.float32)
        try:
            with torch.inference_mode():
                return self.network(self.normalise(crops_BHW3)).float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"{self.device}: out of memory for a batch of {len(crops_BHW3)} crops of"
                f" {height}x{width}",
                hint="lower --batch-size, or use --device cpu",
            ) from error

    def normalise(self, crops_BHW3: np.ndarray) -> torch.Tensor:
        """Return crops as the network takes them, (B, 3, H, W) on its device."""
        # torch.from_numpy wants memory it could write to.
        bytes_BHW3 = torch.from_numpy(np.require(crops_BHW3, requirements=["C", "W"]))
        return normalise(bytes_BHW3.to(self.device), self.spec.mean_rgb, self.spec.std_rgb)
