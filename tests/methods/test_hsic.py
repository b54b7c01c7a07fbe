"""Compare HSIC with its definition in slow loops; check it on dependent and on independent variables."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lntl.methods.hsic import centre_kernel, cka, hsic, kernel
from lntl.training.trainer import Trainer
from lntl.types import IGNORE, Batch

MakeTrainer = Callable[..., Trainer]


def slow_kernel(v: Tensor) -> np.ndarray:
    """Return the Gaussian kernel of v (N, A); its width is the lower median of the distances between two examples."""
    n = len(v)
    distances = [[math.dist(v[i].tolist(), v[j].tolist()) for j in range(n)] for i in range(n)]
    sorted_distances = sorted(distances[i][j] for i in range(n) for j in range(i))
    width = sorted_distances[(len(sorted_distances) - 1) // 2]
    return np.array([[math.exp(-(d**2) / (2 * width**2)) for d in row] for row in distances])


def slow_hsic(K: np.ndarray, L: np.ndarray) -> float:
    n = len(K)
    H = np.eye(n) - np.ones((n, n)) / n
    return float(np.trace(K @ H @ L @ H)) / (n - 1) ** 2


@pytest.mark.parametrize("estimator", ["cka", "hsic"])
@pytest.mark.parametrize("model", ["convnet", "lenet"])
def test_the_objective_equals_slow_loops(make_trainer: MakeTrainer, batch: Batch, estimator: str, model: str) -> None:
    """HSIC uses the 22 examples whose bias is known; the task loss uses all 24."""
    settings = {"method": "hsic", "alpha": 0.3, "estimator": estimator}
    trainer = make_trainer(settings, precision="64-true", model={"name": model})
    group = batch.group.clone()
    group[[4, 17]] = IGNORE
    known_rows = [i for i in range(24) if i not in (4, 17)]
    batch = replace(batch, x=batch.x.double(), group=group)
    (objective,) = trainer.method.objectives(batch, 0.0)

    networks = trainer.networks.train()
    z = networks.f(batch.x).detach()
    features = torch.stack([z[:, c].reshape(24, -1).mean(dim=1) for c in range(z.shape[1])], dim=1)
    K, L = slow_kernel(features[known_rows]), slow_kernel(batch.bias_features[known_rows].double())
    expected = slow_hsic(K, L)
    if estimator == "cka":
        expected /= math.sqrt(slow_hsic(K, K) * slow_hsic(L, L))
    task = cross_entropy(networks.g(z), batch.y).item()
    assert expected > 1e-3
    assert objective.terms["dependence"].item() == pytest.approx(expected, rel=1e-6)
    assert objective.loss.item() == pytest.approx(task + 0.3 * expected, rel=1e-6)


def measure_dependence(estimator: str, u: Tensor, v: Tensor) -> float:
    is_known = torch.ones(len(u), dtype=torch.bool)
    K, L = (centre_kernel(kernel(features, is_known), is_known) for features in (u, v))
    return float(cka(K, L) if estimator == "cka" else hsic(K, L, is_known))


@pytest.mark.parametrize("estimator", ["cka", "hsic"])
def test_hsic_detects_dependence_without_correlation(estimator: str) -> None:
    rng = torch.Generator().manual_seed(0)
    u = torch.randn(300, 1, generator=rng)
    dependent_v = u.square() + 0.1 * torch.randn(300, 1, generator=rng)
    independent_v = torch.randn(300, 1, generator=rng)
    assert measure_dependence(estimator, u, dependent_v) > 5 * measure_dependence(estimator, u, independent_v) > 0
    assert measure_dependence("cka", u, u) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("estimator", ["cka", "hsic"])
def test_the_scale_of_the_features_does_not_matter(estimator: str) -> None:
    u, v = torch.randn(2, 40, 3, generator=torch.Generator().manual_seed(1)).unbind()
    assert measure_dependence(estimator, 1000 * u, v) == pytest.approx(measure_dependence(estimator, u, v), rel=1e-4)


def test_if_most_examples_are_equal_the_kernel_is_1_for_equal_pairs_and_0_for_others() -> None:
    v = torch.tensor([[0.0], [0.0], [0.0], [0.0], [1.0]], requires_grad=True)
    K = kernel(v, torch.ones(5, dtype=torch.bool))
    assert torch.equal(K, (v == v.T).float())
    (gradient,) = torch.autograd.grad(K.sum(), v)
    assert torch.equal(gradient, torch.zeros(5, 1))


@pytest.mark.parametrize("is_known", [[False] * 3, [True, False, False]])
@pytest.mark.parametrize("estimator", ["cka", "hsic"])
def test_with_fewer_than_two_known_examples_value_and_gradient_are_0(is_known: list[bool], estimator: str) -> None:
    u, v, mask = torch.rand(3, 2, requires_grad=True), torch.rand(3, 2), torch.tensor(is_known)
    K, L = (centre_kernel(kernel(features, mask), mask) for features in (u, v))
    value = cka(K, L) if estimator == "cka" else hsic(K, L, mask)
    assert value.item() == 0
    assert not torch.autograd.grad(value, u)[0].any()


def test_no_gradient_flows_through_the_width_of_the_kernel() -> None:
    """With constant s, d/dv_i exp(-|v_i - v_j|^2 / (2 s^2)) = -(v_i - v_j) / s^2 * exp(...), summed over pairs."""
    v = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    weight = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    (gradient,) = torch.autograd.grad((weight * kernel(v, torch.ones(5, dtype=torch.bool))).sum(), v)
    points, K = v.detach(), slow_kernel(v.detach())
    width = sorted(math.dist(points[i].tolist(), points[j].tolist()) for i in range(5) for j in range(i))[4]
    expected = torch.zeros(5, 2, dtype=torch.float64)
    for i in range(5):
        for j in range(5):
            expected[i] -= (weight[i, j] + weight[j, i]) * K[i, j] * (points[i] - points[j]) / width**2
    torch.testing.assert_close(gradient, expected)
