"""TrainConfig: all that a training run depends on, read strictly from TOML.

A run takes the defaults of these classes (the official recipe), then a named recipe or the user's
file, then options of the command line. What came out is written into the run's folder.
"""

import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from hrnet_cli.config import CODECS
from hrnet_cli.data.augment import AugmentConfig
from hrnet_cli.errors import ConfigError
from hrnet_cli.loss import LOSSES

RECIPE_FOLDER = Path(__file__).parent / "recipes"
RECIPES = ("official", "mmpose", "fine-tune", "starter", "starter-end")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
SCHEDULES = ("steps", "cosine")
BATCH_NORMS = ("local", "sync", "frozen")
CACHES = ("none", "ram", "packed")
METRICS = ("AP", "PCK")
# Official sigmas are 2 for heatmaps of 64 rows and 3 for 96, input rows / 128.
ROWS_PER_SIGMA = 128
# Official global batches: 4 GPUs of 32, of 24 for W48 at 384x288 (experiments/coco/hrnet).
OFFICIAL_BATCH = 128
OFFICIAL_BATCH_LARGE = 96
LARGEST_SEED = 2**63 - 1  # PyTorch's


# Where a value came from, for messages, when no file said it.
OPTIONS = "options"
_PERCENTAGE = re.compile(r"([-+.,\d]+) ?%")


@dataclass(frozen=True)
class DataConfig:
    """What to learn from and to measure on.

    Attributes:
        train: Data set: ``coco``, a COCO-style .json, a .toml, or a YOLO-pose data.yaml.
        val: Data set to measure on, or a share of the photos of ``train`` to hold out for it,
            such as ``10%``; empty takes the ``val`` split of ``train``.
        folder: Where its photos or, for ``coco``, its annotations lie; empty for the usual place.
        train_split: Split of ``train``.
        val_split: Split of ``val``.
        extra: Further data sets of the same keypoints, trained on together.
        cache: Photos kept between epochs: ``none``, ``ram`` or ``packed`` (one file).
        cache_file: The packed file; empty for one in the cache folder, of the photos as they are.
        cache_gb: Most memory of the RAM cache, in GB.
        share_photos: Put the people of one photo next to each other, so that it is decoded once an
            epoch. Without a cache about twice as fast, but other people meet in a batch than in the
            official order; the effect on AP was not measured.
        workers: Processes that read photos for each device; -1 takes what the processor allows.
        strict: Stop at a photo that cannot be read instead of counting it.
    """

    train: str = "coco"
    val: str = ""
    folder: str = ""
    train_split: str = "train"
    val_split: str = "val"
    extra: tuple[str, ...] = ()
    cache: str = "none"
    cache_file: str = ""
    cache_gb: float = 8.0
    share_photos: bool = False
    workers: int = -1
    strict: bool = False

    @property
    def val_share(self) -> float | None:
        """Return the share of the photos to hold out, None where ``val`` is no percentage."""
        percentage = _PERCENTAGE.fullmatch(self.val)
        if percentage is None:
            return None
        try:
            return float(percentage[1]) / 100
        except ValueError:
            return math.nan  # Refused by `_check_data`, as what is out of range.


@dataclass(frozen=True)
class ModelConfig:
    """The network and its heatmaps.

    Attributes:
        width: Channels of the finest branch: 32, 48, or any multiple of 2.
        input_hw: Crop (height, width), multiples of 32.
        codec: Heatmap convention, one of `config.CODECS`.
        sigma: Of the target Gaussians in heatmap pixels; 0 takes height / 128, the official 2 at
            256x192 and 3 at 384x288. (The paper says 1 pixel in sec. 3, its released
            configurations and results use these.)
        start: What to start from: ``imagenet`` (the backbone listed for this width),
            ``scratch``, or a weights file or listed model.
    """

    width: int = 32
    input_hw: tuple[int, int] = (256, 192)
    codec: str = "msra"
    sigma: float = 0.0
    start: str = "imagenet"


@dataclass(frozen=True)
class OptimizerConfig:
    """How the weights move.

    Attributes:
        learning_rate: Of Adam, at a global batch of ``learning_rate_batch``; scaled linearly with
            the batch of the run.
        learning_rate_batch: 0 takes the official 128 (96 for width 48 at 384x288).
        weight_decay: The official recipe has none: its configuration names 1e-4, which its Adam
            ignores, and a re-implementation that applied it lost most of its AP
            (HRNet-Human-Pose-Estimation issue 10).
        epochs: How often all people are seen.
        schedule: ``steps`` (times ``step_factor`` at each milestone) or ``cosine``.
        milestones: Epochs after which the rate steps down.
        step_factor: See ``schedule``.
        final_factor: Fraction of the learning rate that ``cosine`` ends at.
        warmup_steps: Steps over which the rate rises linearly.
        clip_norm: Largest gradient norm; 0 for no limit.
        ema: Decay of the moving average of the weights, which is then what is measured and
            saved; 0 for none.
        loss: One of `loss.LOSSES`.
        backbone_rate: Learning rate of all but the head, as a fraction of ``learning_rate``.
        frozen_epochs: First epochs in which only the head learns.
        batch_norm: ``local`` (as official), ``sync`` over devices, or ``frozen`` statistics.
    """

    learning_rate: float = 1e-3
    learning_rate_batch: int = 0
    weight_decay: float = 0.0
    epochs: int = 210
    schedule: str = "steps"
    milestones: tuple[int, ...] = (170, 200)
    step_factor: float = 0.1
    final_factor: float = 0.01
    warmup_steps: int = 0
    clip_norm: float = 0.0
    ema: float = 0.0
    loss: str = "mse"
    backbone_rate: float = 1.0
    frozen_epochs: int = 0
    batch_norm: str = "local"


@dataclass(frozen=True)
class RunConfig:
    """How the run goes.

    Attributes:
        batch_size: People in one step over all devices together; 0 takes the official batch,
            -1 the largest that fits the device.
        seed: Of weights, samples and augmentation.
        precision: ``auto`` (bf16 where the processor has it, else fp16 on CUDA, else fp32),
            ``fp32``, ``bf16`` or ``fp16``. The loss is always float32.
        channels_last: Store feature maps with channels last: faster, same numbers up to rounding.
        compile: Compile the network with torch.compile: faster after a slow first step.
        graphs: On CUDA, record the steps of full batches as a CUDA graph and play it back, where
            one process trains, not in fp16: faster where the processor cannot keep up with the GPU.
        search_kernels: On CUDA, have cuDNN try several algorithms for each convolution when a size
            of batch comes up first, and keep the fastest: takes its time each time.
        deterministic: Refuse operations whose result can vary; then nothing is tried.
        eval_every: Epochs between measurements; 0 measures only at the end.
        metric: What "best" means: ``AP``, or ``PCK``.
        patience: Measurements without a better one before the run stops; 0 never stops early.
        save_minutes: Minutes between saved states; one is saved at an epoch's end as well, unless
            epochs are so short that it would slow the run.
        hours: How long the run may take: after each epoch the number of epochs becomes what fits,
            and the schedule ``cosine`` with it; one is done at least. 0: as many as asked for.
        samples: People drawn at each measurement.
        timeout_s: Seconds after which a silent process is named and the run stops.
    """

    batch_size: int = 0
    seed: int = 0
    precision: str = "auto"
    channels_last: bool = True
    compile: bool = False
    graphs: bool = False
    search_kernels: bool = True
    deterministic: bool = False
    eval_every: int = 1
    metric: str = "AP"
    patience: int = 0
    save_minutes: float = 5.0
    hours: float = 0.0
    samples: int = 6
    timeout_s: int = 600


@dataclass(frozen=True)
class TrainConfig:
    """A training run. Its parts are the tables of a recipe file.

    Raises:
        ConfigError: Values out of range or that contradict each other.
    """

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        """Check the values."""
        _check_finite(self)
        _check_model(self.model)
        _check_optimizer(self.optimizer)
        _check_run(self.run)
        if self.run.hours and self.optimizer.schedule != "cosine":
            raise ConfigError(
                f"run.hours is {self.run.hours:g}, but the schedule '{self.optimizer.schedule}'"
                " steps at fixed epochs",
                hint="--schedule cosine fits any length",
            )
        _check_data(self.data)

    @property
    def sigma(self) -> float:
        """Return the sigma of the targets in heatmap pixels."""
        return self.model.sigma or self.model.input_hw[0] / ROWS_PER_SIGMA

    @property
    def official_batch(self) -> int:
        """Return the global batch the official code would use for this network."""
        large = self.model.width >= 48 and self.model.input_hw[0] >= 384
        return OFFICIAL_BATCH_LARGE if large else OFFICIAL_BATCH

    def learning_rate(self, batch: int) -> float:
        """Return the learning rate for a global batch, scaled linearly."""
        planned = self.optimizer.learning_rate_batch or self.official_batch
        return self.optimizer.learning_rate * batch / planned


def load_config(
    name_or_path: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
    below: str | None = None,
) -> TrainConfig:
    """Return the configuration of a recipe with some values replaced.

    Args:
        name_or_path: A name of `RECIPES`, a .toml file, or None for the defaults.
        overrides: Values by dotted key, such as ``{"optimizer.epochs": 20}``; None values are
            left out.
        defaults: Values by dotted key that hold where neither says anything.
        below: Recipe that a .toml file lies over, and what None takes; a name replaces it.

    Raises:
        ConfigError: No such recipe, the file is not TOML, a key is unknown (the nearest is
            named), or a value has the wrong type or range.
    """
    named = name_or_path or below
    tables, where = _read(named) if named else ({}, OPTIONS)
    if below and named not in RECIPES:
        tables = _lay_over(tables, _read(below)[0])
    for key, value in (defaults or {}).items():
        table, name = _place(tables, key)
        table.setdefault(name, value)
    for key, value in (overrides or {}).items():
        if value is not None:
            table, name = _place(tables, key)
            table[name] = _value(value, _kind_of(key), f"{OPTIONS}: '{key}'")
    try:
        return typing.cast("TrainConfig", _build(TrainConfig, tables, where=where, prefix=""))
    except ConfigError as error:
        given = [key for key, value in (overrides or {}).items() if value is not None]
        if where == OPTIONS or not any(f": {key} is " in error.message for key in given):
            raise
        # The file says something else, which was replaced.
        raise ConfigError(error.message.replace(where, OPTIONS, 1), hint=error.hint) from error


def _lay_over(upper: dict[str, Any], lower: dict[str, Any]) -> dict[str, Any]:
    """Return tables with the values of others where they have none."""
    tables = {**lower, **upper}
    for key in lower.keys() & upper.keys():
        # What is no table is left for `_build` to refuse.
        if isinstance(upper[key], dict):
            tables[key] = {**lower[key], **upper[key]}
    return tables


def config_to_toml(config: TrainConfig) -> str:
    """Return a configuration as TOML that `load_config` reads back to the same."""
    lines: list[str] = []
    for section, values in asdict(config).items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {_toml(value)}" for key, value in values.items()]
        lines.append("")
    return "\n".join(lines)


def _kind_of(key: str) -> object:
    """Return the type of a value by its dotted key.

    Raises:
        ConfigError: There is no such key; the nearest is named.
    """
    kinds = {
        f"{section}.{name}": kind
        for section, table in typing.get_type_hints(TrainConfig).items()
        for name, kind in typing.get_type_hints(table).items()
    }
    if key in kinds:
        return kinds[key]
    ends = [known for known in kinds if known.endswith(f".{key}")]
    close = ends or get_close_matches(key, kinds, n=1)
    raise ConfigError(
        f"{OPTIONS}: unknown key '{key}'",
        hint=f"did you mean '{close[0]}'?"
        if close
        else "keys are those of a recipe with their table, such as optimizer.weight_decay",
    )


def _place(tables: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """Return the table that a dotted key belongs to and its name there."""
    section, _, name = key.partition(".")
    table = tables.setdefault(section, {})
    # What is no table is left for `_build` to refuse.
    return (table if isinstance(table, dict) else {}), name


def _read(name_or_path: str) -> tuple[dict[str, Any], str]:
    path = Path(name_or_path)
    if name_or_path in RECIPES:
        path = RECIPE_FOLDER / f"{name_or_path}.toml"
    elif path.suffix != ".toml":
        close = get_close_matches(name_or_path, RECIPES, n=1)
        raise ConfigError(
            f"recipe '{name_or_path}' is not known; expected {', '.join(RECIPES)} or a .toml file",
            hint=f"did you mean '{close[0]}'?" if close else f"examples lie in {RECIPE_FOLDER}",
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")), str(path)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not readable as TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def _build(cls: type, table: Mapping[str, Any], *, where: str, prefix: str) -> object:
    """Return a dataclass from a table, refusing keys and types it does not have."""
    hints = typing.get_type_hints(cls)
    known = [f.name for f in fields(cls)]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            close = get_close_matches(key, known, n=1)
            raise ConfigError(
                f"{where}: unknown key '{prefix}{key}'",
                hint=f"did you mean '{prefix}{close[0]}'?"
                if close
                else f"known keys: {', '.join(known)}",
            )
        hint = hints[key]
        if is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{where}: '{key}' is {value!r}, expected a table [{key}]")
            values[key] = _build(
                typing.cast("type", hint), value, where=where, prefix=f"{prefix}{key}."
            )
        else:
            values[key] = _value(value, hint, f"{where}: '{prefix}{key}'")
    try:
        return cls(**values)
    except ConfigError as error:
        if error.message.startswith(where):
            raise
        raise ConfigError(f"{where}: {error.message}", hint=error.hint) from None


def _value(value: object, hint: object, what: str) -> object:
    """Return a TOML value as the type of its field."""
    if isinstance(hint, types.GenericAlias) and hint.__origin__ is tuple:
        items = list(value) if isinstance(value, list | tuple) else None
        kinds = hint.__args__
        if items is None or (kinds[-1] is not ... and len(items) != len(kinds)):
            count = "" if kinds[-1] is ... else f" of {len(kinds)}"
            raise ConfigError(f"{what} is {value!r}, expected a list{count}")
        return tuple(_value(item, kinds[0], what) for item in items)
    if hint is float and type(value) in (int, float):
        return float(typing.cast("float", value))
    if type(value) is not hint:
        name = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
        expected = name.get(typing.cast("type", hint), str(hint))
        raise ConfigError(f"{what} is {value!r}, expected {expected}")
    return value


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # JSON lets the character "delete" stand, TOML does not.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return repr(value)


def _check_finite(config: TrainConfig) -> None:
    """Refuse nan and inf, which TOML knows."""
    for section, values in asdict(config).items():
        for key, value in values.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ConfigError(f"{section}.{key} is {value}, expected a finite number")


def _check_model(model: ModelConfig) -> None:
    if model.width < 2 or model.width % 2:
        raise ConfigError(f"model.width is {model.width}, expected an even number from 2, as 32")
    if any(side <= 0 or side % 32 for side in model.input_hw):
        raise ConfigError(
            f"model.input_hw is {list(model.input_hw)}, expected (height, width) in multiples of"
            " 32, such as [256, 192]"
        )
    _check_choice("model.codec", model.codec, CODECS)
    if model.sigma < 0:
        raise ConfigError(f"model.sigma is {model.sigma}, expected 0 (automatic) or more")
    if not model.start:
        raise ConfigError(
            "model.start is empty, expected imagenet, scratch, a weights file or a listed model"
        )


def _check_optimizer(optimizer: OptimizerConfig) -> None:
    _check_choice("optimizer.schedule", optimizer.schedule, SCHEDULES)
    _check_choice("optimizer.loss", optimizer.loss, LOSSES)
    _check_choice("optimizer.batch_norm", optimizer.batch_norm, BATCH_NORMS)
    _check_above_zero("optimizer", optimizer, "learning_rate epochs step_factor")
    _check_not_below_zero("optimizer", optimizer, "learning_rate_batch weight_decay final_factor")
    _check_not_below_zero("optimizer", optimizer, "clip_norm warmup_steps frozen_epochs")
    _check_not_below_zero("optimizer", optimizer, "backbone_rate")
    if not 0 <= optimizer.ema < 1:
        raise ConfigError(f"optimizer.ema is {optimizer.ema}, expected 0 up to, not at, 1")
    if any(epoch <= 0 for epoch in optimizer.milestones) or list(optimizer.milestones) != sorted(
        set(optimizer.milestones)
    ):
        raise ConfigError(
            f"optimizer.milestones is {list(optimizer.milestones)}, expected rising epochs"
        )


def _check_run(run: RunConfig) -> None:
    _check_choice("run.precision", run.precision, PRECISIONS)
    _check_choice("run.metric", run.metric, METRICS)
    if run.batch_size < -1:
        raise ConfigError(
            f"run.batch_size is {run.batch_size}, expected 1 or more, 0 for the official batch or"
            " -1 for the largest that fits"
        )
    _check_not_below_zero("run", run, "eval_every patience samples seed hours")
    if run.seed > LARGEST_SEED:
        raise ConfigError(f"run.seed is {run.seed}, expected {LARGEST_SEED} at most")
    _check_above_zero("run", run, "save_minutes timeout_s")


def _check_data(data: DataConfig) -> None:
    _check_choice("data.cache", data.cache, CACHES)
    if not data.train:
        raise ConfigError("data.train is empty, expected a data set such as coco or my.toml")
    if data.val_share is not None and not 0 < data.val_share < 1:
        raise ConfigError(
            f"data.val is '{data.val}', expected a share of the photos between 0% and 100%, such as"
            " 10%, or a data set"
        )
    if data.workers < -1:
        raise ConfigError(f"data.workers is {data.workers}, expected 0 or more, or -1")
    _check_not_below_zero("data", data, "cache_gb")


def _check_above_zero(section: str, values: object, keys: str) -> None:
    for key in keys.split():
        if getattr(values, key) <= 0:
            raise ConfigError(f"{section}.{key} is {getattr(values, key)}, expected more than 0")


def _check_not_below_zero(section: str, values: object, keys: str) -> None:
    for key in keys.split():
        if getattr(values, key) < 0:
            raise ConfigError(f"{section}.{key} is {getattr(values, key)}, expected 0 or more")


def _check_choice(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        close = get_close_matches(value, allowed, n=1)
        raise ConfigError(
            f"{key} is '{value}', expected one of {', '.join(allowed)}",
            hint=f"did you mean '{close[0]}'?" if close else "",
        )
