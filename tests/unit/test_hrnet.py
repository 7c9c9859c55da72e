"""The network: sizes, names, initialisation and a stored output, without outside data."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from hrnet_cli.models import MODELS
from hrnet_cli.models.hrnet import HRNet

WIDTH, KEYPOINTS = 4, 3
# Computed by this network when its W32 and W48 heatmaps were within 1e-5 of the official code's.
STD = 274.4715042425188
AT_3_5 = [122.3943201486182, 339.26236066169963, 467.31516910390224]


@pytest.fixture(scope="module")
def tiny():
    return HRNet(WIDTH, KEYPOINTS).eval()


def fill_with_waves(network):
    """Give every parameter a value that depends on nothing but its place."""
    for index, (key, tensor) in enumerate(network.state_dict().items()):
        if tensor.is_floating_point():
            wave = torch.sin(torch.arange(tensor.numel(), dtype=torch.float64) * 1.7 + index)
            if tensor.ndim == 4:
                values = wave / np.sqrt(tensor[0].numel())
            elif key.endswith(("bias", "running_mean")):
                values = 0.1 * wave
            else:
                values = 1 + 0.5 * wave
            tensor.copy_(values.reshape(tensor.shape))
    return network


@pytest.mark.parametrize(
    ("width", "parameters", "digest"),
    [
        # Counts and names of the official pose_hrnet.py with 17 keypoints (28.5M and 63.6M in
        # the paper, table 1); the digest is over its state dict, a line for each tensor.
        (32, 28536113, "752ef3805006773891648e3cf27e3777f603cc7aa3118df5b441b80c7dd18954"),
        (48, 63595745, "01af60fbe9f17bee770338ec70aae940d6445563f671fbda8344616de0b51e64"),
    ],
)
def test_state_dict_is_the_official_one(width, parameters, digest):
    with torch.device("meta"):
        network = MODELS["hrnet"](width, 17)
    state = network.state_dict()
    lines = "\n".join(f"{key} {tuple(t.shape)} {t.dtype}" for key, t in state.items())
    assert hashlib.sha256(lines.encode()).hexdigest() == digest
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_output_has_not_changed_since_it_was_equal_to_the_official_one():
    # float64, so that the stored values hold on every machine.
    network = fill_with_waves(HRNet(WIDTH, KEYPOINTS).double().eval())
    wave = torch.sin(torch.arange(3 * 64 * 96, dtype=torch.float64) * 0.37)
    with torch.inference_mode():
        heatmaps = network(wave.reshape(1, 3, 64, 96))
    assert heatmaps.shape == (1, KEYPOINTS, 16, 24)
    assert heatmaps.std().item() == pytest.approx(STD, rel=1e-9)
    assert heatmaps[0, :, 3, 5].tolist() == pytest.approx(AT_3_5, rel=1e-9)


@pytest.mark.parametrize("size_hw", [(32, 32), (64, 96), (128, 32)])
@pytest.mark.parametrize("batch", [1, 3])
def test_heatmaps_have_a_quarter_of_the_input_size(tiny, batch, size_hw):
    height, width = size_hw
    with torch.inference_mode():
        heatmaps = tiny(torch.zeros(batch, 3, height, width))
    assert heatmaps.shape == (batch, KEYPOINTS, height // 4, width // 4)


@pytest.mark.parametrize("size_hw", [(48, 64), (64, 48), (100, 100)])
def test_input_sizes_that_do_not_divide_are_named(tiny, size_hw):
    height, width = size_hw
    with pytest.raises(ValueError, match=rf"crop of {height}x{width} .* multiples of 32"):
        tiny(torch.zeros(1, 3, height, width))


def test_pixels_are_not_changed(tiny):
    pixels = torch.ones(1, 3, 32, 32)
    tiny(pixels)
    assert torch.equal(pixels, torch.ones(1, 3, 32, 32))


def test_fresh_weights_follow_the_official_initialisation():
    torch.manual_seed(0)
    network = HRNet(16, 17)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    values = torch.cat([conv.weight.flatten() for conv in convolutions])
    # 7 million draws: the standard error of either figure is below 1e-6.
    assert values.mean().item() == pytest.approx(0, abs=5e-6)
    assert values.std().item() == pytest.approx(0.001, rel=5e-3)
    assert all(not conv.bias.any() for conv in convolutions if conv.bias is not None)
    assert all(bool((norm.weight == 1).all()) and not norm.bias.any() for norm in norms)


def test_every_parameter_takes_part():
    network = HRNet(WIDTH, KEYPOINTS)
    # Fresh convolutions are so small that gradients would vanish in float32.
    fill_with_waves(network.double())
    network(torch.rand(2, 3, 64, 64, dtype=torch.float64)).square().sum().backward()
    idle = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []
