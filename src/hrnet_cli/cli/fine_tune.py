"""``hrnet fine-tune``: the options. What they do stands in train_run.py."""

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
  hrnet fine-tune --from hrnet-w32 --dataset hands.json --val hands-val.json
  hrnet fine-tune --from runs/horses/best.safetensors --dataset my.toml --backbone-lr 0.1
"""


def fine_tune(
    from_: Annotated[
        str | None,
        typer.Option("--from", help="Model to start from: a listed name or a weights file."),
    ] = None,
    dataset: DatasetOption = None,
    val: ValOption = None,
    data: DataOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    width: WidthOption = None,
    input_: InputSizeOption = None,
    codec: CodecOption = None,
    sigma: SigmaOption = None,
    epochs: EpochsOption = None,
    hours: HoursOption = None,
    batch_size: BatchOption = None,
    auto_batch: AutoBatchOption = False,
    learning_rate: RateOption = None,
    backbone_lr: Annotated[
        float | None,
        typer.Option(
            "--backbone-lr",
            min=0,
            max=1,
            help="Learning rate of all but the head, as a fraction of --learning-rate.",
            show_default="0.2",
        ),
    ] = None,
    frozen_epochs: Annotated[
        int | None,
        typer.Option(
            "--frozen-epochs",
            min=0,
            help="First epochs in which only the head learns.",
            show_default="2",
        ),
    ] = None,
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
    """Teach a trained network other keypoints: hands, animals, your own.

    Keypoints of the same name keep what the network knows; the others are learned anew. Width,
    crop size and heatmap convention are those of the model unless given.
    """
    if from_ is None and not resume:
        raise UsageError(
            "--from is missing: fine-tuning starts from a trained model",
            hint="name one of hrnet download-weights --list, or a weights file",
        )
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
                "model.start": from_,
                "optimizer.backbone_rate": backbone_lr,
                "optimizer.frozen_epochs": frozen_epochs,
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
            below="fine-tune",
        )
    )
