"""Training on a CUDA device; skipped where there is none."""

import pytest
import torch

from hrnet_cli.run_folder import open_run
from hrnet_cli.training import Place, train
from hrnet_cli.training_data import open_training_data
from training_data import configure, write_spots

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_learns_on_the_gpu(tmp_path, precision):
    spots = write_spots(tmp_path / "spots")
    config = configure(
        spots, run__precision=precision, run__deterministic=False, optimizer__epochs=6
    )
    losses = []
    result = train(
        config,
        open_training_data(config.data),
        Place(open_run(tmp_path / "run"), "cuda"),
        lambda event: losses.append(event.last.loss) if hasattr(event, "last") else None,
    )
    assert losses[-1] < 0.8 * losses[0]
    assert result.model.is_file()


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
