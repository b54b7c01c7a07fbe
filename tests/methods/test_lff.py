"""Compare LfF with its definition in slow loops over examples; check the training of its biased network."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lntl.methods.lff import generalised_cross_entropy
from lntl.training.trainer import Trainer
from lntl.types import Batch

MakeTrainer = Callable[..., Trainer]


def slow_losses(logits: Tensor, y: Tensor) -> list[float]:
    return [(row.logsumexp(0) - row[label]).item() for row, label in zip(logits, y.tolist(), strict=True)]


def test_three_steps_equal_slow_loops(make_trainer: MakeTrainer, batch: Batch) -> None:
    """The moving averages, the weights and both losses for batches of rows 0 to 15, 8 to 23 and 0 to 23."""
    q, decay = 0.6, 0.8
    trainer = make_trainer({"method": "lff", "q": q, "decay": decay}, precision="64-true")
    trainer._prepare()
    for head in (trainer.networks.g, trainer.method.biased[1]):
        head[-1].weight.data *= 100  # so that the losses of the images differ
    main_networks, biased_network = copy.deepcopy(trainer.networks.train()), copy.deepcopy(trainer.method.biased)
    average: list[dict[int, float]] = [{}, {}]
    label_by_row: dict[int, int] = {}
    for rows in (range(16), range(8, 24), range(24)):
        index = list(rows)
        step_batch = replace(batch, x=batch.x[index].double(), y=batch.y[index], row=batch.row[index])
        (objective,) = trainer.method.objectives(step_batch, 0.0)

        losses = [
            slow_losses(logits, step_batch.y)
            for logits in (biased_network(step_batch.x), main_networks.g(main_networks.f(step_batch.x)))
        ]
        for mean, new_losses in zip(average, losses, strict=True):
            for row, loss in zip(step_batch.row.tolist(), new_losses, strict=True):
                mean[row] = decay * mean[row] + (1 - decay) * loss if row in mean else loss
        label_by_row |= dict(zip(step_batch.row.tolist(), step_batch.y.tolist(), strict=True))
        weights = []
        for row in step_batch.row.tolist():
            b, d = (mean[row] / max(mean[k] for k in mean if label_by_row[k] == label_by_row[row]) for mean in average)
            weights.append(b / (b + d))
        n = len(weights)
        task = sum(w * loss for w, loss in zip(weights, losses[1], strict=True)) / n
        gce = sum((1 - math.exp(-loss) ** q) / q for loss in losses[0]) / n
        terms = {name: float(term) for name, term in objective.terms.items()}
        assert terms == pytest.approx({"task": task, "biased": gce, "difficulty": sum(weights) / n}, rel=1e-5)
        assert objective.loss.item() == pytest.approx(task + gce, rel=1e-5)
    assert max(weights) - min(weights) > 0.1


def test_weights_get_no_gradient_and_each_loss_trains_one_network(make_trainer: MakeTrainer, batch: Batch) -> None:
    trainer = make_trainer("lff", precision="64-true")
    trainer._prepare()
    batch = replace(batch, x=batch.x.double())
    method, networks = trainer.method, trainer.networks.train()
    (objective,) = method.objectives(batch, 0.0)
    main_parameters, biased_parameters = (
        [*networks.f.parameters(), *networks.g.parameters()],
        [*method.biased.parameters()],
    )
    gradients = torch.autograd.grad(objective.loss, [*main_parameters, *biased_parameters])

    relative_losses = method.average[:, batch.row] / torch.stack(
        [method.average[:, batch.row[batch.y == label]].amax(dim=1) for label in batch.y.tolist()], dim=1
    )
    weight = relative_losses[0] / relative_losses.sum(dim=0)
    task = (weight * cross_entropy(networks.g(networks.f(batch.x)), batch.y, reduction="none")).mean()
    p = method.biased(batch.x).softmax(dim=1)[torch.arange(24), batch.y]
    expected = torch.autograd.grad(task, main_parameters) + torch.autograd.grad(
        ((1 - p**0.7) / 0.7).mean(), biased_parameters
    )
    torch.testing.assert_close(gradients, expected, rtol=1e-5, atol=1e-8)


def test_the_generalised_cross_entropy_weights_the_gradient_by_p_to_the_q() -> None:
    logits = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    cross_entropy_gradient = torch.autograd.grad(cross_entropy(logits, y, reduction="sum"), logits)[0]
    gradient = torch.autograd.grad(
        generalised_cross_entropy(cross_entropy(logits, y, reduction="none"), 0.7).sum(), logits
    )[0]
    p = logits.softmax(dim=1)[torch.arange(6), y].detach()
    torch.testing.assert_close(gradient, p[:, None] ** 0.7 * cross_entropy_gradient)


def test_the_first_weights_of_the_biased_network_follow_from_the_seed(make_trainer: MakeTrainer) -> None:
    def get_first_weights(**project: int) -> list[Tensor]:
        trainer = make_trainer("erm", "lff", project=project)
        list(trainer.epoch())
        torch.manual_seed(99)
        trainer._start_phase(1)
        trainer._prepare()
        main_parameters = [*trainer.networks.f.parameters(), *trainer.networks.g.parameters()]
        biased_parameters = list(trainer.method.biased.parameters())
        assert [p.shape for p in main_parameters] == [p.shape for p in biased_parameters]
        assert not any(
            torch.equal(p, q) for p, q in zip(main_parameters, biased_parameters, strict=True) if p.dim() > 1
        )
        return [p.detach().clone() for p in biased_parameters]

    weights, same_seed_weights, other_seed_weights = get_first_weights(), get_first_weights(), get_first_weights(seed=1)
    assert all(torch.equal(p, r) for p, r in zip(weights, same_seed_weights, strict=True))
    assert not any(torch.equal(p, r) for p, r in zip(weights, other_seed_weights, strict=True) if p.dim() > 1)


def test_the_biased_network_is_trained_with_the_main_network(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer({"method": "lff", "epochs": 6}, training={"optimizer_fg": {"lr": 0.01}})
    records = list(trainer)
    assert records[-1].metrics["train/biased"] < records[0].metrics["train/biased"]
    assert records[-1].metrics["train/lr_biased"] == 0.01


def test_examples_with_a_larger_loss_of_the_biased_network_get_larger_weights(
    make_trainer: MakeTrainer, batch: Batch
) -> None:
    """If all losses of the main network are equal, the weight grows with the loss of the biased network."""
    method = make_trainer("lff").method
    losses = torch.stack([torch.arange(1.0, 25.0), torch.ones(24)])
    weight = method._update_difficulty(replace(batch, y=torch.zeros(24, dtype=torch.int64)), losses)
    assert torch.all(weight.diff() > 0)
    assert weight[-1].item() == pytest.approx(0.5)
