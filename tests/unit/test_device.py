"""Choosing a device and seeding."""

import random

import pytest
import torch

from hrnet_cli.device import pick_device, set_seed
from hrnet_cli.errors import DeviceError, ExitCode


@pytest.fixture
def machine(monkeypatch):
    """Pretend to be a machine with some CUDA cards, with or without MPS."""

    def pretend(cards=0, mps=False):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("cards", "mps", "name", "picked"),
    [
        (0, False, "auto", "cpu"),
        (0, True, "auto", "mps"),
        (2, True, "auto", "cuda"),
        (2, False, "cpu", "cpu"),
        (2, False, "cuda", "cuda"),
        (2, False, "cuda:1", "cuda:1"),
        (0, True, "mps", "mps"),
    ],
)
def test_the_device_there_is(machine, cards, mps, name, picked):
    machine(cards, mps)
    assert pick_device(name) == picked


@pytest.mark.parametrize(
    ("cards", "mps", "name", "available"),
    [
        (0, False, "cuda", "cpu"),
        (0, True, "cuda:0", "mps, cpu"),
        (1, False, "cuda:1", "cuda, cuda:0, cpu"),
        (1, False, "mps", "cuda, cuda:0, cpu"),
    ],
)
def test_an_absent_device_is_an_error_that_lists_the_others(machine, cards, mps, name, available):
    machine(cards, mps)
    with pytest.raises(DeviceError) as caught:
        pick_device(name)
    assert caught.value.message == f"device '{name}' is not available; available: {available}"
    assert caught.value.hint == "use --device auto to take the best one there is"
    assert caught.value.exit_code == ExitCode.DEVICE


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", ""])
def test_an_unknown_device_is_an_error(name):
    with pytest.raises(DeviceError) as caught:
        pick_device(name)
    assert caught.value.message == (
        f"device '{name}' is not known; expected auto, cpu, cuda, cuda:N or mps"
    )


def test_equal_seeds_give_equal_numbers():
    def draw(seed):
        set_seed(seed)
        return random.random(), torch.rand(3).tolist()

    assert draw(7) == draw(7)
    assert draw(7)[0] != draw(8)[0]
    assert draw(7)[1] != draw(8)[1]
