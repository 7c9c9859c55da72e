"""How a training run moves the weights: parameter groups, learning rate, moving average.

Everything here is a function of the step, so that a resumed run needs no memory of its schedule.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hrnet_cli.recipe import OptimizerConfig, TrainConfig

HEAD = "final_layer."


def build_optimizer(network: nn.Module, config: TrainConfig) -> torch.optim.Adam:
    """Return Adam over the network's backbone and head, two parameter groups in this order."""
    head = [p for name, p in network.named_parameters() if name.startswith(HEAD)]
    backbone = [p for name, p in network.named_parameters() if not name.startswith(HEAD)]
    groups = [{"params": backbone}, {"params": head}]
    fused = next(network.parameters()).is_cuda
    decay = config.optimizer.weight_decay
    return torch.optim.Adam(groups, lr=1.0, weight_decay=decay, fused=fused)


def set_rates(
    optimizer: torch.optim.Optimizer, config: TrainConfig, batch: int, step: int, epoch_steps: int
) -> float:
    """Set the learning rates for a step and return that of the head.

    Args:
        optimizer: Of `build_optimizer`.
        config: The run.
        batch: Global batch, which the learning rate is in proportion to.
        step: Steps done before it since the start of the run.
        epoch_steps: Steps of an epoch.
    """
    rate = config.learning_rate(batch) * rate_factor(config.optimizer, step, epoch_steps)
    frozen = step < config.optimizer.frozen_epochs * epoch_steps
    backbone_rate = 0.0 if frozen else config.optimizer.backbone_rate
    for group, factor in zip(optimizer.param_groups, (backbone_rate, 1.0), strict=True):
        group["lr"] = rate * factor
    return rate


def rate_factor(config: OptimizerConfig, step: int, epoch_steps: int) -> float:
    """Return what the learning rate is multiplied by at a step: warm-up times schedule.

    ``steps`` drops by ``step_factor`` after each milestone epoch (official MultiStepLR);
    ``cosine`` falls to ``final_factor`` at the last step, changing every step.
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "cosine":
        done = min(1.0, step / max(1, config.epochs * epoch_steps - 1))
        fall = (1 + math.cos(math.pi * done)) / 2
        return warmup * (config.final_factor + (1 - config.final_factor) * fall)
    passed = sum(step >= milestone * epoch_steps for milestone in config.milestones)
    return warmup * config.step_factor**passed


def moving_average(network: nn.Module, decay: float) -> AveragedModel:
    """Return a moving average of a network's weights and batch statistics.

    Early on the decay is (1 + n) / (10 + n) of n updates, so that the random start is soon
    forgotten (TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``).
    """

    def average(
        averaged: Sequence[torch.Tensor], current: Sequence[torch.Tensor], count: torch.Tensor | int
    ) -> None:
        # Counted on the processor: the count given lies on the device, and reading it would wait
        # for all that the device still has to do.
        updates = float(result.n_averaged)
        now = min(decay, (1 + updates) / (10 + updates))
        get_ema_multi_avg_fn(now)(list(averaged), list(current), count)

    result = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
    return result


def freeze_statistics(network: nn.Module) -> None:
    """Put batch norms into evaluation mode: they use their running statistics and keep them."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
