"""Convolution weights stored in 8 bits: a quarter of the file, one scale for each output channel.

Only files are small this way; a network computes with the numbers they stand for.
"""

from collections.abc import Mapping

import torch

SCALE = ".scale"
LARGEST = 127


def to_8_bits(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors with those of convolutions (O, I, H, W) as int8, and their scales beside them.

    The scales, float32 (O,), have the weight's name with ``.scale`` behind it. A value is off by
    half a scale at most, 1/254 of the largest of its output channel.
    """
    stored: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim != 4:
            stored[name] = tensor
            continue
        largest_O = tensor.abs().amax(dim=(1, 2, 3)).double()
        scale_O = (largest_O / LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
        stored[name] = (tensor / scale_O[:, None, None, None]).round().to(torch.int8)
        stored[name + SCALE] = scale_O.float()
    return stored


def from_8_bits(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors with those that have a scale as the float32 numbers they stand for.

    Raises:
        ValueError: A scale is not one for each output channel.
    """
    restored: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        base = name.removesuffix(SCALE)
        if base != name and base in tensors and tensors[base].dtype == torch.int8:
            continue
        scale_O = tensors.get(name + SCALE)
        if tensor.dtype == torch.int8 and scale_O is not None:
            if scale_O.shape != tensor.shape[:1]:
                raise ValueError(f"{name}: {tuple(scale_O.shape)} scales")
            tensor = tensor.float() * scale_O.reshape(-1, *[1] * (tensor.ndim - 1))
        restored[name] = tensor
    return restored
