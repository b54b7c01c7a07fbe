"""Learning rates agree with torch's schedulers, and three steps of each optimiser agree with its formula."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, StepLR

from lntl import config
from lntl.training import optim

STEPS, EPOCHS = 7, 12  # a phase of 84 updates


def compute_lntl_rates(**settings: object) -> list[float]:
    optimizer = config.Optimizer(lr=0.5, **settings)
    return [optim.learning_rate(optimizer, step, STEPS, EPOCHS) for step in range(STEPS * EPOCHS)]


def compute_torch_rates(scheduler: type[LRScheduler], interval: int = 1, **settings: object) -> list[float]:
    """Return the rates of a torch scheduler with a step after each `interval` updates."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule, rates = scheduler(optimizer, **settings), []
    for step in range(STEPS * EPOCHS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % interval == 0:
            schedule.step()
    return rates


def test_a_constant_schedule_keeps_the_rate() -> None:
    assert set(compute_lntl_rates(schedule="constant")) == {0.5}


@pytest.mark.parametrize("size", [1, 5, 40])
def test_step_agrees_with_torch_step_lr_over_epochs(size: int) -> None:
    expected = compute_torch_rates(StepLR, interval=STEPS, step_size=size, gamma=0.3)
    assert compute_lntl_rates(schedule="step", step_size=size, gamma=0.3) == pytest.approx(expected, rel=1e-9)


def test_cosine_agrees_with_torch_cosine_over_updates() -> None:
    assert compute_lntl_rates(schedule="cosine") == pytest.approx(
        compute_torch_rates(CosineAnnealingLR, T_max=STEPS * EPOCHS), rel=1e-9
    )


def test_one_cycle_agrees_with_torch_up_to_a_shift_by_one_update() -> None:
    """torch reaches the last rate one update earlier. The rates differ by less than the largest change in an update."""
    rates, expected = (
        compute_lntl_rates(schedule="one_cycle"),
        compute_torch_rates(OneCycleLR, max_lr=0.5, total_steps=STEPS * EPOCHS + 1),
    )
    assert rates[0] == pytest.approx(expected[0], rel=1e-9) == 0.5 / 25
    assert max(rates) == pytest.approx(0.5, rel=0.01)
    assert rates[-1] < 0.01 * 0.5
    largest_step = max(abs(a - b) for a, b in pairwise(expected))
    assert max(abs(a - b) for a, b in zip(rates, expected, strict=True)) < largest_step


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine", "one_cycle"])
def test_rates_are_positive_and_never_above_lr(schedule: str) -> None:
    assert all(0 < rate <= 0.5 for rate in compute_lntl_rates(schedule=schedule))


LR, DECAY, MOMENTUM = 0.1, 0.2, 0.7


def sgd(p: float, gradients: list[float]) -> float:
    velocity = 0.0
    for number, g in enumerate(gradients):
        g += DECAY * p
        velocity = g if number == 0 else MOMENTUM * velocity + g
        p -= LR * velocity
    return p


def adam(p: float, gradients: list[float], is_decoupled: bool = False) -> float:
    m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        if is_decoupled:
            p -= LR * DECAY * p
        else:
            g += DECAY * p
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p -= LR * (m / (1 - 0.9**t)) / (math.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return p


def adamw(p: float, gradients: list[float]) -> float:
    return adam(p, gradients, is_decoupled=True)


def adagrad(p: float, gradients: list[float]) -> float:
    sum_of_squares = 0.0
    for g in gradients:
        g += DECAY * p
        sum_of_squares += g * g
        p -= LR * g / (math.sqrt(sum_of_squares) + 1e-10)
    return p


@pytest.mark.parametrize("formula", [sgd, adam, adamw, adagrad])
def test_three_steps_of_each_optimiser_agree_with_its_formula(formula: object) -> None:
    values, gradients = [0.5, -2.0], [[0.3, -0.1], [0.2, 0.0], [-1.0, 0.4]]
    parameter = nn.Parameter(torch.tensor(values, dtype=torch.float64))
    settings = config.Optimizer(name=formula.__name__, lr=LR, weight_decay=DECAY, momentum=MOMENTUM)  # type: ignore[attr-defined]
    optimizer = optim.build_optimizer(settings, [parameter])
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    expected_values = [formula(value, [g[i] for g in gradients]) for i, value in enumerate(values)]  # type: ignore[operator]
    expected: Tensor = torch.tensor(expected_values, dtype=torch.float64)
    torch.testing.assert_close(parameter.data, expected, rtol=1e-7, atol=1e-9)


def test_a_parameter_gets_the_factor_of_the_innermost_layer_with_a_factor() -> None:
    net = nn.ModuleDict({"a": nn.ModuleDict({"b": nn.Linear(2, 2), "bc": nn.Linear(2, 2)}), "d": nn.Linear(2, 2)})
    net.get_submodule("a.b").bias.requires_grad_(False)

    def get_names_by_factor(factors: dict[str, float]) -> dict[float, list[str]]:
        names_by_id = {id(parameter): name for name, parameter in net.named_parameters()}
        return {
            group["factor"]: [names_by_id[id(p)] for p in group["params"]]
            for group in optim.parameter_groups(net, factors)
        }

    names = ["a.b.weight", "a.bc.weight", "a.bc.bias", "d.weight", "d.bias"]
    assert get_names_by_factor({}) == {1.0: names}
    assert get_names_by_factor({"": 0.5}) == {0.5: names}
    assert get_names_by_factor({"": 0.5, "a.b": 0.1, "a": 0.2}) == {0.5: names[3:], 0.2: names[1:3], 0.1: names[:1]}
