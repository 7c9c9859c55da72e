"""ONNX Runtime: on any processor, and on CUDA with its GPU package.

Shape letters: B crops, K keypoints, H W crop height and width.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hrnet_cli.config import ModelSpec
from hrnet_cli.engines import GraphError, open_onnx
from hrnet_cli.errors import WeightsError
from hrnet_cli.runtimes import TOLERANCES, RuntimeSettings
from hrnet_cli.runtimes.crops import run_in_batches

if TYPE_CHECKING:
    from torch import nn

WANTED_BY = "runtime onnx"


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
        try:
            self._session = open_onnx(
                source, device=settings.device, threads=settings.threads, wanted_by=WANTED_BY
            )
        except GraphError as error:
            raise WeightsError(
                f"{_name(source)}: ONNX Runtime cannot read it: {error}",
                hint="export it again with hrnet export",
            ) from error
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
    from hrnet_cli.runtimes.onnx_graph import write_graph

    graph = trace(fold_batch_norms(network).cpu().float(), spec)
    return OnnxRuntime(write_graph(graph, {}).SerializeToString(), spec, settings)


def _name(source: Path | bytes) -> str:
    return str(source) if isinstance(source, Path) else "the network"
