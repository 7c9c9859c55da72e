"""A model file -> the network at work in a runtime, by the shortest way.

OpenVINO, ONNX Runtime and MNN need a graph, which is made of a checkpoint with torch once and kept
in the cache folder; the next run finds it there and imports no torch.
"""

import contextlib
import hashlib
import json
import logging
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hrnet_cli import weights
from hrnet_cli.config import ModelSpec
from hrnet_cli.device import cpu_has_bf16, pick_device
from hrnet_cli.errors import WeightsError
from hrnet_cli.model_metadata import ARCHITECTURE, model_name, spec_to_metadata
from hrnet_cli.runtimes import (
    AUTO,
    RUNTIMES,
    Computing,
    Runtime,
    RuntimeSettings,
    pick_runtime,
)
from hrnet_cli.runtimes.exported import (
    Exported,
    best_device,
    graph_file,
    open_exported,
    pick_exported_runtime,
    read_exported,
)
from hrnet_cli.scratch import cache_folder, scratch_beside

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger(__name__)

# Runtimes that compute a graph made of the network, and the suffix of its file.
GRAPH_SUFFIXES = {"openvino": ".xml", "onnx": ".onnx", "mnn": ".mnn"}
# A graph is as large as its weights in float32, 115 MB for W32.
GRAPHS_KEPT = 8
# OpenVINO compiles a graph once for each way to use the threads, and detectors besides.
BLOBS_KEPT = 32
# To be raised when the graph made of the same network becomes another one.
GRAPH_VERSION = 2


@dataclass(frozen=True)
class OpenedModel:
    """A network at work.

    Attributes:
        runtime: It.
        spec: What it expects and means.
        precision: Of the arithmetic.
        summary: What was loaded, in words.
    """

    runtime: Runtime
    spec: ModelSpec
    precision: str
    summary: str


def open_model(
    path: Path,
    spec: ModelSpec | None,
    computing: Computing,
) -> OpenedModel:
    """Return the network of a file at work.

    Args:
        path: Checkpoint, or an exported model.
        spec: What a checkpoint is; None where the file says it.
        computing: What was asked for.

    Raises:
        WeightsError: The file cannot be read or is another one than it should be.
        UsageError: Runtime and file or precision do not go together, or a package is missing.
        DeviceError: Runtime or precision and device do not go together.
    """
    device = pick_device(computing.device)
    settings = RuntimeSettings(device, computing.precision or "fp32", computing.threads)
    graph = graph_file(path)
    if graph is not None:
        exported = read_exported(graph)
        settings = replace(settings, precision=computing.precision or exported.precision)
        if computing.device == AUTO:
            settings = replace(settings, device=best_device(exported, computing.runtime, device))
        name = pick_exported_runtime(exported, computing.runtime, settings)
        opened = open_exported(exported, name, settings, compiled_folder())
        summary = f"{name} {settings.precision}, an exported file"
        return OpenedModel(opened, exported.spec, settings.precision, summary)
    name = pick_runtime(computing.runtime, settings.precision, device)
    if name in GRAPH_SUFFIXES:
        opened, spec, loaded = _open_graph(path, spec, name, settings)
    else:
        if settings.precision == "bf16" and device == "cpu" and not cpu_has_bf16():
            log.warning("this processor has no bf16 arithmetic: bf16 takes longer here than fp32")
        network, spec, loaded = _load(path, spec)
        opened = RUNTIMES[name].build(network, spec, settings)
    return OpenedModel(opened, spec, settings.precision, f"{name} {settings.precision}, {loaded}")


def compiled_folder() -> Path:
    """Return the folder for graphs made of checkpoints and for what OpenVINO compiles."""
    return cache_folder() / "compiled"


def _load(path: Path, spec: ModelSpec | None) -> "tuple[nn.Module, ModelSpec, str]":
    from hrnet_cli import checkpoint

    network, spec, report = checkpoint.load_model(path, spec)
    return network, spec, report.describe()


def _open_graph(
    path: Path, spec: ModelSpec | None, name: str, settings: RuntimeSettings
) -> tuple[Runtime, ModelSpec, str]:
    """Return a checkpoint at work as a graph, made now or found in the cache folder."""
    folder = compiled_folder()
    graph = folder / _key(path, spec, name) / f"model{GRAPH_SUFFIXES[name]}"
    if graph.is_file():
        try:
            found = read_exported(graph)
            model = replace(found.spec, name=model_name(path) if spec is None else spec.name)
            opened = open_exported(replace(found, spec=model), name, settings, folder)
            loaded = found.metadata["loaded"]
        except (WeightsError, KeyError) as error:
            log.warning("%s cannot be used and is made anew: %s", graph, error)
            shutil.rmtree(graph.parent, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):  # a cache that may be read only
                graph.parent.touch()
            return opened, model, loaded
    network, model, loaded = _load(path, spec)
    try:
        _keep_graph(graph, network, model, loaded)
        exported = Exported(graph, model, "fp32", {})
        return open_exported(exported, name, settings, folder), model, loaded
    except (OSError, WeightsError) as error:
        # A cache that cannot be written or read costs time, nothing else.
        log.warning("%s cannot be kept: %s", graph, error)
        return RUNTIMES[name].build(network, model, settings), model, loaded


def _keep_graph(graph: Path, network: "nn.Module", spec: ModelSpec, loaded: str) -> None:
    """Write the graph of a network into the cache folder, whole or not at all."""
    from hrnet_cli.runtimes.folding import fold_batch_norms
    from hrnet_cli.runtimes.graph import trace
    from hrnet_cli.runtimes.graph_files import write_graph_file

    folder = graph.parent
    metadata = {
        **spec_to_metadata(spec),
        "architecture": ARCHITECTURE,
        "precision": "fp32",
        "loaded": loaded,
    }
    with scratch_beside(folder) as scratch:
        write_graph_file(scratch / graph.name, trace(fold_batch_norms(network), spec), metadata)
        if folder.exists() and not graph.is_file():
            shutil.rmtree(folder)  # what something that cleans up has left of it
        if not folder.exists():
            scratch.rename(folder)
    _forget_old(folder.parent)


def _forget_old(folder: Path) -> None:
    """Delete the graphs that were not used for longest, and the oldest that OpenVINO compiled."""
    kept = [entry for entry in folder.iterdir() if any(entry.glob("model.*"))]
    for entry in _newest_first(kept)[GRAPHS_KEPT:]:
        shutil.rmtree(entry, ignore_errors=True)
    for blob in _newest_first(list(folder.glob("*.blob")))[BLOBS_KEPT:]:
        blob.unlink(missing_ok=True)


def _newest_first(entries: list[Path]) -> list[Path]:
    return sorted(entries, key=lambda entry: entry.stat().st_mtime, reverse=True)


def _key(path: Path, spec: ModelSpec | None, name: str) -> str:
    """Return the name under which a graph is kept: of file, meaning and runtime."""
    meaning = None if spec is None else spec_to_metadata(spec)
    facts = [weights.file_sha256(path), meaning, name, GRAPH_VERSION]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]
