"""A network as a list of operations with plain arrays, from which other engines' graphs are made.

HRNet consists of four kinds of layers, so its graph is written out directly, in a fraction of a
second, without an exporter between. The first operation of the result takes normalised pixels; the
writers put the normalisation, from uint8 crops, in front of it.
"""

import operator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from hrnet_cli.config import ModelSpec
from hrnet_cli.heatmap import STRIDE

PIXELS = "pixels"


@dataclass(frozen=True)
class Operation:
    """One step; values are named after the step that makes them.

    Attributes:
        kind: ``conv``, ``relu``, ``add`` or ``upsample`` (nearest neighbour).
        name: Of its result.
        inputs: Names of its inputs; `PIXELS` for the normalised pixels.
        weight: Of a convolution, float32 (out, in, height, width).
        bias: Of a convolution, float32 (out,).
        stride: Of a convolution.
        padding: Of a convolution, on each side.
        scale: Of upsampling.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    weight: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0, 0), np.float32))
    bias: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    stride: int = 1
    padding: int = 0
    scale: int = 1


@dataclass(frozen=True)
class Graph:
    """A network without its parameters' names.

    Attributes:
        operations: In an order in which they can be computed.
        output: Name of the heatmaps, (B, K, H/4, W/4).
        spec: The model; crop size and colour statistics are part of the graphs made of this.
    """

    operations: tuple[Operation, ...]
    output: str
    spec: ModelSpec

    def scale_and_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what turns uint8 RGB into normalised pixels, value * scale + shift.

        Both are float32 (1, 3, 1, 1).
        """
        mean_R, std_R = np.array(self.spec.mean_rgb), np.array(self.spec.std_rgb)
        scale_R, shift_R = 1 / (255 * std_R), -mean_R / std_R
        return (
            scale_R.astype(np.float32).reshape(1, 3, 1, 1),
            shift_R.astype(np.float32).reshape(1, 3, 1, 1),
        )

    def multiplications(self) -> int:
        """Return the multiplications of the convolutions for one crop."""
        sides = {PIXELS: self.spec.input_hw}
        total = 0
        for step in self.operations:
            height, width = sides[step.inputs[0]]
            if step.kind == "upsample":
                height, width = height * step.scale, width * step.scale
            elif step.kind == "conv":
                # Paddings keep the size but for the stride.
                height, width = height // step.stride, width // step.stride
                total += height * width * step.weight.size
            sides[step.name] = (height, width)
        return total

    @property
    def output_hw(self) -> tuple[int, int]:
        """Return height and width of the heatmaps."""
        height, width = self.spec.input_hw
        return height // STRIDE, width // STRIDE


class _Layers(fx.Tracer):
    """Records the layers that `HRNet.heatmaps` calls."""

    def __init__(self) -> None:
        super().__init__()
        self.traced_func_name = "heatmaps"

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a module is one step."""
        return not list(m.children())


def trace(network: nn.Module, spec: ModelSpec) -> Graph:
    """Return the graph of a network on the CPU whose batch norms are folded.

    Raises:
        ValueError: It has a layer that HRNet has not.
    """
    steps = _Layers().trace(network)
    modules = dict(network.named_modules())
    operations: list[Operation] = []
    # Steps that change nothing have the name of what they get.
    names: dict[Any, str] = {}
    output = PIXELS
    for step in steps.nodes:
        if step.op == "placeholder":
            names[step] = PIXELS
        elif step.op == "output":
            output = names[step.args[0]]
        else:
            inputs = tuple(names[value] for value in step.args)
            made = _operation(step, modules, inputs)
            if made is not None:
                operations.append(made)
            names[step] = inputs[0] if made is None else made.name
    return Graph(tuple(operations), output, spec)


def _operation(
    step: fx.Node, modules: dict[str, nn.Module], inputs: tuple[str, ...]
) -> Operation | None:
    """Return the operation of a step, None for one that changes nothing."""
    if step.op == "call_function" and step.target is operator.add:
        return Operation("add", step.name, inputs)
    layer: Any = modules.get(str(step.target)) if step.op == "call_module" else None
    if isinstance(layer, nn.Identity):
        return None
    if isinstance(layer, nn.ReLU):
        return Operation("relu", step.name, inputs)
    if isinstance(layer, nn.Upsample) and isinstance(layer.scale_factor, float):
        return Operation("upsample", step.name, inputs, scale=int(layer.scale_factor))
    if isinstance(layer, nn.Conv2d) and layer.bias is not None:
        return Operation(
            "conv",
            step.name,
            inputs,
            weight=_array(layer.weight),
            bias=_array(layer.bias),
            stride=int(layer.stride[0]),
            padding=int(layer.padding[0]),
        )
    raise ValueError(f"{step.op} '{step.target}' is no layer of a folded HRNet")


def _array(parameter: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(parameter.detach().float().cpu().numpy())
