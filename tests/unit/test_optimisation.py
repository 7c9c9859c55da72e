"""Learning rates, parameter groups and the moving average, worked out by hand."""

import math

import pytest
import torch
from torch import nn

from hrnet_cli.models.hrnet import HRNet
from hrnet_cli.optimisation import (
    build_optimizer,
    freeze_statistics,
    moving_average,
    rate_factor,
    set_rates,
)
from hrnet_cli.recipe import OptimizerConfig, load_config


def factors(epoch_steps, steps, **fields):
    config = OptimizerConfig(**fields)
    return [rate_factor(config, step, epoch_steps) for step in steps]


# ---------------------------------------------------------------- learning rate


def test_steps_drop_after_the_milestone_epochs():
    """As MultiStepLR with an epoch counter: the first step of epoch 2, from 0, is the first low."""
    found = factors(10, [0, 19, 20, 39, 40, 999], milestones=(2, 4), epochs=9)
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_steps_equal_the_official_schedule_of_torch():
    parameter = nn.Parameter(torch.zeros(1))
    adam = torch.optim.Adam([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.MultiStepLR(adam, [170, 200], 0.1)
    official = []
    for _ in range(210):
        official.append(adam.param_groups[0]["lr"])
        adam.step()
        schedule.step()
    assert factors(7, range(3, 7 * 210, 7)) == pytest.approx(official)


def test_warm_up_rises_in_equal_steps_to_the_whole_rate():
    found = factors(100, range(6), warmup_steps=4)
    assert found == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_warm_up_and_schedule_are_multiplied():
    found = factors(2, range(4), warmup_steps=4, milestones=(1,))
    assert found == pytest.approx([0.25, 0.5, 0.075, 0.1])


def test_cosine_falls_from_one_to_the_final_factor_at_the_last_step():
    found = factors(1, [0, 1, 2, 3, 4, 5], schedule="cosine", epochs=5, final_factor=0.2)
    eighth = 0.2 + 0.8 * (1 + math.sqrt(0.5)) / 2
    # The step after the last stays at the end.
    assert found == pytest.approx([1, eighth, 0.6, 0.2 + 1 - eighth, 0.2, 0.2])


def test_cosine_changes_every_step_and_not_every_epoch():
    found = factors(5, range(10), schedule="cosine", epochs=2, final_factor=0)
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == 10


def test_a_run_of_one_step_has_the_whole_rate():
    assert factors(1, [0], schedule="cosine", epochs=1) == [1]


# ---------------------------------------------------------------- parameter groups


def configured(**values):
    return load_config(overrides={f"optimizer.{key}": value for key, value in values.items()})


def test_backbone_and_head_are_two_groups_that_hold_every_parameter_once():
    network = HRNet(4, 3)
    backbone, head = build_optimizer(network, configured(weight_decay=0.25)).param_groups
    assert [id(p) for p in head["params"]] == [id(p) for p in network.final_layer.parameters()]
    both = [id(p) for group in (backbone, head) for p in group["params"]]
    assert len(both) == len(set(both))
    assert set(both) == {id(p) for p in network.parameters()}
    assert (backbone["weight_decay"], head["weight_decay"]) == (0.25, 0.25)


def test_the_official_recipe_has_no_weight_decay():
    groups = build_optimizer(HRNet(4, 3), load_config("official")).param_groups
    assert [group["weight_decay"] for group in groups] == [0, 0]


def test_rates_follow_the_batch_the_schedule_and_the_group():
    config = configured(
        learning_rate=0.5, learning_rate_batch=8, backbone_rate=0.25, milestones=(2,), epochs=4
    )
    optimizer = build_optimizer(HRNet(4, 3), config)

    def rates(step):
        rate = set_rates(optimizer, config, batch=16, step=step, epoch_steps=10)
        backbone, head = (group["lr"] for group in optimizer.param_groups)
        assert rate == head
        return [backbone, head]

    assert rates(0) == pytest.approx([0.25, 1.0])
    assert rates(20) == pytest.approx([0.025, 0.1])


def test_a_frozen_backbone_stays_while_the_head_moves():
    config = configured(frozen_epochs=2, learning_rate=0.01, weight_decay=0.1)
    torch.manual_seed(0)
    network = HRNet(4, 3)
    optimizer = build_optimizer(network, config)
    before = {name: p.detach().clone() for name, p in network.named_parameters()}

    def step_and_compare(step):
        set_rates(optimizer, config, batch=128, step=step, epoch_steps=3)
        network(torch.randn(2, 3, 64, 32)).square().mean().backward()
        optimizer.step()
        return {name for name, p in network.named_parameters() if not torch.equal(p, before[name])}

    head = {"final_layer.weight", "final_layer.bias"}
    assert step_and_compare(0) == head
    assert step_and_compare(5) == head  # the last step of the second epoch
    assert len(step_and_compare(6)) > 100


# ---------------------------------------------------------------- moving average


def network_with(value):
    """Return a network of one weight and one batch norm, all of whose numbers are ``value``."""
    network = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    for tensor in network.state_dict().values():
        tensor.fill_(value)
    return network


def values(average):
    state = average.module.state_dict()
    return {key: t.item() for key, t in state.items() if t.is_floating_point()}


def test_the_moving_average_by_hand_with_batch_statistics():
    network = network_with(1.0)
    average = moving_average(network, decay=0.25)
    expected = None
    # The first update copies; then the decay is (1 + n) / (10 + n) until that passes 0.25.
    decays = [0, 2 / 11, 3 / 12, 0.25, 0.25]
    for value, decay in zip([2.0, 5.0, -4.0, 8.0, 1.0], decays, strict=True):
        for tensor in network.state_dict().values():
            tensor.fill_(value)
        average.update_parameters(network)
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert values(average) == {
            name: pytest.approx(expected, rel=1e-6)
            for name in ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var")
        }


def test_the_average_stands_apart_and_the_network_stays_as_it_is():
    network = network_with(1.0)
    average = moving_average(network, decay=0.9)
    average.update_parameters(network)
    network[0].weight.data.fill_(3.0)
    average.update_parameters(network)
    assert network[0].weight.item() == 3.0
    assert values(average)["0.weight"] == pytest.approx(1 + 2 * 9 / 11, rel=1e-6)


def test_a_restored_average_goes_on_where_it_was():
    network = network_with(1.0)
    whole, parted = (moving_average(network, decay=0.9) for _ in range(2))
    for value in (1.0, 2.0, 3.0, 4.0):
        network[0].weight.data.fill_(value)
        whole.update_parameters(network)
        parted.update_parameters(network)
        restored = moving_average(network, decay=0.9)
        restored.load_state_dict(parted.state_dict())
        parted = restored
    assert values(parted) == values(whole)


def test_an_update_does_not_wait_for_the_device():
    """On a GPU the count comes as a tensor there; reading it would stop the run at every step."""
    average = moving_average(network_with(1.0), decay=0.9)
    assert average.n_averaged.device.type == "cpu"
    held = [torch.zeros(1)]
    with torch.no_grad():
        average.multi_avg_fn(held, [torch.ones(1)], torch.empty((), device="meta"))
    assert held[0].item() == pytest.approx(0.9)  # decay 1 / 10 before the first update


def test_an_average_of_a_whole_network_can_be_measured_and_saved():
    torch.manual_seed(0)
    network = HRNet(4, 3)
    average = moving_average(network, decay=0.9)
    for _ in range(2):
        network(torch.randn(2, 3, 64, 32))
        average.update_parameters(network)
    assert average.module.state_dict().keys() == network.state_dict().keys()
    assert torch.isfinite(average.module.eval()(torch.randn(1, 3, 64, 32))).all()


# ---------------------------------------------------------------- batch norm


def test_frozen_statistics_are_used_and_kept():
    torch.manual_seed(0)
    network = HRNet(4, 3).train()
    freeze_statistics(network)
    pixels = torch.randn(2, 3, 64, 32)
    before = {name: b.clone() for name, b in network.named_buffers()}
    heatmaps = network(pixels)
    assert all(torch.equal(b, before[name]) for name, b in network.named_buffers())
    # No dropout in HRNet: with frozen statistics training and evaluation are the same network.
    torch.testing.assert_close(heatmaps, network.eval()(pixels))
    assert network.train().bn1.training


def test_only_batch_norms_are_frozen():
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.Dropout())
    freeze_statistics(network.train())
    assert [module.training for module in network] == [True, False, True]
