"""The two consoles: results on stdout, everything said to a person on stderr."""

import time
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


# Without a terminal, as in a log file, progress is a line so often.
LINE_S = 60.0


class LogPace:
    """Tells when a log file should get its next line of progress."""

    def __init__(self) -> None:
        self.begun = self._said = time.perf_counter()

    def is_due(self, now: float) -> bool:
        """Return whether a line is due at a time of `time.perf_counter`, which counts as said."""
        due = now - self._said >= LINE_S
        self._said = now if due else self._said
        return due


@cache
def out() -> "Console":
    """Return the console on stdout; it carries results only."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


@cache
def err() -> "Console":
    """Return the console on stderr; colours only on a terminal without ``NO_COLOR``."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(message: str, *, label: str = "", style: str = "") -> None:
    """Print one line on stderr, its label coloured on a terminal.

    Args:
        message: Text printed as it is: no markup, no wrapping, control characters escaped so that
            a file name cannot move the cursor.
        label: Word in front, such as ``error``.
        style: Rich style of the label.
    """
    from rich.text import Text

    line = Text()
    if label:
        line.append(f"{label}: ", style=style)
    line.append("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))
    err().print(line)


def say_error(message: str, hint: str = "") -> None:
    """Print an ``error:`` line and, when there is one, a ``hint:`` line."""
    say(message, label="error", style="bold red")
    if hint:
        say(hint, label="hint", style="cyan")


def say_warning(message: str) -> None:
    """Print a ``warning:`` line."""
    say(message, label="warning", style="yellow")
