"""What the documents say is what the program does."""

import dataclasses
import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

import hrnet_cli
from hrnet_cli.cli import app
from hrnet_cli.errors import ExitCode
from hrnet_cli.schema import SCHEMA_FOLDER, SCHEMAS
from hrnet_cli.structures import Poses
from videos import write_video

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = get_command(app).commands


def readme_commands():
    consoles = "\n".join(re.findall(r"```console\n(.*?)```", README, re.DOTALL))
    lines = re.findall(r"^\$ (.*)$", consoles, re.MULTILINE)
    parts = [part.strip() for line in lines for part in line.split(" | ")]
    return [part for part in parts if part.startswith("hrnet ")]


@pytest.mark.parametrize("line", readme_commands())
def test_readme_commands_parse(line):
    words = shlex.split(line, comments=True)
    command = COMMANDS[words[1]]
    context = command.make_context(words[1], words[2:])
    assert set(context.params) >= {"quiet"}


def test_every_command_stands_in_the_readme():
    for name in COMMANDS:
        assert f"hrnet {name}" in README


def test_help_pages_are_up_to_date():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    stored = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert generate.commands_page() == stored, "run `make docs`"


def test_exit_codes_are_documented():
    table = dict(re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE))
    assert {int(code) for code in table} == set(map(int, ExitCode))
    words = {
        ExitCode.INPUT: "input",
        ExitCode.WEIGHTS: "weights",
        ExitCode.CONFIG: "config",
        ExitCode.DEVICE: "device",
        ExitCode.TRAINING: "training",
        ExitCode.OUTPUT: "output",
    }
    for code, word in words.items():
        assert table[str(int(code))].startswith(word)


def test_schemas_are_all_named():
    assert {path.stem for path in SCHEMA_FOLDER.glob("*.toml")} == set(SCHEMAS)
    for name in SCHEMAS:
        assert name in README


def test_readme_python_runs(tmp_path, monkeypatch, capsys):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL).group(1)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("nose [")
    assert (tmp_path / "hrnet-out" / "api.png").stat().st_size > 10_000


def test_the_python_page_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("ultralytics")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    write_video(tmp_path / "walk.mp4", 4)
    monkeypatch.chdir(tmp_path)
    page, names = (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(code, "python.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("{'nose': [")
    assert lines[1] == "[1, 1]"
    assert [line.split()[0] for line in lines[2:]] == ["0", "1", "2", "3"]
    assert (tmp_path / "hrnet-out" / "drawn.png").stat().st_size > 10_000
    fields = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert set(fields) == {field.name for field in dataclasses.fields(Poses)} - {"heatmaps"}


def test_all_that_is_public_can_be_imported():
    for name in hrnet_cli.__all__:
        assert getattr(hrnet_cli, name)
