"""How a training run looks on the terminal: one live line, a line for each epoch, or plain text."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from hrnet_cli.cli.console import err, say
from hrnet_cli.cli.train_options import TrainOptions

if TYPE_CHECKING:
    from hrnet_cli.run_events import EpochReport, StepReport

# Without a terminal a line of progress is written this often.
PLAIN_SECONDS = 60.0


class Display(Protocol):
    """What a run tells people."""

    def note(self, line: str) -> None:
        """Show a line about the data."""
        ...

    def event(self, event: "StepReport | EpochReport | str") -> None:
        """Show how the run goes."""
        ...


@contextmanager
def open_display(options: TrainOptions, *, leads: bool) -> Iterator[Display]:
    """Yield the display that fits: live on a terminal, plain lines elsewhere, none if quiet.

    Args:
        options: ``quiet`` shows nothing, ``tensorboard`` writes its files too.
        leads: Whether this process speaks for the others.
    """
    if not leads:
        yield _Silent()
        return
    with _tensorboard(options) as board:
        if options.quiet:
            yield _Also(_Silent(), board)
        elif err().is_terminal:
            with _progress() as progress:
                yield _Also(_Live(progress), board)
        else:
            yield _Also(_Plain(), board)


def epoch_line(report: "EpochReport") -> str:
    """Return the line that stays of an epoch."""
    last = report.last
    parts = [f"epoch {last.epoch}/{last.epochs}", f"loss {last.loss:.6f}"]
    for name, value in report.metrics.items():
        parts.append(f"validation loss {value:.6f}" if name == "loss" else f"{name} {value:.3f}")
    if last.samples_per_s:
        parts += [f"{last.samples_per_s:.0f} people/s", f"waiting for data {last.data_wait:.0%}"]
    if last.memory_mb:
        parts.append(f"{last.memory_mb / 1024:.1f} GB")
    if last.unreadable:
        parts.append(f"{last.unreadable} samples unreadable")
    return ", ".join(parts) + (" (best)" if report.best else "")


def time_left(report: "StepReport") -> float:
    """Return the seconds the rest of the run will take at this pace, measurements left out."""
    steps = (report.epochs - report.epoch + 1) * report.steps - report.step
    per_step = report.people_per_step / max(report.samples_per_s, 1e-9)
    return steps * per_step


class _Silent:
    def note(self, line: str) -> None:
        del line

    def event(self, event: "StepReport | EpochReport | str") -> None:
        del event


class _Plain:
    """Lines on stderr, as for a log file."""

    def __init__(self) -> None:
        self._said = time.monotonic()

    def note(self, line: str) -> None:
        say(line)

    def event(self, event: "StepReport | EpochReport | str") -> None:
        from hrnet_cli.run_events import EpochReport

        if isinstance(event, str):
            say(event)
        elif isinstance(event, EpochReport):
            say(epoch_line(event))
            self._said = time.monotonic()
        elif time.monotonic() - self._said > PLAIN_SECONDS:
            say(step_line(event))
            self._said = time.monotonic()


class _Live:
    """One line that changes, above it the lines that stay."""

    def __init__(self, progress: "object") -> None:
        from rich.progress import Progress

        assert isinstance(progress, Progress)
        self._progress = progress
        self._task = progress.add_task("reading the data", total=None)

    def note(self, line: str) -> None:
        say(line)

    def event(self, event: "StepReport | EpochReport | str") -> None:
        from hrnet_cli.run_events import EpochReport

        if isinstance(event, str):
            say(event)
        elif isinstance(event, EpochReport):
            say(epoch_line(event))
        else:
            self._progress.update(
                self._task,
                total=event.epochs * event.steps,
                completed=(event.epoch - 1) * event.steps + event.step,
                description=step_line(event),
            )


class _Also:
    """Passes everything on to two."""

    def __init__(self, first: Display, second: Display) -> None:
        self._both = (first, second)

    def note(self, line: str) -> None:
        for display in self._both:
            display.note(line)

    def event(self, event: "StepReport | EpochReport | str") -> None:
        for display in self._both:
            display.event(event)


def step_line(report: "StepReport") -> str:
    """Return how a run is doing in one line."""
    minutes = time_left(report) / 60
    left = f", {minutes:.0f} min left" if minutes < 90 else f", {minutes / 60:.1f} h left"
    return (
        f"epoch {report.epoch}/{report.epochs} step {report.step}/{report.steps}, loss"
        f" {report.loss:.6f}, {report.samples_per_s:.0f} people/s, waiting for data"
        f" {report.data_wait:.0%}{left if report.settled else ''}"
    )


@contextmanager
def _progress() -> Iterator[object]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err(), transient=True) as progress:
        yield progress


@contextmanager
def _tensorboard(options: TrainOptions) -> Iterator[Display]:
    if not options.tensorboard or options.out is None:
        yield _Silent()
        return
    from hrnet_cli.tensorboard import TensorboardLog

    log = TensorboardLog(options.out / "tensorboard")
    try:
        yield log
    finally:
        log.close()
