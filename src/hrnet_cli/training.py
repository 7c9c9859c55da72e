"""train(config): one run from the first step to the last, on one device or many.

Each step: uint8 crops travel to the device, become normalised pixels and target heatmaps there, the
network answers, the loss compares, the optimiser moves. After an epoch the same estimator and the
same scores as in `hrnet eval` say how good it is.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hrnet_cli import checkpoint, optimisation, run_folder
from hrnet_cli.config import ModelSpec
from hrnet_cli.data.coco import to_coco_json
from hrnet_cli.data.crops import CropBatch
from hrnet_cli.data.people import LabelledPeople, digest
from hrnet_cli.device import pick_device, processors, set_seed
from hrnet_cli.distributed import any_of, join_team, leave_team, mean_over
from hrnet_cli.errors import DeviceError, TrainingError
from hrnet_cli.images import write_bytes_atomic
from hrnet_cli.measuring import measure
from hrnet_cli.pace import Pace
from hrnet_cli.recipe import TrainConfig, config_to_toml
from hrnet_cli.run_events import EpochReport, OnEvent, StepReport
from hrnet_cli.run_folder import RunFolder
from hrnet_cli.run_samples import build_samples
from hrnet_cli.run_state import Run, build_run, capture, fitting_batch, restore
from hrnet_cli.start import starting_network
from hrnet_cli.stopping import StopRequest

# On a GPU, reading the loss after every step would make it wait for the processor.
CUDA_STEPS_BETWEEN_CHECKS = 20
NAMES_SHOWN = 4
DIVERGED_HINT = (
    "lower --learning-rate, set optimizer.clip_norm or use --precision fp32; --resume goes back to"
    " the last saved state"
)
# Where epochs are short, saving states may cost this part of the time; the first fifth of a second
# is free. What a crash can undo stays below `run.save_minutes`.
SAVING_SHARE, FREE_SAVING_S = 0.02, 0.2
# Four photos of hands took some 400 steps to be found again (width 16, 128x96).
FEW_STEPS = 400


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
        held_out: Whether ``val`` was part of what there is to learn from: the run's folder then
            keeps it.
    """

    people: LabelledPeople
    val: LabelledPeople | None = None
    mirrors: bool = True
    held_out: bool = False


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
    saved: float
    saving_s: float = 0.0
    missed: Sequence[str] = ()

    def miss(self, photos: Sequence[str]) -> None:
        """Say once which photos to measure on cannot be read, and remember them."""
        if not self.missed:
            more = f" and {len(photos) - 1} more" if len(photos) > 1 else ""
            self.on_event(
                f"'{photos[0]}'{more} to measure on cannot be read: their people count as not found"
            )
        self.missed = photos


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
    if team.size > 1 and device == "cpu":
        torch.set_num_threads(max(1, processors() // team.size))
    tell = on_event if team.leads else lambda _event: None
    try:
        with StopRequest() as stop:
            _set_determinism(config)
            samples = build_samples(config, data.people, mirrors=data.mirrors, team=team, tell=tell)
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
                _resume(run, place.folder, tell)
            elif team.leads:
                # Only now: what could keep the new run from starting is behind it.
                run_folder.clear(place.folder)
            _judge(run, data.val, tell)
            run.progress.begun = run.progress.begun or _now()
            run.progress.commands += [place.command] if place.command else []
            loop = _Loop(run, data, place, stop, tell, time.monotonic())
            _announce(loop)
            return _fit(loop)
    finally:
        leave_team()


def _resume(run: Run, folder: run_folder.RunFolder, tell: OnEvent) -> None:
    """Bring a run to where it stopped; an epoch of other people begins anew."""
    if restore(run, run_folder.load_state(folder)):
        return
    line = "the labels are not those the run was started with"
    if run.progress.step:
        run.progress.step, run.progress.loss_sum = 0, 0.0
        line += f": epoch {run.progress.epoch + 1} begins anew"
    tell(line)


def _judge(run: Run, val: LabelledPeople | None, tell: OnEvent) -> None:
    """Note what tells the best weights; what another metric or other labels told is forgotten."""
    if val is None:
        return
    progress, metric = run.progress, run.config.run.metric
    judge = f"{metric} {digest(val)}"
    if progress.judged_by not in ("", judge):
        progress.best, progress.best_epoch, progress.since_best = None, 0, 0
        tell(f"the best is now by {metric} on {val.name}: measurements by others do not count")
    progress.judged_by = judge


def _start(config: TrainConfig, people: LabelledPeople, place: Place) -> tuple[nn.Module, str]:
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
    search = config.run.search_kernels and not config.run.deterministic
    torch.backends.cudnn.benchmark = search


def _announce(loop: _Loop) -> None:
    """Say what the run is, and write it down."""
    run, config = loop.run, loop.run.config
    if not loop.place.resume:
        loop.on_event(run.progress.start)
    rate, planned = config.learning_rate(run.rated_batch), config.optimizer.learning_rate
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
    steps = config.optimizer.epochs * run.epoch_steps
    if steps < FEW_STEPS:
        loop.on_event(f"{steps} steps in all are few: small data sets want more --epochs")
    if config.optimizer.frozen_epochs >= config.optimizer.epochs:
        loop.on_event(
            f"only the last layer learns: the others are frozen for"
            f" {config.optimizer.frozen_epochs} epochs, the run has {config.optimizer.epochs}"
        )
    first = min(config.optimizer.milestones, default=0)
    if config.optimizer.schedule == "steps" and first >= config.optimizer.epochs:
        loop.on_event(
            f"the learning rate never steps down: its first milestone is {first} epochs, the run"
            f" has {config.optimizer.epochs}; --schedule cosine fits any length"
        )
    if loop.place.resume:
        progress, epochs = run.progress, config.optimizer.epochs
        loop.on_event(
            f"resuming in epoch {progress.epoch + 1} of {epochs} after {progress.step} of its"
            f" {run.epoch_steps} steps"
            if progress.epoch < epochs
            else f"the run has had its {epochs} epochs; more of them: --epochs"
        )
    if run.team.leads:
        _write_down(loop)


def _write_down(loop: _Loop) -> None:
    """Write the configuration, and the labels of the photos held out where some are."""
    folder, data = loop.place.folder, loop.data
    write_bytes_atomic(folder.config, config_to_toml(loop.run.config).encode())
    if data.val is not None and data.held_out:
        write_bytes_atomic(folder.held_out, to_coco_json(data.val).encode())


def _fit(loop: _Loop) -> TrainResult:
    """Train from where the progress stands to the last epoch."""
    run, config, progress = loop.run, loop.run.config, loop.run.progress
    run.started = time.monotonic() - progress.seconds
    patience = config.run.patience
    if progress.epoch:
        _plan_epochs(run, progress.epoch)
    while progress.epoch < run.config.optimizer.epochs:
        if patience and progress.since_best >= patience:
            loop.on_event(f"no better measurement in the last {patience}: stopping early")
            break
        last = _train_epoch(loop)
        _plan_epochs(run, progress.epoch + 1)
        _check_weights(run)
        run.team.meet(f"the end of epoch {last.epoch}")
        metrics = _measure(loop)
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


def _plan_epochs(run: Run, done: int) -> None:
    """Have a run take the epochs that fit into its time, going by those whose steps are done."""
    if not run.config.run.hours:
        return
    each = (time.monotonic() - run.started) / done
    epochs = run.team.share(max(done, int(3600 * run.config.run.hours / each)))
    run.config = replace(run.config, optimizer=replace(run.config.optimizer, epochs=epochs))


def _best_file(loop: _Loop) -> Path:
    folder = loop.place.folder
    return folder.best if loop.run.progress.best is not None else folder.last


def _write_summary(loop: _Loop) -> None:
    """Write what the run was and what came of it."""
    run, progress, folder = loop.run, loop.run.progress, loop.place.folder
    summary = {
        "name": run.spec.name,
        "command": progress.commands[0] if progress.commands else "",
        "resumed": progress.commands[1:],
        "started": progress.begun,
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
            "val_photos": None if loop.data.val is None else str(loop.data.val.folder),
            "people": len(run.data),
            "sha256": digest(run.data.people),
        },
        "unreadable": progress.unreadable,
        "val_unreadable": len(loop.missed),
        "best": {
            "metric": run.config.run.metric,
            "value": progress.best,
            "epoch": progress.best_epoch,
        },
        "last": run_folder.last_figures(folder),
        "model": str(_best_file(loop)),
    }
    run_folder.write_summary(folder, summary)


def _train_epoch(loop: _Loop) -> StepReport:
    """Do the rest of an epoch and return how it ended."""
    run, progress = loop.run, loop.run.progress
    run.set_training()
    run.sampler.set_epoch(progress.epoch, progress.step)
    pace = Pace(run)
    check_every = CUDA_STEPS_BETWEEN_CHECKS if run.device.startswith("cuda") else 1
    pending: list[tuple[torch.Tensor, CropBatch]] = []
    report = pace.report()
    for batch in pace.waiting_for(iter(run.loader)):
        if run.config.data.strict:
            batch.raise_problems()
        if batch.problems and not progress.unreadable:
            loop.on_event(f"a sample is left out: {batch.problems[0]}; others are counted")
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
    optimisation.set_rates(run.optimizer, run.config, run.rated_batch, done, run.epoch_steps)
    try:
        loss = run.go_backward(batch.to(run.device, non_blocking=True))
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(run, len(batch)) from error
    except ValueError as error:
        # What PyTorch says of one crop of 32x32, whose coarsest branch has a single value.
        if "more than 1 value per channel" not in str(error):
            raise
        height, width = run.spec.input_hw
        raise TrainingError(
            f"batch norms cannot learn from {len(batch)} person at {height}x{width}",
            hint="a larger --input, or a --batch-size that leaves no single person over",
        ) from error
    if run.config.optimizer.clip_norm:
        run.scaler.unscale_(run.optimizer)
        nn.utils.clip_grad_norm_(run.network.parameters(), run.config.optimizer.clip_norm)
    run.scaler.step(run.optimizer)
    run.scaler.update()
    if run.average is not None:
        run.average.update_parameters(run.network)
    return loss


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
                hint=DIVERGED_HINT,
            )
        run.progress.loss_sum += mean


def _check_weights(run: Run) -> None:
    """Stop before weights are saved that a last step has ruined: its loss was still a number."""
    values = [v for v in run.network.state_dict().values() if v.is_floating_point() and v.numel()]
    if torch.stack([value.abs().amax() for value in values]).isfinite().all():
        return
    raise TrainingError(
        f"weights are no numbers any more after step {run.progress.step} of epoch"
        f" {run.progress.epoch + 1}; they are not saved",
        hint=DIVERGED_HINT,
    )


def _measure(loop: _Loop) -> dict[str, float]:
    """Return the scores of the network when it is time to measure, else none."""
    run, val, done = loop.run, loop.data.val, loop.run.progress.epoch + 1
    every = run.config.run.eval_every
    due = done == run.config.optimizer.epochs or (every > 0 and done % every == 0)
    if val is None or not due:
        return {}
    # The epoch's last step is done: a stop while measuring must not lose it.
    unsaved: dict[str, Any] = {}
    if run.team.leads and _worth_saving(loop):
        _save(loop)
    elif run.team.leads:
        unsaved = capture(run)
    try:
        return measure(
            run,
            val,
            loop.place.folder.samples,
            mirrors=loop.data.mirrors,
            stop=loop.stop,
            on_unreadable=loop.miss,
        )
    except KeyboardInterrupt:
        if unsaved:
            run_folder.save_state(loop.place.folder, unsaved)
        _say_stopped(loop)
        raise


def _finish_epoch(loop: _Loop, last: StepReport, metrics: dict[str, float]) -> bool:
    """Count an epoch as done; write its figures, weights and state; return whether it is best."""
    run, progress = loop.run, loop.run.progress
    value = metrics.get(run.config.run.metric)
    before = progress.best
    # Of equals the later counts: while nothing is found yet the score is 0, and learning goes on.
    best = value is not None and (before is None or value >= before)
    if value is not None and before and value <= before:
        progress.since_best += 1
    elif value is not None:
        progress.since_best = 0
    if best:
        progress.best, progress.best_epoch = value, last.epoch
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
        "samples_per_s": last.samples_per_s or None,
        "data_wait": last.data_wait if last.samples_per_s else None,
        "seconds": progress.seconds,
        "memory_mb": last.memory_mb,
        **{f"val_{key}": score for key, score in metrics.items()},
    }
    folder = loop.place.folder
    run_folder.write_metrics(folder, row)
    if not (metrics or _ends(run) or _worth_saving(loop)):
        return best
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


def _ends(run: Run) -> bool:
    """Tell whether the last epoch is done, as far as is known."""
    return run.progress.epoch >= run.config.optimizer.epochs


def _worth_saving(loop: _Loop) -> bool:
    """Tell whether the end of an epoch is worth the time that saving takes."""
    passed = time.monotonic() - loop.saved
    costs = loop.saving_s if loop.saving_s > FREE_SAVING_S else 0.0
    return passed > min(60 * loop.run.config.run.save_minutes, costs / SAVING_SHARE)


def _save_or_stop(loop: _Loop) -> None:
    """Save the state when it is time to; save it and stop when somebody asked to stop."""
    run = loop.run
    stopping = any_of(run.team, loop.stop.requested, run.device)
    late = time.monotonic() - loop.saved > 60 * run.config.run.save_minutes
    if run.team.leads and (stopping or late):
        run.progress.seconds = time.monotonic() - run.started
        _save(loop)
    if stopping:
        _say_stopped(loop)
        run.team.meet("the stop")
        raise KeyboardInterrupt


def _say_stopped(loop: _Loop) -> None:
    progress = loop.run.progress
    loop.on_event(
        f"stopped in epoch {progress.epoch + 1} after step {progress.step}; its state is saved, go"
        f" on with --resume --out {loop.place.folder.path}"
    )


def _save(loop: _Loop) -> None:
    _check_weights(loop.run)
    begun = time.monotonic()
    run_folder.save_state(loop.place.folder, capture(loop.run))
    loop.saved = time.monotonic()
    loop.saving_s = loop.saved - begun


def _out_of_memory(run: Run, people: int) -> DeviceError:
    """Return the error for a batch that does not fit, with one that does."""
    run.optimizer.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    try:
        hint = f"--batch-size {fitting_batch(run)} fits"
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
