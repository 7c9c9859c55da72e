"""Losses worked out by hand; the references' numbers are in tests/parity."""

import pytest
import torch

from hrnet_cli.loss import LOSSES, heatmap_mse, keypoint_mse, loss_function, ohkm_mse

# One crop, two keypoints, heatmaps of one row: errors of 1, 2 and of 3, 4.
HEATMAPS = torch.tensor([[[[1.0, 2.0]], [[3.0, 5.0]]]])
TARGETS = torch.tensor([[[[0.0, 0.0]], [[0.0, 1.0]]]])
WEIGHTS = torch.tensor([[0.5, 2.0]])


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        # Half the mean of 1, 4, 9, 16.
        ("mse", None, 30 / 4 / 2),
        # Weights enter squared: 0.25 * (1 + 4) + 4 * (9 + 16).
        ("mse", WEIGHTS, 101.25 / 4 / 2),
        ("keypoint-mse", None, 30 / 4),
        # Weights count once: 0.5 * (1 + 4) + 2 * (9 + 16).
        ("keypoint-mse", WEIGHTS, 52.5 / 4),
        # Fewer keypoints than are mined: all of them.
        ("ohkm", None, 30 / 4 / 2),
        ("ohkm", WEIGHTS, 101.25 / 4 / 2),
    ],
)
def test_losses_by_hand(name, weights, expected):
    loss = loss_function(name)(HEATMAPS, TARGETS, weights)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_the_worst_keypoints_are_mined_in_each_crop():
    # The second crop has its worst keypoint first.
    heatmaps = torch.cat([HEATMAPS, HEATMAPS.flip(1)])
    targets = torch.cat([TARGETS, TARGETS.flip(1)])
    loss = ohkm_mse(heatmaps, targets, None, 1)
    assert loss.item() == pytest.approx(25 / 2 / 2, rel=1e-6)
    # Weights decide what is worst: 4 * 5 against 0.01 * 25.
    weighed = ohkm_mse(HEATMAPS, TARGETS, torch.tensor([[2.0, 0.1]]), 1)
    assert weighed.item() == pytest.approx(4 * 5 / 2 / 2, rel=1e-6)


def test_empty_targets_may_be_left_out_but_still_count_in_the_mean():
    loss = keypoint_mse(HEATMAPS, TARGETS, None, skip_empty=True)
    assert loss.item() == pytest.approx((9 + 16) / 4, rel=1e-6)
    none = torch.zeros_like(TARGETS)
    assert keypoint_mse(HEATMAPS, none, None, skip_empty=True).item() == 0


def test_every_listed_loss_has_a_function():
    assert {name: loss_function(name) for name in LOSSES} == {
        "mse": heatmap_mse,
        "keypoint-mse": keypoint_mse,
        "ohkm": ohkm_mse,
    }


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("labelled", [0, 3, 17])
def test_unlabelled_keypoints_give_no_gradient_and_labelled_ones_do(name, labelled):
    torch.manual_seed(3)
    heatmaps = torch.randn(2, 17, 6, 4, requires_grad=True)
    weights = torch.zeros(2, 17)
    weights[:, :labelled] = 1
    loss = loss_function(name)(heatmaps, torch.rand(2, 17, 6, 4), weights)
    loss.backward()
    sizes = heatmaps.grad.abs().amax(dim=(2, 3))
    assert sizes[:, labelled:].count_nonzero() == 0
    mined = min(labelled, 8) if name == "ohkm" else labelled
    assert (sizes[:, :labelled].count_nonzero(dim=1) == mined).all()
    assert (loss > 0) == (labelled > 0)


@pytest.mark.parametrize("name", LOSSES)
def test_doubled_people_leave_the_loss_as_it_is(name):
    """A mean over the batch: the learning rate, not the loss, follows the batch."""
    once = loss_function(name)(HEATMAPS, TARGETS, WEIGHTS)
    twice = loss_function(name)(*(torch.cat([t, t]) for t in (HEATMAPS, TARGETS, WEIGHTS)))
    torch.testing.assert_close(once, twice)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", LOSSES)
# The square of the first is below the smallest half, 6e-8; that of the second above the largest.
@pytest.mark.parametrize("error", [2.0**-13, 2.0**9])
def test_half_heatmaps_are_compared_in_single_precision(name, dtype, error):
    heatmaps = torch.full((2, 17, 6, 4), error, dtype=dtype, requires_grad=True)
    targets = torch.zeros(2, 17, 6, 4)
    loss = loss_function(name)(heatmaps, targets, torch.ones(2, 17))
    loss.backward()
    assert loss_function(name)(heatmaps, targets.to(dtype), torch.ones(2, 17)) == loss
    half = 1 if name == "keypoint-mse" else 0.5
    assert loss.dtype == torch.float32
    assert loss.item() == half * error**2
    assert heatmaps.grad.dtype == dtype


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_does_not_make_the_loss_half(name):
    torch.manual_seed(3)
    heatmaps, targets = torch.randn(2, 17, 6, 4).bfloat16(), torch.rand(2, 17, 6, 4)
    weights = torch.rand(2, 17)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss_function(name)(heatmaps, targets, weights)
    outside = loss_function(name)(heatmaps.float(), targets, weights)
    assert inside.dtype == torch.float32
    assert inside.item() == outside.item()
