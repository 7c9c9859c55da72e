"""Training on a CUDA device; skipped where there is none."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hrnet_cli.run_folder import open_run
from hrnet_cli.step_graph import StepGraph
from hrnet_cli.training import Place, train
from hrnet_cli.training_data import open_training_data
from training_data import configure, write_spots

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_learns_on_the_gpu(tmp_path, precision):
    spots = write_spots(tmp_path / "spots")
    config = configure(
        spots,
        run__precision=precision,
        run__deterministic=False,
        run__search_kernels=False,
        optimizer__epochs=16,
    )
    losses, result = losses_of(config, tmp_path / "run")
    assert losses[-1] < 0.8 * losses[0]
    assert result.model.is_file()


def test_recorded_steps_learn_as_others_do(tmp_path):
    spots = write_spots(tmp_path / "spots")
    config = configure(
        spots,
        run__precision="bf16",
        run__deterministic=False,
        run__search_kernels=False,
        run__batch_size=3,  # of eight people: an epoch's last step is smaller, and not recorded
        optimizer__epochs=16,
    )
    plain, _ = losses_of(config, tmp_path / "plain")
    recorded, _ = losses_of(replace(config, run=replace(config.run, graphs=True)), tmp_path / "rec")
    np.testing.assert_allclose(recorded[0], plain[0], rtol=0.1)
    assert recorded[-1] < 0.8 * recorded[0]
    np.testing.assert_allclose(recorded[-1], plain[-1], rtol=0.2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no second CUDA device")
def test_steps_are_recorded_on_the_device_of_their_inputs():
    weight = torch.nn.Parameter(torch.ones(3, device="cuda:1"))
    inputs = torch.arange(3.0, device="cuda:1")
    step = StepGraph(lambda x: (weight * x).square().sum(), [weight], (inputs,))
    assert step((2 * inputs,)).item() == 20
    assert weight.grad.tolist() == [0, 8, 32]


def losses_of(config, folder):
    losses = []
    result = train(
        config,
        open_training_data(config.data),
        Place(open_run(folder), "cuda"),
        lambda event: losses.append(event.last.loss) if hasattr(event, "last") else None,
    )
    return losses, result


def test_the_largest_batch_is_found(tmp_path):
    spots = write_spots(tmp_path / "spots")
    config = configure(spots, run__batch_size=-1, run__deterministic=False, optimizer__epochs=1)
    lines = []
    train(
        config,
        open_training_data(config.data),
        Place(open_run(tmp_path / "run"), "cuda"),
        lines.append,
    )
    # Eight people are fewer than any GPU holds at 64x64.
    assert any("1 steps of 8 an epoch" in str(line) for line in lines)
