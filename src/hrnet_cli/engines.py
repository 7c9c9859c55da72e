"""ONNX Runtime and OpenVINO: graphs opened, for pose networks and detectors alike."""

import contextlib
import logging
import stat
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from hrnet_cli.device import processors
from hrnet_cli.errors import DeviceError, UsageError
from hrnet_cli.optional_packages import import_quietly, nothing_sent

# Objects of onnxruntime and openvino, which are imported when they are needed.
Module: TypeAlias = Any
Session: TypeAlias = Any
Graph: TypeAlias = Any
Compiled: TypeAlias = Any

log = logging.getLogger(__name__)

_ERRORS_ONLY = 3
_HINTS = {"fp32": "f32", "int8": "f32", "bf16": "bf16", "fp16": "f16"}


class GraphError(ValueError):
    """A graph that an engine cannot read; the text is the engine's reason, in one line."""


def open_onnx(source: Path | bytes, *, device: str, threads: int | None, wanted_by: str) -> Session:
    """Return an onnxruntime session of a graph.

    Args:
        source: An ``.onnx`` file, or its bytes.
        device: ``cpu``, ``cuda`` or ``cuda:1``.
        threads: Of the processor; None for all this process may use.
        wanted_by: Who needs it, for messages.

    Raises:
        UsageError: onnxruntime is not installed.
        DeviceError: The installed onnxruntime does not compute on the device.
        GraphError: The graph cannot be read.
    """
    ort = import_quietly("onnxruntime", wanted_by)
    options = ort.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = threads or processors()
    # Threads that spin while they wait take the processor from the stages beside them.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    content = str(source) if isinstance(source, Path) else source
    try:
        with nothing_sent():
            return ort.InferenceSession(content, options, providers=_providers(ort, device))
    except (RuntimeError, ValueError, *_failures(ort)) as error:
        raise GraphError(_reason(error)) from error


def open_openvino(
    source: Path | Graph,
    *,
    precision: str,
    threads: int | None,
    streams: int = 1,
    cache: Path | None = None,
    wanted_by: str,
) -> Compiled:
    """Return a graph compiled by OpenVINO for the processor.

    Args:
        source: An ``.xml`` or ``.onnx`` file, or a graph in memory.
        precision: Of the arithmetic, one of `runtimes.PRECISIONS`.
        threads: Of the processor; None for all this process may use.
        streams: Requests that are computed side by side, the threads shared among them.
        cache: Folder for what is compiled; None keeps nothing.
        wanted_by: Who needs it, for messages.

    Raises:
        UsageError: openvino is not installed.
        DeviceError: The processor does not compute in the precision.
        GraphError: The graph cannot be read.
    """
    core = _openvino_core(import_quietly("openvino", wanted_by))
    options: dict[str, Any] = {
        # Without the hint OpenVINO computes in bf16 wherever the processor can.
        "INFERENCE_PRECISION_HINT": _precision_hint(core, precision),
        "INFERENCE_NUM_THREADS": threads or processors(),
        "NUM_STREAMS": streams,
    }
    if cache is not None and _can_be_made(cache):
        # Without the weights, which are in the file beside it.
        options |= {"CACHE_DIR": str(cache), "CACHE_MODE": "OPTIMIZE_SIZE"}
    try:
        content = str(source) if isinstance(source, Path) else source
        compiled = core.compile_model(content, "CPU", options)
    except RuntimeError as error:
        raise GraphError(_reason(error)) from error
    if "CACHE_DIR" in options:
        _share(Path(options["CACHE_DIR"]))
    return compiled


def _share(folder: Path) -> None:
    """Let those read what is compiled who may read its folder; OpenVINO lets its owner alone."""
    readers = folder.stat().st_mode & 0o444
    for blob in folder.glob("*.blob"):
        with contextlib.suppress(OSError):  # another user's, or just removed
            mode = blob.stat().st_mode
            if mode | readers != mode:
                blob.chmod(stat.S_IMODE(mode) | readers)


def _can_be_made(folder: Path) -> bool:
    """Make a cache folder; one that cannot be made costs time, nothing else."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        log.warning("%s cannot keep what is compiled: %s", folder, error.strerror or error)
        return False
    return True


@cache
def _openvino_core(openvino: Module) -> Any:  # noqa: ANN401 - an openvino.Core
    """Return the one OpenVINO core of this process, kept until it ends.

    Each core gives its thread another stack for signal handlers, and going, puts back the one that
    was there before: that of a core which may have gone earlier. The next Ctrl-C, or child process
    that ends, would then crash the program.
    """
    return openvino.Core()


def _precision_hint(core: Any, precision: str) -> str:  # noqa: ANN401 - an openvino.Core
    able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in able:
        has = ", ".join(word for word in able if word in ("FP32", "FP16", "INT8"))
        raise DeviceError(
            f"this processor does not compute in bf16; it has {has}", hint="use --precision fp32"
        )
    hint = _HINTS[precision]
    # Weights of half precision are computed with in float32 where the processor has no other.
    return "f32" if hint == "f16" and "FP16" not in able else hint


def _providers(ort: Module, device: str) -> list[Any]:
    if not device.startswith("cuda"):
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise DeviceError(
            "the installed onnxruntime computes on the processor only, not on CUDA",
            hint="pip install onnxruntime-gpu in its place, or use --device cpu",
        )
    index = int(device.partition(":")[2] or 0)
    # By itself it lets convolutions use TF32, which has 10 bits of mantissa.
    options = {"device_id": index, "use_tf32": 0}
    return [("CUDAExecutionProvider", options), "CPUExecutionProvider"]


def onnx_computes_on_cuda() -> bool:
    """Tell whether an onnxruntime is installed that computes on CUDA."""
    try:
        ort = import_quietly("onnxruntime", "runtime onnx")
    except UsageError:
        return False
    return "CUDAExecutionProvider" in ort.get_available_providers()


def openvino_computes_in(precision: str) -> bool:
    """Tell whether this processor computes in a precision with the OpenVINO that is installed."""
    try:
        _precision_hint(_openvino_core(import_quietly("openvino", "runtime openvino")), precision)
    except (UsageError, DeviceError):
        return False
    return True


def _failures(ort: Module) -> tuple[type[Exception], ...]:
    """Return the errors of onnxruntime's own, which share no base class but Exception."""
    state = ort.capi.onnxruntime_pybind11_state
    names = ("Fail", "InvalidProtobuf", "InvalidGraph", "InvalidArgument", "NoSuchFile",
             "NotImplemented", "RuntimeException", "EPFail", "ModelLoadCanceled")  # fmt: skip
    return tuple(getattr(state, name) for name in names if hasattr(state, name))


def _reason(error: Exception) -> str:
    """Return what an engine says, which comes last after the places in its code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
