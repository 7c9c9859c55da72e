"""The options that ``hrnet train`` and ``hrnet fine-tune`` share."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from hrnet_cli.errors import UsageError

DatasetOption = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="What to learn from: coco, coco-wholebody, crowdpose, mpii, a COCO-style .json, a"
        " .toml that describes a data set, or a YOLO-pose data.yaml.",
    ),
]
ValOption = Annotated[
    str | None,
    typer.Option(
        "--val",
        help="Data set to measure on, or a share of the photos of --dataset to hold out for it,"
        " such as 10%.",
        show_default="the val split of --dataset",
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Folder of the data set: that of coco, or the photos of a .json.",
        show_default="data/coco, or beside the file",
    ),
]
ConfigOption = Annotated[
    str | None,
    typer.Option("--config", help="Recipe: official, mmpose, fine-tune, or a TOML file."),
]
WidthOption = Annotated[
    int | None,
    typer.Option(
        "--width",
        min=2,
        help="Channels of the finest branch.",
        show_default="32; fine-tune: of --from",
    ),
]
InputSizeOption = Annotated[
    str | None,
    typer.Option(
        "--input",
        help="Crop size in pixels.",
        metavar="HxW",
        show_default="256x192; fine-tune: of --from",
    ),
]
CodecOption = Annotated[
    str | None,
    typer.Option(
        "--codec",
        help="Heatmap convention.",
        metavar="msra|dark|udp",
        show_default="msra; fine-tune: of --from",
    ),
]
SigmaOption = Annotated[
    float | None,
    typer.Option(
        "--sigma",
        min=0.1,
        help="Of the target Gaussians, in heatmap pixels.",
        show_default="height / 128: 2 at 256x192, 3 at 384x288",
    ),
]
EpochsOption = Annotated[
    int | None, typer.Option("--epochs", min=1, help="How often all people are seen.")
]
HoursOption = Annotated[
    float | None,
    typer.Option(
        "--hours",
        min=0,
        help="Time of the run: it does the epochs that fit, one at least. Needs --schedule cosine.",
    ),
]
BatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        min=1,
        help="People in a step, over all devices together.",
        show_default="128; 96 for width 48 at 384x288; fine-tune: 32",
    ),
]
AutoBatchOption = Annotated[
    bool, typer.Option("--auto-batch", help="Take the largest batch the GPU holds.")
]
RateOption = Annotated[
    float | None,
    typer.Option(
        "--learning-rate",
        min=0,
        help="For the recipe's batch; scaled linearly to the batch of the run.",
        show_default="0.001",
    ),
]
ScheduleOption = Annotated[
    str | None,
    typer.Option(
        "--schedule",
        help="Of the learning rate.",
        metavar="steps|cosine",
        show_default="steps; fine-tune: cosine",
    ),
]
EmaOption = Annotated[
    float | None,
    typer.Option("--ema", min=0, max=1, help="Decay of a moving average of the weights."),
]
ClipOption = Annotated[
    float | None, typer.Option("--clip-norm", min=0, help="Largest norm of the gradient.")
]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="Arithmetic of the network; the loss is always float32.",
        metavar="auto|fp32|bf16|fp16",
        show_default="auto: bf16 where the processor has it",
    ),
]
CompileOption = Annotated[
    bool, typer.Option("--compile", help="Compile the network: a slow start, then faster.")
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", min=0, max=2**63 - 1, help="Of weights and samples.")
]
DeterministicOption = Annotated[
    bool, typer.Option("--deterministic", help="Refuse operations whose result can vary.")
]
DevicesOption = Annotated[
    int | None,
    typer.Option(
        "--devices",
        min=1,
        help="Processes on this machine, one a GPU (or a share of the CPU with --device cpu).",
        show_default="1; under torchrun as many as it starts",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        help="Processes that read photos, for each device; at most 4 for each processor.",
    ),
]
CacheOption = Annotated[
    str | None,
    typer.Option(
        "--cache",
        help="Keep decoded people: ram, or packed in one file.",
        metavar="none|ram|packed",
        show_default="none",
    ),
]
SharePhotosOption = Annotated[
    bool | None,
    typer.Option(
        "--share-photos/--no-share-photos",
        help="Decode a photo once for all its people: faster without a cache, but they meet in one"
        " batch.",
        show_default="no-share-photos",
    ),
]
EvalEveryOption = Annotated[
    int | None,
    typer.Option("--eval-every", min=0, help="Epochs between measurements; 0: only the last."),
]
MetricOption = Annotated[
    str | None,
    typer.Option("--metric", help="What best means.", metavar="AP|PCK", show_default="AP"),
]
PatienceOption = Annotated[
    int | None,
    typer.Option("--patience", min=0, help="Stop after so many measurements without a better one."),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", help="Folder of the run.", show_default="hrnet-runs/DATASET-wWIDTH-HxW"
    ),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Continue the run in the folder from where it stopped.")
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace a run that is in the folder.")
]
TensorboardOption = Annotated[
    bool, typer.Option("--tensorboard", help="Write TensorBoard's files as well.")
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print a summary of the run as JSON on stdout.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any key of a recipe, as in augment.color=0.2; can be given several times.",
        metavar="KEY=VALUE",
    ),
]
StrictOption = Annotated[
    bool, typer.Option("--strict", help="Stop at the first photo that cannot be read.")
]


@dataclass(frozen=True)
class TrainOptions:
    """What was asked for on the command line.

    Attributes:
        recipe: Name or file, None for none.
        overrides: Values by dotted key of the configuration; None where nothing was said.
        settings: What ``--set`` was given, each ``KEY=VALUE``; `with_settings` moves it there.
        out: Folder of the run.
        device: Where to compute.
        devices: Processes to start.
        resume: Continue a run.
        overwrite: Replace a run.
        offline: Never use the network.
        tensorboard: Write TensorBoard's files.
        json: Print a summary as JSON on stdout.
        quiet: Say only warnings and errors.
        below: Recipe that a file given as ``recipe`` lies over, and what is taken without one.
    """

    recipe: str | None
    overrides: dict[str, Any]
    settings: tuple[str, ...]
    out: Path | None
    device: str
    devices: int | None
    resume: bool
    overwrite: bool
    offline: bool
    tensorboard: bool
    json: bool
    quiet: bool
    below: str | None = None


def with_settings(options: TrainOptions) -> TrainOptions:
    """Return options with what ``--set`` says among the values; of two for a key the last counts.

    Raises:
        UsageError: One is no ``KEY=VALUE``, or its key is given by an option of its own too.
    """
    added: dict[str, Any] = {}
    for setting in options.settings:
        key, equals, text = (part.strip() for part in setting.partition("="))
        if not key or not equals:
            raise UsageError(
                f"--set is '{setting}', expected KEY=VALUE such as optimizer.weight_decay=0.01"
            )
        if options.overrides.get(key) is not None:
            raise UsageError(
                f"--set {key} and the option for it contradict each other", hint="leave one out"
            )
        added[key] = _toml_value(text)
    return replace(options, overrides={**options.overrides, **added}, settings=())


def _toml_value(text: str) -> Any:  # noqa: ANN401 - any TOML
    """Return the value of a text as TOML; what is none stands for itself."""
    import tomllib

    try:
        fields = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # More fields: the text has lines.
    return fields["value"] if len(fields) == 1 else text


def chosen_batch(batch_size: int | None, *, auto: bool) -> int | None:
    """Return the batch of a configuration: -1 for the largest that fits.

    Raises:
        UsageError: Both were asked for.
    """
    if auto and batch_size is not None:
        raise UsageError(
            "--batch-size and --auto-batch contradict each other", hint="leave one out"
        )
    return -1 if auto else batch_size
