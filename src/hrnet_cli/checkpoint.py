"""Weights files: read every common form, report what fitted, write our own.

Read are safetensors and PyTorch files, with the names of the official code, of `DataParallel`,
MMPose 0.x and 1.x, and of ImageNet classification networks (official and timm). Our own files are
safetensors whose metadata describe the network (`spec_from_metadata`). No code in a file is run.
"""

import math
import pickle
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from hrnet_cli import tensor_pickle
from hrnet_cli.config import ModelSpec
from hrnet_cli.eight_bits import from_8_bits, to_8_bits
from hrnet_cli.errors import OutputError, WeightsError
from hrnet_cli.model_metadata import ARCHITECTURE, spec_from_metadata, spec_to_metadata
from hrnet_cli.models import MODELS
from hrnet_cli.schema import KeypointSchema
from hrnet_cli.scratch import written_whole

FORMATS = "a PyTorch checkpoint (.pth, .pt) or a safetensors file"
# Keys under which training programs wrap a state dict, most specific first.
WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model")
MMPOSE_HEADS = {"keypoint_head.final_layer.": "MMPose 0.x", "head.final_layer.": "MMPose 1.x"}
# First convolution of the finest branch: its output channels are the width.
WIDTH_KEY = "stage2.0.branches.0.0.conv1.weight"
HEAD_KEY = "final_layer.weight"
# All that reading a damaged pickle or archive was seen to raise; OSError is told apart.
DAMAGE = (
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
LISTED_NAMES = 4


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a file; names as in the official code.

    Attributes:
        loaded: Names that now hold the values of the file.
        missing: Names of the network that the file lacks. Batch norms' batch counters are not
            counted: older files lack them, and nothing reads them.
        unused: Names of the file that the network lacks.
        mismatched: Names in both whose shapes differ, with both shapes.
        converted_from: Whose naming the file follows, such as ``MMPose 1.x``.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    mismatched: tuple[str, ...]
    converted_from: str

    @property
    def complete(self) -> bool:
        """Return whether every parameter of the network came from the file."""
        return not self.missing and not self.mismatched

    def describe(self) -> str:
        """Return the report as one line of text."""
        total = len(self.loaded) + len(self.missing) + len(self.mismatched)
        parts = [f"loaded {len(self.loaded)} of {total} tensors ({self.converted_from} names)"]
        if self.missing:
            parts.append(f"missing {len(self.missing)}: {_shorten(self.missing)}")
        if self.mismatched:
            parts.append(f"other shape {len(self.mismatched)}: {_shorten(self.mismatched)}")
        if self.unused:
            modules = Counter(name.split(".")[0] for name in self.unused)
            groups = [f"{module} ({count})" for module, count in modules.items()]
            parts.append(f"unused {len(self.unused)}: {_shorten(groups)}")
        return "; ".join(parts)


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors of a weights file by the names in it, and its metadata.

    Args:
        path: Safetensors or PyTorch file. Of a PyTorch file only tensors are read: objects of
            other kinds are skipped, and none of its code is run.

    Returns:
        Tensors on the CPU, and the text metadata of a safetensors file (empty for the others).

    Raises:
        WeightsError: The file is absent, empty, damaged, or no weights file.
    """
    head = _read_head(path)
    # Safetensors start with the length of a JSON header, in eight bytes, and the header.
    if head[4:9] == b"\0\0\0\0{":
        return _read_safetensors(path)
    stream_magic = tensor_pickle.STREAM_MAGIC.to_bytes(10, "little")
    if head.startswith(b"PK") or stream_magic in head:
        return _named_tensors(_read_pickle(path), path), {}
    raise WeightsError(_describe_stranger(path, head), hint="check where the file came from")


def load_weights(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> LoadReport:
    """Copy into a network all tensors whose name and shape fit, and report on all.

    Args:
        model: Network whose parameters are replaced; those that do not fit stay as they are.
        tensors: Tensors by name, as `read_tensors` gives them; any floating-point type.
    """
    official, converted_from = official_names(tensors)
    expected = model.state_dict()
    shared = [name for name in expected if name in official]
    fitting = [name for name in shared if official[name].shape == expected[name].shape]
    model.load_state_dict({name: official[name] for name in fitting}, strict=False)
    return LoadReport(
        loaded=tuple(fitting),
        missing=tuple(
            name
            for name in expected
            if name not in official and not name.endswith(".num_batches_tracked")
        ),
        unused=tuple(name for name in official if name not in expected),
        mismatched=tuple(
            f"{name} {tuple(official[name].shape)} where {tuple(expected[name].shape)} is expected"
            for name in shared
            if name not in set(fitting)
        ),
        converted_from=converted_from,
    )


def load_model(
    path: Path, spec: ModelSpec | None = None, *, allow_partial: bool = False
) -> tuple[nn.Module, ModelSpec, LoadReport]:
    """Return the network of a weights file in evaluation mode, its description and the report.

    Args:
        path: Weights file.
        spec: What the file is, with width 0 when only the file knows; None takes the description
            in the file's own metadata.
        allow_partial: Accept a file that lacks some parameters, which then keep their fresh
            values; to start fine-tuning from a backbone or from other keypoints.

    Raises:
        WeightsError: The file cannot be read, is no HRNet, contradicts the description, has none,
            lacks parameters, or has some that are not finite.
    """
    tensors, metadata = read_tensors(path)
    official, _ = official_names(tensors)
    width, keypoints = _infer_size(official, path)
    if spec is None:
        if "architecture" not in metadata:
            raise WeightsError(
                f"{path}: does not say how its network was trained; its tensors tell only width"
                f" {width} and {keypoints or 'no'} keypoints",
                hint="add what is known of it, such as"
                " --input 256x192 --codec msra --keypoint-schema coco17",
            )
        spec = spec_from_metadata(metadata, path=path)
    _check_width(spec, width, path)
    if not allow_partial:
        _check_keypoints(spec.schema, keypoints, path)
    network = MODELS[ARCHITECTURE](width, len(spec.schema))
    report = load_weights(network, tensors)
    if not (report.complete or allow_partial):
        raise WeightsError(
            f"{path}: does not hold a whole pose network: {report.describe()}",
            hint="a backbone or other partial file can only start a training",
        )
    _check_finite(network, report, path)
    return network.eval(), replace(spec, width=width), report


def save_model(
    path: Path,
    network_state: Mapping[str, torch.Tensor],
    spec: ModelSpec,
    *,
    provenance: str,
    licence: str,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write weights and their description as safetensors, whole or not at all.

    Args:
        path: File to write; replaced if it is there.
        network_state: `state_dict` of the network.
        spec: Its description.
        provenance: How it was trained, in words.
        licence: Terms of the file.
        dtype: Type of the stored parameters; float16 halves the file, int8 halves it again: then
            convolutions have 8 bits, see `eight_bits`, and all else is float16.

    Raises:
        OutputError: The file cannot be written; what was at `path` is left as it was.
    """
    floating = torch.float16 if dtype == torch.int8 else dtype
    tensors = {
        name: (tensor.to(floating) if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in network_state.items()
    }
    if dtype == torch.int8:
        tensors = to_8_bits(tensors)
    metadata = {
        **spec_to_metadata(spec),
        "architecture": ARCHITECTURE,
        "provenance": provenance,
        "licence": licence,
    }
    try:
        with written_whole(path) as part:
            save_file(tensors, part, metadata)
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"{path}: cannot be written: {error}",
            hint="check that the folder exists, may be written to and has space left",
        ) from error


def official_names(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], str]:
    """Return tensors by their names in the official pose code, and whose names they had.

    Args:
        tensors: Tensors by the names of any program that `load_weights` reads.
    """
    renamed, source = dict(tensors), "official"
    if renamed and all(name.startswith("module.") for name in renamed):
        renamed = {name.removeprefix("module."): tensor for name, tensor in renamed.items()}
        source = "DataParallel"
    if any(name.startswith("backbone.") for name in renamed):
        return _from_mmpose(renamed)
    # Classification networks widen each branch before pooling; official and timm name alike.
    if any(name.startswith("incre_modules.") for name in renamed):
        source = "ImageNet classification"
    return renamed, source


def _read_head(path: Path) -> bytes:
    """Return the first bytes of a file that is there and not empty."""
    try:
        with path.open("rb") as stream:
            head = stream.read(512)
    except OSError as error:
        raise WeightsError(
            f"{path}: cannot be read: {error.strerror}; expected {FORMATS}"
        ) from error
    if not head:
        raise WeightsError(
            f"{path}: is empty (0 bytes); expected {FORMATS}", hint="download it again"
        )
    return head


def _describe_stranger(path: Path, head: bytes) -> str:
    text = head.lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return (
            f"{path}: is a web page (HTML), such as a download link's warning; expected {FORMATS}"
        )
    if text.startswith(b"version https://git-lfs"):
        return f"{path}: is a Git LFS pointer, not the file it points to; expected {FORMATS}"
    return f"{path}: starts with {head[:8]!r}, which no weights file does; expected {FORMATS}"


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return from_8_bits(tensors), dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, "a safetensors file") from error


def _read_pickle(path: Path) -> object:
    """Return the object of a PyTorch file, made of tensors, plain data and inert objects."""
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            # Some object in it is not plain data: read around it.
            return tensor_pickle.load(path)
    # torch goes by the suffix: one named .safetensors is read as that, and is none.
    except (*DAMAGE, SafetensorError, OSError) as error:
        raise _damaged(path, "a PyTorch checkpoint") from error


def _damaged(path: Path, kind: str) -> WeightsError:
    size = path.stat().st_size
    return WeightsError(
        f"{path}: starts like {kind} but cannot be read as one ({size:,} bytes):"
        " damaged, cut short or of another kind",
        hint="download it again; `hrnet download-weights` checks the hash",
    )


def _named_tensors(tree: object, path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of the state dict in what a PyTorch file held."""
    tensors = {
        name: value
        for name, value in _unwrap(tree).items()
        if isinstance(name, str) and _is_plain_tensor(value)
    }
    if not tensors:
        raise WeightsError(
            f"{path}: holds no tensors by name, neither at its top nor under"
            f" {', '.join(WRAPPERS)}; expected a state dict",
            hint="a file of a whole pickled model is not read, for that would run its code:"
            " save model.state_dict() instead",
        )
    return tensors


def _is_plain_tensor(value: object) -> TypeGuard[torch.Tensor]:
    """Tell whether something is a tensor with numbers in it: not sparse, not without data."""
    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
    )


def _unwrap(tree: object) -> dict[object, object]:
    """Return the innermost dict below the names in `WRAPPERS`; empty when there is no dict."""
    found: dict[object, object] = tree if isinstance(tree, dict) else {}
    # Nested at most as deep as there are names: a dict that holds itself must come to an end.
    for _ in WRAPPERS:
        inner = (found.get(name) for name in WRAPPERS)
        found = next((value for value in inner if isinstance(value, dict)), found)
    return found


def _from_mmpose(tensors: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], str]:
    renamed: dict[str, torch.Tensor] = {}
    source = "MMPose"
    for name, tensor in tensors.items():
        if name.startswith("data_preprocessor."):
            # Mean and standard deviation of the input, which the description of a model holds.
            continue
        head = next((head for head in MMPOSE_HEADS if name.startswith(head)), None)
        if head is not None:
            source = MMPOSE_HEADS[head]
            name = "final_layer." + name.removeprefix(head)
        renamed[name.removeprefix("backbone.")] = tensor
    return renamed, source


def _infer_size(official: Mapping[str, torch.Tensor], path: Path) -> tuple[int, int | None]:
    """Return the width and the number of keypoints (None without a head) the shapes tell."""
    weight = official.get(WIDTH_KEY)
    if weight is None or weight.ndim != 4 or not len(weight):
        raise WeightsError(
            f"{path}: is not an HRNet: no '{WIDTH_KEY}' among its {len(official)} tensors"
            f" ({_shorten(list(official))})",
            hint="expected the names of the official HRNet code, MMPose or timm",
        )
    head = official.get(HEAD_KEY)
    return len(weight), None if head is None or not head.ndim else len(head)


def _check_width(spec: ModelSpec, width: int, path: Path) -> None:
    if spec.width not in (0, width):
        raise WeightsError(
            f"{path}: holds a network of width {width}, expected {spec.width} for '{spec.name}'",
            hint=f"choose a model of width {width}",
        )


def _check_finite(network: nn.Module, report: LoadReport, path: Path) -> None:
    state = network.state_dict()
    for name in report.loaded:
        # What is not finite makes the sum so, which takes a tenth of the time.
        if math.isfinite(state[name].sum()):
            continue
        wrong = int((~torch.isfinite(state[name])).sum())
        if wrong:
            raise WeightsError(
                f"{path}: {wrong} of the {state[name].numel()} numbers in '{name}' are infinite or"
                " not a number",
                hint="take an earlier file of that training, or fetch this one again",
            )


def _check_keypoints(schema: KeypointSchema, keypoints: int | None, path: Path) -> None:
    if keypoints is not None and keypoints != len(schema):
        raise WeightsError(
            f"{path}: predicts {keypoints} keypoints, but keypoint schema '{schema.name}' has"
            f" {len(schema)}",
            hint=f"give --keypoint-schema a schema of {keypoints} keypoints",
        )


def _shorten(names: Sequence[str]) -> str:
    rest = len(names) - LISTED_NAMES
    listed = ", ".join(names[:LISTED_NAMES])
    return f"{listed} and {rest} more" if rest > 0 else listed
