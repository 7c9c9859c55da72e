"""The ``hrnet`` command: the Typer app and the one place where errors become exit codes."""

import errno
import os
import signal
import sys
from itertools import pairwise
from types import FrameType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from hrnet_cli import __version__
from hrnet_cli.cli.bench import EXAMPLES as BENCH_EXAMPLES
from hrnet_cli.cli.bench import bench
from hrnet_cli.cli.check_data import EXAMPLES as CHECK_DATA_EXAMPLES
from hrnet_cli.cli.check_data import check_data
from hrnet_cli.cli.convert import EXAMPLES as CONVERT_EXAMPLES
from hrnet_cli.cli.convert import convert
from hrnet_cli.cli.detect import EXAMPLES, detect
from hrnet_cli.cli.download_weights import download_weights
from hrnet_cli.cli.eval import EXAMPLES as EVAL_EXAMPLES
from hrnet_cli.cli.eval import eval_
from hrnet_cli.cli.export import EXAMPLES as EXPORT_EXAMPLES
from hrnet_cli.cli.export import export
from hrnet_cli.cli.fine_tune import EXAMPLES as FINE_TUNE_EXAMPLES
from hrnet_cli.cli.fine_tune import fine_tune
from hrnet_cli.cli.merge import EXAMPLES as MERGE_EXAMPLES
from hrnet_cli.cli.merge import merge
from hrnet_cli.cli.train import EXAMPLES as TRAIN_EXAMPLES
from hrnet_cli.cli.train import train
from hrnet_cli.errors import ExitCode, HrnetError, UsageError

_STDOUT = 1
_STDOUT_ERRORS = {errno.ENOSPC: "no space left on the device", errno.EBADF: "it is closed"}


class _ErrorBoundary(TyperGroup):
    """Turn every error a user can cause into one line and its exit code.

    It overrides ``invoke`` so that the shell and test runners see the same codes.
    """

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - click's own
        """Return the command that the words name; refuse empty ones."""
        _refuse_empty(args)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - click's own signature
        try:
            return super().invoke(ctx)
        except HrnetError as error:
            from hrnet_cli.cli.console import say_error

            say_error(error.message, error.hint)
            if error.exit_code == ExitCode.OUTPUT:
                _drop_unwritable()
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            from hrnet_cli.cli.console import say

            say("interrupted; what was written so far is complete and stays")
            raise typer.Exit(ExitCode.INTERRUPTED) from error
        except BrokenPipeError as error:
            # The reader of stdout has seen enough (`| head`): not an error of ours.
            _drop_stdout()
            raise typer.Exit(ExitCode.OK) from error
        except OSError as error:
            code = _code_of(error)
            if code is None:
                raise
            raise typer.Exit(code) from error

    def main(self, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - click's own signature
        """Run, and say what keeps the help from being printed, too."""
        try:
            return super().main(*arguments, **options)
        except OSError as error:
            code = _code_of(error)
            if code is None:
                raise
            sys.exit(code)


def _code_of(error: OSError) -> int | None:
    """Say in one line what the system refused, and return the exit code; None for the unexpected.

    Files are reported where they are written; what is left is stdout, and names beyond all limits.
    """
    from hrnet_cli.cli.console import say_error

    if error.errno == errno.ENAMETOOLONG and error.filename is not None:
        say_error(f"a name is longer than files may have: '{str(error.filename)[:60]}...'")
        return ExitCode.USAGE
    reason = _STDOUT_ERRORS.get(error.errno or 0)
    if reason is None or error.filename is not None:
        return None
    if error.errno == errno.EBADF and _stdout_is_open():
        return None
    _drop_stdout()
    say_error(f"standard output cannot be written: {reason}")
    return ExitCode.OUTPUT


def _refuse_empty(words: list[str]) -> None:
    """Refuse empty words: as a path each would be the current folder.

    Raises:
        UsageError: A word is empty, or an option is given nothing by ``--option=``.
    """
    for before, word in pairwise(words):
        option, equals, value = word.partition("=")
        if not word or (option.startswith("--") and equals and not value):
            place = option or (before if before.startswith("-") else f"after '{before}'")
            raise UsageError(
                f"an empty value is given: {place}",
                hint='a shell variable that is not set gives one, as in "$OUT"',
            )


def _stdout_is_open() -> bool:
    try:
        os.write(_STDOUT, b"")
    except OSError:
        return False
    return True


def _drop_unwritable() -> None:
    """Let go of what stdout still holds and cannot take, which would end Python with code 120."""
    try:
        sys.stdout.flush()
    except OSError:
        _drop_stdout()


def _drop_stdout() -> None:
    """Let what is still to be written to stdout go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


app = typer.Typer(
    cls=_ErrorBoundary,
    help="Human, hand and animal pose with HRNet: detect, train, evaluate.",
    epilog="Exit codes: 0 ok, 1 a bug in hrnet, 2 usage, 3 input, 4 weights, 5 config file, "
    "6 device, 7 training, 8 output, 130 interrupted.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(no_args_is_help=True, epilog=EXAMPLES)(detect)
app.command(no_args_is_help=True, epilog=TRAIN_EXAMPLES)(train)
app.command(name="fine-tune", no_args_is_help=True, epilog=FINE_TUNE_EXAMPLES)(fine_tune)
app.command(name="eval", epilog=EVAL_EXAMPLES)(eval_)
app.command(no_args_is_help=True, epilog=EXPORT_EXAMPLES)(export)
app.command(epilog=BENCH_EXAMPLES)(bench)
app.command(name="check-data", no_args_is_help=True, epilog=CHECK_DATA_EXAMPLES)(check_data)
app.command(no_args_is_help=True, epilog=CONVERT_EXAMPLES)(convert)
app.command(no_args_is_help=True, epilog=MERGE_EXAMPLES)(merge)
app.command(name="download-weights")(download_weights)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hrnet {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Human, hand and animal pose with HRNet: detect, train, evaluate."""


def _terminate(signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(signum).name)


def _fill_stdout() -> None:
    """Put in the place of a closed stdout what cannot be written to.

    Otherwise the next file that is opened gets its number, and all that is printed.
    """
    if sys.stdout is not None:
        return
    nowhere = os.open(os.devnull, os.O_RDONLY)
    if nowhere != _STDOUT:
        os.dup2(nowhere, _STDOUT)
        os.close(nowhere)
    sys.stdout = os.fdopen(_STDOUT, "w", closefd=False)


def main() -> None:
    """Run ``hrnet`` with the arguments of this process; SIGTERM ends it as cleanly as Ctrl-C."""
    try:
        signal.signal(signal.SIGTERM, _terminate)
        _fill_stdout()
        app()
    except KeyboardInterrupt:  # before the command begins: nothing is written yet
        sys.exit(ExitCode.INTERRUPTED)
