"""The training loop: it learns, can be stopped anywhere, and several processes agree with one."""

import json
import os
import pickle
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.multiprocessing.spawn import spawn

from hrnet_cli import memory, run_folder, training
from hrnet_cli.checkpoint import load_model
from hrnet_cli.cli.train_display import epoch_line
from hrnet_cli.data.crops import EpochSampler, build_loader
from hrnet_cli.data.photos import PhotoFiles
from hrnet_cli.device import processors
from hrnet_cli.distributed import Team, join_team, leave_team
from hrnet_cli.errors import ConfigError, DeviceError, InputError, TrainingError
from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.recipe import load_config
from hrnet_cli.run_events import EpochReport, StepReport
from hrnet_cli.run_folder import open_run
from hrnet_cli.run_state import WORKERS_A_PROCESSOR, Run
from hrnet_cli.training import Place, train
from hrnet_cli.training_data import open_training_data
from training_data import come_late, configure, train_as_rank, write_spots


@pytest.fixture(autouse=True)
def _leave_torch_as_it_was():
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def spots(tmp_path):
    return write_spots(tmp_path / "spots")


def run_in(folder, config, *, resume=False, on_event=lambda _event: None):
    data = open_training_data(config.data)
    return train(config, data, Place(open_run(folder, resume=resume), resume=resume), on_event)


def steady_rows(folder):
    """Return the figures of a run that do not depend on the machine's speed."""
    timed = {"samples_per_s", "data_wait", "seconds", "memory_mb"}
    return [
        {key: value for key, value in row.items() if key not in timed}
        for row in run_folder.read_metrics(run_folder.RunFolder(folder))
    ]


def test_a_run_learns_and_leaves_a_model_with_its_keypoints(spots, tmp_path):
    config = configure(
        spots,
        optimizer__epochs=16,
        optimizer__ema=0.5,
        optimizer__clip_norm=1.0,
        run__eval_every=4,
    )
    events = []
    result = run_in(tmp_path / "run", config, on_event=events.append)
    epochs = [event for event in events if isinstance(event, EpochReport)]
    assert [event.last.epoch for event in epochs] == list(range(1, 17))
    # Between seeds the loss falls to 0.73 to 0.82; a network that learns nothing stays at 1.
    losses = [event.loss for event in events if isinstance(event, StepReport) and event.step]
    assert np.mean(losses[-6:]) < 0.9 * np.mean(losses[:6])
    assert set(epochs[-1].metrics) == {"AP", "AP50", "PCK", "loss"}
    _, spec, report = load_model(result.model)
    assert report.complete
    assert spec.schema.keypoints == ("left_spot", "right_spot", "middle_spot")
    assert (spec.width, spec.input_hw, spec.codec) == (4, (64, 64), "dark")
    summary = json.loads(result.folder.summary.read_text())
    assert summary["schema"] == "hrnet-train/1"
    assert summary["data"]["people"] == 8
    assert len(list(result.folder.samples.glob("epoch-0016-*.jpg"))) == 1
    assert load_config(str(result.folder.config)) == config


@pytest.mark.parametrize("step", [1, 3], ids=["mid-epoch", "second epoch"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_and_resumed_run_equals_one_in_one_go(spots, tmp_path, step, number):
    config = configure(spots, optimizer__ema=0.9)
    run_in(tmp_path / "whole", config)
    seen = []

    def stop_there(event):
        if isinstance(event, StepReport):
            seen.append(event)
            if len(seen) == step:
                os.kill(os.getpid(), number)

    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path / "parts", config, on_event=stop_there)
    assert len(seen) == step
    run_in(tmp_path / "parts", config, resume=True)
    assert steady_rows(tmp_path / "parts") == steady_rows(tmp_path / "whole")
    for name in ("last", "best"):
        whole = load_file(tmp_path / "whole" / f"{name}.safetensors")
        parts = load_file(tmp_path / "parts" / f"{name}.safetensors")
        assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_a_run_that_died_goes_on_from_the_state_saved_last(spots, tmp_path):
    config = configure(spots, run__save_minutes=1e-9)
    run_in(tmp_path / "whole", config)

    def die(event):
        if isinstance(event, StepReport) and (event.epoch, event.step) == (2, 2):
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        run_in(tmp_path / "parts", config, on_event=die)
    lines = []
    run_in(tmp_path / "parts", config, resume=True, on_event=lines.append)
    assert any("resuming in epoch 2 of 2 after 1 of its 2 steps" in str(line) for line in lines)
    whole = load_file(tmp_path / "whole" / "last.safetensors")
    parts = load_file(tmp_path / "parts" / "last.safetensors")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)


def test_a_run_that_goes_on_remembers_how_it_began(spots, tmp_path, monkeypatch):
    monkeypatch.setattr("hrnet_cli.training._now", iter(f"{n} o'clock" for n in range(9)).__next__)
    for epochs, command in enumerate(("hrnet train", "hrnet train --resume", "again"), start=1):
        config = configure(spots, optimizer__epochs=epochs)
        folder = open_run(tmp_path / "run", resume=epochs > 1)
        place = Place(folder, resume=epochs > 1, command=command)
        result = train(config, open_training_data(config.data), place)
        summary = json.loads(result.folder.summary.read_text())
        assert (summary["command"], summary["started"]) == ("hrnet train", "0 o'clock")
    assert summary["resumed"] == ["hrnet train --resume", "again"]
    assert summary["finished"] == "3 o'clock"


@pytest.mark.parametrize("worth", [True, False])
def test_a_stop_while_measuring_keeps_the_epoch(spots, tmp_path, monkeypatch, worth):
    config = configure(spots, optimizer__epochs=1)
    monkeypatch.setattr("hrnet_cli.training._worth_saving", lambda _loop: worth)
    run_in(tmp_path / "whole", config)

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hrnet_cli.training.measure", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_in(tmp_path / "parts", config)
    events = []
    run_in(tmp_path / "parts", config, resume=True, on_event=events.append)
    assert steady_rows(tmp_path / "parts") == steady_rows(tmp_path / "whole")
    # No step was done at any speed.
    (row,) = run_folder.read_metrics(run_folder.RunFolder(tmp_path / "parts"))
    assert (row["samples_per_s"], row["data_wait"]) == ("", "")
    assert "people/s" not in epoch_line(events[-1])


@pytest.mark.parametrize("cache", ["ram", "packed"])
def test_cached_photos_give_the_same_weights(spots, tmp_path, cache):
    run_in(tmp_path / "files", configure(spots, optimizer__epochs=1))
    config = configure(
        spots,
        optimizer__epochs=1,
        data__cache=cache,
        data__cache_file=str(tmp_path / "photos") if cache == "packed" else "",
    )
    run_in(tmp_path / cache, config)
    files = load_file(tmp_path / "files" / "last.safetensors")
    cached = load_file(tmp_path / cache / "last.safetensors")
    assert all(torch.equal(files[key], cached[key]) for key in files)


def test_photos_are_decoded_once_where_they_are_shared(tmp_path, monkeypatch):
    spots = write_spots(tmp_path / "spots")
    labels = json.loads(spots.read_text())
    labels["annotations"] += [{**a, "id": a["id"] + 100} for a in labels["annotations"]]
    spots.write_text(json.dumps(labels))
    read = []
    real = PhotoFiles.read
    monkeypatch.setattr(
        PhotoFiles, "read", lambda self, photo: read.append(photo) or real(self, photo)
    )
    config = configure(spots, optimizer__epochs=1, data__share_photos=True)
    run_in(tmp_path / "run", config)
    assert sorted(read[:8]) == list(range(8))  # 16 people; what follows is measuring
    with pytest.raises(TrainingError, match=r"share_photos = true, this run has false"):
        run_in(tmp_path / "run", configure(spots), resume=True)


def test_a_thousand_workers_are_not_begun(spots, tmp_path, monkeypatch):
    asked = []

    def load_here(*arguments, workers, **options):
        asked.append(workers)
        return build_loader(*arguments, workers=0, **options)

    monkeypatch.setattr("hrnet_cli.run_state.build_loader", load_here)
    run_in(tmp_path / "many", configure(spots, optimizer__epochs=1, data__workers=1000))
    assert set(asked) == {WORKERS_A_PROCESSOR * processors()}


def test_more_workers_than_processors_are_no_warning(recwarn):
    sampler = EpochSampler(2, batch_size=1, seed=0)
    build_loader([0, 1], sampler, workers=WORKERS_A_PROCESSOR * processors())
    assert not recwarn.list


def test_workers_give_the_same_weights(spots, tmp_path):
    run_in(tmp_path / "none", configure(spots, optimizer__epochs=1))
    run_in(tmp_path / "two", configure(spots, optimizer__epochs=1, data__workers=2))
    none = load_file(tmp_path / "none" / "last.safetensors")
    two = load_file(tmp_path / "two" / "last.safetensors")
    assert all(torch.equal(none[key], two[key]) for key in none)


def test_two_processes_with_half_the_batch_equal_one_with_the_whole(spots, tmp_path, free_port):
    # Statistics are frozen: those of half a batch are others than those of the whole.
    overrides = {"optimizer__batch_norm": "frozen", "optimizer__learning_rate": 1e-4}
    events = []
    run_in(tmp_path / "one", configure(spots, **overrides), on_event=events.append)
    one = [event.loss for event in events if isinstance(event, StepReport) and event.step]
    spawn(train_as_rank, (2, free_port, spots, tmp_path / "two", overrides), nprocs=2)
    two = json.loads((tmp_path / "two" / "losses.json").read_text())
    # Step by step; float32 sums in another order.
    np.testing.assert_allclose(two, one, rtol=1e-5)
    alone = load_file(tmp_path / "one" / "last.safetensors")
    together = load_file(tmp_path / "two" / "last.safetensors")
    for key in alone:
        # Adam divides by the gradient's size: where it is all but 0, a step may differ by a part
        # of the learning rate.
        np.testing.assert_allclose(together[key], alone[key], atol=2e-4, rtol=1e-4)


def test_two_processes_measure_what_one_does(spots, tmp_path, free_port):
    # With weights that stand still the scores differ by what is counted, not by what was learnt.
    overrides = {"optimizer__batch_norm": "frozen", "optimizer__learning_rate": 1e-12}
    run_in(tmp_path / "one", configure(spots, **overrides))
    spawn(train_as_rank, (2, free_port, spots, tmp_path / "two", overrides), nprocs=2)
    scores = [
        [{key: row[key] for key in row if key.startswith("val_")} for row in steady_rows(folder)]
        for folder in (tmp_path / "one", tmp_path / "two")
    ]
    losses = [[float(row.pop("val_loss")) for row in rows] for rows in scores]
    assert scores[0] == scores[1]
    assert len(scores[0]) == 2
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


@pytest.mark.parametrize("loss", ["mse", "ohkm"])
def test_the_loss_measured_is_that_of_the_training(loss, tmp_path):
    # Crops as they are, weights and statistics that stand still, and the same people in both. One
    # of ten has no photo: it must not count as learnt, and nine make whole batches without it.
    spots = write_spots(tmp_path / "ten", photos=10)
    (tmp_path / "ten" / "004.png").unlink()
    labels = json.loads(spots.read_text())
    unvaried = {"scale": 0.0, "rotation_prob": 0.0, "flip_prob": 0.0, "half_body_prob": 0.0}
    config = configure(
        spots,
        optimizer__batch_norm="frozen",
        optimizer__learning_rate=1e-12,
        optimizer__epochs=1,
        optimizer__loss=loss,
        run__batch_size=3,
        **{f"augment__{key}": value for key, value in unvaried.items()},
    )
    run_in(tmp_path / "gap", config)
    for key in ("images", "annotations"):
        labels[key] = [part for part in labels[key] if part.get("image_id", part["id"]) != 4]
    spots.write_text(json.dumps(labels))
    run_in(tmp_path / "run", config)
    [with_gap], [row] = steady_rows(tmp_path / "gap"), steady_rows(tmp_path / "run")
    assert float(row["val_loss"]) > 0
    assert float(row["val_loss"]) == pytest.approx(float(row["loss"]), rel=1e-4)
    assert float(with_gap["val_loss"]) == pytest.approx(float(row["val_loss"]), rel=1e-4)


def test_a_process_that_does_not_come_is_named(tmp_path, free_port):
    spawn(come_late, (free_port, tmp_path), nprocs=2)
    message = (tmp_path / "message").read_text()
    assert "waited 2 s at the end of epoch 1" in message
    assert "1" in message.split("epoch 1:")[1]


def test_a_launcher_that_says_half_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="WORLD_SIZE is set but"):
        join_team("cpu", 10)
    leave_team()


def test_a_team_of_one_talks_to_itself():
    team = Team()
    assert team.leads
    assert team.gather(3) == [3]
    assert team.share("x") == "x"
    team.meet("anywhere")


def test_a_loss_that_is_no_number_stops_with_step_and_samples(spots, tmp_path):
    config = configure(spots, optimizer__learning_rate=1e30)
    with pytest.raises(TrainingError, match=r"the loss is nan at step \d of epoch \d") as caught:
        run_in(tmp_path / "run", config)
    assert ".png (person " in caught.value.message
    assert caught.value.exit_code == 7


def test_weights_that_the_last_step_ruined_are_not_saved(spots, tmp_path, monkeypatch):
    # The loss of the epoch's last step is a number; what the step makes of the weights is none.
    config = configure(spots)
    step, steps = torch.optim.Adam.step, []

    def ruin(self, *args, **kwargs):
        done = step(self, *args, **kwargs)
        steps.append(1)
        if len(steps) == 4:
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(float("inf"))
        return done

    with monkeypatch.context() as patched:
        patched.setattr(torch.optim.Adam, "step", ruin)
        with pytest.raises(TrainingError, match="no numbers any more after step 2 of epoch 2"):
            run_in(tmp_path / "run", config)
    assert len(steps) == 4
    for name in ("last", "best"):
        for values in load_file(tmp_path / "run" / f"{name}.safetensors").values():
            assert torch.isfinite(values).all()
    assert run_in(tmp_path / "run", config, resume=True).epochs == 2


def test_out_of_memory_names_a_batch_that_fits(spots, tmp_path, monkeypatch):
    def too_much(*_args):
        raise torch.OutOfMemoryError("no")

    monkeypatch.setattr(Run, "go_backward", too_much)
    with pytest.raises(DeviceError, match="out of memory for 4 people at 64x64") as caught:
        run_in(tmp_path / "run", configure(spots))
    assert "--batch-size" in caught.value.hint


def test_nobody_to_learn_from(spots, tmp_path):
    config = configure(spots)
    data = open_training_data(config.data)
    empty = replace(data, people=data.people.pick(np.zeros(8, bool)))
    with pytest.raises(InputError, match="has nobody to learn from"):
        train(config, empty, Place(open_run(tmp_path / "run")))


def test_missing_photos_are_said_or_refused(spots, tmp_path):
    (spots.parent / "003.png").unlink()
    lines = []
    run_in(tmp_path / "run", configure(spots, optimizer__epochs=1), on_event=lines.append)
    assert any("1 of 8 photos of" in str(line) for line in lines)
    with pytest.raises(InputError, match="1 of 8 photos"):
        run_in(tmp_path / "strict", configure(spots, data__strict=True))


def test_a_broken_photo_is_counted_or_refused(spots, tmp_path):
    (spots.parent / "003.png").write_bytes(b"no picture")
    events = []
    run_in(tmp_path / "run", configure(spots, optimizer__epochs=1), on_event=events.append)
    assert [e.last.unreadable for e in events if isinstance(e, EpochReport)] == [1]
    with pytest.raises(InputError, match=r"003\.png"):
        run_in(tmp_path / "strict", configure(spots, data__strict=True))


def test_frozen_epochs_move_the_head_only(spots, tmp_path):
    start = configure(spots, optimizer__epochs=1)
    first = run_in(tmp_path / "start", start).folder.last
    config = configure(
        spots, model__start=str(first), optimizer__epochs=1, optimizer__frozen_epochs=1
    )
    before, after = load_file(first), load_file(run_in(tmp_path / "run", config).folder.last)
    moved = {k for k in before if "running" not in k and not torch.equal(before[k], after[k])}
    assert {k for k in moved if "num_batches" not in k} == {
        "final_layer.weight",
        "final_layer.bias",
    }


def test_patience_stops_early(spots, tmp_path, monkeypatch):
    config = configure(spots, optimizer__epochs=4, run__patience=1)
    monkeypatch.setattr(training, "measure", lambda *_args, **_more: {"AP": 0.5})
    result = run_in(tmp_path / "run", config)
    assert (result.best, result.epochs, result.best_epoch) == (0.5, 2, 2)
    # Nothing found yet is no reason to stop: learning may be on its way there.
    monkeypatch.setattr(training, "measure", lambda *_args, **_more: {"AP": 0.0})
    result = run_in(tmp_path / "nothing", config)
    assert (result.best, result.epochs, result.best_epoch) == (0, 4, 4)


class Clock:
    """Time that passes in epochs only: each takes as many seconds as asked."""

    def __init__(self, monkeypatch, each):
        self.now = 0.0
        train_epoch = training._train_epoch

        def timed(loop):
            report = train_epoch(loop)
            self.now += each
            return report

        monkeypatch.setattr(training, "_train_epoch", timed)
        monkeypatch.setattr(training, "time", self)

    def monotonic(self):
        return self.now


def test_a_run_does_the_epochs_that_fit_into_its_hours(spots, tmp_path, monkeypatch):
    Clock(monkeypatch, each=36.0)
    config = configure(
        spots, optimizer__epochs=2, optimizer__schedule="cosine", run__hours=0.05, run__eval_every=0
    )
    events = []
    result = run_in(tmp_path / "run", config, on_event=events.append)
    epochs = [event for event in events if isinstance(event, EpochReport)]
    assert (result.epochs, len(epochs)) == (5, 5)
    assert [bool(event.metrics) for event in epochs] == [False] * 4 + [True]
    assert epochs[-1].last.learning_rate < 0.02 * epochs[0].last.learning_rate
    # With more time it goes on, and with no more it is done.
    longer = replace(config, run=replace(config.run, hours=0.07))
    assert run_in(tmp_path / "run", longer, resume=True).epochs == 7
    assert run_in(tmp_path / "run", longer, resume=True).epochs == 7
    # Less than one epoch is one.
    config = replace(config, run=replace(config.run, hours=0.001))
    assert run_in(tmp_path / "short", config).epochs == 1


def test_states_are_not_saved_so_often_that_they_slow_the_run(spots, tmp_path, monkeypatch):
    clock = Clock(monkeypatch, each=75.0)
    saved = []

    def save(folder, state):
        clock.now += 2.0
        saved.append(state["progress"]["epoch"])

    monkeypatch.setattr(training.run_folder, "save_state", save)
    config = configure(spots, optimizer__epochs=7, run__eval_every=0, run__save_minutes=5.0)
    run_in(tmp_path / "run", config)
    # Two seconds are a fiftieth of a hundred: every other epoch. The last one is saved before it is
    # measured, too.
    assert saved == [1, 3, 5, 6, 7]


def test_a_resumed_run_refuses_other_keypoints_and_batches(spots, tmp_path):
    run_in(tmp_path / "run", configure(spots, optimizer__epochs=1))
    with pytest.raises(TrainingError, match="in batches of 4, this run would take 2"):
        run_in(tmp_path / "run", configure(spots, run__batch_size=2), resume=True)
    other = write_spots(tmp_path / "other", names=["a", "b"])
    with pytest.raises(TrainingError, match="has 3 keypoints"):
        run_in(tmp_path / "run", configure(other), resume=True)


def test_a_resumed_run_says_when_the_labels_changed(spots, tmp_path):
    run_in(tmp_path / "run", configure(spots, optimizer__epochs=1))
    spots.write_text(spots.read_text().replace('"area": 3600.0', '"area": 3000.0'))
    lines = []
    run_in(tmp_path / "run", configure(spots), resume=True, on_event=lines.append)
    assert "the labels are not those the run was started with" not in lines  # areas do not teach
    changed = json.loads(spots.read_text())
    changed["annotations"][0]["keypoints"][0] += 1
    spots.write_text(json.dumps(changed))
    config = configure(spots, optimizer__epochs=3)
    run_in(tmp_path / "run", config, resume=True, on_event=lines.append)
    assert "the labels are not those the run was started with" in lines


def test_a_resumed_run_does_not_compare_different_measurements(spots, tmp_path):
    lines = []

    def best_of(epochs, **changes):
        config = configure(spots, optimizer__epochs=epochs, **changes)
        lines.clear()
        result = run_in(tmp_path / "run", config, resume=epochs > 1, on_event=lines.append)
        summary = json.loads(result.folder.summary.read_text())
        best = summary["best"]
        assert best["value"] == pytest.approx(summary["last"][f"val_{best['metric']}"], rel=1e-6)
        assert best["epoch"] == epochs
        return [line for line in lines if str(line).startswith("the best is now by")]

    assert best_of(1, run__metric="PCK") == []
    # The first is above 0, AP is not so soon.
    why = "measurements by others do not count"
    assert best_of(2) == [f"the best is now by AP on spots: {why}"]
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    state["progress"]["best"] = 0.9
    torch.save(state, tmp_path / "run" / "state.pt")
    other = write_spots(tmp_path / "other", photos=4, seed=1)
    assert best_of(3, data__val=str(other)) == [f"the best is now by AP on spots: {why}"]
    # Elsewhere, but the same.
    again = write_spots(tmp_path / "moved", photos=4, seed=1)
    assert best_of(4, data__val=str(again)) == []


def test_a_schedule_that_never_steps_is_said(spots, tmp_path):
    lines = []
    run_in(tmp_path / "run", configure(spots, optimizer__epochs=1), on_event=lines.append)
    assert any("its first milestone is 170 epochs, the run has 1" in str(line) for line in lines)
    assert "2 steps in all are few: small data sets want more --epochs" in lines
    lines.clear()
    config = configure(spots, optimizer__epochs=1, optimizer__schedule="cosine")
    run_in(tmp_path / "cosine", config, on_event=lines.append)
    assert not any("milestone" in str(line) for line in lines)


def test_a_small_set_makes_one_batch(spots, tmp_path):
    result = run_in(tmp_path / "run", configure(spots, run__batch_size=128, optimizer__epochs=1))
    assert json.loads(result.folder.summary.read_text())["batch"] == 8


def test_a_batch_that_fills_the_memory_is_refused(spots, tmp_path, monkeypatch):
    monkeypatch.setattr("hrnet_cli.memory.free_bytes", lambda: 60_000_000)
    config = configure(spots, run__batch_size=8)
    with pytest.raises(DeviceError, match=r"a step of 8 people at 64x64, width 4, needs") as caught:
        run_in(tmp_path / "run", config)
    assert "--batch-size" in caught.value.hint
    assert caught.value.exit_code == 6


def test_the_memory_of_a_step_is_about_what_it_takes():
    network = HRNet(8, 3).train()
    statistics = {name: tensor.clone() for name, tensor in network.named_buffers()}
    small = memory.cpu_bytes(network, (64, 64), None)
    large = memory.cpu_bytes(network, (128, 64), None)
    # Feature maps make it up, and they grow with the crop.
    assert large == pytest.approx(2 * small, rel=0.02)
    # Stem alone: its first convolution keeps 64 x 32 x 32 floats, and batch norm and ReLU as many.
    assert small > 3 * 64 * 32 * 32 * 4
    assert all(torch.equal(statistics[name], t) for name, t in network.named_buffers())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_auto_batch_on_a_cpu_is_no_larger_than_pays(spots, tmp_path):
    config = configure(spots, run__batch_size=-1, optimizer__epochs=1)
    result = run_in(tmp_path / "run", config)
    assert json.loads(result.folder.summary.read_text())["batch"] == 8


@pytest.fixture
def another_process(monkeypatch):
    """Have a process beside this one say something whenever processes exchange values."""

    def say(value):
        monkeypatch.setattr(
            Team, "gather", lambda _, mine: [mine, pickle.loads(pickle.dumps(value))]
        )

    return say


def test_auto_batch_is_what_fits_in_every_process(spots, tmp_path, another_process):
    config = configure(spots, run__batch_size=-1, optimizer__epochs=1, data__val="")
    another_process(4)
    result = run_in(tmp_path / "run", config)
    assert json.loads(result.folder.summary.read_text())["batch"] == 4
    another_process(DeviceError("cuda:1: out of memory for 16 people", hint="a smaller --input"))
    with pytest.raises(DeviceError, match="cuda:1: out of memory for 16 people") as caught:
        run_in(tmp_path / "none", config)
    assert caught.value.hint == "a smaller --input"


def test_a_batch_that_fills_the_memory_of_one_process_is_refused_in_all(
    spots, tmp_path, another_process
):
    config = configure(spots, run__batch_size=8, optimizer__epochs=1, data__val="")
    another_process((5, 3 * memory.GB))
    with pytest.raises(DeviceError, match=r"needs about 0 GB of memory, 3 GB are free") as caught:
        run_in(tmp_path / "run", config)
    assert caught.value.hint == "--batch-size 5 fits; the learning rate follows it"
