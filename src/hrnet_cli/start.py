"""What a training starts from: fresh weights, a backbone, or a model whose head may differ."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from hrnet_cli import checkpoint, weights
from hrnet_cli.config import ModelSpec
from hrnet_cli.errors import ConfigError
from hrnet_cli.estimator import find_model
from hrnet_cli.models import MODELS
from hrnet_cli.recipe import ModelConfig
from hrnet_cli.schema import KeypointSchema

HEAD = ("final_layer.weight", "final_layer.bias")


@dataclass(frozen=True)
class StartReport:
    """What was taken over from the weights a training starts from.

    Attributes:
        source: Name or file; empty for a fresh network.
        sha256: Hash of the file; empty for a fresh network.
        loaded: Parameters and buffers taken over.
        kept_keypoints: Keypoints whose head weights were taken over, by name.
        new_keypoints: Keypoints whose head starts fresh.
    """

    source: str
    sha256: str
    loaded: int
    kept_keypoints: tuple[str, ...]
    new_keypoints: tuple[str, ...]

    def describe(self) -> str:
        """Return one line for people."""
        if not self.source:
            return "starting from fresh weights"
        kept, new = len(self.kept_keypoints), len(self.new_keypoints)
        head = f"the head keeps {kept} keypoints of the same name"
        if new:
            head += f" and learns {new} anew"
        if not kept:
            head = f"the head learns {new} keypoints anew"
        return f"starting from {self.source}: {self.loaded} tensors taken over; {head}"


def starting_spec(start: str, *, offline: bool = False) -> ModelSpec | None:
    """Return the description of the model a training starts from; None for a backbone or none."""
    if start in ("scratch", "imagenet"):
        return None
    path, spec = find_model(start, offline=offline)
    return checkpoint.load_model(path, spec)[1]


def starting_network(
    model: ModelConfig,
    schema: KeypointSchema,
    *,
    offline: bool = False,
    on_progress: Callable[[int, int | None], None] | None = None,
) -> tuple[nn.Module, StartReport]:
    """Return the network a training starts from.

    Args:
        model: Width and start.
        schema: Keypoints it shall find.
        offline: Never use the network.
        on_progress: Called with bytes so far and in all during a download.

    Raises:
        ConfigError: There is no backbone of this width, or the model has another width.
        WeightsError: The file cannot be had or read, or does not hold what it says.
    """
    fresh = MODELS["hrnet"](model.width, len(schema))
    if model.start == "scratch":
        return fresh, StartReport("", "", 0, (), schema.keypoints)
    path, spec = _find(model, offline=offline, on_progress=on_progress)
    source, sha256 = str(model.start), weights.file_sha256(path)
    if spec is None and model.start == "imagenet":
        tensors, _ = checkpoint.read_tensors(path)
        official, _ = checkpoint.official_names(tensors)
        taken = {name: t for name, t in official.items() if name not in HEAD}
        report = checkpoint.load_weights(fresh, taken)
        count = len(report.loaded)
        return fresh, StartReport(
            f"ImageNet backbone {path.name}", sha256, count, (), schema.keypoints
        )
    network, spec, report = checkpoint.load_model(path, spec)
    if spec.width != model.width:
        raise ConfigError(
            f"'{source}' has width {spec.width}, but the run asks for width {model.width}",
            hint=f"--width {spec.width}",
        )
    kept = _take_over(fresh, network.state_dict(), spec.schema, schema)
    new = tuple(name for name in schema.keypoints if name not in kept)
    return fresh, StartReport(source, sha256, len(report.loaded), kept, new)


def _find(
    model: ModelConfig,
    *,
    offline: bool,
    on_progress: Callable[[int, int | None], None] | None,
) -> tuple[Path, ModelSpec | None]:
    if model.start != "imagenet":
        return find_model(model.start, offline=offline, on_progress=on_progress)
    listed = [
        entry
        for entry in weights.load_weights_list().values()
        if entry.kind == "backbone" and entry.width == model.width
    ]
    if not listed:
        raise ConfigError(
            f"no ImageNet backbone of width {model.width} is listed",
            hint="--from-scratch, or another --width",
        )
    return weights.fetch(listed[0], offline=offline, on_progress=on_progress), None


def _take_over(
    network: nn.Module,
    tensors: dict[str, torch.Tensor],
    theirs: KeypointSchema,
    ours: KeypointSchema,
) -> tuple[str, ...]:
    """Load all but the head, and of the head the channels of keypoints with the same name."""
    kept = tuple(name for name in ours.keypoints if name in theirs.index)
    state = network.state_dict()
    for name in HEAD:
        head = state[name].clone()
        for keypoint in kept:
            head[ours.index[keypoint]] = tensors[name][theirs.index[keypoint]]
        tensors = {**tensors, name: head}
    network.load_state_dict(tensors)
    return kept
