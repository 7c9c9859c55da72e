"""The speed that a training tells is that of the steps to come."""

from types import SimpleNamespace

import pytest

from hrnet_cli import pace
from hrnet_cli.cli.train_display import step_line
from hrnet_cli.recipe import TrainConfig


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests turn."""
    hands = SimpleNamespace(now=100.0)
    monkeypatch.setattr(pace.time, "monotonic", lambda: hands.now)
    return hands


@pytest.fixture
def run():
    progress = SimpleNamespace(epoch=0, step=0, samples=0, loss_sum=0.0, unreadable=0)
    config = SimpleNamespace(optimizer=TrainConfig().optimizer, learning_rate=lambda _batch: 1e-3)
    return SimpleNamespace(
        progress=progress,
        config=config,
        epoch_steps=100,
        batch=10,
        rated_batch=10,
        device="cpu",
        started=90.0,
        settled=False,
    )


def step(run, clock, seconds):
    clock.now += seconds
    run.progress.step += 1
    run.progress.samples += 10


def test_the_first_step_of_a_process_is_told_apart(run, clock):
    epoch = pace.Pace(run)
    step(run, clock, 50)
    first = epoch.report()
    assert first.samples_per_s == pytest.approx(0.2)
    assert not first.settled
    assert "left" not in step_line(first)
    step(run, clock, 2)
    step(run, clock, 2)
    report = epoch.report()
    assert report.samples_per_s == pytest.approx(5)
    assert report.settled
    assert report.seconds == pytest.approx(64)
    assert step_line(report).endswith(" h left")


def test_later_epochs_count_all_their_steps(run, clock):
    run.settled = True
    epoch = pace.Pace(run)
    step(run, clock, 4)
    assert epoch.report().samples_per_s == pytest.approx(2.5)
    step(run, clock, 1)
    assert epoch.report().samples_per_s == pytest.approx(4)
    assert epoch.report().settled


def test_before_a_step_nothing_is_settled(run, clock):
    epoch = pace.Pace(run)
    clock.now += 5
    assert not epoch.report().settled
    assert not run.settled
