"""The folder of a training run: its state, its figures, and what it was made with.

``config.toml`` the resolved configuration; ``state.pt`` all that continues the run; ``metrics.csv``
one row an epoch; ``best.safetensors`` and ``last.safetensors`` for detect and eval;
``summary.json``; ``held-out.json`` photos kept from learning; ``samples/`` drawn predictions;
``curves.png`` and ``report.html`` at the end.
"""

import csv
import io
import json
import pickle
import platform
import shutil
import struct
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from hrnet_cli.errors import InputError, OutputError, TrainingError
from hrnet_cli.images import write_bytes_atomic
from hrnet_cli.scratch import written_whole

STATE_FORMAT = 1
COLUMNS: tuple[str, ...] = (
    "epoch", "step", "samples", "loss", "lr", "samples_per_s", "data_wait",
    "val_AP", "val_AP50", "val_PCK", "val_loss", "seconds", "memory_mb",
)  # fmt: skip
# All that reading a damaged state was seen to raise; OSError is told apart.
DAMAGE = (
    pickle.UnpicklingError, struct.error, ArithmeticError, AssertionError, AttributeError,
    EOFError, LookupError, MemoryError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
PACKAGES = ("hrnet-cli", "torch", "torchvision", "numpy", "opencv-python", "pycocotools")


@dataclass(frozen=True)
class RunFolder:
    """Where the files of a run lie.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """Return the file of the resolved configuration."""
        return self.path / "config.toml"

    @property
    def state(self) -> Path:
        """Return the file that continues the run."""
        return self.path / "state.pt"

    @property
    def metrics(self) -> Path:
        """Return the table of figures."""
        return self.path / "metrics.csv"

    @property
    def best(self) -> Path:
        """Return the best weights."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """Return the last weights."""
        return self.path / "last.safetensors"

    @property
    def summary(self) -> Path:
        """Return the description of the run."""
        return self.path / "summary.json"

    @property
    def held_out(self) -> Path:
        """Return the labels of the photos held out to measure on, where some were."""
        return self.path / "held-out.json"

    @property
    def samples(self) -> Path:
        """Return the folder of drawn predictions."""
        return self.path / "samples"


def open_run(
    path: Path, *, resume: bool = False, overwrite: bool = False, exist_ok: bool = False
) -> RunFolder:
    """Return the folder of a run, made when it is new.

    Args:
        path: The folder.
        resume: Continue the run in it.
        overwrite: Replace a run that is in it; it stays until `clear` removes it.
        exist_ok: Take the folder as it is: another process of the same run has opened it.

    Raises:
        InputError: Nothing to resume.
        OutputError: A run is there already, or the folder cannot be made.
    """
    folder = RunFolder(path)
    if exist_ok:
        return folder
    if resume:
        if not folder.state.is_file():
            raise InputError(
                f"'{path}' holds no state to resume: '{folder.state}' is not there",
                hint="name the folder of a run that was stopped, or leave out --resume",
            )
        return folder
    if not overwrite and (folder.state.exists() or folder.metrics.exists()):
        raise OutputError(
            f"'{path}' already holds a training run",
            hint="continue it with --resume, replace it with --overwrite, or name another folder"
            " with --out",
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"'{path}' cannot be made: {error.strerror}") from error
    return folder


def clear(folder: RunFolder) -> None:
    """Remove what a run before left, files that are not a run's excepted.

    Raises:
        OutputError: A file cannot be removed.
    """
    files = [folder.state, folder.metrics, folder.best, folder.last, folder.summary]
    files += [folder.held_out, folder.path / "curves.png", folder.path / "report.html"]
    try:
        for file in files:
            file.unlink(missing_ok=True)
        if folder.samples.is_dir():
            shutil.rmtree(folder.samples)
    except OSError as error:
        raise OutputError(f"'{error.filename}' cannot be removed: {error.strerror}") from error


def save_state(folder: RunFolder, state: dict[str, Any]) -> None:
    """Write the state of a run, whole or not at all.

    Args:
        folder: Its folder.
        state: Tensors and plain values only.

    Raises:
        OutputError: It cannot be written; the state before it is left as it was.
    """
    try:
        with written_whole(folder.state, lasting=True) as part, part.open("xb") as file:
            torch.save({"format": STATE_FORMAT, **state}, file)
    except (OSError, RuntimeError) as error:
        # PyTorch hides the system's word, such as "No space left on device", behind its own.
        cause = error if isinstance(error, OSError) else error.__context__
        reason = cause.strerror if isinstance(cause, OSError) else str(error).splitlines()[0]
        whole = "; the state saved before is whole, continue with --resume"
        raise OutputError(
            f"{folder.state}: cannot be written: {reason}",
            hint=f"free some space{whole if folder.state.is_file() else ''}",
        ) from error


def load_state(folder: RunFolder, device: str = "cpu") -> dict[str, Any]:
    """Return the state that `save_state` wrote.

    Raises:
        TrainingError: The file is damaged or of another format.
    """
    try:
        state = torch.load(folder.state, map_location=device, weights_only=True)
    except (*DAMAGE, OSError) as error:
        # What PyTorch says of such a file is advice to developers, over many lines.
        unread = error.strerror if isinstance(error, OSError) else None
        raise TrainingError(
            f"{folder.state}: not readable as the state of a run:"
            f" {unread or 'damaged, cut short or another kind of file'}",
            hint=f"start anew from '{folder.best}' with --from, if it is there",
        ) from error
    if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise TrainingError(
            f"{folder.state}: format {found}, expected {STATE_FORMAT}",
            hint="it was written by another version of hrnet-cli",
        )
    return state


def write_metrics(folder: RunFolder, row: dict[str, float | int | None]) -> None:
    """Add a row to the table of figures, in place of one of the same epoch and those after it."""
    rows = [old for old in read_metrics(folder) if int(old["epoch"]) < int(row["epoch"] or 0)]
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    table.writerow({key: _cell(row.get(key)) for key in COLUMNS})
    write_bytes_atomic(folder.metrics, text.getvalue().encode())


def read_metrics(folder: RunFolder) -> list[dict[str, str]]:
    """Return the rows of the table of figures; none when there is no table.

    Raises:
        TrainingError: A row has no epoch: the file was changed by hand.
    """
    if not folder.metrics.is_file():
        return []
    text = folder.metrics.read_text(encoding="utf-8-sig", errors="replace")
    rows = list(csv.DictReader(io.StringIO(text)))
    for number, row in enumerate(rows, start=2):
        if not (row.get("epoch") or "").isdecimal():
            raise TrainingError(
                f"{folder.metrics}: line {number} has epoch '{row.get('epoch')}', expected a whole"
                " number",
                hint="mend the line, or move the file away: training goes on without it",
            )
    return rows


def last_figures(folder: RunFolder) -> dict[str, float | int | None]:
    """Return the last row of the table of figures as numbers; empty when there is none.

    Values are None where nothing was measured.

    Raises:
        TrainingError: A row has no epoch, or the last one holds something that is no number.
    """
    rows = read_metrics(folder)
    try:
        return {key: _number(rows[-1].get(key)) for key in COLUMNS} if rows else {}
    except ValueError as error:
        raise TrainingError(
            f"{folder.metrics}: the last line has something that is no number: {error}",
            hint="mend the line",
        ) from error


def write_summary(folder: RunFolder, summary: dict[str, Any]) -> None:
    """Write the description of the run as JSON."""
    text = json.dumps({"schema": "hrnet-train/1", **summary}, indent=1, ensure_ascii=False)
    write_bytes_atomic(folder.summary, text.encode())


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware(device: str) -> str:
    """Return the processor that computes, in words."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} processor, {torch.get_num_threads()} threads"


def _number(cell: str | None) -> float | int | None:
    if not cell:
        return None
    return int(cell) if cell.isdecimal() else float(cell)


def _cell(value: float | int | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.7g}"
