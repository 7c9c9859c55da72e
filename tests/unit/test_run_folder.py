"""The folder of a run: whole files or none, and clear words for what is broken."""

import csv
import errno
import json
import os
import random
import resource
from contextlib import contextmanager

import pytest
import torch

from hrnet_cli import run_folder
from hrnet_cli.errors import ExitCode, HrnetError, InputError, OutputError, TrainingError
from hrnet_cli.run_folder import (
    COLUMNS,
    clear,
    last_figures,
    load_state,
    open_run,
    read_metrics,
    save_state,
    versions,
    write_metrics,
    write_summary,
)

STATE = {
    "config": "[run]\n",
    "batch": 8,
    "progress": {"epoch": 3, "best": None, "start": "x"},
    "network": {"weight": torch.arange(50.0), "count": torch.tensor(7)},
    "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"params": [0]}]},
    "cuda_rng": [],
}


@pytest.fixture
def folder(tmp_path):
    return open_run(tmp_path / "run", resume=False, overwrite=False)


def failure(kind, code, call, *arguments, **options):
    with pytest.raises(kind) as raised:
        call(*arguments, **options)
    assert raised.value.exit_code == code
    assert "\n" not in raised.value.message
    return raised.value.message, raised.value.hint


# ---------------------------------------------------------------- opening


def test_a_new_folder_is_made_with_its_parents(tmp_path):
    folder = open_run(tmp_path / "a" / "b", resume=False, overwrite=False)
    assert folder.path.is_dir()
    assert {file.parent for file in (folder.config, folder.state, folder.best)} == {folder.path}


def test_files_that_are_no_run_are_no_hindrance(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    open_run(tmp_path, resume=False, overwrite=False)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("file", ["state", "metrics"])
def test_a_run_is_not_written_over_unasked(folder, file):
    getattr(folder, file).write_text("")
    message, hint = failure(
        OutputError, ExitCode.OUTPUT, open_run, folder.path, resume=False, overwrite=False
    )
    assert message == f"'{folder.path}' already holds a training run"
    assert hint == (
        "continue it with --resume, replace it with --overwrite, or name another folder with --out"
    )


def test_overwrite_removes_what_would_mix_with_the_new_run(folder):
    files = [folder.state, folder.metrics, folder.best, folder.last, folder.summary]
    files += [folder.held_out]
    for file in files:
        file.write_text("old")
    assert open_run(folder.path, resume=False, overwrite=True) == folder
    # Not before the new run is known to start.
    assert all(file.exists() for file in files)
    clear(folder)
    assert not any(file.exists() for file in files)


def test_there_must_be_something_to_resume(tmp_path):
    message, hint = failure(
        InputError, ExitCode.INPUT, open_run, tmp_path / "run", resume=True, overwrite=False
    )
    assert message == (
        f"'{tmp_path}/run' holds no state to resume: '{tmp_path}/run/state.pt' is not there"
    )
    assert hint == "name the folder of a run that was stopped, or leave out --resume"
    assert not (tmp_path / "run").exists()


def test_resume_leaves_everything_where_it_is(folder):
    save_state(folder, STATE)
    assert open_run(folder.path, resume=True, overwrite=False) == folder
    assert open_run(folder.path, resume=True, overwrite=True) == folder
    assert load_state(folder)["batch"] == 8


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "taken").write_text("")
    for path, reason in (("taken", "File exists"), ("taken/run", "Not a directory")):
        message, _ = failure(
            OutputError, ExitCode.OUTPUT, open_run, tmp_path / path, resume=False, overwrite=False
        )
        assert message == f"'{tmp_path}/{path}' cannot be made: {reason}"


# ---------------------------------------------------------------- state


def test_a_state_comes_back_as_it_was(folder):
    save_state(folder, STATE)
    state = load_state(folder)
    assert torch.equal(state["network"].pop("weight"), STATE["network"]["weight"])
    assert state["network"] == {"count": torch.tensor(7)}
    assert state["optimizer"] == STATE["optimizer"]
    assert state["progress"] == STATE["progress"]
    assert [path.name for path in folder.path.iterdir()] == ["state.pt"]


def no_space(*_arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("broken", ["torch.save", "os.fsync"])
def test_a_full_disk_leaves_the_state_before_whole(folder, broken, monkeypatch):
    save_state(folder, STATE)
    before = folder.state.read_bytes()
    monkeypatch.setattr(broken, no_space)
    message, hint = failure(OutputError, ExitCode.OUTPUT, save_state, folder, {**STATE, "batch": 9})
    assert message == f"{folder.state}: cannot be written: No space left on device"
    assert hint == "free some space; the state saved before is whole, continue with --resume"
    assert folder.state.read_bytes() == before
    assert [path.name for path in folder.path.iterdir()] == ["state.pt"]


def test_a_full_disk_at_the_first_save_promises_no_state(folder, monkeypatch):
    monkeypatch.setattr(os, "fsync", no_space)
    _, hint = failure(OutputError, ExitCode.OUTPUT, save_state, folder, STATE)
    assert hint == "free some space"
    assert list(folder.path.iterdir()) == []


@contextmanager
def files_up_to(size):
    """Let this process write files of so many bytes only, as a disk that fills up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:  # Before the test ends: its result may go into a file too.
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_within_the_file(folder):
    """PyTorch then raises an error of its own that speaks of positions in its archive."""
    save_state(folder, STATE)
    large = {"network": torch.zeros(10**6)}
    with files_up_to(100_000):
        message, _ = failure(OutputError, ExitCode.OUTPUT, save_state, folder, large)
    assert message == f"{folder.state}: cannot be written: File too large"
    assert load_state(folder)["batch"] == 8
    assert [path.name for path in folder.path.iterdir()] == ["state.pt"]


def test_ctrl_c_while_saving_leaves_the_state_before_whole(folder, monkeypatch):
    def interrupted(_number):
        raise KeyboardInterrupt

    save_state(folder, STATE)
    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_state(folder, {**STATE, "batch": 9})
    monkeypatch.undo()
    assert load_state(folder)["batch"] == 8
    assert [path.name for path in folder.path.iterdir()] == ["state.pt"]


def test_a_state_is_safe_on_the_disk_before_it_takes_its_name(folder, monkeypatch):
    """A machine that goes down must not leave a new name with no content."""
    seen = []
    sync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda number: seen.append(folder.state.exists()) or sync(number)
    )
    save_state(folder, STATE)
    assert seen == [False]


def test_a_new_state_takes_the_place_of_the_old_one_at_once(folder):
    """Who reads the old file while the new one comes reads it to its end."""
    save_state(folder, STATE)
    with folder.state.open("rb") as reader:
        save_state(folder, {**STATE, "batch": 9})
        assert torch.load(reader, weights_only=True)["batch"] == 8
    assert load_state(folder)["batch"] == 9


DAMAGED = "not readable as the state of a run: damaged, cut short or another kind of file"


def test_a_damaged_state_is_told_of_in_one_line(folder):
    save_state(folder, STATE)
    good = folder.state.read_bytes()
    for data in (b"", b"\x80\x02}q", b"not a state", good[: len(good) // 2], good[:-10]):
        folder.state.write_bytes(data)
        message, hint = failure(TrainingError, ExitCode.TRAINING, load_state, folder)
        assert message == f"{folder.state}: {DAMAGED}"
        assert hint == f"start anew from '{folder.best}' with --from, if it is there"


def test_no_damage_ends_in_a_traceback(folder):
    save_state(folder, STATE)
    good = folder.state.read_bytes()
    dice = random.Random(0)
    refused = 0
    for _ in range(300):
        data = bytearray(good)
        for _ in range(5):
            data[dice.randrange(len(data))] = dice.randrange(256)
        folder.state.write_bytes(data)
        try:
            load_state(folder)
        except HrnetError:
            refused += 1
    assert refused > 30


class Code:
    def __reduce__(self):
        return (print, ("code of the file ran",))


def test_no_code_of_a_state_is_run(folder, capsys):
    torch.save({"format": 1, "code": Code()}, folder.state)
    message, _ = failure(TrainingError, ExitCode.TRAINING, load_state, folder)
    assert message == f"{folder.state}: {DAMAGED}"
    assert capsys.readouterr().out == ""


def test_a_state_that_went_away(folder):
    message, _ = failure(TrainingError, ExitCode.TRAINING, load_state, folder)
    assert message == (
        f"{folder.state}: not readable as the state of a run: No such file or directory"
    )


@pytest.mark.parametrize(
    ("content", "found"), [({"format": 2}, "2"), ({"batch": 8}, "None"), ([1], "list")]
)
def test_a_state_of_another_format(folder, content, found):
    torch.save(content, folder.state)
    message, hint = failure(TrainingError, ExitCode.TRAINING, load_state, folder)
    assert message == f"{folder.state}: format {found}, expected 1"
    assert hint == "it was written by another version of hrnet-cli"


# ---------------------------------------------------------------- figures


def row(epoch, loss=0.5, **fields):
    return {"epoch": epoch, "loss": loss, **fields}


def test_rows_are_added_with_all_columns(folder):
    assert read_metrics(folder) == []
    write_metrics(folder, row(1, 1 / 3, val_AP=None, val_PCK=0.25, samples=128))
    write_metrics(folder, row(2, 1e-9))
    with folder.metrics.open(encoding="utf-8", newline="") as file:
        header, first, second = csv.reader(file)
    assert header == list(COLUMNS)
    assert len(first) == len(second) == len(COLUMNS)
    rows = read_metrics(folder)
    assert [r["epoch"] for r in rows] == ["1", "2"]
    assert [r["loss"] for r in rows] == ["0.3333333", "1e-09"]
    assert (rows[0]["val_AP"], rows[0]["val_PCK"], rows[0]["samples"]) == ("", "0.25", "128")


def test_a_resumed_run_replaces_its_epoch_and_those_after_it(folder):
    """A state older than the table: the run goes back, and so must the table."""
    for epoch in (1, 2, 3, 10):
        write_metrics(folder, row(epoch, float(epoch)))
    write_metrics(folder, row(2, 7.0))
    assert [(r["epoch"], r["loss"]) for r in read_metrics(folder)] == [("1", "1"), ("2", "7")]


@pytest.mark.parametrize("epoch", ["", "x", "1.5"])
def test_a_table_changed_by_hand(folder, epoch):
    folder.metrics.write_text(f"epoch,loss\n1,0.5\n{epoch},0.4\n")
    message, hint = failure(TrainingError, ExitCode.TRAINING, write_metrics, folder, row(2))
    assert message == (f"{folder.metrics}: line 3 has epoch '{epoch}', expected a whole number")
    assert hint == "mend the line, or move the file away: training goes on without it"


def test_tables_that_other_programs_saved(folder):
    folder.metrics.write_text("")
    assert read_metrics(folder) == []
    folder.metrics.write_bytes(b"\xef\xbb\xbfepoch,loss\r\n1,0.5\r\n")  # a spreadsheet
    assert read_metrics(folder) == [{"epoch": "1", "loss": "0.5"}]
    folder.metrics.write_bytes(b"\xff\xfe\x00\n1\n")
    failure(TrainingError, ExitCode.TRAINING, read_metrics, folder)


def test_a_full_disk_leaves_the_table_before_whole(folder):
    write_metrics(folder, row(1))
    write_metrics(folder, row(2))
    with files_up_to(10):
        message, _ = failure(OutputError, ExitCode.OUTPUT, write_metrics, folder, row(3))
    assert message == f"cannot write '{folder.metrics}': File too large"
    assert len(read_metrics(folder)) == 2
    assert [path.name for path in folder.path.iterdir()] == ["metrics.csv"]


# ---------------------------------------------------------------- records


def test_the_summary_is_json_with_its_schema_first(folder):
    write_summary(folder, {"name": "Körper", "best": {"value": 0.5}})
    summary = json.loads(folder.summary.read_text(encoding="utf-8"))
    assert list(summary) == ["schema", "name", "best"]
    assert summary["schema"] == "hrnet-train/1"
    assert summary["name"] == "Körper"


def test_the_last_figures_are_numbers(folder):
    assert last_figures(folder) == {}
    write_metrics(folder, row(1))
    write_metrics(folder, {"epoch": 2, "loss": 0.25, "val_AP": None})
    found = last_figures(folder)
    assert (found["epoch"], found["loss"], found["val_AP"]) == (2, 0.25, None)
    assert isinstance(found["epoch"], int)
    folder.metrics.write_text("epoch,loss\n3,much\n")
    message, _ = failure(TrainingError, ExitCode.TRAINING, last_figures, folder)
    assert "the last line has something that is no number" in message


def test_versions_name_what_decides_the_numbers():
    found = versions()
    assert {"python", "hrnet-cli", "torch", "numpy"} <= found.keys()
    assert torch.__version__.startswith(found["torch"].split("+")[0])


def test_the_processor_is_named():
    assert run_folder.hardware("cpu").endswith(f" processor, {torch.get_num_threads()} threads")
