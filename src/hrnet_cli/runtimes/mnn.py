"""MNN: Winograd's convolutions, which multiply less; the fastest in float32 where it was measured.

A 3x3 convolution by Winograd's method (Lavin and Gray, CVPR 2016) takes a fraction of the
multiplications and rounds a little more: heatmaps differ by some 1e-4 of their peak from PyTorch's.
The transformed weights are several times as large, so that it wants memory and several crops at
once.

Shape letters: B crops, K keypoints, H W crop height and width.
"""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hrnet_cli.config import ModelSpec
from hrnet_cli.device import processors
from hrnet_cli.errors import DeviceError, WeightsError
from hrnet_cli.heatmap import STRIDE
from hrnet_cli.optional_packages import import_quietly, nothing_printed
from hrnet_cli.runtimes import WINOGRAD_TOLERANCE, RuntimeSettings
from hrnet_cli.runtimes.crops import check_crops, no_heatmaps
from hrnet_cli.runtimes.mnn_metadata import write_metadata

if TYPE_CHECKING:
    from torch import nn

    from hrnet_cli.runtimes.graph import Graph

WANTED_BY = "runtime mnn"
# More at once were not faster, and take more memory.
MOST_CROPS = 16
# The converter's own command reports each use to its makers, and installs what it needs for that.
# The module that does it is hidden, and the converter goes without.
_CONVERT = """
import sys
sys.modules["MNN.tools.utils.log"] = None
from MNN.tools.mnnconvert import convert
convert(["mnnconvert", "-f", "ONNX", "--modelFile", sys.argv[1], "--MNNModel", sys.argv[2],
         "--bizCode", sys.argv[3]])
"""


class Mnn:
    """Runs an MNN graph on the processor, several crops at once.

    Args:
        path: An ``.mnn`` file.
        spec: The model.
        settings: Threads; the precision is fp32.

    Raises:
        UsageError: MNN is not installed.
        WeightsError: The file cannot be read as a graph from crops to heatmaps.
    """

    name = "mnn"

    def __init__(self, path: Path, spec: ModelSpec, settings: RuntimeSettings) -> None:
        self.spec = spec
        self.tolerance = WINOGRAD_TOLERANCE
        # The session holds one batch: another thread's crops would come out as this one's.
        self._turn = threading.Lock()
        with nothing_printed():
            self._mnn: Any = import_quietly("MNN", WANTED_BY)
            try:
                self._graph = self._mnn.Interpreter(str(path))
                self._session = self._graph.createSession(
                    {
                        "backend": "CPU",
                        # Or it rounds to 16 bits where the processor is good at that.
                        "precision": "high",
                        "numThread": settings.threads or processors(),
                    }
                )
            # It raises Exception itself.
            except Exception as error:
                raise WeightsError(
                    f"{path}: MNN cannot read it", hint="export it again with hrnet export"
                ) from error
            self._batch = 0
            self._prepare(1)
        height, width = spec.input_hw
        expected = (1, len(spec.schema), height // STRIDE, width // STRIDE)
        shape = tuple(self._graph.getSessionOutput(self._session).getShape())
        if shape != expected:
            raise WeightsError(
                f"{path}: its graph maps a crop of {spec.input_hw} to {shape}, expected {expected}",
                hint="export it again with hrnet export",
            )

    def __call__(self, crops_BHW3: np.ndarray) -> np.ndarray:
        """Return the heatmaps of crops.

        Args:
            crops_BHW3: uint8 RGB crops of the model's input size; B may be 0.

        Returns:
            float32 (B, K, H/4, W/4), unbounded; a trained network peaks near 1.

        Raises:
            ValueError: The crops have another type or size.
        """
        check_crops(crops_BHW3, self.spec)
        if not len(crops_BHW3):
            return no_heatmaps(self.spec)
        parts = np.array_split(crops_BHW3, -(-len(crops_BHW3) // MOST_CROPS))
        with self._turn:
            return np.concatenate([self._compute(np.ascontiguousarray(part)) for part in parts])

    def _compute(self, crops_BHW3: np.ndarray) -> np.ndarray:
        mnn = self._mnn
        if len(crops_BHW3) != self._batch:
            self._prepare(len(crops_BHW3))
        as_they_lie = mnn.Tensor_DimensionType_Caffe
        given = mnn.Tensor(crops_BHW3.shape, mnn.Halide_Type_Uint8, crops_BHW3, as_they_lie)
        self._graph.getSessionInput(self._session).copyFromHostTensor(given)
        # Other threads go on meanwhile, which they would not beside MNN's newer Module.
        if self._graph.runSession(self._session):
            raise DeviceError(
                f"MNN could not compute {len(crops_BHW3)} crops", hint="use --runtime torch"
            )
        result = self._graph.getSessionOutput(self._session)
        heatmaps_BKHW = np.empty(result.getShape(), np.float32)
        taken = mnn.Tensor(result.getShape(), mnn.Halide_Type_Float, heatmaps_BKHW, as_they_lie)
        result.copyToHostTensor(taken)
        return np.array(taken.getNumpyData()).reshape(heatmaps_BKHW.shape)

    def _prepare(self, batch: int) -> None:
        """Make the session ready for so many crops at once, which takes some milliseconds."""
        crops = self._graph.getSessionInput(self._session)
        self._graph.resizeTensor(crops, (batch, *self.spec.input_hw, 3))
        self._graph.resizeSession(self._session)
        self._batch = batch


def open_network(network: "nn.Module", spec: ModelSpec, settings: RuntimeSettings) -> Mnn:
    """Return a network at work in MNN; the network itself stays as it is."""
    from hrnet_cli.runtimes.folding import fold_batch_norms
    from hrnet_cli.runtimes.graph import trace

    graph = trace(fold_batch_norms(network).cpu().float(), spec)
    with tempfile.TemporaryDirectory(prefix="hrnet-") as folder:
        path = Path(folder) / "model.mnn"
        write_graph(path, graph, {})
        return Mnn(path, spec, settings)


def write_graph(path: Path, graph: "Graph", metadata: Mapping[str, str]) -> None:
    """Write a graph from uint8 crops (B, H, W, 3) to heatmaps as an ``.mnn`` file.

    MNN's converter makes it of an ONNX file, in a process of its own, as it prints a lot.

    Args:
        path: File to write.
        graph: The network.
        metadata: Kept in the file, see `mnn_metadata`.

    Raises:
        UsageError: MNN or onnx is not installed.
        OSError: The file cannot be written.
    """
    from hrnet_cli.runtimes.onnx_graph import write_graph as write_onnx

    source = path.with_suffix(".onnx")
    source.write_bytes(write_onnx(graph, {}).SerializeToString())
    words = [str(source), str(path), write_metadata(dict(metadata))]
    made = subprocess.run(
        [sys.executable, "-c", _CONVERT, *words], capture_output=True, text=True, check=False
    )
    source.unlink()
    if made.returncode or not path.is_file():
        lines = (made.stderr or made.stdout).strip().splitlines()
        raise OSError(f"MNN's converter failed: {lines[-1] if lines else made.returncode}")
