"""ONNX Runtime: on any processor, and on CUDA with its GPU package.

Shape letters: B crops, K keypoints, H W crop height and width.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hrnet_cli.config import ModelSpec
from hrnet_cli.device import processors
from hrnet_cli.errors import DeviceError, WeightsError
from hrnet_cli.optional_packages import import_quietly
from hrnet_cli.runtimes import TOLERANCES, RuntimeSettings
from hrnet_cli.runtimes.crops import run_in_batches

if TYPE_CHECKING:
    from torch import nn

    from hrnet_cli.runtimes.graph import Graph

# Objects of onnx and onnxruntime, which are imported when they are needed.
Model: TypeAlias = Any
Session: TypeAlias = Any
Module: TypeAlias = Any

WANTED_BY = "runtime onnx"
# Every engine of the last years reads these.
OPSET = 17
IR_VERSION = 9
_QUIET = 3  # errors only


class OnnxRuntime:
    """Runs an ONNX graph with onnxruntime.

    Args:
        source: An ``.onnx`` file, or its bytes.
        spec: The model.
        settings: Device, precision and threads.

    Raises:
        UsageError: onnxruntime is not installed.
        DeviceError: The installed onnxruntime does not compute on the device.
        WeightsError: The file cannot be read as a graph from crops to heatmaps.
    """

    name = "onnx"

    def __init__(self, source: Path | bytes, spec: ModelSpec, settings: RuntimeSettings) -> None:
        self.spec = spec
        self.tolerance = TOLERANCES[settings.precision]
        self._session = open_session(source, settings, WANTED_BY)
        (crops,) = self._session.get_inputs()
        (heatmaps,) = self._session.get_outputs()
        expected = [*spec.input_hw, 3]
        if crops.shape[1:] != expected or heatmaps.shape[1] != len(spec.schema):
            raise WeightsError(
                f"{_name(source)}: its graph maps {crops.shape} to {heatmaps.shape}, expected"
                f" crops of {expected} and {len(spec.schema)} heatmaps",
                hint="export it again with hrnet export",
            )
        self._input = crops.name
        self.fixed_batch = crops.shape[0] if isinstance(crops.shape[0], int) else None

    def __call__(self, crops_BHW3: np.ndarray) -> np.ndarray:
        """Return the heatmaps of crops.

        Args:
            crops_BHW3: uint8 RGB crops of the model's input size; B may be 0.

        Returns:
            float32 (B, K, H/4, W/4), unbounded; a trained network peaks near 1.

        Raises:
            ValueError: The crops have another type or size.
        """
        return run_in_batches(crops_BHW3, self.spec, self._compute, self.fixed_batch)

    def _compute(self, crops_BHW3: np.ndarray) -> np.ndarray:
        return self._session.run(None, {self._input: crops_BHW3})[0]


def open_network(network: "nn.Module", spec: ModelSpec, settings: RuntimeSettings) -> OnnxRuntime:
    """Return a network at work in ONNX Runtime; the network itself stays as it is."""
    from hrnet_cli.runtimes.folding import fold_batch_norms
    from hrnet_cli.runtimes.graph import trace

    graph = trace(fold_batch_norms(network).cpu().float(), spec)
    return OnnxRuntime(write_graph(graph, {}).SerializeToString(), spec, settings)


def open_session(source: Path | bytes, settings: RuntimeSettings, wanted_by: str) -> Session:
    """Return an onnxruntime session of a file on a device.

    Raises:
        UsageError: onnxruntime is not installed.
        DeviceError: The installed onnxruntime does not compute on the device.
        WeightsError: The file cannot be read.
    """
    ort: Any = import_quietly("onnxruntime", wanted_by)
    options = ort.SessionOptions()
    options.log_severity_level = _QUIET
    options.intra_op_num_threads = settings.threads or processors()
    # Threads that spin while they wait take the processor from the stages beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    content = str(source) if isinstance(source, Path) else source
    try:
        return ort.InferenceSession(content, options, providers=_providers(ort, settings.device))
    except (RuntimeError, ValueError, *_failures(ort)) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(
            f"{_name(source)}: ONNX Runtime cannot read it: {lines[0]}",
            hint="export it again with hrnet export",
        ) from error


def write_graph(graph: "Graph", metadata: Mapping[str, str], batch: int | None = None) -> Model:
    """Return a graph from uint8 crops (B, H, W, 3) to heatmaps, as ONNX has it.

    Args:
        graph: The network.
        metadata: Kept in the file.
        batch: Fixed number of crops; None for any.

    Raises:
        UsageError: onnx is not installed.
    """
    onnx: Any = import_quietly("onnx", WANTED_BY)
    make, types = onnx.helper, onnx.TensorProto
    scale, shift = graph.scale_and_shift()
    arrays = {"scale": scale, "shift": shift}
    nodes = [
        make.make_node("Transpose", ["crops"], ["bytes"], perm=[0, 3, 1, 2]),
        make.make_node("Cast", ["bytes"], ["floats"], to=types.FLOAT),
        make.make_node("Mul", ["floats", "scale"], ["scaled"]),
        make.make_node("Add", ["scaled", "shift"], ["pixels"]),
    ]
    for step in graph.operations:
        inputs, attributes = list(step.inputs), {}
        if step.kind == "conv":
            arrays |= {f"{step.name}.weight": step.weight, f"{step.name}.bias": step.bias}
            inputs += [f"{step.name}.weight", f"{step.name}.bias"]
            attributes = {
                "kernel_shape": list(step.weight.shape[2:]),
                "strides": [step.stride] * 2,
                "pads": [step.padding] * 4,
            }
        elif step.kind == "upsample":
            factors = f"{step.name}.scale"
            arrays[factors] = np.array([1, 1, step.scale, step.scale], np.float32)
            inputs += ["", factors]
            attributes = {
                "mode": "nearest",
                "coordinate_transformation_mode": "asymmetric",
                "nearest_mode": "floor",
            }
        kind = {"conv": "Conv", "relu": "Relu", "add": "Add", "upsample": "Resize"}[step.kind]
        nodes.append(make.make_node(kind, inputs, [step.name], name=step.name, **attributes))
    nodes.append(make.make_node("Identity", [graph.output], ["heatmaps"]))
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


def _providers(ort: Module, device: str) -> list[Any]:
    if not device.startswith("cuda"):
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise DeviceError(
            "the installed onnxruntime computes on the processor only, not on CUDA",
            hint="pip install onnxruntime-gpu in its place, or use --device cpu",
        )
    index = int(device.partition(":")[2] or 0)
    return [("CUDAExecutionProvider", {"device_id": index}), "CPUExecutionProvider"]


def _failures(ort: Module) -> tuple[type[Exception], ...]:
    """Return the errors of onnxruntime's own, which share no base class but Exception."""
    state = ort.capi.onnxruntime_pybind11_state
    names = ("Fail", "InvalidProtobuf", "InvalidGraph", "InvalidArgument", "NoSuchFile",
             "NotImplemented", "RuntimeException", "EPFail", "ModelLoadCanceled")  # fmt: skip
    return tuple(getattr(state, name) for name in names if hasattr(state, name))


def _name(source: Path | bytes) -> str:
    return str(source) if isinstance(source, Path) else "the network"
