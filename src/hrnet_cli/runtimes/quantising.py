"""Graphs rounded to 8 bits, their ranges measured on crops like those to come."""

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from hrnet_cli.optional_packages import import_quietly
from hrnet_cli.runtimes.onnx_graph import PREPARATION

# Graphs of openvino and onnx, which are imported when they are needed.
OpenVinoModel: TypeAlias = Any
OnnxModel: TypeAlias = Any

WANTED_BY = "--precision int8"


def quantise_openvino(model: OpenVinoModel, crops_BHW3: np.ndarray) -> OpenVinoModel:
    """Return a graph of 8 bits, with factors per channel and corrected biases (NNCF).

    Args:
        model: The graph in float32.
        crops_BHW3: uint8 RGB crops to calibrate with; some hundred are plenty.

    Raises:
        UsageError: nncf is not installed.
    """
    nncf: Any = import_quietly("nncf", WANTED_BY)
    nncf.set_log_level(logging.ERROR)
    batch = model.inputs[0].partial_shape[0]
    crops = _batches(crops_BHW3, batch.get_length() if batch.is_static else 1)
    # It draws progress bars where results go.
    with contextlib.redirect_stdout(io.StringIO()):
        return nncf.quantize(model, nncf.Dataset(crops), subset_size=len(crops))


def quantise_onnx(model: OnnxModel, crops_BHW3: np.ndarray) -> OnnxModel:
    """Return a graph of 8 bits, with factors per channel (ONNX Runtime, QDQ form).

    Weights take 7 of the 8 bits: processors without VNNI add up products in 16 bits, which would
    overflow, and a file should give the same numbers everywhere.

    Args:
        model: The graph in float32.
        crops_BHW3: uint8 RGB crops to calibrate with.

    Raises:
        UsageError: onnxruntime is not installed.
    """
    quantization: Any = import_quietly("onnxruntime.quantization", WANTED_BY)
    onnx: Any = import_quietly("onnx", WANTED_BY)
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    crops = iter([{"crops": part} for part in _batches(crops_BHW3, batch or 1)])

    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(crops, None)

    with tempfile.TemporaryDirectory(prefix="hrnet-") as folder, _silent_logging():
        path = Path(folder) / "int8.onnx"
        quantization.quantize_static(
            model,
            str(path),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            # A single glaring crop should not widen the ranges for all.
            extra_options={"CalibMovingAverage": True},
            nodes_to_exclude=list(PREPARATION),
        )
        return onnx.load(str(path))


def _batches(crops_BHW3: np.ndarray, size: int) -> Sequence[np.ndarray]:
    """Return crops in batches of one size; what is left over is left out."""
    count = max(1, len(crops_BHW3) // size)
    whole = np.resize(crops_BHW3, (count * size, *crops_BHW3.shape[1:]))
    return np.split(whole, count)


@contextlib.contextmanager
def _silent_logging() -> Iterator[None]:
    """Keep advice for those who call the quantiser themselves from the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
