"""Group DRO equals slow loops of algorithm 1 of its paper, draws groups equally often, and raises q with the loss."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from lntl.errors import UserError
from lntl.training.trainer import Trainer
from lntl.types import IGNORE, Batch

MakeTrainer = Callable[..., Trainer]


def make_prepared_method(make_trainer: MakeTrainer, **settings: Any) -> tuple[Any, Trainer]:
    """Return the method after `prepare`, and its trainer."""
    trainer = make_trainer({"method": "group_dro", **settings}, precision="64-true")
    trainer._prepare()
    return trainer.method.double(), trainer


def run_algorithm_1(q: dict[int, float], losses: list[float], group: list[int], eta: float, c: float, n: Any) -> float:
    """Update q in place with algorithm 1 of the paper; return the loss that f and g minimise."""
    mean_loss = {k: sum(v for v, g in zip(losses, group, strict=True) if g == k) / group.count(k) for k in set(group)}
    for k, value in mean_loss.items():
        q[k] *= math.exp(eta * (value + c / math.sqrt(n[k])))
    total = sum(q.values())
    for k in q:
        q[k] /= total
    return sum(q[k] * value for k, value in mean_loss.items())


@pytest.mark.parametrize(("eta", "c"), [(0.01, 0.0), (0.5, 2.0)])
def test_two_batches_equal_algorithm_1(make_trainer: MakeTrainer, eta: float, c: float) -> None:
    method, trainer = make_prepared_method(make_trainer, eta=eta, adjustment=c)
    batches = [replace(batch, x=batch.x.double()) for batch in trainer.loader.batches()]
    counts = Counter(k for batch in batches for k in batch.group.tolist())
    q = dict.fromkeys(counts, 1 / len(counts))
    for batch in batches[:2]:
        (objective,) = method.objectives(batch, 0.0)
        losses = cross_entropy(method.g(method.f(batch.x)), batch.y, reduction="none")
        expected_loss = run_algorithm_1(q, losses.tolist(), batch.group.tolist(), eta, c, counts)
        assert objective.loss.item() == pytest.approx(expected_loss, rel=1e-6)
        expected_q = [q.get(k, 0.0) for k in range(100)]
        torch.testing.assert_close(method.log_q.exp(), torch.tensor(expected_q, dtype=torch.float64))


def test_the_gradient_is_that_of_the_loss_weighted_by_q(make_trainer: MakeTrainer) -> None:
    """q is a constant, so the gradient of f and g is that of sum_k q_k L_k."""
    method, trainer = make_prepared_method(make_trainer, eta=0.5)
    batch = next(iter(trainer.loader.batches()))
    batch = replace(batch, x=batch.x.double())
    parameters = [*method.f.parameters(), *method.g.parameters()]
    (objective,) = method.objectives(batch, 0.0)
    losses = cross_entropy(method.g(method.f(batch.x)), batch.y, reduction="none")
    q, sizes = method.log_q.exp(), Counter(batch.group.tolist())
    expected_loss = sum(q[k] * losses[n] / sizes[k] for n, k in enumerate(batch.group.tolist()))
    torch.testing.assert_close(
        torch.autograd.grad(objective.loss, parameters), torch.autograd.grad(expected_loss, parameters)
    )


def test_q_becomes_largest_for_the_group_of_largest_loss(make_trainer: MakeTrainer, batch: Batch) -> None:
    """The networks do not change and the exponentials overflow; q becomes 1 for the group with the largest loss."""
    method, _ = make_prepared_method(make_trainer, eta=500.0)
    batch = replace(batch, x=batch.x.double())
    for _ in range(10):
        (objective,) = method.objectives(batch, 0.0)
    losses = cross_entropy(method.g(method.f(batch.x)), batch.y, reduction="none")
    loss_by_group = {k: losses[batch.group == k].mean().item() for k in batch.group.tolist()}
    assert int(method.log_q.argmax()) == max(loss_by_group, key=lambda k: loss_by_group[k])
    assert objective.loss.item() == pytest.approx(max(loss_by_group.values()))
    assert objective.terms["q_max"].item() == pytest.approx(1)


def test_balanced_sampling_draws_every_group_equally_often(make_trainer: MakeTrainer) -> None:
    method, trainer = make_prepared_method(make_trainer)
    weights, weight_by_group = method.sampling_weights(), Counter[int]()
    for batch in trainer.loader.batches():
        for row, group in zip(batch.row.tolist(), batch.group.tolist(), strict=True):
            weight_by_group[group] += weights[row].item()
    assert list(weight_by_group.values()) == pytest.approx([1.0] * len(weight_by_group))
    assert weights.sum().item() == pytest.approx(len(weight_by_group))  # rows of other splits have weight 0
    assert make_prepared_method(make_trainer, sampling="natural")[0].sampling_weights() is None


def test_images_without_a_bias_value_belong_to_no_group(make_trainer: MakeTrainer, batch: Batch) -> None:
    method, _ = make_prepared_method(make_trainer)
    x = batch.x.double()
    partly_labelled_batch = replace(batch, x=x, group=torch.where(torch.arange(24) < 12, batch.group, IGNORE))
    labelled_batch = partly_labelled_batch.part(slice(12))
    method.f.eval()
    initial_log_q = method.log_q.clone()
    losses = []
    for images in (partly_labelled_batch, labelled_batch):
        method.log_q.copy_(initial_log_q)
        losses.append(next(iter(method.objectives(images, 0.0))).loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    with pytest.raises(UserError, match="no training image has a bias value"):
        method.prepare(lambda: iter([batch.without_bias()]), 0)
