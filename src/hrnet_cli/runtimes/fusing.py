"""Convolutions that add a shortcut and apply ReLU themselves, with weights laid out beforehand.

PyTorch's convolutions on a processor are oneDNN's. As eager layers they bring the weights into
oneDNN's layout at every call, and a shortcut or ReLU reads and writes all features once more. The
operations that `torch.compile` emits do neither, and need no compiler; they belong to PyTorch's
inside, so they are tried on numbers before they are used.

Shape letters: B crops, C channels, H W height and width.
"""

import functools
import operator
import platform

import torch
from torch import fx, nn
from torch.nn import functional

from hrnet_cli.models.hrnet import HRNet

# Of a sum of 36 products near 1, in units of its largest value: float32 rounds to 6e-8 of them.
TRIAL_TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


def fuse(network: nn.Module, input_hw: tuple[int, int]) -> nn.Module:
    """Return a network that computes the same with fewer passes over memory.

    Args:
        network: An `HRNet` on the processor with its batch norms folded; it stays as it is.
        input_hw: Crop (height, width), for which the weights are laid out.

    Returns:
        A module of the same function, or the network itself where it is another one, or where
        this PyTorch or processor has no such operations.
    """
    if not isinstance(network, HRNet) or not can_fuse(network.conv1.weight.dtype):
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
            _fuse_layer(traced, layers, node, layer)
    traced.recompile()
    traced.delete_all_unused_submodules()
    # One crop now, so that the layout, and with it the last bits of a result, does not depend on
    # which batch comes first.
    with torch.inference_mode():
        pixels_BHW3 = torch.zeros(1, *input_hw, 3, dtype=network.conv1.weight.dtype)
        traced(pixels_BHW3.permute(0, 3, 1, 2))
    return traced


@functools.cache
def can_fuse(dtype: torch.dtype) -> bool:
    """Tell whether `FusedConv` works here and gives what PyTorch's documented functions give."""
    # Elsewhere oneDNN has other convolutions, whose speed was not measured.
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    if dtype not in TRIAL_TOLERANCES or not torch.backends.mkldnn.is_available():
        return False
    with torch.inference_mode():
        layer = nn.Conv2d(4, 8, 3, padding=1, dtype=dtype).to(memory_format=torch.channels_last)
        weight = torch.linspace(-1, 1, layer.weight.numel()).reshape(layer.weight.shape)
        layer.weight.copy_(weight)
        features = torch.linspace(0, 1, 2 * 4 * 6 * 5).reshape(2, 4, 6, 5).to(dtype)
        features = features.contiguous(memory_format=torch.channels_last)
        plain = functional.conv2d(features, layer.weight, layer.bias, padding=1)
        shortcut = torch.linspace(2, -2, plain.numel()).reshape(plain.shape).to(dtype)
        shortcut = shortcut.contiguous(memory_format=torch.channels_last)
        try:
            pairs = [
                (FusedConv(layer, relu=False)(features), plain),
                (FusedConv(layer, relu=True)(features), plain.relu()),
                (FusedConv(layer, relu=False)(features, shortcut), plain + shortcut),
                (FusedConv(layer, relu=True)(features, shortcut), (plain + shortcut).relu()),
            ]
        # An operation that is not there, has other arguments, or refuses this processor.
        except (AttributeError, NotImplementedError, RuntimeError, TypeError):
            return False
        largest = plain.abs().max()
        tolerance = TRIAL_TOLERANCES[dtype]
        return all((got - wanted).abs().max() <= tolerance * largest for got, wanted in pairs)


class FusedConv(nn.Module):
    """A convolution, then the sum with a shortcut where one is given, then ReLU where wanted.

    Args:
        layer: A convolution with a bias. Its weights are taken over at the first call, whose
            size decides their layout; other sizes are computed right, too.
        relu: Whether negative results become 0.
    """

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


class _Heatmaps(nn.Module):
    """A network without its look at the size, which cannot be traced."""

    def __init__(self, network: HRNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels_B3HW: torch.Tensor) -> torch.Tensor:
        return self.network.heatmaps(pixels_B3HW)


def _fuse_layer(
    traced: fx.GraphModule, layers: dict[str, nn.Module], node: fx.Node, layer: nn.Conv2d
) -> None:
    """Put a `FusedConv` in place of a convolution, the sum after it and the ReLU after that."""
    chain, inputs = [node], [node.args[0]]
    user = _only_user(node)
    if user is not None and user.target is operator.add:
        inputs += [term for term in user.args if term is not node]
        chain.append(user)
        user = _only_user(user)
    relu = user is not None and isinstance(layers.get(str(user.target)), nn.ReLU)
    if user is not None and relu:
        chain.append(user)
    name = f"{str(node.target).replace('.', '_')}_fused"
    traced.add_submodule(name, FusedConv(layer, relu))
    with traced.graph.inserting_after(chain[-1]):
        fused = traced.graph.call_module(name, tuple(inputs))
    chain[-1].replace_all_uses_with(fused)
    for replaced in reversed(chain):
        traced.graph.erase_node(replaced)


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None
