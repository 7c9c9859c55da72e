"""Crops as bytes -> crops as a network takes them, on the device that computes."""

from collections.abc import Sequence

import torch


def normalise(
    crops_BHW3: torch.Tensor, mean_rgb: Sequence[float], std_rgb: Sequence[float]
) -> torch.Tensor:
    """Return (value / 255 - mean) / std of uint8 RGB crops, float32 (B, 3, H, W).

    The result lies in memory with channels last. Bytes travel to the device, a quarter of the
    floats, and become floats there.
    """
    pixels_BHW3 = crops_BHW3.float().div_(255)
    mean_3, std_3 = pixels_BHW3.new_tensor(mean_rgb), pixels_BHW3.new_tensor(std_rgb)
    return pixels_BHW3.sub_(mean_3).div_(std_3).permute(0, 3, 1, 2)
