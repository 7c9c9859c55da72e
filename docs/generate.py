"""Write docs/commands.md from the commands' own help: run by `make docs`, compared in a test."""

from pathlib import Path

from typer.main import get_command
from typer.testing import CliRunner

from hrnet_cli.cli import app

TARGET = Path(__file__).with_name("commands.md")


def commands_page() -> str:
    """Return the page: the help of `hrnet` and of each of its commands, 80 columns wide."""
    runner = CliRunner(env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    names = sorted(get_command(app).commands)  # type: ignore[attr-defined]
    sections = ["# Commands\n\nWritten by `make docs` from the commands' own help.\n"]
    for arguments in ([], *([name] for name in names)):
        title = " ".join(["hrnet", *arguments])
        output = runner.invoke(app, [*arguments, "--help"], prog_name="hrnet").output
        text = "\n".join(line.rstrip() for line in output.strip().splitlines())
        sections.append(f"## `{title}`\n\n```\n{text}\n```\n")
    return "\n".join(sections)


if __name__ == "__main__":
    TARGET.write_text(commands_page(), encoding="utf-8")
