"""DebiAN equals its definition in slow loops and the numbers of the authors' code."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lntl.methods.debian import debian_weights, discovery_loss
from lntl.training.trainer import Trainer
from lntl.types import Batch

MakeTrainer = Callable[..., Trainer]


def make_wave(n: int, channels: int, step: float, shift: float = 0.0) -> Tensor:
    """Return sin(step k + shift) of k = 1, 2, ..., as (n, channels)."""
    count = torch.arange(1.0, n * channels + 1, dtype=torch.float64)
    return torch.sin(step * count + shift).reshape(n, channels)


Y, IMAGE_INDEX = torch.tensor([0, 1, 2] * 4), torch.arange(12)  # four classes; the batch has no image of class 3


def slow_weights_and_loss(p: list[float], s: list[float], y: list[int], penalty: float) -> tuple[list[float], float]:
    """Return the weight of each image and the loss L_d, computed in a loop over the classes."""
    weights, losses = [0.0] * len(y), []
    for label in sorted(set(y)):
        class_images = [i for i in range(len(y)) if y[i] == label]
        first_mean = sum(s[i] * p[i] for i in class_images) / (sum(s[i] for i in class_images) + 1e-6)
        second_mean = sum((1 - s[i]) * p[i] for i in class_images) / (sum(1 - s[i] for i in class_images) + 1e-6)
        for i in class_images:
            weights[i] = 1 + (1 - s[i] if second_mean < first_mean else s[i])
        size_difference = abs(sum(s[i] for i in class_images) - sum(1 - s[i] for i in class_images)) / len(class_images)
        losses.append(-math.log(1e-6 + abs(first_mean - second_mean)) - penalty * math.log(1e-6 + 1 - size_difference))
    return weights, sum(losses) / len(losses)


# Computed in float64 with Trainer.train in multi_color_mnist_exp/debian.py of zhihengli-UR/DebiAN at 6ab77f6, both
# networks replaced by constant logits, 2 make_wave(12, 4, 1.7) and 2 make_wave(12, 4, 0.9, 0.5), and the same batch
# for both networks. For each weight of the penalty: the classifier's loss and the norm of its gradient with respect to
# its logits; then the discoverer's loss, and the norm and entry [3, 0] of its gradient with respect to its logits.
AUTHORS_VALUES = {
    1.0: (3.679621978917666, 0.4801478757981358, 1.3833241684168456, 0.21263563556090267, 0.0765458932383407),
    0.25: (3.679621978917666, 0.4801478757981358, 1.3387430282085506, 0.18224371340592166, 0.046599755354137115),
}


@pytest.mark.parametrize("penalty", AUTHORS_VALUES)
def test_both_losses_equal_slow_loops_and_the_authors_code(penalty: float) -> None:
    logits, discoverer_logits = (
        (2 * make_wave(12, 4, 1.7)).requires_grad_(),
        (2 * make_wave(12, 4, 0.9, 0.5)).requires_grad_(),
    )
    p, s = logits.softmax(dim=1)[IMAGE_INDEX, Y].detach(), discoverer_logits[IMAGE_INDEX, Y].sigmoid()
    weights, discovery = debian_weights(p, s.detach(), Y, 4), discovery_loss(p, s, Y, 4, penalty)
    expected_weights, expected_discovery = slow_weights_and_loss(p.tolist(), s.tolist(), Y.tolist(), penalty)
    assert weights.tolist() == pytest.approx(expected_weights, rel=1e-9)
    assert discovery.item() == pytest.approx(expected_discovery, rel=1e-9)

    task = (weights * cross_entropy(logits, Y, reduction="none")).mean()
    (task_gradient,), (discovery_gradient,) = (
        torch.autograd.grad(task, logits),
        torch.autograd.grad(discovery, discoverer_logits),
    )
    values = (task, task_gradient.norm(), discovery, discovery_gradient.norm(), discovery_gradient[3, 0])
    assert [value.item() for value in values] == pytest.approx(AUTHORS_VALUES[penalty], rel=1e-6)


def test_the_objective_equals_slow_loops_and_each_loss_trains_one_network(
    make_trainer: MakeTrainer, batch: Batch
) -> None:
    trainer = make_trainer({"method": "debian", "penalty": 0.5}, precision="64-true")
    trainer._prepare()
    batch = replace(batch, x=batch.x.double())
    networks, discoverer = trainer.networks.train(), copy.deepcopy(trainer.method.discoverer)
    (objective,) = trainer.method.objectives(batch, 0.0)
    image = torch.arange(24)
    logits = networks.g(networks.f(batch.x))
    s = discoverer(batch.x)[image, batch.y].sigmoid()
    p = logits.softmax(dim=1)[image, batch.y]
    weights, discovery = slow_weights_and_loss(p.tolist(), s.tolist(), batch.y.tolist(), 0.5)
    losses = cross_entropy(logits, batch.y, reduction="none")
    task = (torch.tensor(weights, dtype=torch.float64) * losses).mean()
    terms = {name: float(term) for name, term in objective.terms.items()}
    expected = {"task": task.item(), "discovery": discovery, "group": s.mean().item()}
    assert terms == pytest.approx(expected, rel=1e-5)
    assert objective.loss.item() == pytest.approx(task.item() + discovery, rel=1e-5)
    classifier_parameters = [*networks.f.parameters(), *networks.g.parameters()]
    task_gradients = torch.autograd.grad(task, classifier_parameters)
    torch.testing.assert_close(
        torch.autograd.grad(objective.loss, classifier_parameters, retain_graph=True),
        task_gradients,
        rtol=1e-5,
        atol=1e-8,
    )


def test_the_first_weights_of_the_discoverer_follow_from_the_seed(make_trainer: MakeTrainer) -> None:
    def get_first_weights(**project: int) -> list[Tensor]:
        trainer = make_trainer("debian", project=project)
        torch.manual_seed(99)
        trainer._prepare()
        classifier_parameters = [*trainer.networks.f.parameters(), *trainer.networks.g.parameters()]
        discoverer_parameters = list(trainer.method.discoverer.parameters())
        assert not any(
            torch.equal(p, q) for p, q in zip(classifier_parameters, discoverer_parameters, strict=True) if p.dim() > 1
        )
        return [p.detach().clone() for p in discoverer_parameters]

    weights, same_seed_weights, other_seed_weights = get_first_weights(), get_first_weights(), get_first_weights(seed=1)
    assert all(torch.equal(p, q) for p, q in zip(weights, same_seed_weights, strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(weights, other_seed_weights, strict=True) if p.dim() > 1)


def test_the_discoverer_finds_the_images_on_which_the_classifier_fails() -> None:
    """Half of each class has p = 0.1; minimising L_d puts these images into one group."""
    y = torch.arange(20) % 2
    is_failure = torch.arange(20) // 2 % 2 == 0
    p = torch.where(is_failure, 0.1, 0.9)
    logit = torch.randn(20, generator=torch.Generator().manual_seed(0)).requires_grad_()
    optimizer = torch.optim.Adam([logit], lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        discovery_loss(p, logit.sigmoid(), y, 2).backward()
        optimizer.step()
    weights = debian_weights(p, logit.detach().sigmoid(), y, 2)
    assert weights[is_failure].min() > 1.9
    assert weights[~is_failure].max() < 1.1
