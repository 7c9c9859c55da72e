"""The bars of ``hrnet eval`` on stderr, on a terminal only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hrnet_cli.cli import console

if TYPE_CHECKING:
    from hrnet_cli.download import Progress


@contextmanager
def photo_bar(title: str, *, quiet: bool) -> "Iterator[Callable[[int, int], None] | None]":
    """Show a bar while photos are looked at, on a terminal only."""
    if quiet or not console.err().is_terminal:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("photos"),
        Remaining(),
    )
    with Progress(*columns, console=console.err(), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def transfer_bar(*, quiet: bool) -> "Iterator[Callable[[str], Progress | None]]":
    """Show a bar for each transfer, on a terminal only."""
    if quiet or not console.err().is_terminal:
        yield lambda _title: None
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Bar(*columns, TransferSpeedColumn(), console=console.err(), transient=True) as bar:

        def start(title: str) -> "Progress":
            task = bar.add_task(title, total=None)
            return lambda done, total: bar.update(task, completed=done, total=total)

        yield start
