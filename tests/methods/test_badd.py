"""BAdd equals its definition and the numbers of the authors' code."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from lntl.methods.badd import add_bias_features
from lntl.training.trainer import Trainer
from lntl.types import Batch

MakeTrainer = Callable[..., Trainer]


def make_wave(n: int, channels: int, step: float, shift: float = 0.0) -> Tensor:
    """Return sin(step k + shift) of k = 1, 2, ..., as (n, channels)."""
    count = torch.arange(1.0, n * channels + 1, dtype=torch.float64)
    return torch.sin(step * count + shift).reshape(n, channels)


# Computed with SimpleConvNet.badd_forward of gsarridis/vb-mitigator at 4fab2e2, in float64, with two biases; z
# replaces the output of its convolutions. For each m: the cross-entropy, the norm of its gradient with respect to z,
# and entry [1, 2] of its gradient with respect to the weights of the last layer.
AUTHORS_VALUES = {
    1.0: (1.3394288881314835, 0.317792416774971, -0.3326554535174344),
    0.3: (1.4063390840408723, 0.32757026646506565, -0.3314189096286188),
}


@pytest.mark.parametrize("m", AUTHORS_VALUES)
def test_the_loss_and_its_gradients_equal_the_authors_code(m: float) -> None:
    z, weight = make_wave(12, 5, 1.7).requires_grad_(), make_wave(3, 5, 1.1, 0.2).requires_grad_()
    biases = [make_wave(12, 5, 0.9, 0.5), make_wave(12, 5, 0.4, 0.1)]
    logits = linear(add_bias_features(z, biases, m), weight, make_wave(1, 3, 0.7)[0])
    loss = cross_entropy(logits, torch.tensor([0, 1, 2] * 4))
    z_gradient, weight_gradient = torch.autograd.grad(loss, [z, weight])
    assert (loss.item(), z_gradient.norm().item(), weight_gradient[1, 2].item()) == pytest.approx(
        AUTHORS_VALUES[m], rel=1e-9
    )


@pytest.mark.parametrize("model", ["convnet", "lenet"])
def test_the_objective_equals_a_loop_over_images(make_trainer: MakeTrainer, batch: Batch, model: str) -> None:
    trainer = make_trainer({"method": "badd", "m": 0.7}, precision="64-true", model={"name": model})
    trainer._prepare()
    batch = replace(batch, x=batch.x.double())
    networks, body = trainer.networks, copy.deepcopy(trainer.method.bias_classifiers.bodies[0])
    (objective,) = trainer.method.objectives(batch, 0.0)
    losses = []
    for x, y in zip(batch.x, batch.y, strict=True):
        logits = networks.g(networks.f(x[None]) + 0.7 * body(x[None]))[0]
        losses.append((logits.logsumexp(dim=0) - logits[y]).item())
    assert objective.loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-6)


def test_bias_classifiers_get_no_gradient_and_m_0_is_erm(make_trainer: MakeTrainer, batch: Batch) -> None:
    trainer = make_trainer({"method": "badd", "m": 0.0})
    trainer._prepare()
    networks = trainer.networks.train()
    (objective,) = trainer.method.objectives(batch, 0.0)
    assert objective.loss.item() == pytest.approx(cross_entropy(networks.g(networks.f(batch.x)), batch.y).item())
    assert not any(parameter.requires_grad for parameter in trainer.method.bias_classifiers.parameters())
