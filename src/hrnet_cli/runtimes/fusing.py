"""Convolutions that add a shortcut and apply ReLU themselves.

As eager layers, a bias, a shortcut and a ReLU each read and write all features once more, and on a
processor the weights are brought into oneDNN's layout at every call. PyTorch has operations that do
neither, of oneDNN and of cuDNN, and that need no compiler; they belong to its inside, so they are
tried on numbers before they are used.

Shape letters: B crops, C channels, H W height and width.
"""

import functools
import operator
import platform
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from hrnet_cli.models.hrnet import HRNet

# Of a sum of 72 products near 1, in units of its largest value: float32 rounds to 6e-8 of them.
TRIAL_TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def fuse(network: nn.Module, input_hw: tuple[int, int]) -> nn.Module:
    """Return a network that computes the same with fewer passes over memory.

    Args:
        network: An `HRNet` on a processor or CUDA device with its batch norms folded; it stays as
            it is.
        input_hw: Crop (height, width), for which the weights are laid out.

    Returns:
        A module of the same function, or the network itself where it is another one, or where
        this PyTorch or device has no such operations.
    """
    if not isinstance(network, HRNet):
        return network
    weight = network.conv1.weight
    if not can_fuse(weight.dtype, weight.device):
        return network
    traced = fx.symbolic_trace(_Heatmaps(network))
    layers: dict[str, nn.Module] = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        if isinstance(layers.get(str(node.target)), nn.Identity):
            node.replace_all_uses_with(node.args[0])
            traced.graph.erase_node(node)
    for node in list(traced.graph.nodes):
        layer = layers.get(str(node.target))
        if isinstance(layer, nn.Conv2d):
            _fuse_layer(traced, layers, node, layer, FUSED[weight.device.type])
    traced.recompile()
    traced.delete_all_unused_submodules()
    # One crop now, so that the layout, and with it the last bits of a result, does not depend on
    # which batch comes first.
    with torch.inference_mode():
        pixels_BHW3 = torch.zeros(1, *input_hw, 3, dtype=weight.dtype, device=weight.device)
        traced(pixels_BHW3.permute(0, 3, 1, 2))
    return traced


@functools.cache
def can_fuse(dtype: torch.dtype, device: torch.device) -> bool:
    """Tell whether fused convolutions give what PyTorch's documented functions give on a device."""
    if dtype not in TRIAL_TOLERANCES or not _has_library(device.type):
        return False
    kind = FUSED[device.type]
    with torch.inference_mode():
        # Eight channels: cuDNN's half-precision kernels want multiples of that.
        layer = nn.Conv2d(8, 8, 3, padding=1, dtype=dtype, device=device)
        layer = layer.to(memory_format=torch.channels_last)
        weight = torch.linspace(-1, 1, layer.weight.numel()).reshape(layer.weight.shape)
        layer.weight.copy_(weight)
        features = torch.linspace(0, 1, 2 * 8 * 6 * 5).reshape(2, 8, 6, 5).to(device, dtype)
        features = features.contiguous(memory_format=torch.channels_last)
        plain = functional.conv2d(features, layer.weight, layer.bias, padding=1)
        shortcut = torch.linspace(2, -2, plain.numel()).reshape(plain.shape).to(device, dtype)
        shortcut = shortcut.contiguous(memory_format=torch.channels_last)
        try:
            pairs = [
                (kind(layer, relu=True)(features), plain.relu()),
                (kind(layer, relu=True)(features, shortcut), (plain + shortcut).relu()),
            ]
            if not kind.only_with_relu:
                pairs += [
                    (kind(layer, relu=False)(features), plain),
                    (kind(layer, relu=False)(features, shortcut), plain + shortcut),
                ]
        # An operation that is not there, has other arguments, or refuses this device.
        except (AttributeError, NotImplementedError, RuntimeError, TypeError):
            return False
        largest = plain.abs().max()
        tolerance = TRIAL_TOLERANCES[dtype]
        return all(bool((got - wanted).abs().max() <= tolerance * largest) for got, wanted in pairs)


def _has_library(kind: str) -> bool:
    if kind == "cuda":
        return torch.backends.cudnn.is_available()
    # Elsewhere oneDNN has other convolutions, whose speed was not measured.
    common = platform.machine().lower() in ("x86_64", "amd64")
    return kind == "cpu" and common and torch.backends.mkldnn.is_available()


class FusedConv(nn.Module):
    """On a processor: a convolution, the sum with a shortcut if given, and ReLU where wanted.

    Args:
        layer: A convolution with a bias. Its weights are taken over at the first call, whose
            size decides their layout; other sizes are computed right, too.
        relu: Whether negative results become 0.
    """

    only_with_relu = False

    def __init__(self, layer: nn.Conv2d, relu: bool) -> None:
        super().__init__()
        self.layer: nn.Conv2d | None = layer
        self.relu = relu
        self.geometry = (
            list(layer.padding),
            list(layer.stride),
            list(layer.dilation),
            layer.groups,
        )
        self.weight = torch.empty(0)
        self.bias = torch.empty(0)

    def forward(
        self, x_BCHW: torch.Tensor, shortcut_BCHW: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return features (B, C, H, W) of the convolution's size."""
        convolve = torch.ops.mkldnn._convolution_pointwise
        if self.layer is not None:
            self._lay_out(self.layer, list(x_BCHW.shape))
        filters = (self.weight, self.bias, *self.geometry)
        relu = "relu" if self.relu else None
        if shortcut_BCHW is None:
            return convolve(x_BCHW, *filters, relu or "none", [], "")
        return convolve.binary(x_BCHW, shortcut_BCHW, *filters, "add", None, relu, [], "")

    def _lay_out(self, layer: nn.Conv2d, size: list[int]) -> None:
        """Take over the weights of a layer in the layout for features of a size."""
        lay_out = torch.ops.mkldnn._reorder_convolution_weight
        assert layer.bias is not None, "folding gives every convolution a bias"
        self.weight = lay_out(layer.weight.detach(), *self.geometry, size)
        self.bias = layer.bias.detach()
        self.layer = None


class CudaFusedConv(nn.Module):
    """On a CUDA device: a convolution, the sum with a shortcut if given, and ReLU.

    Args:
        layer: A convolution with a bias.
        relu: True: cuDNN has no such operation without ReLU.
    """

    only_with_relu = True

    def __init__(self, layer: nn.Conv2d, relu: bool) -> None:
        super().__init__()
        assert relu, "cuDNN has no such operation without ReLU"
        self.weight, self.bias = layer.weight, layer.bias
        sides = [list(layer.stride), list(layer.padding), list(layer.dilation)]
        self.geometry: Any = (*sides, layer.groups)

    def forward(
        self, x_BCHW: torch.Tensor, shortcut_BCHW: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return features (B, C, H, W) of the convolution's size."""
        if shortcut_BCHW is None:
            return torch.cudnn_convolution_relu(x_BCHW, self.weight, self.bias, *self.geometry)
        return torch.cudnn_convolution_add_relu(
            x_BCHW, self.weight, shortcut_BCHW, 1.0, self.bias, *self.geometry
        )


FUSED: dict[str, type[FusedConv] | type[CudaFusedConv]] = {"cpu": FusedConv, "cuda": CudaFusedConv}


class _Heatmaps(nn.Module):
    """A network without its look at the size, which cannot be traced."""

    def __init__(self, network: HRNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        return self.network.heatmaps(pixels_B3HW)


def _fuse_layer(
    traced: fx.GraphModule,
    layers: dict[str, nn.Module],
    node: fx.Node,
    layer: nn.Conv2d,
    kind: type[FusedConv] | type[CudaFusedConv],
) -> None:
    """Put a fused one in place of a convolution, the sum after it and the ReLU after that."""
    chain, inputs = [node], [node.args[0]]
    user = _only_user(node)
    if user is not None and user.target is operator.add:
        inputs += [term for term in user.args if term is not node]
        chain.append(user)
        user = _only_user(user)
    relu = user is not None and isinstance(layers.get(str(user.target)), nn.ReLU)
    if user is not None and relu:
        chain.append(user)
    if kind.only_with_relu and not relu:
        return
    name = f"{str(node.target).replace('.', '_')}_fused"
    traced.add_submodule(name, kind(layer, relu))
    with traced.graph.inserting_after(chain[-1]):
        fused = traced.graph.call_module(name, tuple(inputs))
    chain[-1].replace_all_uses_with(fused)
    for replaced in reversed(chain):
        traced.graph.erase_node(replaced)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None
