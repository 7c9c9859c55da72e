"""The command starts at once, and its options change only on purpose."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from hrnet_cli import __version__
from hrnet_cli.cli import app
from hrnet_cli.errors import ExitCode

OPTIONS = Path(__file__).parents[1] / "data" / "options.txt"
HEAVY = {"torch", "torchvision", "cv2", "numpy", "pycocotools", "ultralytics", "PIL", "requests"}
REGENERATE = "was that meant? then run `python tests/cli/test_startup.py` and commit what changes"


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=True, timeout=60
    )


def options_text() -> str:
    """Return every command, option and argument, one a line."""
    root = get_command(app)
    commands = root.commands  # type: ignore[attr-defined]
    lines = [
        " ".join((name, "/".join((*parameter.opts, *parameter.secondary_opts))))
        for name, command in (("hrnet", root), *sorted(commands.items()))
        for parameter in command.params
    ]
    return "".join(f"{line}\n" for line in lines)


def test_the_command_line_loads_nothing_heavy():
    code = "import json, sys, hrnet_cli.cli; print(json.dumps(sorted(sys.modules)))"
    loaded = {name.split(".")[0] for name in json.loads(python("-c", code).stdout)}
    assert "typer" in loaded
    assert not loaded & HEAVY


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is full is Linux's")
@pytest.mark.parametrize(
    ("words", "place", "code", "line"),
    [
        ("--help", ">/dev/full", 8, "error: standard output cannot be written: no space left on"),
        ("detect --help", ">/dev/full", 8, "error: standard output cannot be written: no space"),
        ("--version", ">&-", 8, "error: standard output cannot be written: it is closed"),
        ("merge --help", ">&-", 8, "error: standard output cannot be written: it is closed"),
        ("detect --boxes none.json a.jpg", ">&-", 3, "error: "),
        ("detect a.jpg --out " + "a" * 300, "", 2, "error: a name is longer than files may have"),
    ],
)
def test_what_the_system_refuses_is_one_line(tmp_path, words, place, code, line):
    (tmp_path / "a.jpg").touch()
    result = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" -m hrnet_cli {words} {place}', sys.executable],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert result.stderr.startswith(line)
    assert "Traceback" not in result.stderr
    assert "Exception ignored" not in result.stderr
    assert result.returncode == code


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to be sent")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_before_the_command_begins_is_an_interruption(name):
    code = (
        "import os, signal, typer.main\n"
        "from hrnet_cli.cli import main\n"
        # A shell in the background, such as one that runs these tests, has its children ignore it.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"typer.main.get_command = lambda _app: os.kill(os.getpid(), signal.{name})\n"
        "main()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stderr) == (ExitCode.INTERRUPTED, "")


def test_help_loads_nothing_heavy():
    code = (
        "import json, sys\n"
        "from hrnet_cli.cli import app\n"
        "app(['detect', '--help'], standalone_mode=False)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    shown, modules = python("-c", code).stdout.rsplit("\n", 2)[:2]
    assert "--skeleton" in shown
    assert not {name.split(".")[0] for name in json.loads(modules)} & HEAVY


def test_the_module_runs_as_a_program():
    assert python("-m", "hrnet_cli", "--version").stdout == f"hrnet {__version__}\n"


def test_options_change_only_on_purpose():
    assert options_text() == OPTIONS.read_text(encoding="utf-8"), REGENERATE


@pytest.mark.parametrize("words", [["-h"], ["detect", "-h"]])
def test_help_has_a_short_name(words):
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0
    assert "Usage: " in result.output


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["detect", ""], "after 'detect'"),
        (["detect", "a.jpg", "", "--skeleton"], "after 'a.jpg'"),
        (["detect", "a.jpg", "--out", ""], "--out"),
        (["eval", "--out="], "--out"),
        (["merge", "a", "-o", "", "--overwrite"], "-o"),
    ],
)
def test_an_empty_word_is_not_the_current_folder(words, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jpg").touch()
    result = CliRunner().invoke(app, words)
    assert result.exit_code == ExitCode.USAGE
    assert f"error: an empty value is given: {place}\n" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]


if __name__ == "__main__":
    OPTIONS.write_text(options_text(), encoding="utf-8")
