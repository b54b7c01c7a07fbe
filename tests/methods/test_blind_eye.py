"""Blind Eye: its losses in slow loops, the networks that each loss trains, and the uniform prediction of h."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lntl.ops import entropy
from lntl.training.trainer import Trainer
from lntl.types import IGNORE, Batch

MakeTrainer = Callable[..., Trainer]


def slow_losses(log_q: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return confusion and bias loss of log q (N, bins, biases, H, W), one place after the other."""
    confusion, losses = [], [[] for _ in range(bias.shape[1])]
    for n, channel, i, j in (bias != IGNORE).nonzero().tolist():
        belief = log_q[n, :, channel, i, j]
        confusion.append(sum(-belief[k] / len(belief) for k in range(len(belief))))
        losses[channel].append(-belief[bias[n, channel, i, j]])
    return sum(confusion) / len(confusion), sum(sum(each) / len(each) for each in losses)


def test_the_gradients_are_those_of_the_two_objectives(make_trainer: MakeTrainer, batch: Batch) -> None:
    """f has task + alpha * confusion, g the task, h the bias loss alone; h in eval mode."""
    method = make_trainer({"method": "blind_eye", "alpha": 0.7}, precision="64-true").method
    batch = replace(batch, x=batch.x.double())
    nets = {"f": method.f.train(), "g": method.g.train(), "h": method.h.eval()}
    parameters = {name: [*net.parameters()] for name, net in nets.items()}
    (objective,) = method.objectives(batch, 0.5)
    got = torch.autograd.grad(objective.loss, [p for each in parameters.values() for p in each])

    z = nets["f"](batch.x)
    task = cross_entropy(nets["g"](z), batch.y)
    confusion, bias = slow_losses(torch.log_softmax(nets["h"](z), dim=1), batch.bias)
    want = {"f": task + 0.7 * confusion, "g": task, "h": bias}
    by_hand = [g for name in want for g in torch.autograd.grad(want[name], parameters[name], retain_graph=True)]
    torch.testing.assert_close(got, tuple(by_hand))
    for name, term in (("task", task), ("confusion", confusion), ("bias", bias)):
        assert objective.terms[name].item() == pytest.approx(term.item(), rel=1e-6)


def test_without_alpha_it_is_erm_bit_for_bit(make_trainer: MakeTrainer) -> None:
    blind, erm = make_trainer({"method": "blind_eye", "alpha": 0.0}), make_trainer("erm")
    list(blind), list(erm)
    for name in ("f", "g"):
        states = [getattr(trainer.networks, name).state_dict() for trainer in (blind, erm)]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_h_steps_update_only_h_before_the_joint_update(make_trainer: MakeTrainer, batch: Batch) -> None:
    method = make_trainer({"method": "blind_eye", "h_steps": 3}).method
    moved = [objective.over for objective in method.objectives(batch, 0.0)]
    assert moved == [(method.h,), (method.h,), (method.f, method.g, method.h)]


def belief_of_h(make_trainer: MakeTrainer, batch: Batch, alpha: float) -> float:
    """Return the entropy in nats of the belief of an h that has learned the bias, after f learned under alpha."""
    learned = {"method": "bias_head", "epochs": 8, "optimizer_h": {"lr": 0.01}}
    trainer = make_trainer(learned, {"method": "blind_eye", "alpha": alpha, "epochs": 4, "optimizer_h": {"lr": 1e-6}})
    list(trainer)
    nets = trainer.networks.eval()
    with torch.no_grad():
        return float(entropy(nets.h(nets.f(batch.x), batch.labelled)))


def test_f_learns_features_that_h_cannot_predict_from(make_trainer: MakeTrainer, batch: Batch) -> None:
    seeing, blind = (belief_of_h(make_trainer, batch, alpha) for alpha in (0.0, 10.0))
    assert blind > seeing + 0.2
