"""Weights in 8 bits stand for nearly the same numbers, and files of them load like others."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fakes import make_spec
from hrnet_cli import checkpoint
from hrnet_cli.eight_bits import from_8_bits, to_8_bits
from hrnet_cli.errors import WeightsError
from hrnet_cli.models.hrnet import HRNet


def test_a_value_is_off_by_half_a_scale_at_most():
    torch.manual_seed(0)
    weight = torch.randn(6, 5, 3, 3) * torch.logspace(-6, 2, 6)[:, None, None, None]
    weight[2] = 0
    tensors = {"conv.weight": weight, "bn.weight": torch.randn(6), "count": torch.tensor(3)}
    stored = to_8_bits(tensors)
    assert stored["conv.weight"].dtype == torch.int8
    restored = from_8_bits(stored)
    assert list(restored) == list(tensors)
    largest = weight.abs().amax(dim=(1, 2, 3), keepdim=True)
    assert ((restored["conv.weight"] - weight).abs() <= largest / 253).all()
    assert torch.equal(restored["bn.weight"], tensors["bn.weight"])


def test_other_bytes_and_other_scales_stay_as_they_are():
    tensors = {"mask": torch.ones(3, dtype=torch.int8), "a.scale": torch.ones(2)}
    assert all(torch.equal(from_8_bits(tensors)[name], tensors[name]) for name in tensors)


def test_a_model_in_8_bits_is_a_quarter_and_gives_nearly_the_same_heatmaps(tmp_path):
    torch.manual_seed(0)
    network = HRNet(4, 17).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.xavier_uniform_(module.weight)
    terms = {"provenance": "a test", "licence": "none"}
    whole, small = tmp_path / "whole.safetensors", tmp_path / "small.safetensors"
    checkpoint.save_model(whole, network.state_dict(), make_spec(), **terms)
    state = network.state_dict()
    checkpoint.save_model(small, state, make_spec(), **terms, dtype=torch.int8)
    weights = sum(tensor.nbytes for tensor in load_file(whole).values() if tensor.ndim == 4)
    assert whole.stat().st_size - small.stat().st_size > 0.7 * weights
    loaded, _, report = checkpoint.load_model(small)
    assert report.complete
    assert not report.unused
    pixels = torch.randn(2, 3, 128, 96)
    with torch.inference_mode():
        wanted, found = network(pixels), loaded(pixels)
    assert np.abs((found - wanted).numpy()).max() < 0.05 * wanted.abs().max()


def test_scales_that_do_not_fit_are_told(tmp_path):
    path = tmp_path / "bad.safetensors"
    tensors = {"a": torch.ones(2, 2, 1, 1, dtype=torch.int8), "a.scale": torch.ones(3)}
    save_file(tensors, path)
    with pytest.raises(WeightsError, match="damaged, cut short or of another kind"):
        checkpoint.read_tensors(path)
