"""Losses and their gradients against the official code and MMPose, in float64 and float32."""

import numpy as np
import pytest
import torch

from hrnet_cli.loss import heatmap_mse, keypoint_mse, ohkm_mse


def mmpose_ohkm(heatmaps, targets, weights):
    # MMPose leaves out the factor 1/2 of the official code, here as in its plain error.
    return 2 * ohkm_mse(heatmaps, targets, weights)


def skip_empty(heatmaps, targets, weights):
    return keypoint_mse(heatmaps, targets, weights, skip_empty=True)


def four_worst(heatmaps, targets, weights):
    return ohkm_mse(heatmaps, targets, weights, 4)


# Name of the arrays: our loss, whether with weights, crops of the batch.
LOSSES = {
    "joints_mse_w": (heatmap_mse, True, 4),
    "joints_mse_now": (heatmap_mse, False, 4),
    "joints_mse_w_batch1": (heatmap_mse, True, 1),
    "ohkm8_w": (ohkm_mse, True, 4),
    "ohkm8_now": (ohkm_mse, False, 4),
    "ohkm8_now_batch2": (ohkm_mse, False, 2),
    "ohkm8_w_batch1": (ohkm_mse, True, 1),
    "ohkm4_w": (four_worst, True, 4),
    "mm_kptmse_w": (keypoint_mse, True, 4),
    "mm_kptmse_now": (keypoint_mse, False, 4),
    "mm_kptmse_skipempty_w": (skip_empty, True, 4),
    "mm_ohkm8": (mmpose_ohkm, True, 4),
}
# float32 differs from the reference's float64 by roundings of 6e-8 in sums of 13,000 squares.
RELATIVE = {torch.float64: 1e-9, torch.float32: 1e-5}


@pytest.fixture(scope="module")
def reference(golden):
    return golden("losses.npz")


def test_every_loss_of_the_file_is_compared(reference):
    named = {key.removesuffix("_loss") for key in reference if key.endswith("_loss")}
    assert named == set(LOSSES)


@pytest.mark.parametrize("dtype", RELATIVE, ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradient_are_those_of_the_reference(name, dtype, reference):
    loss_of, weighted, crops = LOSSES[name]
    heatmaps, targets, weights = (
        torch.from_numpy(reference[key][:crops]).to(dtype)
        for key in ("output", "target", "target_weight")
    )
    heatmaps.requires_grad_()
    loss = loss_of(heatmaps, targets, weights[..., 0] if weighted else None)
    loss.backward()
    relative = RELATIVE[dtype]
    assert loss.dtype == dtype
    assert loss.item() == pytest.approx(float(reference[f"{name}_loss"]), rel=relative)
    if f"{name}_grad_norm" not in reference:
        return
    norm = heatmaps.grad.norm().item()
    assert norm == pytest.approx(float(reference[f"{name}_grad_norm"]), rel=relative)
    sample = reference[f"{name}_grad_sample"]
    tiny = relative * np.abs(sample).max()
    ours = heatmaps.grad[:2, :, ::5, ::5].numpy()
    np.testing.assert_allclose(ours, sample, rtol=relative, atol=tiny)


def test_the_weights_of_the_file_can_tell_squared_from_plain(reference):
    assert {0, 0.5, 1, 1.5} <= set(np.unique(reference["target_weight"]))
