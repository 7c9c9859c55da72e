"""``hrnet train``: the options. What they do stands in train_run.py."""

from typing import Annotated

import typer

from hrnet_cli.cli.options import DeviceOption, OfflineOption, QuietOption, parse_size
from hrnet_cli.cli.train_options import (
    AutoBatchOption,
    BatchOption,
    CacheOption,
    ClipOption,
    CodecOption,
    CompileOption,
    ConfigOption,
    DataOption,
    DatasetOption,
    DeterministicOption,
    DevicesOption,
    EmaOption,
    EpochsOption,
    EvalEveryOption,
    HoursOption,
    InputSizeOption,
    JsonOption,
    MetricOption,
    OutOption,
    OverwriteOption,
    PatienceOption,
    PrecisionOption,
    RateOption,
    ResumeOption,
    ScheduleOption,
    SeedOption,
    SetOption,
    SharePhotosOption,
    SigmaOption,
    StrictOption,
    TensorboardOption,
    TrainOptions,
    ValOption,
    WidthOption,
    WorkersOption,
    chosen_batch,
)
from hrnet_cli.errors import UsageError

EXAMPLES = """Examples:

\b
  hrnet train --dataset coco --width 48 --input 384x288
  hrnet train --dataset my.toml --from-scratch --width 16 --input 128x96 --epochs 40
"""


def train(
    dataset: DatasetOption = None,
    val: ValOption = None,
    data: DataOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    width: WidthOption = None,
    input_: InputSizeOption = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Start from this model: a listed name or a weights file.",
            show_default="the ImageNet backbone of the width",
        ),
    ] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Start from fresh weights.")
    ] = False,
    codec: CodecOption = None,
    sigma: SigmaOption = None,
    epochs: EpochsOption = None,
    hours: HoursOption = None,
    batch_size: BatchOption = None,
    auto_batch: AutoBatchOption = False,
    learning_rate: RateOption = None,
    schedule: ScheduleOption = None,
    ema: EmaOption = None,
    clip_norm: ClipOption = None,
    precision: PrecisionOption = None,
    compile_: CompileOption = False,
    seed: SeedOption = None,
    deterministic: DeterministicOption = False,
    device: DeviceOption = "auto",
    devices: DevicesOption = None,
    workers: WorkersOption = None,
    cache: CacheOption = None,
    share_photos: SharePhotosOption = None,
    eval_every: EvalEveryOption = None,
    metric: MetricOption = None,
    patience: PatienceOption = None,
    out: OutOption = None,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    tensorboard: TensorboardOption = False,
    strict: StrictOption = False,
    offline: OfflineOption = False,
    json_: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a pose network on COCO or on any keypoints.

    The defaults are the official recipe. Stop with Ctrl-C at any time and go on with --resume.
    """
    if from_ is not None and from_scratch:
        raise UsageError("--from and --from-scratch contradict each other", hint="leave one out")
    from hrnet_cli.cli.train_run import run

    run(
        TrainOptions(
            recipe=config,
            overrides={
                "data.train": dataset,
                "data.val": val,
                "data.folder": None if data is None else str(data),
                "data.workers": workers,
                "data.cache": cache,
                "data.share_photos": share_photos,
                "data.strict": strict or None,
                "model.width": width,
                "model.input_hw": parse_size(input_),
                "model.codec": codec,
                "model.sigma": sigma,
                "model.start": "scratch" if from_scratch else from_,
                "optimizer.epochs": epochs,
                "optimizer.learning_rate": learning_rate,
                "optimizer.schedule": schedule,
                "optimizer.ema": ema,
                "optimizer.clip_norm": clip_norm,
                "run.batch_size": chosen_batch(batch_size, auto=auto_batch),
                "run.precision": precision,
                "run.compile": compile_ or None,
                "run.seed": seed,
                "run.deterministic": deterministic or None,
                "run.eval_every": eval_every,
                "run.metric": metric,
                "run.patience": patience,
                "run.hours": hours,
            },
            settings=tuple(set_ or ()),
            out=out,
            device=device,
            devices=devices,
            resume=resume,
            overwrite=overwrite,
            offline=offline,
            tensorboard=tensorboard,
            json=json_,
            quiet=quiet,
        )
    )
