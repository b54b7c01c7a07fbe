"""CSAD, compared with its definition in slow loops and with numbers of the authors' code."""

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
from lntl.methods.csad import alike, cross_sample_loss, image_labels
from lntl.training.trainer import Trainer
from lntl.types import IGNORE, Batch

MakeTrainer = Callable[..., Trainer]


def wave(n: int, channels: int, step: float, shift: float = 0.0) -> Tensor:
    """Return sin(step k + shift) of k = 1, 2, ..., as (n, channels)."""
    count = torch.arange(1.0, n * channels + 1, dtype=torch.float64)
    return torch.sin(step * count + shift).reshape(n, channels)


U, V = 1 + wave(12, 5, 1.7), 1 + wave(12, 4, 0.9, 0.5)
COLORS = torch.stack([torch.arange(12) % 4 * 2, torch.arange(12) // 3, torch.arange(12) % 5], dim=1)


def walk_by_hand(v: np.ndarray, tau: float) -> np.ndarray:
    """Return sum_k 2^-k S^k, symmetric and then with rows of sum 1: the walk, step after step."""
    weights = np.array([[math.exp(tau * float(a @ b)) for b in v] for a in v])
    steps = weights / weights.sum(axis=1, keepdims=True)
    steps = (steps + steps.T) / 2
    walk, power = np.zeros_like(steps), np.eye(len(v))
    for _ in range(200):
        walk, power = walk + power, power @ steps / 2
    walk = (walk + walk.T) / 2
    return walk / walk.sum(axis=1, keepdims=True)


def by_hand(u: Tensor, v: Tensor, labels: Tensor, near: int, tau: float, alpha: float) -> float:
    p, q = walk_by_hand(u.numpy(), tau), walk_by_hand(v.numpy(), tau)
    same, other, n = 1.0, 1.0, range(len(u))
    width = min(u.shape[1], v.shape[1])
    for i in n:
        for j in n:
            if (labels[i] == IGNORE).any() or (labels[j] == IGNORE).any():
                continue
            likeness = float(u[i, :width] @ v[j, :width])
            likeness += sum(p[i, k] * math.log(q[j, k] + 1e-7) for k in n) / 2
            likeness += sum(q[i, k] * math.log(p[j, k] + 1e-7) for k in n) / 2
            if int((labels[i] - labels[j]).square().sum()) < near:
                same += math.exp(-alpha * likeness)
            else:
                other += math.exp(alpha * likeness)
    return math.log(same) / alpha + math.log(other) / alpha


def unit_vectors(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Return both as unit vectors of one length."""
    return normalize(u, dim=1), normalize(torch.cat([v, v.new_zeros(len(v), 1)], dim=1), dim=1)


@pytest.mark.parametrize(("near", "tau", "alpha"), [(4, 10.0, 1.0), (1, 3.0, 2.0)])
@pytest.mark.parametrize("unknown", [[], [3, 8]])
def test_the_loss_by_hand(near: int, tau: float, alpha: float, unknown: list[int]) -> None:
    labels = COLORS.clone()
    labels[unknown, 1] = IGNORE
    u, v = unit_vectors(U, V)
    ours = cross_sample_loss(u, v, *alike(labels, near), tau, alpha)
    assert ours.item() == pytest.approx(by_hand(u, v, labels, near, tau, alpha), rel=1e-6)


# Computed in float64 with MI in models.py of zwvews/csad at f2d4e20, its linear layers replaced by the identity and U
# and V padded with zeros. For each tau and alpha: the loss, the norms of its gradients with respect to U and V, and one
# entry of the gradient with respect to U.
AUTHORS = {
    (10, 1): (8.253705456357551, 0.39430935059599587, 0.42467797948473174, -0.04561155208751423),
    (3, 2): (4.258296074025141, 0.17942282240008678, 0.21514863973572015, -0.022976379809517306),
}


@pytest.mark.parametrize(("tau", "alpha"), AUTHORS)
def test_the_loss_and_its_gradients_are_those_of_the_authors_code(tau: float, alpha: float) -> None:
    first, second = U.clone().requires_grad_(), V.clone().requires_grad_()
    loss = cross_sample_loss(*unit_vectors(first, second), *alike(COLORS, near=4), tau, alpha)
    by_u, by_v = torch.autograd.grad(loss, [first, second])
    ours = loss.item(), by_u.norm().item(), by_v.norm().item(), by_u[3, 2].item()
    assert ours == pytest.approx(AUTHORS[tau, alpha], rel=1e-5)


def test_labels_of_maps_are_the_mean_bin_of_each_channel(digits: ColoredMNIST, batch: Batch) -> None:
    """The color of a digit is the same all over it, so that every labelled position has that bin."""
    bias = batch.bias.clone()
    bias[5, 1] = IGNORE
    labels = image_labels(replace(batch, bias=bias), digits.spec)
    for i in range(24):
        for channel in range(3):
            bins = {value for value in bias[i, channel].flatten().tolist() if value != IGNORE}
            assert {int(labels[i, channel])} == (bins or {IGNORE})


def test_the_four_minimisations_equal_those_by_hand(
    make_trainer: MakeTrainer, batch: Batch, digits: ColoredMNIST
) -> None:
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
    labels = image_labels(batch, digits.spec)
    r = branch(z)
    losses = [
        cross_entropy(head(r), labels[:, channel], ignore_index=IGNORE) for channel, head in enumerate(branch.heads)
    ]
    u, v = (normalize(out, dim=1) for out in (estimator.of_class(z), estimator.of_bias(r)))
    mi = by_hand(u.detach(), v.detach(), labels, 4, 10.0, 1.0)
    want = [task.item()] + 2 * [sum(losses).item() / 3] + 3 * [mi] + [-0.5 * mi]
    assert [objective.loss.item() for objective in objectives] == pytest.approx(want, rel=1e-5)


def test_z_is_frozen_for_the_branch_and_the_estimator_and_these_for_f(make_trainer: MakeTrainer, batch: Batch) -> None:
    """Step by step, only the networks of a step change, and a step of the estimator does not see the branch's graph."""
    trainer = make_trainer({"method": "csad", "bias_steps": 1, "estimator_steps": 1})
    trainer.networks.train()
    method = trainer.method
    parts = {"f": method.f, "g": method.g, **method.own_networks}
    changed = []
    for objective in method.objectives(batch, 0.0):
        before = {name: copy.deepcopy([*net.parameters()]) for name, net in parts.items()}
        trainer._minimise([(iter([objective]), 1.0)])
        changed.append(
            [
                name
                for name, net in parts.items()
                if any(not torch.equal(p, q) for p, q in zip(before[name], net.parameters(), strict=True))
            ]
        )
    assert changed == [["f", "g"], ["bias_branch"], ["estimator"], ["f"]]


def test_the_estimator_and_the_branch_learn_with_the_settings_of_h(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("csad", training={"optimizer_fg": {"lr": 0.01}, "optimizer_h": {"lr": 0.002}})
    (record,) = trainer
    rates = {name: record.metrics[f"train/lr_{name}"] for name in ("f", "g", "bias_branch", "estimator")}
    assert rates == {"f": 0.01, "g": 0.01, "bias_branch": 0.002, "estimator": 0.002}


@pytest.mark.parametrize("labels", [[0, 0, 0], [IGNORE] * 3])
def test_without_pairs_of_a_kind_every_gradient_is_finite(labels: list[int]) -> None:
    u, v = (normalize(wave(3, 4, step), dim=1).requires_grad_() for step in (1.3, 0.7))
    loss = cross_sample_loss(u, v, *alike(torch.tensor(labels)[:, None]))
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(loss, [u, v]))
