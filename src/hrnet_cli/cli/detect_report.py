"""What ``hrnet detect`` says of a run: problems, progress, summary."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from hrnet_cli.cli import console
from hrnet_cli.cli.detect_options import DetectOptions
from hrnet_cli.errors import HrnetError, InputError
from hrnet_cli.stages import StageClock

if TYPE_CHECKING:
    from hrnet_cli.sources.plan import SourcePlan

# Names listed in a message before the rest is only counted.
NAMES_SHOWN = 5


@dataclass
class RunReport:
    """What a run did, for its last lines and ``--json``."""

    photos: int = 0
    people: int = 0
    failed: list[tuple[str, HrnetError]] = field(default_factory=list[tuple[str, HrnetError]])
    start: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Return the seconds since the run began."""
        return time.perf_counter() - self.start


def problem_reporter(report: RunReport, strict: bool) -> Callable[[str, InputError], None]:
    """Return what records and prints a problem; with ``strict`` it raises it instead."""

    def on_problem(source: str, error: InputError) -> None:
        if strict:
            raise error
        report.failed.append((source or error.message, error))
        console.say_error(error.message, error.hint)

    return on_problem


def say_skipped(plan: "SourcePlan", options: DetectOptions) -> None:
    """Name the files of folders that are no photos."""
    if plan.skipped and not options.quiet:
        shown = ", ".join(plan.skipped[:NAMES_SHOWN])
        more = len(plan.skipped) - NAMES_SHOWN
        rest = f" and {more} more" if more > 0 else ""
        console.say(
            f"skipped {_count(len(plan.skipped), 'file')} that are no photos: {shown}{rest}"
        )


@contextmanager
def progress(total: int, options: DetectOptions) -> Iterator[Callable[[RunReport], None]]:
    """Show a bar on a terminal; elsewhere nothing."""
    if options.quiet or not console.err().is_terminal or total < 2:
        yield lambda _report: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (
        TextColumn("detecting"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("photos, {task.fields[people]} people"),
        Remaining(),
    )
    with Progress(*columns, console=console.err(), transient=True) as bar:
        task = bar.add_task("", total=total, people=0)
        yield lambda report: bar.update(
            task, completed=report.photos + len(report.failed), people=report.people
        )


def say_summary(
    report: RunReport, options: DetectOptions, clock: StageClock, written: Sequence[str]
) -> None:
    """Say what was done and where it was written; with --show-stages also how long it took."""
    if options.show_stages:
        _say_stages(clock, report)
    if options.quiet:
        return
    failed = f", {_count(len(report.failed), 'input')} could not be used" if report.failed else ""
    where = f"; wrote {', '.join(written)}" if written else ""
    console.say(
        f"{_count(report.photos, 'photo')}, {_count(report.people, 'person', 'people')}"
        f" in {report.seconds:.1f} s{failed}{where}"
    )


def _say_stages(clock: StageClock, report: RunReport) -> None:
    from rich.table import Table

    table = Table("stage", "seconds", "share", "ms per photo")
    total = sum(clock.seconds.values()) or 1.0
    for name, seconds in clock.seconds.items():
        per_photo = 1000 * seconds / max(report.photos, 1)
        table.add_row(name, f"{seconds:.2f}", f"{seconds / total:.0%}", f"{per_photo:.1f}")
    console.err().print(table)


def print_json(
    report: RunReport,
    options: DetectOptions,
    plan: "SourcePlan",
    model: str,
    detector: str,
    clock: StageClock,
    written: Sequence[str],
) -> None:
    """Print the summary that --json asks for."""
    data: dict[str, Any] = {
        "schema": "hrnet-run/1",
        "photos": report.photos,
        "people": report.people,
        "failed": [{"source": s, "error": e.message} for s, e in report.failed],
        "skipped": list(plan.skipped),
        "model": model,
        "detector": detector,
        "out": options.out,
        "written": list(written),
        "seconds": round(report.seconds, 3),
        "stages": {name: round(seconds, 4) for name, seconds in clock.seconds.items()},
    }
    echo_json(data)


def echo_json(data: dict[str, Any]) -> None:
    """Print a value as one line of JSON on stdout, whatever bytes file names hold."""
    from hrnet_cli.sinks.record import to_json

    typer.echo(to_json(data))


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or one + 's'}"
