"""FLAC equals its definition in slow loops over pairs and the numbers of the authors' code."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lntl.methods.flac import flac_loss
from lntl.training.trainer import Trainer
from lntl.types import Batch

MakeTrainer = Callable[..., Trainer]


def make_wave(n: int, channels: int, step: float, shift: float = 0.0) -> Tensor:
    """Return sin(step k + shift) of k = 1, 2, ..., as (n, channels)."""
    count = torch.arange(1.0, n * channels + 1, dtype=torch.float64)
    return torch.sin(step * count + shift).reshape(n, channels)


Z, B, Y = make_wave(12, 5, 1.7), make_wave(12, 4, 0.9, 0.5), torch.tensor([0, 1, 2] * 4)


def slow_similarities(v: Tensor, exponent: float) -> list[list[float]]:
    rows = [[x / max(math.hypot(*row), 1e-12) for x in row] for row in v.tolist()]
    return [[1 / (1 + math.sqrt(math.dist(a, b) ** 2 + 1e-6) ** exponent) for b in rows] for a in rows]


def slow_loss(z: Tensor, b: Tensor, y: list[int], exponent: float) -> float:
    z_similarities, b_similarities = slow_similarities(z, exponent), slow_similarities(b, exponent)
    middle = (max(map(max, b_similarities)) + min(map(min, b_similarities))) / 2
    divergences = []
    for i in range(len(y)):
        pairs = [
            j
            for j in range(len(y))
            if (b_similarities[i][j] < middle if y[i] == y[j] else b_similarities[i][j] > middle)
        ]
        p = [1 - b_similarities[i][j] for j in pairs]
        q = [z_similarities[i][j] for j in pairs]
        for a, c in zip(p, q, strict=True):
            a, c = a / (sum(p) + 1e-7), c / (sum(q) + 1e-7)
            divergences.append((a - c) * (math.log(a) - math.log(c)))
    return sum(divergences) / max(len(divergences), 1)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_the_loss_equals_slow_loops(exponent: float) -> None:
    assert flac_loss(Z, B, Y, exponent).item() == pytest.approx(slow_loss(Z, B, Y.tolist(), exponent), rel=1e-9)


# Computed with flac_loss of gsarridis/FLAC at 1cf0487 on the unit vectors of Z and B in float64: the loss, the norm of
# its gradient with respect to Z, and one entry of the gradient.
AUTHORS_VALUES = {
    0.5: (0.013985601643698818, 0.0039581449615722466, -0.00013906861488503607),
    1.0: (0.045719898803064034, 0.011870702545945792, -0.0005496550407536683),
    2.0: (0.05483239759925116, 0.012010368986069768, -0.0007722521802066393),
}


@pytest.mark.parametrize("exponent", AUTHORS_VALUES)
def test_the_loss_and_its_gradient_equal_the_authors_code(exponent: float) -> None:
    z = Z.clone().requires_grad_()
    loss = flac_loss(z, B, Y, exponent)
    (gradient,) = torch.autograd.grad(loss, z)
    assert (loss.item(), gradient.norm().item(), gradient[3, 2].item()) == pytest.approx(
        AUTHORS_VALUES[exponent], rel=1e-6
    )


@pytest.mark.parametrize("model", ["convnet", "lenet"])
def test_the_objective_equals_slow_loops(make_trainer: MakeTrainer, batch: Batch, model: str) -> None:
    settings = {"method": "flac", "alpha": 3.0, "exponent": 0.7}
    trainer = make_trainer(settings, precision="64-true", model={"name": model})
    trainer._prepare()
    networks = trainer.networks.train()
    batch = replace(batch, x=batch.x.double())
    (objective,) = trainer.method.objectives(batch, 0.0)

    def average_positions(z: Tensor) -> Tensor:
        return z.reshape(len(z), z.shape[1], -1).mean(dim=2)

    z = networks.f(batch.x).detach()
    b = trainer.method.bias_classifiers.bodies[0](batch.x).detach()
    task = cross_entropy(networks.g(z), batch.y).item()
    flac = slow_loss(average_positions(z), average_positions(b), batch.y.tolist(), 0.7)
    assert flac > 0
    terms = {name: float(term) for name, term in objective.terms.items()}
    assert terms == pytest.approx({"task": task, "flac": flac}, rel=1e-6)
    assert objective.loss.item() == pytest.approx(task + 3 * flac, rel=1e-6)


@pytest.mark.parametrize("y", [[0, 0, 0], [0, 1, 2]])
def test_without_pairs_the_loss_and_its_gradient_are_0(y: list[int]) -> None:
    """All examples of a class have the same bias; features that are 0 are allowed."""
    z, b = torch.zeros(3, 2, requires_grad=True), torch.ones(3, 2)
    loss = flac_loss(z, b, torch.tensor(y))
    assert loss.item() == 0
    assert not torch.autograd.grad(loss, z)[0].any()


def test_minimising_the_loss_joins_equal_classes_and_separates_equal_biases() -> None:
    """Two classes, each with two bias values: pairs with equal biases become less similar."""
    y, bias = torch.tensor([0, 0, 1, 1] * 3), torch.tensor([0, 1, 0, 1] * 3)
    b = torch.eye(2)[bias]
    z = (b + 0.1 * torch.randn(12, 2, generator=torch.Generator().manual_seed(0))).requires_grad_()
    optimizer = torch.optim.Adam([z], lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        flac_loss(z, b, y).backward()
        optimizer.step()
    unit = z.detach() / z.detach().norm(dim=1, keepdim=True)
    cosines, same_class, same_bias = unit @ unit.T, y[:, None] == y, bias[:, None] == bias
    # Before the optimization these means are about 0 and 1.
    assert cosines[same_class & ~same_bias].mean() > cosines[~same_class & same_bias].mean()
