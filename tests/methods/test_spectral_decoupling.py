"""Spectral decoupling equals its definition in slow loops."""

from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import cross_entropy

from lntl.methods.spectral_decoupling import logit_penalty
from lntl.training.trainer import Trainer
from lntl.types import Batch

MakeTrainer = Callable[..., Trainer]


def test_the_objective_equals_slow_loops(make_trainer: MakeTrainer, batch: Batch) -> None:
    trainer = make_trainer({"method": "spectral_decoupling", "lam": 0.3})
    networks = trainer.networks.train()
    (objective,) = trainer.method.objectives(batch, 0.0)
    logits = networks.g(networks.f(batch.x))
    penalty = sum(value**2 for row in logits.tolist() for value in row) / 2 / len(logits)
    task = cross_entropy(logits, batch.y).item()
    terms = {name: float(term) for name, term in objective.terms.items()}
    assert terms == pytest.approx({"task": task, "penalty": penalty}, rel=1e-5)
    assert objective.loss.item() == pytest.approx(task + 0.3 * penalty, rel=1e-5)


def test_the_gradient_moves_each_logit_towards_0_by_lam_times_its_value() -> None:
    """The gradient with respect to a logit is (p - [the class of the logit is y] + lam * logit) / N."""
    logits = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    (gradient,) = torch.autograd.grad(cross_entropy(logits, y) + 0.3 * logit_penalty(logits), logits)
    expected = (logits.softmax(dim=1) - torch.eye(4, dtype=torch.float64)[y] + 0.3 * logits) / 6
    torch.testing.assert_close(gradient, expected.detach())
