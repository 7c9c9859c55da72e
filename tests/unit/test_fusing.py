"""Fused convolutions give the folded network's heatmaps, and are used only where they do."""

import pytest
import torch
from torch import fx, nn

from exported_models import INPUT_HW, lively_network
from hrnet_cli.runtimes import fusing
from hrnet_cli.runtimes.folding import fold_batch_norms

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folded():
    network = fold_batch_norms(lively_network())
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network


@pytest.fixture
def fresh_trial():
    """The trial's answer is kept for the process; here it is asked anew."""
    fusing.can_fuse.cache_clear()
    yield
    fusing.can_fuse.cache_clear()


def skip_where_it_cannot_be():
    if not fusing.can_fuse(torch.float32, CPU):
        pytest.skip("this PyTorch or processor has no fused convolutions")


def pixels(count, height=64, width=32):
    generator = torch.Generator().manual_seed(4)
    values = torch.randn(count, 3, height, width, generator=generator)
    return values.contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def test_heatmaps_are_those_of_the_folded_network(folded):
    skip_where_it_cannot_be()
    fused = fusing.fuse(folded, INPUT_HW)
    # The layout was made for one crop of INPUT_HW; other sizes are computed right, too.
    for crops in (pixels(2), pixels(1), pixels(5), pixels(2, 32, 96)):
        wanted = folded(crops)
        # Float32 rounding over a hundred layers.
        worst = (fused(crops) - wanted).abs().max() / wanted.abs().max()
        assert worst < 3e-5


def test_every_convolution_is_fused_and_no_sum_or_relu_is_left_that_one_could_do(folded):
    skip_where_it_cannot_be()
    fused = fusing.fuse(folded, INPUT_HW)
    assert isinstance(fused, fx.GraphModule)
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in folded.modules())
    layers = dict(fused.named_modules())
    nodes = [node for node in fused.graph.nodes if node.op not in ("placeholder", "output")]
    kinds: list[type] = [type(layers.get(str(node.target))) for node in nodes]
    assert kinds.count(fusing.FusedConv) == convolutions == 293
    assert nn.Identity not in kinds
    for node, kind in zip(nodes, kinds, strict=True):
        if kind is fusing.FusedConv and len(node.users) == 1:
            assert type(layers.get(str(next(iter(node.users)).target))) is not nn.ReLU


@torch.inference_mode()
def test_results_do_not_depend_on_what_was_computed_before(folded):
    skip_where_it_cannot_be()
    early, late = fusing.fuse(folded, INPUT_HW), fusing.fuse(folded, INPUT_HW)
    wanted = early(pixels(3))
    late(pixels(8))
    late(pixels(1))
    assert torch.equal(late(pixels(3)), wanted)


@torch.inference_mode()
def test_the_folded_network_stays_as_it_is(folded):
    before = folded(pixels(1))
    fusing.fuse(folded, INPUT_HW)(pixels(1))
    assert torch.equal(folded(pixels(1)), before)
    assert isinstance(folded.stage2[0].branches[0][0].conv1, nn.Conv2d)


def test_another_network_is_left_alone():
    network = nn.Sequential(nn.Conv2d(3, 17, 4, stride=4))
    assert fusing.fuse(network, INPUT_HW) is network


@pytest.mark.parametrize("error", [AttributeError, NotImplementedError, RuntimeError, TypeError])
def test_where_pytorch_has_no_such_operations_the_network_is_left_alone(
    folded, monkeypatch, fresh_trial, error
):
    def refuse(*_arguments):
        raise error("not in this build")

    monkeypatch.setattr(fusing.FusedConv, "forward", refuse)
    assert fusing.fuse(folded, INPUT_HW) is folded


def test_operations_that_compute_something_else_are_not_used(folded, monkeypatch, fresh_trial):
    skip_where_it_cannot_be()
    fusing.can_fuse.cache_clear()
    right = fusing.FusedConv.forward

    def without_the_shortcut(layer, features, _shortcut=None):
        return right(layer, features)

    monkeypatch.setattr(fusing.FusedConv, "forward", without_the_shortcut)
    assert fusing.fuse(folded, INPUT_HW) is folded


def test_other_processors_keep_the_plain_layers(folded, monkeypatch, fresh_trial):
    monkeypatch.setattr(fusing.platform, "machine", lambda: "arm64")
    assert fusing.fuse(folded, INPUT_HW) is folded


def test_a_precision_without_a_trial_is_not_fused():
    assert not fusing.can_fuse(torch.float64, CPU)


def test_the_rewritten_network_of_a_gpu_computes_the_same(folded, monkeypatch):
    monkeypatch.setitem(fusing.FUSED, "cpu", fusing.CudaFusedConv)

    def convolve(x, weight, bias, stride, padding, dilation, groups):
        return torch.nn.functional.conv2d(x, weight, bias, stride, padding, dilation, groups).relu()

    def convolve_and_add(x, weight, shortcut, alpha, bias, *geometry):
        plain = torch.nn.functional.conv2d(x, weight, bias, *geometry)
        return (plain + alpha * shortcut).relu()

    monkeypatch.setattr(torch, "cudnn_convolution_relu", convolve)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", convolve_and_add)
    monkeypatch.setattr(fusing, "can_fuse", lambda dtype, device: True)
    fused = fusing.fuse(folded, INPUT_HW)
    kinds = [type(module) for module in fused.modules()]
    # Without ReLU after them: the last layer, and some of those that bring scales together.
    assert kinds.count(fusing.CudaFusedConv) + kinds.count(nn.Conv2d) == 293
    assert kinds.count(fusing.CudaFusedConv) > 200
    crops = pixels(2)
    with torch.inference_mode():
        torch.testing.assert_close(fused(crops), folded(crops), rtol=1e-4, atol=1e-5)
