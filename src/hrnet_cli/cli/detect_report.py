"""What ``hrnet detect`` says of a run: problems, progress, summary."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from hrnet_cli.cli import console
from hrnet_cli.cli.detect_options import DetectOptions
from hrnet_cli.errors import HrnetError
from hrnet_cli.stages import StageClock

if TYPE_CHECKING:
    from hrnet_cli.sources.plan import SourcePlan

# Names listed in a message before the rest is only counted.
NAMES_SHOWN = 5


@dataclass
class VideoOutcome:
    """What came of one video.

    Attributes:
        source: As the user named it.
        frames: Frames with a record.
        people: People in all of them.
        seconds: How long it took.
        complete: Whether it was worked through to its end.
        skipped: Whether an earlier run had done it.
        error: Why it could not be used; empty when it could.
        warnings: What else went wrong.
        written: Files and folders.
    """

    source: str
    frames: int = 0
    people: int = 0
    seconds: float = 0.0
    complete: bool = False
    skipped: bool = False
    error: str = ""
    warnings: list[str] = field(default_factory=list[str])
    written: list[str] = field(default_factory=list[str])

    @property
    def state(self) -> str:
        """Return how it ended, in a word."""
        if self.skipped:
            return "was done"
        if self.error:
            return "failed"
        return "done" if self.complete else "stopped"


@dataclass
class RunReport:
    """What a run did, for its last lines and ``--json``."""

    photos: int = 0
    videos: list[VideoOutcome] = field(default_factory=list[VideoOutcome])
    people: int = 0
    failed: list[tuple[str, HrnetError]] = field(default_factory=list[tuple[str, HrnetError]])
    start: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Return the seconds since the run began."""
        return time.perf_counter() - self.start


def problem_reporter(report: RunReport, strict: bool) -> Callable[[str, HrnetError], None]:
    """Return what records and prints a problem; with ``strict`` it raises it instead."""

    def on_problem(source: str, error: HrnetError) -> None:
        if strict:
            raise error
        report.failed.append((source or error.message, error))
        console.say_error(error.message, error.hint)

    return on_problem


def say_skipped(plan: "SourcePlan", options: DetectOptions) -> None:
    """Name the files of folders that are neither photos nor videos, and links to folders."""
    if options.quiet:
        return
    links = [name for name in plan.skipped if Path(name).is_dir()]
    others = [name for name in plan.skipped if not Path(name).is_dir()]
    if others:
        console.say(f"skipped {_count(len(others), 'file')}, no photos or videos: {_shown(others)}")
    if links:
        console.say(f"skipped {_count(len(links), 'link')} to folders: {_shown(links)}")


def _shown(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


@contextmanager
def progress(total: int, options: DetectOptions) -> Iterator[Callable[[RunReport], None]]:
    """Show a bar, or a line a minute without a terminal."""
    if options.quiet or total < 2:
        yield lambda _report: None
        return
    if not console.err().is_terminal:
        pace = console.LogPace()

        def say_line(report: RunReport) -> None:
            if pace.is_due(time.perf_counter()):
                done = report.photos + len(report.failed)
                console.say(f"{done} of {total} photos, {report.people} people")

        yield say_line
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
    if len(report.videos) > 1:
        _say_videos(report.videos)
    failed = f", {_count(len(report.failed), 'input')} could not be used" if report.failed else ""
    places = list(written) + [place for video in report.videos for place in video.written]
    shown = places[:NAMES_SHOWN]
    more = f" and {len(places) - NAMES_SHOWN} more" if len(places) > NAMES_SHOWN else ""
    where = f"; wrote {', '.join(shown)}{more}" if places else ""
    console.say(
        f"{_done(report)}, {_count(report.people, 'person', 'people')}"
        f" in {report.seconds:.1f} s{failed}{where}"
    )


def _done(report: RunReport) -> str:
    """Return what was looked at: photos, videos and their frames."""
    words = [_count(report.photos, "photo")] if report.photos or not report.videos else []
    if report.videos:
        skipped = sum(video.skipped for video in report.videos)
        words.append(
            _count(len(report.videos), "video") + (f" ({skipped} done before)" if skipped else "")
        )
        words.append(_count(sum(video.frames for video in report.videos), "frame"))
    return ", ".join(words)


def _say_videos(videos: Sequence[VideoOutcome]) -> None:
    from rich.table import Table

    table = Table("video", "", "frames", "people", "frames/s")
    for video in videos:
        speed = "" if video.skipped else f"{video.frames / max(video.seconds, 1e-9):.1f}"
        table.add_row(video.source, video.state, str(video.frames), str(video.people), speed)
    console.err().print(table)


def _say_stages(clock: StageClock, report: RunReport) -> None:
    from rich.table import Table

    table = Table("stage", "seconds", "share", "ms per picture")
    total = sum(clock.seconds.values()) or 1.0
    pictures = report.photos + sum(video.frames for video in report.videos)
    for name, seconds in clock.seconds.items():
        per_photo = 1000 * seconds / max(pictures, 1)
        table.add_row(name, f"{seconds:.2f}", f"{seconds / total:.0%}", f"{per_photo:.1f}")
    console.err().print(table)


def print_json(
    report: RunReport,
    options: DetectOptions,
    plan: "SourcePlan",
    model: str | None,
    detector: str | None,
    clock: StageClock,
    written: Sequence[str],
) -> None:
    """Print the summary that --json asks for; no model or detector where none was needed."""
    data: dict[str, Any] = {
        "schema": "hrnet-run/1",
        "photos": report.photos,
        "people": report.people,
        "failed": [{"source": s, "error": e.message} for s, e in report.failed],
        "skipped": list(plan.skipped),
        "videos": [
            {**asdict(video), "seconds": round(video.seconds, 3), "state": video.state}
            for video in report.videos
        ],
        "model": model,
        "detector": detector,
        "out": options.out,
        "written": [*written, *(place for video in report.videos for place in video.written)],
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
