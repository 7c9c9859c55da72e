"""Graphs as files: ONNX and OpenVINO."""

from collections.abc import Mapping
from pathlib import Path

from hrnet_cli.runtimes.graph import Graph


def write_graph_file(
    path: Path, graph: Graph, metadata: Mapping[str, str], batch: int | None = None
) -> None:
    """Write a graph as what the suffix says, ``.onnx`` or ``.xml`` (with a ``.bin`` beside it).

    Args:
        path: File to write; the caller puts it in its place when all is well.
        graph: The network.
        metadata: Kept in the file.
        batch: Fixed number of crops; None for any.

    Raises:
        UsageError: The package is not installed.
        OSError: The file cannot be written.
    """
    if path.suffix == ".onnx":
        from hrnet_cli.runtimes import onnx

        path.write_bytes(onnx.write_graph(graph, metadata, batch).SerializeToString())
        return
    from hrnet_cli.runtimes import openvino

    openvino.save_model(openvino.write_graph(graph, metadata, batch), path)
