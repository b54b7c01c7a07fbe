"""Optimisers of torch, and the learning rate as a function of progress, so that no scheduler state has to be saved."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from lntl.training import Optimizer

# one_cycle: up from lr / 25 over the first 30 % of the steps, then down to lr / 25e4 (Smith and Topin, 2018, with the
# constants of torch.optim.lr_scheduler.OneCycleLR).
_RISE, _START, _END = 0.3, 1 / 25, 1 / 25e4


def parameter_groups(network: nn.Module, factors: Mapping[str, float]) -> list[dict[str, object]]:
    """Return the trainable parameters of a network as torch parameter groups, one for each learning rate factor.

    Args:
        network: The network.
        factors: Factor of the learning rate by layer, '' for the whole network. A parameter gets the factor of the
            innermost layer.
    """
    parameters_by_factor: dict[float, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            layers = [layer for layer in factors if not layer or name.startswith(f"{layer}.")]
            factor = factors[max(layers, key=len)] if layers else 1.0
            parameters_by_factor.setdefault(factor, []).append(parameter)
    return [
        {"params": parameters_by_factor[factor], "factor": factor}
        for factor in sorted(parameters_by_factor, reverse=True)
    ]


def build_optimizer(
    settings: Optimizer, parameters: Iterable[nn.Parameter] | Iterable[dict[str, object]]
) -> torch.optim.Optimizer:
    """Return the optimiser that the settings name."""
    lr, decay = settings.lr, settings.weight_decay
    match settings.name:
        case "sgd":
            return torch.optim.SGD(parameters, lr=lr, momentum=settings.momentum, weight_decay=decay)
        case "adam":
            return torch.optim.Adam(parameters, lr=lr, weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay)
        case "adagrad":
            return torch.optim.Adagrad(parameters, lr=lr, weight_decay=decay)


def learning_rate(settings: Optimizer, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Return the learning rate of one update.

    Args:
        settings: The optimiser's settings.
        step: Number of the update within the phase, from 0.
        steps_per_epoch: Updates in an epoch.
        epochs: Epochs of the phase.
    """
    progress = step / (steps_per_epoch * epochs)
    match settings.schedule:
        case "constant":
            factor = 1.0
        case "step":
            factor = settings.gamma ** (step // steps_per_epoch // settings.step_size)
        case "cosine":
            factor = _compute_cosine(1.0, 0.0, progress)
        case "one_cycle":
            if progress < _RISE:
                factor = _compute_cosine(_START, 1.0, progress / _RISE)
            else:
                factor = _compute_cosine(1.0, _END, (progress - _RISE) / (1 - _RISE))
    return settings.lr * factor


def _compute_cosine(start: float, end: float, progress: float) -> float:
    """Return the value on the half cosine from start (progress 0) to end (progress 1)."""
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
