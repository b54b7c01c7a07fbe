"""Domain-independent training: each image trains the head of its bias value; in evaluation the heads are summed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from lntl.errors import UserError
from lntl.training.trainer import Trainer
from lntl.types import IGNORE, Batch

MakeTrainer = Callable[..., Trainer]


@pytest.fixture(params=["convnet", "lenet"])
def method(make_trainer: MakeTrainer, request: pytest.FixtureRequest) -> Any:
    """The method in double precision."""
    method = make_trainer("domain_independent", model={"name": request.param, "heads": "per_bias"}).method
    for net in (method.f, method.g):
        net.double()
    return method


@pytest.fixture
def batch(batch: Batch) -> Batch:
    """24 images in double precision with random bias values."""
    value = torch.randint(0, 10, (24,), generator=torch.Generator().manual_seed(0))
    return replace(batch, x=batch.x.double(), group=batch.y * 10 + value)


def test_the_loss_uses_the_head_of_each_images_bias_value(method: Any, batch: Batch) -> None:
    (objective,) = method.objectives(batch, 0.0)
    outputs = method.g.body(method.f(batch.x))  # (N, biases * classes)
    losses = []
    for n, (y, group) in enumerate(zip(batch.y.tolist(), batch.group.tolist(), strict=True)):
        head = group - 10 * y
        logits = outputs[n, 10 * head : 10 * head + 10]
        losses.append(logits.exp().sum().log() - logits[y])
    expected = sum(losses) / len(losses)
    assert objective.loss.item() == pytest.approx(expected.item(), rel=1e-9)
    parameters = [*method.f.parameters(), *method.g.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad(objective.loss, parameters), torch.autograd.grad(expected, parameters)
    )


def test_in_evaluation_the_logits_of_the_heads_are_summed(method: Any, batch: Batch) -> None:
    z = method.f(batch.x)
    logits_by_value = [method.g(z, torch.full((24,), value)) for value in range(10)]
    torch.testing.assert_close(method.g(z), sum(logits_by_value))


def test_a_head_gets_gradients_only_from_its_bias_value(method: Any, batch: Batch) -> None:
    batch = replace(batch, group=batch.y * 10 + 3)
    (objective,) = method.objectives(batch, 0.0)
    gradient = torch.autograd.grad(objective.loss, method.g.body[-1].weight)[0].unflatten(0, (10, 10))
    assert [bool(head_gradient.any()) for head_gradient in gradient] == [value == 3 for value in range(10)]


def test_images_without_a_bias_value_do_not_change_the_loss(method: Any, batch: Batch) -> None:
    partly_labelled_batch = replace(batch, group=torch.where(torch.arange(24) < 12, batch.group, IGNORE))
    labelled_batch = batch.part(slice(12))
    method.f.eval()
    losses = [
        next(iter(method.objectives(images, 0.0))).loss.item() for images in (partly_labelled_batch, labelled_batch)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)
    loss_without_labels = next(iter(method.objectives(batch.without_bias(), 0.0))).loss
    assert loss_without_labels.item() == 0


def test_a_model_with_a_single_head_is_refused(make_trainer: MakeTrainer) -> None:
    with pytest.raises(UserError, match=r"set model\.heads: per_bias"):
        make_trainer("domain_independent")
