"""A network as an ONNX graph, from uint8 crops to heatmaps."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np

from hrnet_cli.optional_packages import import_quietly
from hrnet_cli.runtimes.graph import PIXELS, Graph, Operation

# A graph of onnx, which is imported when it is needed.
Model: TypeAlias = Any

# Every engine of the last years reads these.
OPSET = 17
IR_VERSION = 9
# The steps that make pixels of crops; they stay exact where the network is rounded.
PREPARATION = ("transpose", "cast", "scale", "shift")
_KINDS = {"conv": "Conv", "relu": "Relu", "add": "Add", "upsample": "Resize"}


def write_graph(
    graph: Graph, metadata: Mapping[str, str], batch: int | None = None, *, half: bool = False
) -> Model:
    """Return a graph from uint8 crops (B, H, W, 3) to heatmaps, as ONNX has it.

    Args:
        graph: The network.
        metadata: Kept in the file.
        batch: Fixed number of crops; None for any.
        half: Compute in float16; the heatmaps are float32 all the same.

    Raises:
        UsageError: onnx is not installed.
    """
    onnx: Any = import_quietly("onnx", "an ONNX graph")
    make, types = onnx.helper, onnx.TensorProto
    scale, shift = graph.scale_and_shift()
    arrays = {"scale": scale, "shift": shift}
    exact = "exact pixels" if half else PIXELS
    nodes = [
        make.make_node("Transpose", ["crops"], ["bytes"], PREPARATION[0], perm=[0, 3, 1, 2]),
        make.make_node("Cast", ["bytes"], ["floats"], PREPARATION[1], to=types.FLOAT),
        make.make_node("Mul", ["floats", "scale"], ["scaled"], PREPARATION[2]),
        make.make_node("Add", ["scaled", "shift"], [exact], PREPARATION[3]),
    ]
    if half:
        nodes.append(make.make_node("Cast", [exact], [PIXELS], "round", to=types.FLOAT16))
    for step in graph.operations:
        inputs, attributes, constants = _layer(step, np.float16 if half else np.float32)
        arrays |= constants
        names = [*step.inputs, *inputs]
        nodes.append(make.make_node(_KINDS[step.kind], names, [step.name], step.name, **attributes))
    nodes.append(make.make_node("Cast", [graph.output], ["heatmaps"], "heatmaps", to=types.FLOAT))
    crops_shape = [batch or "crops", *graph.spec.input_hw, 3]
    heatmaps_shape = [batch or "crops", len(graph.spec.schema), *graph.output_hw]
    model = make.make_model(
        make.make_graph(
            nodes,
            graph.spec.name,
            [make.make_tensor_value_info("crops", types.UINT8, crops_shape)],
            [make.make_tensor_value_info("heatmaps", types.FLOAT, heatmaps_shape)],
            [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()],
        ),
        opset_imports=[make.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="hrnet-cli",
    )
    make.set_model_props(model, dict(metadata))
    return model


def _layer(
    step: Operation, dtype: type[np.floating]
) -> tuple[list[str], dict[str, Any], dict[str, np.ndarray]]:
    """Return the further inputs of a node, its attributes and the values of its constants."""
    if step.kind == "conv":
        constants = {
            f"{step.name}.weight": step.weight.astype(dtype),
            f"{step.name}.bias": step.bias.astype(dtype),
        }
        attributes = {
            "kernel_shape": list(step.weight.shape[2:]),
            "strides": [step.stride] * 2,
            "pads": [step.padding] * 4,
        }
        return list(constants), attributes, constants
    if step.kind == "upsample":
        factors = f"{step.name}.scale"
        attributes = {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        }
        # Between the picture and the factors an input that nearest neighbours do not use.
        scales = np.array([1, 1, step.scale, step.scale], np.float32)
        return ["", factors], attributes, {factors: scales}
    return [], {}, {}
