"""One training step of W32 against the official code: loss, gradients and batch statistics."""

import numpy as np
import pytest
import torch

from hrnet_cli.loss import heatmap_mse
from recipe_weights import recipe_network

WIDTH = 32


class Step:
    """A forward and a backward pass with batch statistics, by the product's network and loss."""

    def __init__(self, golden, dtype):
        reference = golden("train_w32_128x96.npz")
        network = recipe_network(str(reference["salt"]), WIDTH).to(dtype).train()
        pixels, target = (torch.from_numpy(reference[key]).to(dtype) for key in ("x", "target"))
        weights_BK = torch.from_numpy(reference["target_weight"][..., 0]).to(dtype)
        self.heatmaps = network(pixels)
        loss = heatmap_mse(self.heatmaps, target, weights_BK)
        loss.backward()
        self.loss = loss.item()
        self.gradients = {name: p.grad for name, p in network.named_parameters()}
        self.buffers = dict(network.named_buffers())

    def norms(self, names):
        return np.array([self.gradients[name].norm().item() for name in names])

    def statistics(self):
        return {n: b for n, b in self.buffers.items() if not n.endswith("num_batches_tracked")}


@pytest.fixture(scope="module")
def reference(golden):
    return golden("train_w32_128x96.npz")


@pytest.fixture(scope="module")
def summary(golden):
    return golden("forward_meta.json")["train_w32_128x96"]


@pytest.fixture(scope="module")
def double(golden):
    return Step(golden, torch.float64)


@pytest.fixture(scope="module")
def single(golden):
    return Step(golden, torch.float32)


def close_to_stored(ours, stored):
    """Hold float64 against values stored as float32, which lie within 6e-8 of what they were."""
    tiny = 1e-9 * np.abs(stored).max()
    np.testing.assert_allclose(ours.detach().numpy(), stored, rtol=2e-6, atol=tiny)


def test_the_loss_is_the_official_one(double, reference, summary):
    assert double.loss == pytest.approx(float(reference["loss"]), rel=1e-9)
    assert double.loss == pytest.approx(summary["loss_f64"], rel=1e-9)


def test_heatmaps_of_a_network_in_training_are_the_official_ones(double, reference, summary):
    close_to_stored(double.heatmaps, reference["heatmaps_train"])
    assert double.heatmaps.std().item() == pytest.approx(summary["out_std"], rel=1e-9)


def test_every_parameter_has_the_official_gradient_norm(double, reference):
    names = reference["param_names"].tolist()
    assert list(double.gradients) == names
    assert len(names) == 878
    np.testing.assert_allclose(double.norms(names), reference["grad_norm_f64"], rtol=1e-9)


def test_every_stored_gradient_is_the_official_one(double, reference):
    stored = {key.removeprefix("grad__"): a for key, a in reference.items() if "grad__" in key}
    assert len(stored) == 9
    for name, gradient in stored.items():
        close_to_stored(double.gradients[name], gradient)


def test_each_part_of_the_network_has_the_official_gradient_norm(double, summary):
    squares = dict.fromkeys(summary["grad_norm_by_top_module_f64"], 0.0)
    for name, gradient in double.gradients.items():
        squares[name.split(".")[0]] += gradient.square().sum().item()
    norms = {part: square**0.5 for part, square in squares.items()}
    assert norms == pytest.approx(summary["grad_norm_by_top_module_f64"], rel=1e-9)
    total = sum(squares.values()) ** 0.5
    assert total == pytest.approx(summary["total_grad_norm_f64"], rel=1e-9)


def test_batch_norms_remember_the_official_statistics(double, reference, summary):
    statistics = double.statistics()
    assert list(statistics) == reference["bn_buffer_names"].tolist()
    norms = [buffer.norm().item() for buffer in statistics.values()]
    np.testing.assert_allclose(norms, reference["bn_buffer_norm_f64"], rtol=1e-9)
    stored = {key.removeprefix("bn__"): a for key, a in reference.items() if key[:4] == "bn__"}
    assert len(stored) == 4
    for name, buffer in stored.items():
        close_to_stored(double.buffers[name], buffer)
    counters = {int(b) for n, b in double.buffers.items() if n.endswith("num_batches_tracked")}
    assert counters == {summary["num_batches_tracked_after"]}


def test_single_precision_stays_as_near_as_the_official_single_precision(
    single, double, reference, summary
):
    # The reference's own errors: loss 5e-7, heatmaps 5e-4 of values up to 20, gradient norms 5e-3
    # at most and 1.5e-4 in the middle. Another order of sums may do some times worse.
    assert single.loss == pytest.approx(summary["loss_f32"], rel=1e-5)
    off = (single.heatmaps.double() - double.heatmaps).abs().max().item()
    assert off < 10 * summary["out_maxabs_f32_vs_f64"]
    norms = single.norms(reference["param_names"])
    np.testing.assert_allclose(norms, reference["grad_norm_f32"], rtol=2e-2)
    errors = np.abs(norms / reference["grad_norm_f64"] - 1)
    assert errors.max() < 4 * summary["max_rel_err_gradnorm_f32_vs_f64"]
    assert np.median(errors) < 4 * summary["median_rel_err_gradnorm"]
    buffers = np.array([buffer.norm().item() for buffer in single.statistics().values()])
    np.testing.assert_allclose(buffers, reference["bn_buffer_norm_f64"], rtol=1e-4)
