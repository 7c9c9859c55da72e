"""``hrnet train`` and ``hrnet fine-tune`` from the command line."""

import json
import os
import signal
import subprocess
import sys
import time

import cv2
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from hrnet_cli.checkpoint import load_model
from hrnet_cli.cli import app, train_run
from hrnet_cli.cli.train_options import TrainOptions, with_settings
from hrnet_cli.errors import UsageError
from hrnet_cli.recipe import load_config
from training_data import configure, write_spots

SMALL = ["--from-scratch", "--width", "4", "--input", "64x64", "--codec", "dark", "--device", "cpu"]
QUICK = ["--epochs", "2", "--batch-size", "4", "--workers", "0", "--precision", "fp32"]


@pytest.fixture
def spots(tmp_path):
    return write_spots(tmp_path / "spots")


@pytest.fixture(autouse=True)
def _leave_torch_as_it_was():
    yield
    torch.use_deterministic_algorithms(False)


def hrnet(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def train(spots, out, *more):
    return hrnet("train", "--dataset", spots, "--val", spots, *SMALL, *QUICK, "--out", out, *more)


def test_a_run_says_what_it_does_and_leaves_a_model_that_detects(spots, tmp_path):
    result = train(spots, tmp_path / "run", "--json", "--ema", "0.5")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary["schema"] == "hrnet-train/1"
    assert summary["last"]["epoch"] == 2
    assert summary["last"]["loss"] > 0
    said = result.stderr
    assert "3 keypoints" in said
    assert "8 people, 2 steps of 4 an epoch" in said
    assert "(0.001 is meant for batches of 128), seed 0" in said
    assert "epoch 2/2, loss " in said
    assert said.rstrip().endswith(f"report {tmp_path / 'run' / 'report.html'}")
    for name in ("config.toml", "state.pt", "metrics.csv", "curves.png", "report.html"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    found = hrnet(
        *("detect", spots.parent / "001.png", "--model", tmp_path / "run" / "best.safetensors"),
        *("--detector", "whole-image", "--skeleton", "--out", tmp_path / "found"),
    )
    assert found.exit_code == 0, found.stderr
    record = json.loads((tmp_path / "found" / "poses.jsonl").read_text())
    assert record["keypoint_names"] == [
        "left_spot", "right_spot", "middle_spot",
    ]  # fmt: skip


def test_quiet_says_nothing(spots, tmp_path):
    result = train(spots, tmp_path / "run", "--quiet")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")


def test_fine_tuning_keeps_keypoints_of_the_same_name(spots, tmp_path):
    assert train(spots, tmp_path / "run").exit_code == 0
    other = write_spots(tmp_path / "other", names=["middle_spot", "fourth"])
    start = tmp_path / "run" / "last.safetensors"
    recipe = tmp_path / "my.toml"
    recipe.write_text("[optimizer]\nepochs = 1\n")
    result = hrnet(
        *("fine-tune", "--from", start, "--dataset", other, "--val", other, "--config", recipe),
        *("--workers", "0", "--device", "cpu", "--out", tmp_path / "tuned"),
    )
    assert result.exit_code == 0, result.stderr
    assert "the head keeps 1 keypoints of the same name and learns 1 anew" in result.stderr
    _, spec, _ = load_model(tmp_path / "tuned" / "best.safetensors")
    # Width, crop and codec are those of the model it started from.
    assert (spec.width, spec.input_hw, spec.codec) == (4, (64, 64), "dark")
    assert spec.schema.keypoints == ("middle_spot", "fourth")
    # The file lies over the recipe.
    optimizer = load_config(str(tmp_path / "tuned" / "config.toml")).optimizer
    assert (optimizer.epochs, optimizer.schedule, optimizer.batch_norm) == (1, "cosine", "frozen")


def test_a_terminated_run_saves_and_goes_on(spots, tmp_path):
    command = [sys.executable, "-m", "hrnet_cli", "train", "--dataset", spots, "--val", spots]
    command += [*SMALL, *QUICK, "--deterministic", "--epochs", "6"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    parts = tmp_path / "parts"
    process = subprocess.Popen(
        [*command, "--out", parts], stderr=subprocess.PIPE, text=True, env=environment
    )
    deadline = time.monotonic() + 120
    while not (parts / "metrics.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "its state is saved, go on with --resume" in said
    assert "Traceback" not in said
    # All three as processes of one thread: sums in another order give other bits.
    for out, more in ((parts, ["--resume"]), (tmp_path / "whole", [])):
        done = subprocess.run(
            [*command, "--out", out, *more],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert ("resuming in epoch" in done.stderr) == bool(more)
    whole = load_file(tmp_path / "whole" / "last.safetensors")
    stopped = load_file(parts / "last.safetensors")
    assert all(torch.equal(whole[key], stopped[key]) for key in whole)


def test_two_devices_are_two_processes(spots, tmp_path):
    command = [sys.executable, "-m", "hrnet_cli", "train", "--dataset", spots, "--val", spots]
    command += [*SMALL, *QUICK, "--devices", "2", "--out", tmp_path / "run"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "8 people, 2 steps of 4 an epoch, on 2 x" in done.stderr
    assert done.stderr.count("epoch 2/2") == 1  # one process speaks
    assert (tmp_path / "run" / "report.html").is_file()
    broken = subprocess.run(
        [*command, "--overwrite", "--val", tmp_path / "none.json"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert broken.returncode == 3
    assert "[process " in broken.stderr
    assert "Traceback" not in broken.stderr


def test_ctrl_c_in_a_terminal_is_one_request_to_each_process(spots, tmp_path):
    command = [sys.executable, "-m", "hrnet_cli", "train", "--dataset", spots, "--val", spots]
    command += [*SMALL, *QUICK, "--epochs", "1000", "--devices", "2", "--out", tmp_path / "run"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,  # as a terminal gives one to its command
    )

    def epochs(more_than):
        metrics, deadline = tmp_path / "run" / "metrics.csv", time.monotonic() + 120
        while time.monotonic() < deadline:
            lines = metrics.read_text().count("\n") if metrics.exists() else 0
            if lines > more_than:
                return lines
            time.sleep(0.05)
        return 0

    try:
        done = epochs(1)
        # While their parent is held those that train hear of Ctrl-C only if it comes to them too.
        process.send_signal(signal.SIGSTOP)
        os.killpg(process.pid, signal.SIGINT)
        assert epochs(done + 2)
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()  # then those that train get SIGINT
    assert process.returncode == 130, said
    assert said.count("its state is saved, go on with --resume") == 1
    assert "Traceback" not in said


def test_a_signal_reaches_the_living_when_others_have_ended():
    ended, living = (subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) for _ in "12")
    ended.communicate(b"\n")
    train_run._pass_on(signal.SIGTERM, [ended.pid, living.pid])
    living.communicate(timeout=60)
    assert living.returncode == -signal.SIGTERM


def test_a_device_that_is_not_there_is_said_once(spots, tmp_path, monkeypatch):
    monkeypatch.setattr("hrnet_cli.device._available_devices", lambda: ["cpu"])
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    result = train(spots, tmp_path / "run", "--devices", "3", "--device", "cuda")
    assert result.exit_code == 6
    assert result.stderr.count("error: ") == 1
    assert "error: device 'cuda' is not available; available: cpu" in result.stderr


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--resume", "--overwrite"], 2, "--resume and --overwrite contradict each other"),
        (["--from", "hrnet-w32"], 2, "--from and --from-scratch contradict each other"),
        (["--auto-batch"], 2, "--batch-size and --auto-batch contradict each other"),
        (["--resume"], 3, "there is no run in "),
        (["--config", "offizial"], 5, "did you mean 'official'?"),
        (["--codec", "drak"], 2, "did you mean 'dark'?"),
        (["--device", "cpu:3"], 6, "device 'cpu:3' is not known"),
        (["--precision", "fp16"], 6, "fp16 training needs CUDA"),
        (["--input", "100x100"], 2, "both multiples of 32"),
        (["--metric", "F1"], 2, "run.metric is 'F1', expected one of AP, PCK"),
        (
            ["--val", "0%"],
            2,
            "data.val is '0%', expected a share of the photos between 0% and 100%",
        ),
        (["--set", "optimizer.ema"], 2, "--set is 'optimizer.ema', expected KEY=VALUE"),
        (["--set", "optimizer.epochs=3"], 2, "--set optimizer.epochs and the option for it contra"),
        (["--set", "optimizer.learn_rate=3"], 2, "did you mean 'optimizer.learning_rate'?"),
        (["--set", "optimizer.ema=much"], 2, "'optimizer.ema' is 'much', expected a number"),
        (["--config", "fine-tune", "--set", "augment.color=2"], 2, "options: augment.color is 2.0"),
        (["--seed", "9" * 20], 2, "Invalid value for '--seed'"),
    ],
)
def test_bad_options_are_one_line(spots, tmp_path, more, code, words):
    result = train(spots, tmp_path / "run", *more)
    assert result.exit_code == code, result.stderr
    assert words in result.stderr
    assert "Traceback" not in result.output


KEPT = (
    ("--codec", "udp", "dark"),
    ("--sigma", "3.0", "0.5"),
    ("--input", "96x96", "64x64"),
    ("--ema", "0.9", "0.0"),
    ("--width", "8", "4"),
    ("--batch-size", "8", "4"),
)


def test_a_run_that_goes_on_keeps_what_it_learns(spots, tmp_path):
    run = tmp_path / "run"
    assert train(spots, run).exit_code == 0
    files = files_of(run)
    for option, value, before in KEPT:
        again = hrnet("train", "--resume", "--out", run, "--device", "cpu", option, value)
        assert again.exit_code == 2
        assert f"{option} is {value}, but the run in '{run}' has {before} and keeps" in again.stderr
        assert files_of(run) == files
    # What changes nothing is no contradiction.
    words = [word for option, _, before in KEPT for word in (option, before)]
    same = hrnet("train", "--resume", "--out", run, "--device", "cpu", *words)
    assert same.exit_code == 0, same.stderr


def test_a_batch_chosen_by_what_fits_is_left_to_the_saved_state(spots, tmp_path):
    def refuse(before, now):
        begun, config = (configure(spots, run__batch_size=batch) for batch in (before, now))
        train_run._refuse_another_network(begun, config, tmp_path)

    refuse(-1, 8)
    refuse(0, 128)  # the official one
    with pytest.raises(UsageError, match=r"--batch-size is the largest that fits, .* 8"):
        refuse(8, -1)


def test_photos_held_out_are_kept_for_eval_and_for_going_on(spots, tmp_path):
    run = tmp_path / "run"
    begun = train(spots, run, "--val", "25%", "--json")
    assert begun.exit_code == 0, begun.stderr
    assert "25% of spots: 2 photos with 2 people are held out" in begun.stderr
    assert "6 people, 2 steps" in begun.stderr
    summary = json.loads(begun.stdout)
    kept = (run / "held-out.json").read_bytes()
    assert len(json.loads(kept)["images"]) == 2
    measured = hrnet(
        *("eval", "--dataset", run / "held-out.json", "--model", run / "last.safetensors"),
        *("--runtime", "torch", "--device", "cpu", "--out", tmp_path / "eval", "--json"),
    )
    assert measured.exit_code == 0, measured.stderr
    column = json.loads(measured.stdout)["columns"][0]
    assert column["photos"] == 2
    for number in ("AP", "AP50"):
        assert column[number] == pytest.approx(summary["last"][f"val_{number}"], abs=1e-6)
    for option, value, before in (("--val", "50%", "25%"), ("--seed", "1", "0")):
        other = hrnet("train", "--resume", "--out", run, "--device", "cpu", option, value)
        assert other.exit_code == 2
        assert f"{option} is {value}, but the run in '{run}' has {before}" in other.stderr
    again = hrnet("train", "--resume", "--out", run, "--device", "cpu", "--epochs", "3")
    assert again.exit_code == 0, again.stderr
    assert "the labels are not those" not in again.stderr
    assert (run / "held-out.json").read_bytes() == kept


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.01", 0.01),
        ("3", 3),
        ("true", True),
        ("[64, 64]", [64, 64]),
        ('["a.json"]', ["a.json"]),
        ("'3'", "3"),
        ("cosine", "cosine"),
        ("10%", "10%"),
        ("a=b", "a=b"),
        ("", ""),
        ("1\nx = 2", "1\nx = 2"),
    ],
)
def test_settings_are_toml_or_words(text, value):
    # The second counts.
    settings = ("data.cache=ram", "data.cache=none", f"model.start = {text}")
    options = TrainOptions(
        recipe=None, overrides={"model.width": 4, "model.start": None}, settings=settings, out=None,
        device="cpu", devices=None, resume=False, overwrite=False, offline=False,
        tensorboard=False, json=False, quiet=False,
    )  # fmt: skip
    merged = with_settings(options)
    assert merged.overrides == {"model.width": 4, "model.start": value, "data.cache": "none"}
    assert with_settings(merged) == merged  # as the processes of a run do


def test_settings_win_over_the_recipe_and_are_kept(spots, tmp_path):
    run, recipe = tmp_path / "run", tmp_path / "my.toml"
    recipe.write_text("[optimizer]\nema = 0.9\nschedule = 'cosine'\n")
    given = ["--set", "optimizer.ema=0.5", "--set", "run.samples=0"]
    assert train(spots, run, "--config", recipe, *given).exit_code == 0
    config = load_config(str(run / "config.toml"))
    assert (config.optimizer.ema, config.optimizer.schedule) == (0.5, "cosine")
    assert (config.run.samples, config.optimizer.epochs) == (0, 2)
    resume = ["train", "--resume", "--out", run, "--device", "cpu"]
    other = hrnet(*resume, "--set", "optimizer.ema=0.9")
    assert other.exit_code == 2
    assert "--ema is 0.9, but the run in" in other.stderr
    longer = hrnet(*resume, "--set", "optimizer.epochs=3", "--set", "augment.color=0.2")
    assert longer.exit_code == 0, longer.stderr
    config = load_config(str(run / "config.toml"))
    assert (config.optimizer.epochs, config.augment.color) == (3, 0.2)
    assert (config.optimizer.ema, config.run.samples) == (0.5, 0)


def test_a_run_is_not_overwritten(spots, tmp_path):
    assert train(spots, tmp_path / "run").exit_code == 0
    again = train(spots, tmp_path / "run")
    assert again.exit_code == 8
    assert "already holds a training run" in again.stderr
    assert "--resume" in again.stderr
    assert train(spots, tmp_path / "run", "--overwrite").exit_code == 0


def files_of(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_run_that_cannot_start_does_not_replace_the_one_before(spots, tmp_path):
    run = tmp_path / "run"
    assert train(spots, run).exit_code == 0
    before = files_of(run)
    # Without --from-scratch: there is no backbone of width 4.
    result = hrnet(
        *("train", "--dataset", spots, "--width", "4", "--input", "64x64", "--device", "cpu"),
        *(*QUICK, "--out", run, "--overwrite"),
    )
    assert result.exit_code != 0
    assert files_of(run) == before


def test_overwriting_leaves_nothing_of_the_run_before(spots, tmp_path):
    run = tmp_path / "run"
    assert train(spots, run, "--epochs", "3").exit_code == 0
    (run / "notes.txt").write_text("mine")
    assert list((run / "samples").glob("epoch-0003*"))
    assert train(spots, run, "--epochs", "1", "--overwrite").exit_code == 0
    assert not list((run / "samples").glob("epoch-0003*"))
    assert "epoch-0003" not in (run / "report.html").read_text()
    assert (run / "notes.txt").read_text() == "mine"


def test_resuming_without_a_folder_reads_the_configuration_of_the_run(spots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ["--dataset", spots, "--val", spots, "--batch-size", "4", "--device", "cpu"]
    shape = ["--width", "4", "--input", "64x64"]
    first = hrnet(
        *("train", *data, *shape, "--from-scratch", "--epochs", "2", "--schedule", "cosine"),
        *("--learning-rate", "0.01"),
    )
    assert first.exit_code == 0, first.stderr
    config = tmp_path / "hrnet-runs" / "spots-w4-64x64" / "config.toml"
    before = config.read_text()
    again = hrnet("train", *data, *shape, "--resume", "--config", "mmpose", "--from-scratch")
    assert again.exit_code == 0, again.stderr
    assert "--config and --from-scratch of no effect: the run goes on as it began" in again.stderr
    assert "the run has had its 2 epochs; more of them: --epochs" in again.stderr
    assert "starting from" not in again.stderr
    assert config.read_text() == before


def test_yolo_data_sets_have_runs_of_their_own(spots, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = train_run._default_folder(configure(spots, data__train="robots/data.yaml"))
    assert name.name == "data-w4-64x64"  # no such folder
    (tmp_path / "robots").mkdir()
    (tmp_path / "robots" / "data.yaml").touch()
    for given in ("robots/data.yaml", "robots", "robots/"):
        name = train_run._default_folder(configure(spots, data__train=given))
        assert name.name == "robots-w4-64x64"
    assert train_run._default_folder(configure(spots, data__train="coco")).name == "coco-w4-64x64"


def test_photos_to_measure_on_that_cannot_be_read_are_told(spots, tmp_path):
    val = write_spots(tmp_path / "measured" / "val", photos=4)
    for number in (1, 3):
        (val.parent / f"{number:03d}.png").unlink()
    out = tmp_path / "run"
    given = ["train", "--dataset", spots, "--val", val, *SMALL, *QUICK, "--out", out]
    result = hrnet(*given, "--json")
    assert result.exit_code == 0, result.stderr
    said = " ".join(result.stderr.split())
    assert said.count("001.png' and 1 more to measure on cannot be read") == 1
    assert json.loads(result.stdout)["val_unreadable"] == 2
    strict = hrnet(*given, "--overwrite", "--strict")
    assert strict.exit_code == 3
    assert "001.png" in strict.stderr


def test_photos_that_exif_turns_are_not_learnt_from_as_they_lie(tmp_path):
    spots = write_spots(tmp_path / "spots", photos=4)
    labels = json.loads(spots.read_text())
    for photo in labels["images"]:
        picture = cv2.imread(str(spots.parent / photo["file_name"]))
        cv2.imwrite(str(spots.parent / photo["file_name"]), picture[:60])
        # 72 wide, 60 high as stored; labelled as turned upright.
        photo["width"], photo["height"] = 60, 72
    spots.write_text(json.dumps(labels))
    result = train(spots, tmp_path / "run", "--json")
    said = " ".join(result.stderr.split())
    assert "is stored as 72x60 pixels, its labels are for 60x72: turned by EXIF" in said
    assert json.loads(result.stdout)["unreadable"] == 8  # of two epochs
    strict = train(spots, tmp_path / "run2", "--strict")
    assert strict.exit_code == 3
    assert "turned by EXIF" in " ".join(strict.stderr.split())


def test_one_person_left_over_of_the_smallest_crops_is_one_line(tmp_path):
    spots = write_spots(tmp_path / "spots", photos=5)
    result = train(spots, tmp_path / "run", "--input", "32x32")
    assert result.exit_code == 7
    assert "batch norms cannot learn from 1 person at 32x32" in result.stderr


def test_fine_tuning_that_never_reaches_the_backbone_says_so(spots, tmp_path):
    assert train(spots, tmp_path / "run").exit_code == 0
    result = hrnet(
        *("fine-tune", "--from", tmp_path / "run" / "last.safetensors", "--dataset", spots),
        *("--frozen-epochs", "2", "--epochs", "2", "--device", "cpu", "--out", tmp_path / "tuned"),
    )
    assert "only the last layer learns: the others are frozen for 2 epochs" in result.stderr


def test_a_recipe_file_names_unknown_keys(spots, tmp_path):
    (tmp_path / "my.toml").write_text("[optimizer]\nlearing_rate = 1.0\n")
    result = train(spots, tmp_path / "run", "--config", tmp_path / "my.toml")
    assert result.exit_code == 5
    assert "unknown key 'optimizer.learing_rate'" in result.stderr
    assert "did you mean 'optimizer.learning_rate'?" in result.stderr


def test_missing_data_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = hrnet("train", "--dataset", "coco", "--width", "48", "--from-scratch")
    assert result.exit_code == 3
    assert "data/coco" in result.stderr
    assert not (tmp_path / "hrnet-runs").exists()


def test_fine_tune_needs_a_start(spots):
    result = hrnet("fine-tune", "--dataset", spots)
    assert result.exit_code == 2
    assert "--from" in result.stderr


def test_tensorboard_files(spots, tmp_path):
    pytest.importorskip("tensorboard")
    assert train(spots, tmp_path / "run", "--tensorboard").exit_code == 0
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.*"))


def test_tensorboard_missing(spots, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    result = train(spots, tmp_path / "run", "--tensorboard")
    assert result.exit_code == 2
    assert "pip install 'hrnet-cli[tensorboard]'" in result.stderr
