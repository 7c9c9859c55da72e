"""train(config): one run from the first step to the last, on one device or many.

Each step: uint8 crops travel to the device, become normalised pixels and target heatmaps there, the
network answers, the loss compares, the optimiser moves. After an epoch the same estimator and the
same scores as in `hrnet eval` say how good it is.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hrnet_cli import checkpoint, metrics, optimisation, run_folder
from hrnet_cli.config import ModelSpec
from hrnet_cli.data.augment import AugmentConfig
from hrnet_cli.data.crops import CropBatch, CropDataset, CropFrame
from hrnet_cli.data.people import LabelledPeople, digest
from hrnet_cli.device import pick_device, set_seed
from hrnet_cli.distributed import any_of, join_team, leave_team, mean_over
from hrnet_cli.errors import DeviceError, InputError, TrainingError
from hrnet_cli.estimator import PoseEstimator
from hrnet_cli.evaluation import EvalSettings, score
from hrnet_cli.person_metrics import PeopleScores, box_pck, span_pck
from hrnet_cli.predictions import Predictions, merge, predict
from hrnet_cli.recipe import TrainConfig, config_to_toml
from hrnet_cli.run_folder import RunFolder
from hrnet_cli.run_pictures import write_samples
from hrnet_cli.run_state import Run, build_run, capture, largest_batch, restore
from hrnet_cli.runtimes.torch_eager import TorchEager
from hrnet_cli.start import starting_network
from hrnet_cli.stopping import StopRequest

# On a GPU, reading the loss after every step would make it wait for the processor.
CUDA_STEPS_BETWEEN_CHECKS = 20
NAMES_SHOWN = 4


@dataclass(frozen=True)
class StepReport:
    """How a run is doing.

    Attributes:
        epoch: From 1.
        epochs: Of the run.
        step: Steps done in this epoch.
        steps: Of an epoch.
        loss: Mean since the epoch began.
        learning_rate: Of the head.
        people_per_step: Batch of all processes together.
        samples_per_s: People a second, all processes together, since the epoch began.
        data_wait: Share of that time spent waiting for samples, 0 to 1.
        memory_mb: Most memory used on the GPU; 0 on a CPU.
        seconds: Time of the run so far, over all its parts.
        unreadable: Samples whose photo could not be read.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    learning_rate: float
    people_per_step: int
    samples_per_s: float
    data_wait: float
    memory_mb: int
    seconds: float
    unreadable: int


@dataclass(frozen=True)
class EpochReport:
    """The end of an epoch.

    Attributes:
        last: Its last step.
        metrics: What was measured, by name, 0 to 1; empty when it was not measured.
        best: Whether this is the best measurement so far.
    """

    last: StepReport
    metrics: dict[str, float]
    best: bool


@dataclass(frozen=True)
class TrainResult:
    """What a run left.

    Attributes:
        folder: Its folder.
        model: Best weights, or the last where none were measured.
        metric: What best means.
        best: Best value of the metric; None where none was measured.
        best_epoch: Epoch of it, from 1.
        epochs: Epochs done.
        seconds: Time taken, over all parts of the run.
    """

    folder: RunFolder
    model: Path
    metric: str
    best: float | None
    best_epoch: int
    epochs: int
    seconds: float


OnEvent = Callable[[StepReport | EpochReport | str], None]


@dataclass(frozen=True)
class Place:
    """Where a run computes and writes.

    Attributes:
        folder: Of `run_folder.open_run`.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        resume: Continue from the folder's state.
        offline: Never use the network for starting weights.
        command: What the user typed, for the records.
    """

    folder: RunFolder
    device: str = "auto"
    resume: bool = False
    offline: bool = False
    command: str = ""


@dataclass(frozen=True)
class TrainData:
    """What a run learns from and is measured on.

    Attributes:
        people: To learn from; `LabelledPeople.usable` is applied.
        val: To measure on; None to train without measuring.
        mirrors: Whether keypoints of a mirrored photo have names (`data.names.can_mirror`).
    """

    people: LabelledPeople
    val: LabelledPeople | None = None
    mirrors: bool = True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class _Loop:
    """What the loop carries along besides the run."""

    run: Run
    data: TrainData
    place: Place
    stop: StopRequest
    on_event: OnEvent
    saved: float = field(default_factory=time.monotonic)
    begun: str = field(default_factory=_now)


def train(
    config: TrainConfig,
    data: TrainData,
    place: Place,
    on_event: OnEvent = lambda _event: None,
) -> TrainResult:
    """Train a network and return where its weights lie.

    Args:
        config: The run; see `recipe.load_config`.
        data: What to learn from.
        place: Where to compute and to write.
        on_event: Called with reports and with lines of text for people, by the leading process
            only.

    Raises:
        TrainingError: The loss is no number any more, or a process is stuck.
        InputError: Nobody to learn from, or a photo cannot be read and `data.strict` is set.
        ConfigError: The data and the configuration contradict each other.
        DeviceError: No such device, or out of its memory.
        KeyboardInterrupt: SIGINT or SIGTERM; the state was saved first.
    """
    device = pick_device(place.device)
    team = join_team(device, config.run.timeout_s)
    if team.size > 1 and device == "cuda":
        device = f"cuda:{team.local_rank}"
        torch.cuda.set_device(device)
    tell = on_event if team.leads else lambda _event: None
    try:
        with StopRequest() as stop:
            _set_determinism(config)
            samples = _samples(config, data, tell)
            network, start = _start(config, samples.people, place)
            spec = ModelSpec(
                place.folder.path.resolve().name,
                config.model.width,
                config.model.input_hw,
                config.model.codec,
                samples.people.schema,
            )
            run = build_run(config, spec, samples, network, team, device)
            run.progress.start = start
            if place.resume:
                restore(run, run_folder.load_state(place.folder))
            loop = _Loop(run, data, place, stop, tell)
            _announce(loop)
            return _fit(loop)
    finally:
        leave_team()


def _samples(config: TrainConfig, data: TrainData, tell: OnEvent) -> CropDataset:
    """Return the augmented samples of a run's people."""
    people = data.people.usable()
    if not len(people):
        raise InputError(
            f"'{data.people.name}' has nobody to learn from: of {len(data.people)} people none has"
            " a labelled keypoint and a box with an area",
            hint="hrnet check-data shows what is in it",
        )
    augment: AugmentConfig = config.augment
    if not data.mirrors and augment.flip_prob:
        tell("left and right of the keypoints are not known: samples are not mirrored")
        augment = replace(augment, flip_prob=0.0)
    frame = CropFrame(config.model.input_hw, config.model.codec)
    return CropDataset(people, frame, augment, seed=config.run.seed)


def _start(
    config: TrainConfig, people: LabelledPeople, place: Place
) -> tuple[nn.Module, str]:
    """Return the network to start from and a line that says what it is."""
    # A state holds all weights: what the run once started from is not needed again.
    model = replace(config.model, start="scratch") if place.resume else config.model
    set_seed(config.run.seed)
    network, report = starting_network(model, people.schema, offline=place.offline)
    # Reading weights may draw random numbers: the run begins at the same ones in any case.
    set_seed(config.run.seed)
    return network, report.describe()


def _set_determinism(config: TrainConfig) -> None:
    if config.run.deterministic:
        # cuBLAS reads it when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(config.run.deterministic)
    torch.backends.cudnn.benchmark = not config.run.deterministic


def _announce(loop: _Loop) -> None:
    """Say what the run is, and write down its configuration."""
    run, config = loop.run, loop.run.config
    loop.on_event(run.progress.start)
    rate, planned = config.learning_rate(run.batch), config.optimizer.learning_rate
    many = f"{run.team.size} x " if run.team.size > 1 else ""
    loop.on_event(
        f"{len(run.data)} people, {run.epoch_steps} steps of {run.batch} an epoch, on"
        f" {many}{run_folder.hardware(run.device)}, {run.precision}"
    )
    scaled = config.optimizer.learning_rate_batch or config.official_batch
    why = "" if rate == planned else f" ({planned:g} is meant for batches of {scaled})"
    loop.on_event(f"learning rate {rate:.3g}{why}, seed {config.run.seed}")
    if config.optimizer.weight_decay:
        loop.on_event(
            f"weight decay {config.optimizer.weight_decay:g}: the official recipe has none, and"
            " with Adam it has cost others most of their AP"
        )
    if loop.place.resume:
        progress = run.progress
        loop.on_event(
            f"resuming in epoch {progress.epoch + 1} of {config.optimizer.epochs} after"
            f" {progress.step} of its {run.epoch_steps} steps"
        )
    if run.team.leads:
        loop.place.folder.config.write_text(config_to_toml(config), encoding="utf-8")


def _fit(loop: _Loop) -> TrainResult:
    """Train from where the progress stands to the last epoch."""
    run, config, progress = loop.run, loop.run.config, loop.run.progress
    run.started = time.monotonic() - progress.seconds
    patience = config.run.patience
    while progress.epoch < config.optimizer.epochs:
        if patience and progress.since_best >= patience:
            loop.on_event(f"no better measurement in the last {patience}: stopping early")
            break
        last = _train_epoch(loop)
        run.team.meet(f"the end of epoch {last.epoch}")
        metrics = _measure(loop) if _measures_now(loop) else {}
        best = _finish_epoch(loop, last, metrics)
        loop.on_event(EpochReport(last, metrics, best))
    folder = loop.place.folder
    if run.team.leads:
        _write_summary(loop)
    return TrainResult(
        folder,
        _best_file(loop),
        config.run.metric,
        progress.best,
        progress.best_epoch,
        progress.epoch,
        progress.seconds,
    )


def _best_file(loop: _Loop) -> Path:
    folder = loop.place.folder
    return folder.best if loop.run.progress.best is not None else folder.last


def _write_summary(loop: _Loop) -> None:
    """Write what the run was and what came of it."""
    run, progress, folder = loop.run, loop.run.progress, loop.place.folder
    rows = run_folder.read_metrics(folder)
    summary = {
        "name": run.spec.name,
        "command": loop.place.command,
        "started": loop.begun,
        "finished": _now(),
        "seconds": round(progress.seconds, 1),
        "processes": run.team.size,
        "hardware": run_folder.hardware(run.device),
        "precision": run.precision,
        "batch": run.batch,
        "start": run.progress.start,
        "versions": run_folder.versions(),
        "data": {
            "train": run.data.people.name,
            "val": None if loop.data.val is None else loop.data.val.name,
            "people": len(run.data),
            "sha256": digest(run.data.people),
        },
        "unreadable": progress.unreadable,
        "best": {
            "metric": run.config.run.metric,
            "value": progress.best,
            "epoch": progress.best_epoch,
        },
        "last": rows[-1] if rows else {},
        "model": str(_best_file(loop)),
    }
    run_folder.write_summary(folder, summary)


def _train_epoch(loop: _Loop) -> StepReport:
    """Do the rest of an epoch and return how it ended."""
    run, progress = loop.run, loop.run.progress
    run.set_training()
    run.sampler.set_epoch(progress.epoch, progress.step)
    pace = _Pace(run)
    check_every = CUDA_STEPS_BETWEEN_CHECKS if run.device.startswith("cuda") else 1
    pending: list[tuple[torch.Tensor, CropBatch]] = []
    report = pace.report()
    for batch in pace.waiting_for(iter(run.loader)):
        if run.config.data.strict:
            batch.raise_problems()
        pending.append((_step(run, batch), batch))
        progress.step += 1
        progress.samples += len(batch) * run.team.size
        progress.unreadable += len(batch.problems)
        if len(pending) == check_every or progress.step == run.epoch_steps:
            _check_losses(run, pending)
            pending = []
            report = pace.report()
            loop.on_event(report)
            _save_or_stop(loop)
    return report


def _step(run: Run, batch: CropBatch) -> torch.Tensor:
    """Move the weights once and return the loss of this process's share of the batch."""
    done = run.progress.epoch * run.epoch_steps + run.progress.step
    optimisation.set_rates(run.optimizer, run.config, run.batch, done, run.epoch_steps)
    run.optimizer.zero_grad(set_to_none=True)
    try:
        loss = run.loss_of(batch.to(run.device, non_blocking=True))
        run.scaler.scale(loss).backward()
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(run, len(batch)) from error
    if run.config.optimizer.clip_norm:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.network.parameters(), run.config.optimizer.clip_norm)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    if run.average is not None:
        run.average.update_parameters(run.network)
    return loss.detach()


def _check_losses(run: Run, pending: list[tuple[torch.Tensor, CropBatch]]) -> None:
    """Add the losses of some steps to the epoch's sum; stop when one is no number."""
    means = mean_over(run.team, torch.stack([loss for loss, _ in pending])).tolist()
    for position, (mean, (_, batch)) in enumerate(zip(means, pending, strict=True)):
        if not np.isfinite(mean):
            step = run.progress.step - len(pending) + position + 1
            names = _names(run.data.people, batch.index_B.tolist())
            raise TrainingError(
                f"the loss is {mean} at step {step} of epoch {run.progress.epoch + 1};"
                f" samples of this process: {names}",
                hint="lower --learning-rate, set optimizer.clip_norm or use --precision fp32;"
                " --resume goes back to the last saved state",
            )
        run.progress.loss_sum += mean


def _measures_now(loop: _Loop) -> bool:
    config, done = loop.run.config, loop.run.progress.epoch + 1
    if loop.data.val is None:
        return False
    every = config.run.eval_every
    return done == config.optimizer.epochs or (every > 0 and done % every == 0)


def _measure(loop: _Loop) -> dict[str, float]:
    """Return the scores of the network on the validation people, the same on every process."""
    run, val = loop.run, loop.data.val
    assert val is not None
    if run.team.leads:
        _save(loop)  # The epoch's last step is done: a stop while measuring must not lose it.
    estimator = PoseEstimator(
        TorchEager(run.result, run.spec, run.device), run.spec, flip_test=loop.data.mirrors
    )
    photos = np.arange(len(val.photos))[run.team.rank :: run.team.size]
    parts = run.team.gather(
        predict(estimator, val, photos=photos, on_progress=lambda *_: loop.stop.check())
    )
    scores = _scores(loop, merge(parts)) if run.team.leads else None
    return run.team.share(scores)


def _scores(loop: _Loop, predictions: Predictions) -> dict[str, float]:
    """Return AP, AP50 and PCK of predictions, those that exist, and draw some of them."""
    val = loop.data.val
    assert val is not None
    column = score(val, predictions, EvalSettings(resamples=0))
    scores = {name: column.stats[name] for name in ("AP", "AP50")}
    scores["PCK"] = _pck(val, column.people)
    write_samples(
        loop.place.folder.samples,
        loop.run.progress.epoch + 1,
        val,
        column.people,
        loop.run.config.run.samples,
    )
    return {name: value for name, value in scores.items() if value is not None and value >= 0}


def _pck(val: LabelledPeople, scored: PeopleScores) -> float:
    """Return the mean PCK@0.2: of the torso where the schema has one, else of the box."""
    torso = ("left_shoulder", "right_hip")
    has_torso = all(name in val.schema.index for name in torso)
    return metrics.mean_over_keypoints(
        span_pck(val, scored, torso) if has_torso else box_pck(val, scored)
    )


def _finish_epoch(loop: _Loop, last: StepReport, metrics: dict[str, float]) -> bool:
    """Count an epoch as done; write its figures, weights and state; return whether it is best."""
    run, progress = loop.run, loop.run.progress
    value = metrics.get(run.config.run.metric)
    best = value is not None and (progress.best is None or value > progress.best)
    if best:
        progress.best, progress.best_epoch, progress.since_best = value, last.epoch, 0
    elif value is not None:
        progress.since_best += 1
    progress.epoch, progress.step, progress.loss_sum = last.epoch, 0, 0.0
    progress.seconds = time.monotonic() - run.started
    if not run.team.leads:
        return best
    row: dict[str, float | int | None] = {
        "epoch": last.epoch,
        "step": last.epoch * run.epoch_steps,
        "samples": progress.samples,
        "loss": last.loss,
        "lr": last.learning_rate,
        "samples_per_s": last.samples_per_s,
        "data_wait": last.data_wait,
        "seconds": progress.seconds,
        "memory_mb": last.memory_mb,
        **{f"val_{key}": score for key, score in metrics.items()},
    }
    folder = loop.place.folder
    run_folder.write_metrics(folder, row)
    for path in (folder.last, folder.best) if best else (folder.last,):
        checkpoint.save_model(
            path,
            run.result.state_dict(),
            run.spec,
            provenance=f"hrnet train, {last.epoch} epochs of {len(run.data)} people of"
            f" {run.data.people.name}, {progress.start}",
            licence="the terms of the data it was trained on",
        )
    _save(loop)
    return best


def _save_or_stop(loop: _Loop) -> None:
    """Save the state when it is time to; save it and stop when somebody asked to stop."""
    run = loop.run
    stopping = any_of(run.team, loop.stop.requested, run.device)
    late = time.monotonic() - loop.saved > 60 * run.config.run.save_minutes
    if run.team.leads and (stopping or late):
        run.progress.seconds = time.monotonic() - run.started
        _save(loop)
    if stopping:
        loop.on_event(
            f"stopped in epoch {run.progress.epoch + 1} after step {run.progress.step}; its state"
            f" is saved, go on with --resume --out {loop.place.folder.path}"
        )
        run.team.meet("the stop")
        raise KeyboardInterrupt


def _save(loop: _Loop) -> None:
    run_folder.save_state(loop.place.folder, capture(loop.run))
    loop.saved = time.monotonic()


def _out_of_memory(run: Run, people: int) -> DeviceError:
    """Return the error for a batch that does not fit, with one that does."""
    run.optimizer.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    try:
        hint = f"--batch-size {largest_batch(run) * run.team.size} fits"
    except DeviceError as error:
        hint = error.hint
    return DeviceError(
        f"{run.device}: out of memory for {people} people at"
        f" {run.spec.input_hw[0]}x{run.spec.input_hw[1]}, width {run.spec.width}",
        hint=hint,
    )


def _names(people: LabelledPeople, indices: list[int]) -> str:
    """Return the first few of some samples by photo and id."""
    names = [
        f"{people.photos[int(people.photo_of_N[i])]} (person {int(people.ids_N[i])})"
        for i in indices[:NAMES_SHOWN]
    ]
    return ", ".join(names) + (", ..." if len(indices) > NAMES_SHOWN else "")


class _Pace:
    """Measures how fast the steps go and how long they wait for samples."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._begun = time.monotonic()
        self._waited = 0.0
        self._samples = run.progress.samples

    def waiting_for(self, batches: Iterator[CropBatch]) -> Iterator[CropBatch]:
        """Yield the batches, adding up the time each is waited for."""
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            self._waited += time.monotonic() - asked
            if batch is None:
                return
            yield batch

    def report(self) -> StepReport:
        """Return how the run is doing since the epoch began in this process."""
        run, progress = self._run, self._run.progress
        now = time.monotonic()
        taken = max(now - self._begun, 1e-9)
        done = progress.epoch * run.epoch_steps + progress.step
        on_gpu = run.device.startswith("cuda")
        return StepReport(
            epoch=progress.epoch + 1,
            epochs=run.config.optimizer.epochs,
            step=progress.step,
            steps=run.epoch_steps,
            loss=progress.loss_sum / max(1, progress.step),
            learning_rate=run.config.learning_rate(run.batch)
            * optimisation.rate_factor(run.config.optimizer, max(0, done - 1), run.epoch_steps),
            people_per_step=run.batch,
            samples_per_s=(progress.samples - self._samples) / taken,
            data_wait=self._waited / taken,
            memory_mb=torch.cuda.max_memory_allocated(run.device) >> 20 if on_gpu else 0,
            seconds=now - run.started,
            unreadable=progress.unreadable,
        )
