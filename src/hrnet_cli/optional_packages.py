"""Importing packages that come with extras: named when they are missing, and kept quiet.

onnxruntime and openvino report their use to their makers. Here they are imported without that.
MNN prints on stdout, where records may go.
"""

import contextlib
import ctypes
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from types import ModuleType

from hrnet_cli.errors import UsageError

log = logging.getLogger(__name__)

# Optional packages, and the extra of this package that brings each.
EXTRAS = {
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "MNN": "mnn",
    "nncf": "int8",
}
# Read by onnxruntime (1.29 and later report sessions from Linux and macOS) when it starts.
ENVIRONMENT = {"ORT_DISABLE_TELEMETRY": "1"}
# Imported by openvino and nncf, which send events with it; they do without.
_SENDER = "openvino_telemetry"
_TALKATIVE = "MNN"
_STDOUT = 1


def is_installed(package: str) -> bool:
    """Return whether a package can be imported, without importing it."""
    if package in sys.modules:
        return sys.modules[package] is not None
    return find_spec(package) is not None


def can_be_imported(package: str) -> bool:
    """Return whether a package can be imported, by importing it; say why one that is there cannot.

    Args:
        package: A key of `EXTRAS`, or another one.
    """
    if not is_installed(package):
        return False
    try:
        _import(package)
    except ImportError as error:
        log.warning("package %s is left out, it cannot be imported: %s", package, error)
        return False
    return True


def check_installed(package: str, wanted_by: str) -> None:
    """Raise UsageError that names the extra when a package is not installed.

    Args:
        package: A key of `EXTRAS`.
        wanted_by: Who needs it, such as ``--runtime openvino``.
    """
    if not is_installed(package):
        raise missing(package, wanted_by)


def import_quietly(package: str, wanted_by: str) -> ModuleType:
    """Return an optional package, imported so that it reports nothing.

    Args:
        package: A key of `EXTRAS`, or a module inside one.
        wanted_by: See `check_installed`.

    Raises:
        UsageError: It is not installed, or cannot be imported.
    """
    try:
        return _import(package)
    except ImportError as error:
        root = package.split(".")[0]
        if not is_installed(root):
            raise missing(root, wanted_by) from error
        raise UsageError(
            f"{wanted_by} needs the package {root}, which is installed but cannot be imported:"
            f" {str(error).strip() or type(error).__name__}",
            hint=f"pip install --force-reinstall {root}",
        ) from error


def missing(package: str, wanted_by: str) -> UsageError:
    """Return the error that names a missing package and the command that installs it."""
    return UsageError(
        f"{wanted_by} needs the package {package}, which is not installed",
        hint=f"pip install 'hrnet-cli[{EXTRAS[package]}]'",
    )


def _import(package: str) -> ModuleType:
    talks = package == _TALKATIVE and package not in sys.modules
    with nothing_sent(), nothing_printed() if talks else contextlib.nullcontext():
        return importlib.import_module(package)


@contextlib.contextmanager
def nothing_printed() -> Iterator[None]:
    """Keep what an engine prints on stdout in the block, from its own code too, from there."""
    if sys.stdout is not None:
        sys.stdout.flush()
    try:
        kept = os.dup(_STDOUT)
    except OSError:  # closed: nothing can be printed
        yield
        return
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, _STDOUT)
        os.close(nowhere)
        yield
    finally:
        if os.name == "posix":
            # What C's stdio still holds would come out later.
            ctypes.CDLL(None).fflush(None)
        os.dup2(kept, _STDOUT)
        os.close(kept)


@contextlib.contextmanager
def nothing_sent() -> Iterator[None]:
    """Keep what is imported and opened in the block from reporting; all else stays as it was."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ |= ENVIRONMENT
    hide = _SENDER not in sys.modules
    try:
        if hide:
            sys.modules[_SENDER] = None  # pyright: ignore[reportArgumentType] - hides it
        yield
    finally:
        if hide:
            del sys.modules[_SENDER]
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
