"""Crops as bytes to crops as a network takes them."""

import numpy as np
import pytest
import torch

from hrnet_cli.config import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB
from hrnet_cli.pixels import normalise


def crops(batch=2, height=5, width=3):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8))


def test_each_colour_is_shifted_and_scaled_by_its_own_numbers():
    bytes_BHW3 = torch.tensor([0, 51, 255], dtype=torch.uint8).expand(1, 2, 4, 3)
    pixels = normalise(bytes_BHW3, (0.0, 0.1, 0.5), (1.0, 0.5, 0.25))
    assert pixels.shape == (1, 3, 2, 4)
    for channel, expected in enumerate([0.0, (0.2 - 0.1) / 0.5, (1 - 0.5) / 0.25]):
        np.testing.assert_allclose(pixels[0, channel], expected, rtol=1e-6)


def test_every_pixel_stays_at_its_place():
    """Against the same sum in float64; float32 keeps 7 digits of values up to 2.7."""
    given = crops()
    before = given.clone()
    pixels = normalise(given, IMAGENET_MEAN_RGB, IMAGENET_STD_RGB)
    expected = (given.numpy() / 255.0 - IMAGENET_MEAN_RGB) / IMAGENET_STD_RGB
    np.testing.assert_allclose(pixels.permute(0, 2, 3, 1), expected, rtol=0, atol=1e-6)
    assert pixels.dtype == torch.float32
    assert torch.equal(given, before)


def test_the_result_lies_in_memory_with_channels_last():
    pixels = normalise(crops(), IMAGENET_MEAN_RGB, IMAGENET_STD_RGB)
    assert pixels.is_contiguous(memory_format=torch.channels_last)


def test_crops_cut_out_of_larger_arrays_are_read_in_their_own_order():
    large = crops(2, 8, 6)
    for part in (large[:, 1:6, 2:5], large.flip(2), large[:, ::2, ::2]):
        found = normalise(part, IMAGENET_MEAN_RGB, IMAGENET_STD_RGB)
        whole = normalise(part.clone(), IMAGENET_MEAN_RGB, IMAGENET_STD_RGB)
        assert torch.equal(found, whole)


@pytest.mark.parametrize("shape", [(0, 64, 32), (1, 1, 1)])
def test_no_crop_and_one_pixel(shape):
    pixels = normalise(crops(*shape), IMAGENET_MEAN_RGB, IMAGENET_STD_RGB)
    assert pixels.shape == (shape[0], 3, *shape[1:])
