"""OpenVINO: the fastest on Intel and AMD processors; compiled networks are kept between runs.

Shape letters: B crops, K keypoints, H W crop height and width.
"""

import threading
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from hrnet_cli.config import ModelSpec
from hrnet_cli.device import processors
from hrnet_cli.engines import GraphError, open_openvino
from hrnet_cli.errors import WeightsError
from hrnet_cli.heatmap import STRIDE
from hrnet_cli.optional_packages import import_quietly
from hrnet_cli.runtimes import TOLERANCES, RuntimeSettings
from hrnet_cli.runtimes.crops import check_crops, run_in_batches

if TYPE_CHECKING:
    from torch import nn

    from hrnet_cli.runtimes.graph import Graph

# Objects of openvino, which is imported when it is needed.
Model: TypeAlias = Any
CompiledModel: TypeAlias = Any
Request: TypeAlias = Any

WANTED_BY = "runtime openvino"
# Group of the metadata in the file (OpenVINO's "runtime information").
METADATA = "hrnet"
# More crops at once on one processor only crowd its caches.
MOST_STREAMS = 8


class OpenVino:
    """Runs a graph on the processor, one crop on each of several threads at a time.

    A crop for each thread needs no waiting between them at every layer, and all crops have one
    shape, for which the engine prepares itself once. What is left over, such as a single person,
    is computed by all threads together.

    Args:
        source: An ``.xml`` or ``.onnx`` file, or a graph in memory.
        spec: The model.
        settings: Precision and threads.
        cache: Folder for what is compiled; None keeps nothing.

    Raises:
        UsageError: openvino is not installed.
        DeviceError: The processor does not compute in the precision.
        WeightsError: The file cannot be read as a graph from crops to heatmaps.
    """

    name = "openvino"

    def __init__(
        self,
        source: Path | Model,
        spec: ModelSpec,
        settings: RuntimeSettings,
        cache: Path | None = None,
    ) -> None:
        self.spec = spec
        self.tolerance = TOLERANCES[settings.precision]
        self.threads = settings.threads or processors()
        self.streams = min(self.threads, MOST_STREAMS)
        self._source, self._settings, self._cache = source, settings, cache
        self._state = _file_state(source)
        self._apart = apart = self._compile(self.streams)
        _check_shapes(apart, spec, source)
        batch = apart.input(0).partial_shape[0]
        self.fixed_batch = batch.get_length() if batch.is_static else None
        openvino: Any = import_quietly("openvino", WANTED_BY)
        self._queue = openvino.AsyncInferQueue(apart, self.streams)
        self._queue.set_callback(_store)
        # Queue and requests are shared: another thread's crops would come out as this one's.
        self._turn = threading.Lock()

    def __call__(self, crops_BHW3: np.ndarray) -> np.ndarray:
        """Return the heatmaps of crops.

        Args:
            crops_BHW3: uint8 RGB crops of the model's input size; B may be 0.

        Returns:
            float32 (B, K, H/4, W/4), unbounded; a trained network peaks near 1.

        Raises:
            ValueError: The crops have another type or size.
        """
        with self._turn:
            return self._compute(crops_BHW3)

    def _compute(self, crops_BHW3: np.ndarray) -> np.ndarray:
        if self.fixed_batch not in (None, 1):
            return run_in_batches(crops_BHW3, self.spec, self._all_threads, self.fixed_batch)
        check_crops(crops_BHW3, self.spec)
        apart = self._crops_apart(len(crops_BHW3))
        height, width = self.spec.input_hw
        heatmaps_BKHW = np.empty(
            (len(crops_BHW3), len(self.spec.schema), height // STRIDE, width // STRIDE), np.float32
        )
        self._each_thread(crops_BHW3[:apart], heatmaps_BKHW[:apart])
        for index in range(apart, len(crops_BHW3)):
            crop_1HW3 = np.ascontiguousarray(crops_BHW3[index : index + 1])
            heatmaps_BKHW[index] = self._all_threads(crop_1HW3)[0]
        return heatmaps_BKHW

    def _crops_apart(self, count: int) -> int:
        """Return how many of the crops to give to threads of their own, the others to all."""
        left_over = count % self.streams
        # With more than half of the threads at work, one round beats several by all threads.
        return count if 2 * left_over > self.streams else count - left_over

    def _each_thread(self, crops_BHW3: np.ndarray, heatmaps_BKHW: np.ndarray) -> None:
        """Compute crops side by side, into the heatmaps given."""
        for index in range(len(crops_BHW3)):
            crop_1HW3 = np.ascontiguousarray(crops_BHW3[index : index + 1])
            self._queue.start_async({0: crop_1HW3}, (heatmaps_BKHW, index))
        self._queue.wait_all()

    def _all_threads(self, crops_BHW3: np.ndarray) -> np.ndarray:
        network = self._apart if self._together is None else self._together
        return network(crops_BHW3)[0]

    @cached_property
    def _together(self) -> CompiledModel | None:
        """Return the network compiled for all threads on one batch, when it is first needed.

        None where its file is gone or another one by then: that could be another network.
        """
        return self._compile(1) if _file_state(self._source) == self._state else None

    def _compile(self, streams: int) -> CompiledModel:
        try:
            return open_openvino(
                self._source,
                precision=self._settings.precision,
                threads=self.threads,
                streams=streams,
                cache=self._cache,
                wanted_by=WANTED_BY,
            )
        except GraphError as error:
            raise WeightsError(
                f"{_name(self._source)}: OpenVINO cannot read it: {error}",
                hint="export it again with hrnet export",
            ) from error


def open_network(network: "nn.Module", spec: ModelSpec, settings: RuntimeSettings) -> OpenVino:
    """Return a network at work in OpenVINO; the network itself stays as it is."""
    from hrnet_cli.runtimes.folding import fold_batch_norms
    from hrnet_cli.runtimes.graph import trace

    graph = trace(fold_batch_norms(network).cpu().float(), spec)
    return OpenVino(write_graph(graph, {}), spec, settings)


def write_graph(graph: "Graph", metadata: Mapping[str, str], batch: int | None = None) -> Model:
    """Return a graph from uint8 crops (B, H, W, 3) to heatmaps, as OpenVINO has it.

    Args:
        graph: The network.
        metadata: Kept in the file.
        batch: Fixed number of crops; None for any.

    Raises:
        UsageError: openvino is not installed.
    """
    ov: Any = import_quietly("openvino", WANTED_BY)
    op: Any = import_quietly("openvino.opset13", WANTED_BY)
    scale, shift = graph.scale_and_shift()
    crops = op.parameter([batch or -1, *graph.spec.input_hw, 3], np.uint8, name="crops")
    crops.output(0).tensor.set_names({"crops"})
    floats = op.convert(op.transpose(crops, np.array([0, 3, 1, 2])), "f32")
    values = {"pixels": op.add(op.multiply(floats, scale), shift)}
    for step in graph.operations:
        inputs = [values[name] for name in step.inputs]
        if step.kind == "conv":
            sides, dilations = [step.padding] * 2, [1, 1]
            folded = op.convolution(
                inputs[0], step.weight, [step.stride] * 2, sides, sides, dilations
            )
            values[step.name] = op.add(folded, step.bias.reshape(1, -1, 1, 1))
        elif step.kind == "upsample":
            values[step.name] = op.interpolate(
                inputs[0],
                np.array([step.scale] * 2, np.float32),
                mode="nearest",
                shape_calculation_mode="scales",
                axes=np.array([2, 3]),
                coordinate_transformation_mode="asymmetric",
                nearest_mode="floor",
            )
        else:
            values[step.name] = {"relu": op.relu, "add": op.add}[step.kind](*inputs)
    heatmaps = op.result(values[graph.output])
    heatmaps.output(0).tensor.set_names({"heatmaps"})
    model = ov.Model([heatmaps], [crops], graph.spec.name)
    for key, text in metadata.items():
        model.set_rt_info(text, [METADATA, key])
    return model


def save_model(model: Model, path: Path, *, half: bool = False) -> None:
    """Write a graph as ``.xml`` and ``.bin``.

    Args:
        model: The graph.
        path: The ``.xml`` file.
        half: Store the weights in half precision.

    Raises:
        OSError: The files cannot be written.
    """
    ov: Any = import_quietly("openvino", WANTED_BY)
    try:
        ov.save_model(model, str(path), compress_to_fp16=half)
    except RuntimeError as error:
        raise OSError(f"OpenVINO cannot write it: {error}") from error


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of an ``.xml`` file, empty for one that `write_graph` did not make.

    Raises:
        WeightsError: The file cannot be read.
    """
    try:
        group = ET.parse(path).find(f"rt_info/{METADATA}")
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror}") from error
    except (ET.ParseError, ValueError, LookupError) as error:  # also an encoding it does not know
        raise WeightsError(
            f"{path}: is damaged or no OpenVINO graph: {error}",
            hint="export it again with hrnet export",
        ) from error
    return {} if group is None else {item.tag: item.get("value", "") for item in group}


def _store(request: Request, place: tuple[np.ndarray, int]) -> None:
    heatmaps_BKHW, index = place
    heatmaps_BKHW[index] = request.get_output_tensor(0).data[0]


def _check_shapes(compiled: CompiledModel, spec: ModelSpec, source: Path | Model) -> None:
    expected = [*spec.input_hw, 3]
    shape = compiled.input(0).partial_shape
    sides = [side.get_length() if side.is_static else -1 for side in shape][1:]
    heads = compiled.output(0).partial_shape[1]
    if sides != expected or not heads.is_static or heads.get_length() != len(spec.schema):
        raise WeightsError(
            f"{_name(source)}: its graph maps {shape} to {compiled.output(0).partial_shape},"
            f" expected crops of {expected} and {len(spec.schema)} heatmaps",
            hint="export it again with hrnet export",
        )


def _file_state(source: Path | Model) -> list[tuple[int, int]] | None:
    """Return what tells a graph file and its weights from others; None where they are not there."""
    if not isinstance(source, Path):
        return []
    files = [source, source.with_suffix(".bin")] if source.suffix == ".xml" else [source]
    try:
        return [(one.st_mtime_ns, one.st_size) for one in (file.stat() for file in files)]
    except OSError:
        return None


def _name(source: Path | Model) -> str:
    return str(source) if isinstance(source, Path) else "the network"
