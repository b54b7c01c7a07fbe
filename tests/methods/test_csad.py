"""CSAD equals its definition in slow loops and the numbers of the authors' code."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from lntl.data.colored_mnist import ColoredMNIST
from lntl.methods.csad import alike, compute_image_labels, cross_sample_loss
from lntl.training.trainer import Trainer
from lntl.types import IGNORE, Batch

MakeTrainer = Callable[..., Trainer]


def make_wave(n: int, channels: int, step: float, shift: float = 0.0) -> Tensor:
    """Return sin(step k + shift) of k = 1, 2, ..., as (n, channels)."""
    count = torch.arange(1.0, n * channels + 1, dtype=torch.float64)
    return torch.sin(step * count + shift).reshape(n, channels)


U, V = 1 + make_wave(12, 5, 1.7), 1 + make_wave(12, 4, 0.9, 0.5)
COLORS = torch.stack([torch.arange(12) % 4 * 2, torch.arange(12) // 3, torch.arange(12) % 5], dim=1)


def slow_walk(v: np.ndarray, tau: float) -> np.ndarray:
    """Return sum_k 2^-k S^k of the random walk, made symmetric and normalised to rows of sum 1, in a loop over k."""
    weights = np.array([[math.exp(tau * float(a @ b)) for b in v] for a in v])
    steps = weights / weights.sum(axis=1, keepdims=True)
    steps = (steps + steps.T) / 2
    walk, power = np.zeros_like(steps), np.eye(len(v))
    for _ in range(200):
        walk, power = walk + power, power @ steps / 2
    walk = (walk + walk.T) / 2
    return walk / walk.sum(axis=1, keepdims=True)


def slow_loss(u: Tensor, v: Tensor, labels: Tensor, max_distance: int, tau: float, alpha: float) -> float:
    p, q = slow_walk(u.numpy(), tau), slow_walk(v.numpy(), tau)
    positive_sum, negative_sum, n = 1.0, 1.0, range(len(u))
    width = min(u.shape[1], v.shape[1])
    for i in n:
        for j in n:
            if (labels[i] == IGNORE).any() or (labels[j] == IGNORE).any():
                continue
            similarity = float(u[i, :width] @ v[j, :width])
            similarity += sum(p[i, k] * math.log(q[j, k] + 1e-7) for k in n) / 2
            similarity += sum(q[i, k] * math.log(p[j, k] + 1e-7) for k in n) / 2
            if int((labels[i] - labels[j]).square().sum()) < max_distance:
                positive_sum += math.exp(-alpha * similarity)
            else:
                negative_sum += math.exp(alpha * similarity)
    return math.log(positive_sum) / alpha + math.log(negative_sum) / alpha


def make_unit_vectors(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return both as unit vectors with the same number of dimensions."""
    return normalize(u, dim=1), normalize(torch.cat([v, v.new_zeros(len(v), 1)], dim=1), dim=1)


@pytest.mark.parametrize(("max_distance", "tau", "alpha"), [(4, 10.0, 1.0), (1, 3.0, 2.0)])
@pytest.mark.parametrize("unknown_rows", [[], [3, 8]])
def test_the_loss_equals_slow_loops(max_distance: int, tau: float, alpha: float, unknown_rows: list[int]) -> None:
    labels = COLORS.clone()
    labels[unknown_rows, 1] = IGNORE
    u, v = make_unit_vectors(U, V)
    loss = cross_sample_loss(u, v, *alike(labels, max_distance), tau, alpha)
    assert loss.item() == pytest.approx(slow_loss(u, v, labels, max_distance, tau, alpha), rel=1e-6)


# Computed in float64 with MI in models.py of zwvews/csad at f2d4e20, its linear layers replaced by the identity and U
# and V padded with zeros. For each tau and alpha: the loss, the norms of its gradients with respect to U and V, and one
# entry of the gradient with respect to U.
AUTHORS_VALUES = {
    (10, 1): (8.253705456357551, 0.39430935059599587, 0.42467797948473174, -0.04561155208751423),
    (3, 2): (4.258296074025141, 0.17942282240008678, 0.21514863973572015, -0.022976379809517306),
}


@pytest.mark.parametrize(("tau", "alpha"), AUTHORS_VALUES)
def test_the_loss_and_its_gradients_equal_the_authors_code(tau: float, alpha: float) -> None:
    u, v = U.clone().requires_grad_(), V.clone().requires_grad_()
    loss = cross_sample_loss(*make_unit_vectors(u, v), *alike(COLORS, near=4), tau, alpha)
    u_gradient, v_gradient = torch.autograd.grad(loss, [u, v])
    values = loss.item(), u_gradient.norm().item(), v_gradient.norm().item(), u_gradient[3, 2].item()
    assert values == pytest.approx(AUTHORS_VALUES[tau, alpha], rel=1e-5)


def test_labels_of_maps_are_the_mean_bin_of_each_channel(digits: ColoredMNIST, batch: Batch) -> None:
    """A digit has one color, so all labelled positions have the same bin."""
    bias = batch.bias.clone()
    bias[5, 1] = IGNORE
    labels = compute_image_labels(replace(batch, bias=bias), digits.spec)
    for i in range(24):
        for channel in range(3):
            bins = {value for value in bias[i, channel].flatten().tolist() if value != IGNORE}
            assert {int(labels[i, channel])} == (bins or {IGNORE})


def test_the_four_objectives_equal_slow_loops(make_trainer: MakeTrainer, batch: Batch, digits: ColoredMNIST) -> None:
    phase = {"method": "csad", "lam": 0.5, "bias_steps": 2, "estimator_steps": 3}
    trainer = make_trainer(phase, precision="64-true", model={"name": "lenet"})
    batch = replace(batch, x=batch.x.double())
    networks, method = trainer.networks.train(), trainer.method.double()
    objectives = list(method.objectives(batch, 0.0))
    branch, estimator = method.bias_branch, method.estimator
    assert [objective.over for objective in objectives] == (
        [(method.f, method.g)] + 2 * [(branch,)] + 3 * [(estimator,)] + [(method.f,)]
    )

    z = networks.f(batch.x)
    task = cross_entropy(networks.g(z), batch.y)
    labels = compute_image_labels(batch, digits.spec)
    branch_features = branch(z)
    losses = [
        cross_entropy(head(branch_features), labels[:, channel], ignore_index=IGNORE)
        for channel, head in enumerate(branch.heads)
    ]
    u, v = (normalize(out, dim=1) for out in (estimator.of_class(z), estimator.of_bias(branch_features)))
    mi = slow_loss(u.detach(), v.detach(), labels, 4, 10.0, 1.0)
    expected_losses = [task.item()] + 2 * [sum(losses).item() / 3] + 3 * [mi] + [-0.5 * mi]
    assert [objective.loss.item() for objective in objectives] == pytest.approx(expected_losses, rel=1e-5)


def test_each_objective_changes_only_its_networks(make_trainer: MakeTrainer, batch: Batch) -> None:
    """z is detached for the branch and the estimator, and both are frozen in the objective of f."""
    trainer = make_trainer({"method": "csad", "bias_steps": 1, "estimator_steps": 1})
    trainer.networks.train()
    method = trainer.method
    nets = {"f": method.f, "g": method.g, **method.own_networks}
    changed_names = []
    for objective in method.objectives(batch, 0.0):
        initial_parameters = {name: copy.deepcopy([*net.parameters()]) for name, net in nets.items()}
        trainer._minimise([(iter([objective]), 1.0)])
        changed_names.append(
            [
                name
                for name, net in nets.items()
                if any(not torch.equal(p, q) for p, q in zip(initial_parameters[name], net.parameters(), strict=True))
            ]
        )
    assert changed_names == [["f", "g"], ["bias_branch"], ["estimator"], ["f"]]


def test_the_estimator_and_the_branch_learn_with_the_settings_of_h(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("csad", training={"optimizer_fg": {"lr": 0.01}, "optimizer_h": {"lr": 0.002}})
    (record,) = trainer
    rates = {name: record.metrics[f"train/lr_{name}"] for name in ("f", "g", "bias_branch", "estimator")}
    assert rates == {"f": 0.01, "g": 0.01, "bias_branch": 0.002, "estimator": 0.002}


@pytest.mark.parametrize("labels", [[0, 0, 0], [IGNORE] * 3])
def test_without_positive_or_negative_pairs_every_gradient_is_finite(labels: list[int]) -> None:
    u, v = (normalize(make_wave(3, 4, step), dim=1).requires_grad_() for step in (1.3, 0.7))
    loss = cross_sample_loss(u, v, *alike(torch.tensor(labels)[:, None]))
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, [u, v]))
