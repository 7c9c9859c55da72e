"""Choosing a device and seeding."""

import random
from pathlib import Path

import pytest
import torch

from hrnet_cli.device import pick_device, pick_precision, set_seed
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


@pytest.fixture
def arithmetic(monkeypatch):
    """Pretend to be a machine whose CUDA cards and processor do or do not compute in bf16."""

    def pretend(*, cuda=False, vectors="AVX512", flags="fpu avx512f avx512_bf16"):
        # What old cards emulate is slower than float32.
        monkeypatch.setattr(
            torch.cuda,
            "is_bf16_supported",
            lambda including_emulation=True: cuda or including_emulation,
        )
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: vectors)

        def read(path, **_options):
            if str(path) != "/proc/cpuinfo" or flags is None:
                raise FileNotFoundError
            return f"processor : 0\nflags : {flags}\n"

        monkeypatch.setattr(Path, "read_text", read)

    return pretend


@pytest.mark.parametrize(
    ("device", "machine", "picked"),
    [
        ("cuda", {"cuda": True}, "bf16"),
        ("cuda:1", {"cuda": True}, "bf16"),
        ("cuda:1", {"cuda": False}, "fp16"),
        ("mps", {"cuda": True}, "fp32"),
        ("cpu", {"flags": "fpu avx512_bf16 avx512f"}, "bf16"),
        ("cpu", {"flags": "fpu amx_bf16"}, "bf16"),
        ("cpu", {"flags": "fpu avx512f"}, "fp32"),
        ("cpu", {"flags": "fpu avx512_bf16_like"}, "fp32"),
        ("cpu", {"vectors": "AVX2"}, "fp32"),  # as ATEN_CPU_CAPABILITY may ask for
        ("cpu", {"flags": None}, "fp32"),  # no Linux
    ],
)
def test_the_fast_arithmetic_of_a_device(arithmetic, device, machine, picked):
    arithmetic(**machine)
    assert pick_precision("auto", device) == picked


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_an_arithmetic_that_is_asked_for_is_taken(arithmetic, device, name):
    """Also where it is slow: a run can be repeated on a lesser machine."""
    arithmetic(flags=None)
    assert pick_precision(name, device) == name


def test_fp16_needs_cuda(arithmetic):
    arithmetic(cuda=True)
    assert pick_precision("fp16", "cuda:0") == "fp16"
    for device in ("cpu", "mps"):
        with pytest.raises(DeviceError) as caught:
            pick_precision("fp16", device)
        assert caught.value.message == f"fp16 training needs CUDA, this run is on {device}"
        assert caught.value.hint == "--precision bf16 or fp32"
        assert caught.value.exit_code == ExitCode.DEVICE
