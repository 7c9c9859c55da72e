"""Graphs as files: ONNX, OpenVINO and MNN."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hrnet_cli.optional_packages import import_quietly
from hrnet_cli.runtimes.graph import Graph
from hrnet_cli.seals import seal

if TYPE_CHECKING:
    import numpy as np


def write_graph_file(
    path: Path,
    graph: Graph,
    metadata: Mapping[str, str],
    *,
    precision: str = "fp32",
    batch: int | None = None,
    calibration_BHW3: "np.ndarray | None" = None,
) -> None:
    """Write a graph, sealed, by its suffix: ``.onnx``, ``.mnn``, or ``.xml`` with a ``.bin``.

    Args:
        path: File to write; the caller puts it in its place when all is well.
        graph: The network.
        metadata: Kept in the file.
        precision: ``fp32``, ``fp16``, ``int8``; ``bf16`` is a matter of computing, not of the file.
            MNN's is always fp32.
        batch: Fixed number of crops; None for any, as MNN's always takes.
        calibration_BHW3: uint8 RGB crops that ``int8`` is calibrated with.

    Raises:
        UsageError: The package is not installed.
        OSError: The file cannot be written.
    """
    if path.suffix == ".mnn":
        from hrnet_cli.runtimes.mnn import write_graph

        write_graph(path, graph, metadata)
    else:
        write = _write_onnx if path.suffix == ".onnx" else _write_openvino
        write(path, graph, metadata, precision, batch, calibration_BHW3)
    seal(path)


def _write_onnx(
    path: Path,
    graph: Graph,
    metadata: Mapping[str, str],
    precision: str,
    batch: int | None,
    calibration_BHW3: "np.ndarray | None",
) -> None:
    from hrnet_cli.runtimes.onnx_graph import write_graph

    model = write_graph(graph, metadata, batch, half=precision == "fp16")
    if precision == "int8" and calibration_BHW3 is not None:
        from hrnet_cli.runtimes.quantising import quantise_onnx

        model = quantise_onnx(model, calibration_BHW3)
        # The quantiser does not promise to keep them.
        onnx: Any = import_quietly("onnx", "an ONNX graph")
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, dict(metadata))
    path.write_bytes(model.SerializeToString())


def _write_openvino(
    path: Path,
    graph: Graph,
    metadata: Mapping[str, str],
    precision: str,
    batch: int | None,
    calibration_BHW3: "np.ndarray | None",
) -> None:
    from hrnet_cli.runtimes.openvino import save_model, write_graph

    model = write_graph(graph, metadata, batch)
    if precision == "int8" and calibration_BHW3 is not None:
        from hrnet_cli.runtimes.quantising import quantise_openvino

        model = quantise_openvino(model, calibration_BHW3)
    save_model(model, path, half=precision == "fp16")
