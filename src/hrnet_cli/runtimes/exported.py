"""Exported models: graphs that say of themselves what they expect and mean.

`hrnet export` writes them; running an ONNX, OpenVINO or MNN one imports no torch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hrnet_cli.config import ModelSpec
from hrnet_cli.engines import onnx_computes_on_cuda
from hrnet_cli.errors import DeviceError, UsageError, WeightsError
from hrnet_cli.model_metadata import spec_from_metadata
from hrnet_cli.optional_packages import can_be_imported
from hrnet_cli.runtimes import AUTO, PRECISIONS, Runtime, RuntimeSettings
from hrnet_cli.seals import check_seal


@dataclass(frozen=True)
class ExportFormat:
    """One kind of exported file.

    Attributes:
        read_metadata: Returns what a file says of itself.
        runtimes: Names of the runtimes that run it, best first.
    """

    read_metadata: Callable[[Path], dict[str, str]]
    runtimes: tuple[str, ...]


@dataclass(frozen=True)
class Exported:
    """An exported model that was found.

    Attributes:
        path: The graph; inside the folder of an OpenVINO export.
        spec: The model.
        precision: What it was exported in, one of `PRECISIONS`.
        metadata: All that it says of itself.
    """

    path: Path
    spec: ModelSpec
    precision: str
    metadata: dict[str, str]


def _onnx_metadata(path: Path) -> dict[str, str]:
    from hrnet_cli.runtimes.onnx_metadata import read_metadata

    return read_metadata(path)


def _openvino_metadata(path: Path) -> dict[str, str]:
    from hrnet_cli.runtimes.openvino import read_metadata

    return read_metadata(path)


def _script_metadata(path: Path) -> dict[str, str]:
    from hrnet_cli.runtimes.torch_script import read_metadata

    return read_metadata(path)


def _mnn_metadata(path: Path) -> dict[str, str]:
    from hrnet_cli.runtimes.mnn_metadata import read_metadata

    return read_metadata(path)


FORMATS: dict[str, ExportFormat] = {
    ".onnx": ExportFormat(_onnx_metadata, ("onnx", "openvino")),
    ".xml": ExportFormat(_openvino_metadata, ("openvino",)),
    ".mnn": ExportFormat(_mnn_metadata, ("mnn",)),
    ".torchscript": ExportFormat(_script_metadata, ("torch",)),
}

# What each runtime of exported files computes on, and the package that it needs.
DEVICES = {
    "onnx": ("cpu", "cuda"),
    "openvino": ("cpu",),
    "mnn": ("cpu",),
    "torch": ("cpu", "cuda", "mps"),
}
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "mnn": "MNN", "torch": "torch"}


def graph_file(path: Path) -> Path | None:
    """Return the graph that a path stands for: itself, or the one in a folder; None for others."""
    if path.is_dir():
        graphs = sorted(path.glob("*.xml"))
        return graphs[0] if len(graphs) == 1 else None
    return path if path.suffix.lower() in FORMATS and path.is_file() else None


def read_exported(path: Path) -> Exported:
    """Return what an exported model says of itself.

    Args:
        path: Of `graph_file`.

    Raises:
        WeightsError: It cannot be read, or `hrnet export` did not write it.
    """
    metadata = FORMATS[path.suffix.lower()].read_metadata(path)
    if "architecture" not in metadata:
        raise WeightsError(
            f"{path}: does not say what its network expects and means; expected a file that"
            " hrnet export wrote",
            hint="hrnet export CHECKPOINT --to onnx writes one",
        )
    precision = metadata.get("precision", "")
    if precision not in PRECISIONS:
        raise WeightsError(
            f"{path}: precision is '{precision}', expected one of {', '.join(PRECISIONS)}",
            hint="export it again with hrnet export",
        )
    spec = spec_from_metadata(metadata, path=path)
    return Exported(path, replace(spec, name=metadata.get("name", spec.name)), precision, metadata)


def pick_exported_runtime(exported: Exported, name: str, settings: RuntimeSettings) -> str:
    """Return the runtime for an exported model.

    Args:
        exported: The model.
        name: ``auto`` takes the first that is installed.
        settings: Device and precision that were asked for.

    Raises:
        UsageError: The runtime does not run such a file, or not in the precision.
        DeviceError: The runtime does not compute on the device.
    """
    able = FORMATS[exported.path.suffix.lower()].runtimes
    kind = settings.device.partition(":")[0]
    if name == AUTO:
        fit = [one for one in able if kind in DEVICES[one] and _has(exported, one, settings)]
        name = next((one for one in fit if can_be_imported(PACKAGES[one])), (*fit, *able)[0])
    if name not in able:
        raise UsageError(
            f"--runtime is {name}, but '{exported.path.name}' runs in {' or '.join(able)}",
            hint="leave --runtime out, or name the weights file it was made of",
        )
    if kind not in DEVICES[name]:
        raise DeviceError(
            f"runtime {name} computes on {', '.join(DEVICES[name])}, not on {settings.device}",
            hint="use --device cpu",
        )
    if not _has(exported, name, settings):
        raise UsageError(
            f"--precision is {settings.precision}, but '{exported.path.name}' was exported in"
            f" {exported.precision}",
            hint="leave --precision out, or export it again",
        )
    return name


def best_device(exported: Exported, name: str, device: str) -> str:
    """Return the device for an exported model where nobody named one: the processor if need be.

    Args:
        exported: The model.
        name: Of the runtime, or ``auto``.
        device: The best of this machine, which not every engine computes on.
    """
    names = FORMATS[exported.path.suffix.lower()].runtimes if name == AUTO else (name,)
    kind = device.partition(":")[0]
    fit = [one for one in names if kind in DEVICES.get(one, ())]
    if fit == ["onnx"] and kind == "cuda" and not onnx_computes_on_cuda():
        fit = []
    return device if fit else "cpu"


def _has(exported: Exported, name: str, settings: RuntimeSettings) -> bool:
    """Tell whether a runtime computes a file in a precision.

    An engine can compute a float32 graph in bf16; what was rounded in the file stays so.
    """
    lower = name == "openvino" and (exported.precision, settings.precision) == ("fp32", "bf16")
    return settings.precision == exported.precision or lower


def open_exported(
    exported: Exported, name: str, settings: RuntimeSettings, cache: Path | None
) -> Runtime:
    """Return an exported model at work.

    Args:
        exported: The model.
        name: Of `pick_exported_runtime`.
        settings: How to compute.
        cache: Folder for what OpenVINO compiles, or None.

    Raises:
        UsageError: The runtime's package is not installed.
        WeightsError: The graph cannot be read, is damaged or another one than it says.
        DeviceError: The device does not compute in the precision.
    """
    check_seal(exported.path)
    if name == "openvino":
        from hrnet_cli.runtimes.openvino import OpenVino

        return OpenVino(exported.path, exported.spec, settings, cache)
    if name == "onnx":
        from hrnet_cli.runtimes.onnx import OnnxRuntime

        return OnnxRuntime(exported.path, exported.spec, settings)
    if name == "mnn":
        from hrnet_cli.runtimes.mnn import Mnn

        return Mnn(exported.path, exported.spec, settings)
    from hrnet_cli.runtimes.torch_script import TorchScript

    return TorchScript(exported.path, exported.spec, settings)
