"""A video's progress: a bar with the speed of each stage, or a line a minute without a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hrnet_cli.cli import console
from hrnet_cli.stages import StageClock

# Frames between two looks at the stages.
REFRESH_S = 0.5

Advance = Callable[[int, int], None]


@contextmanager
def show_progress(
    label: str, total: int | None, clock: StageClock, *, quiet: bool
) -> Iterator[Advance]:
    """Show a bar, or lines without a terminal; what it yields takes frames and people so far.

    Args:
        label: What the video is called.
        total: Frames to expect; None where unknown.
        clock: Seconds of each stage, all videos of the run together.
        quiet: Show nothing.
    """
    if quiet or not console.err().is_terminal:
        yield (lambda _frames, _people: None) if quiet else _say_lines(label, total)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        TextColumn("{task.completed} of {task.fields[total_words]} frames"),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[stages]}", style="dim"),
    )
    before = clock.taken()
    start = time.perf_counter()
    seen_first: list[int] = []
    with Progress(*columns, console=console.err(), transient=True) as bar:
        words = "?" if total is None else str(total)
        task = bar.add_task(label, total=total, total_words=words, speed="", stages="")
        shown = [start]

        def advance(frames: int, people: int) -> None:
            seen_first.append(frames) if not seen_first else None
            now = time.perf_counter()
            if now - shown[0] < REFRESH_S:
                return
            shown[0] = now
            done = frames - seen_first[0] + 1
            bar.update(
                task,
                completed=frames,
                speed=f"{done / (now - start):.1f} fps, {people} people",
                stages=_stage_speeds(clock, before, done),
            )

        yield advance


def _say_lines(label: str, total: int | None) -> Advance:
    pace = console.LogPace()
    first: int | None = None

    def advance(frames: int, people: int) -> None:
        nonlocal first
        first = frames if first is None else first
        now = time.perf_counter()
        if pace.is_due(now):
            speed = (frames - first + 1) / (now - pace.begun)
            of = "" if total is None else f" of {total}"
            console.say(f"{label}: {frames}{of} frames, {people} people, {speed:.1f} fps")

    return advance


def _stage_speeds(clock: StageClock, before: dict[str, float], frames: int) -> str:
    """Return frames a second that each stage would do by itself, the slowest two."""
    spent = {name: total - before.get(name, 0.0) for name, total in clock.taken().items()}
    slowest = sorted(spent, key=lambda name: -spent[name])[:2]
    return ", ".join(f"{name} {frames / max(spent[name], 1e-9):.0f} fps" for name in slowest)
