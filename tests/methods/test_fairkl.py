"""Compare FairKL and eps-SupInfoNCE with their definitions in slow loops and with numbers of the authors' code."""

import math
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean, pstdev

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from lntl.methods.fairkl import fair_kl, pair_moments, sup_info_nce
from lntl.training.trainer import Trainer
from lntl.types import IGNORE, Batch

MakeTrainer = Callable[..., Trainer]


def make_wave(n: int, channels: int, step: float, shift: float = 0.0) -> Tensor:
    """Return sin(step * k + shift) for k = 1, 2, ..., n * channels, as (n, channels)."""
    count = torch.arange(1.0, n * channels + 1, dtype=torch.float64)
    return torch.sin(step * count + shift).reshape(n, channels)


Z, Y = make_wave(12, 5, 1.7), torch.tensor([0, 1, 2] * 4)
BIAS = torch.tensor([0, 1, 2, 0, 1, 2, 1, 1, 0, 2, 0, 2])


def slow_cosines(z: Tensor) -> list[list[float]]:
    rows = z.tolist()
    return [
        [sum(p * q for p, q in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b) for b in rows] for a in rows
    ]


def slow_contrast(z: Tensor, y: list[int], temperature: float, epsilon: float) -> float:
    cosines, n = slow_cosines(z), range(len(y))
    losses = []
    for i in n:
        s = [cosine / temperature for cosine in cosines[i]]
        negatives = sum(math.exp(s[j]) for j in n if y[j] != y[i])
        positives = [j for j in n if y[j] == y[i] and j != i]
        terms = [-math.log(math.exp(s[j]) / (math.exp(s[j] - epsilon) + negatives)) for j in positives]
        losses += [fmean(terms)] if terms else []
    return fmean(losses)


def slow_fair_kl(z: Tensor, y: list[int], bias: list[int], std_weight: float, pull: float) -> float:
    cosines, n, total = slow_cosines(z), range(len(y)), 0.0
    for same_class in (True, False):
        pairs = [(i, j) for i in n for j in n if i != j and (y[i] == y[j]) == same_class]
        pairs = [(i, j) for i, j in pairs if IGNORE not in (bias[i], bias[j])]
        aligned_cosines = [cosines[i][j] for i, j in pairs if bias[i] == bias[j]]
        conflicting_cosines = [cosines[i][j] for i, j in pairs if bias[i] != bias[j]]
        if aligned_cosines and conflicting_cosines:
            total += (fmean(aligned_cosines) - fmean(conflicting_cosines)) ** 2
            total += std_weight * (pstdev(aligned_cosines) - pstdev(conflicting_cosines)) ** 2
        pull_terms = [-cosine for cosine in conflicting_cosines] if same_class else aligned_cosines
        total += pull * fmean(pull_terms or [0.0])
    return total


@pytest.mark.parametrize(("temperature", "epsilon"), [(0.1, 0.0), (0.5, 0.25)])
def test_sup_info_nce_equals_slow_loops(temperature: float, epsilon: float) -> None:
    y = [0, 1, 2, 0, 1, 2, 0, 0, 1, 3, 1, 2]  # the only example of class 3 has no positive pair
    loss = sup_info_nce(normalize(Z, dim=1), torch.tensor(y), temperature, epsilon)
    assert loss.item() == pytest.approx(slow_contrast(Z, y, temperature, epsilon), rel=1e-9)


@pytest.mark.parametrize("unknown_rows", [[], [2, 7]])
@pytest.mark.parametrize(("std_weight", "pull"), [(0.0, 0.0), (1.0, 0.0), (0.4, 0.6)])
def test_fair_kl_equals_slow_loops(std_weight: float, pull: float, unknown_rows: list[int]) -> None:
    bias = BIAS.clone()
    bias[unknown_rows] = IGNORE
    expected = slow_fair_kl(Z, Y.tolist(), bias.tolist(), std_weight, pull)
    assert fair_kl(normalize(Z, dim=1), Y, bias, std_weight, pull).item() == pytest.approx(expected, rel=1e-9)


# Values of debiasing/losses.py in EIDOSLAB/unbiased-contrastive-learning at 25b3981 for the unit vectors of Z, float64.
# EpsilonSupInfoNCE by (temperature, epsilon): the loss, the norm of its gradient for Z, and one entry of the gradient.
AUTHORS_CONTRASTS = {
    (0.07, 0.0): (0.40231895206324625, 1.4620108528473978, -0.018204619173083508),
    (0.1, 0.0): (0.4798623785209964, 1.5762254226240278, -0.04009593826543136),
    (0.1, 0.5): (-0.12046933673227611, 1.837683365170374, -0.05581011722070474),
    (0.5, 0.25): (4.821846420257155, 3.376452410999857, -0.2921452520934994),
}
AUTHORS_FAIRKL = -1.18667408786443  # fairkl with kld 0


@pytest.mark.parametrize(("temperature", "epsilon"), AUTHORS_CONTRASTS)
def test_sup_info_nce_equals_the_authors_code(temperature: float, epsilon: float) -> None:
    z = Z.clone().requires_grad_()
    loss = temperature / 0.07 * sup_info_nce(normalize(z, dim=1), Y, temperature, epsilon)
    (gradient,) = torch.autograd.grad(loss, z)
    values = loss.item(), gradient.norm().item(), gradient[3, 2].item()
    # The authors' code adds 1e-6 to a sum.
    assert values == pytest.approx(AUTHORS_CONTRASTS[temperature, epsilon], rel=1e-3)


def test_fair_kl_equals_the_authors_code_except_for_pairs_of_an_image_with_itself() -> None:
    v = normalize(Z, dim=1)
    distinct, same_class, same_bias = ~torch.eye(12, dtype=torch.bool), Y[:, None] == Y, BIAS[:, None] == BIAS
    aligned_mean_with_self_pairs = pair_moments(v @ v.T, same_class & same_bias)[0]
    aligned_mean = pair_moments(v @ v.T, same_class & same_bias & distinct)[0]
    conflicting_mean = pair_moments(v @ v.T, same_class & ~same_bias)[0]
    loss = fair_kl(v, Y, BIAS, std_weight=0, pull=1)
    loss_with_self_pairs = (
        loss - (aligned_mean - conflicting_mean).square() + (aligned_mean_with_self_pairs - conflicting_mean).square()
    )
    assert loss_with_self_pairs.item() == pytest.approx(AUTHORS_FAIRKL, rel=1e-9)


@pytest.mark.parametrize("task_weight", [0.0, 0.5])
def test_the_objective_equals_slow_loops(make_trainer: MakeTrainer, batch: Batch, task_weight: float) -> None:
    settings = {"method": "fairkl", "alpha": 0.3, "lam": 2.0, "temperature": 0.2, "epsilon": 0.1}
    trainer = make_trainer(settings | {"task_weight": task_weight}, precision="64-true")
    networks = trainer.networks.train()
    batch = replace(batch, x=batch.x.double())
    (objective,) = trainer.method.objectives(batch, 0.0)
    z = networks.f(batch.x)
    features = torch.stack([z[:, c].reshape(24, -1).mean(dim=1) for c in range(z.shape[1])], dim=1).detach()
    task, y = cross_entropy(networks.g(z), batch.y), batch.y.tolist()
    contrast = slow_contrast(features, y, 0.2, 0.1)
    fair_kl_value = slow_fair_kl(features, y, (batch.group % 10).tolist(), 1.0, 1.0)
    terms = {name: float(term) for name, term in objective.terms.items()}
    assert terms == pytest.approx({"task": task.item(), "contrast": contrast, "fairkl": fair_kl_value}, rel=1e-4)
    assert objective.loss.item() == pytest.approx(task.item() + 0.3 * contrast + 2 * fair_kl_value, rel=1e-4)

    f, g = [*networks.f.parameters()], [*networks.g.parameters()]
    task_gradient_f, task_gradient_g = (
        torch.autograd.grad(task, f, retain_graph=True),
        torch.autograd.grad(task, g, retain_graph=True),
    )
    torch.testing.assert_close(torch.autograd.grad(objective.loss, g, retain_graph=True), task_gradient_g)
    trainer.method.config = trainer.method.config.model_copy(update={"alpha": 0.0, "lam": 0.0})  # only the task
    (objective,) = trainer.method.objectives(batch, 0.0)
    torch.testing.assert_close(
        torch.autograd.grad(objective.loss, f), tuple(task_weight * gradient for gradient in task_gradient_f)
    )


@pytest.mark.parametrize(("y", "bias"), [([0, 1, 2], [0, 1, 2]), ([0, 0, 0], [1, 1, 1]), ([0, 0, 1], [IGNORE] * 3)])
def test_without_pairs_fair_kl_is_0_and_all_gradients_are_finite(y: list[int], bias: list[int]) -> None:
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    v = normalize(z, dim=1)
    fair_kl_value = fair_kl(v, torch.tensor(y), torch.tensor(bias), 1.0, 0.0)
    assert fair_kl_value.item() == 0
    (gradient,) = torch.autograd.grad(fair_kl_value + sup_info_nce(v, torch.tensor(y), 0.1, 0.5), z)
    assert gradient.isfinite().all()
