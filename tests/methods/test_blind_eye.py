"""Blind Eye equals slow loops, trains the right network with each loss, and makes the predictions of h uniform."""

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
    """Return confusion and bias loss of log q (N, bins, biases, H, W), in a loop over the positions."""
    confusion_terms, losses_by_channel = [], [[] for _ in range(bias.shape[1])]
    for n, channel, i, j in (bias != IGNORE).nonzero().tolist():
        log_p = log_q[n, :, channel, i, j]
        confusion_terms.append(sum(-log_p[k] / len(log_p) for k in range(len(log_p))))
        losses_by_channel[channel].append(-log_p[bias[n, channel, i, j]])
    return sum(confusion_terms) / len(confusion_terms), sum(
        sum(channel_losses) / len(channel_losses) for channel_losses in losses_by_channel
    )


def test_the_gradients_equal_those_of_the_losses(make_trainer: MakeTrainer, batch: Batch) -> None:
    """f gets the gradient of task + alpha * confusion, g that of the task, h (in eval mode) that of the bias loss."""
    method = make_trainer({"method": "blind_eye", "alpha": 0.7}, precision="64-true").method
    batch = replace(batch, x=batch.x.double())
    nets = {"f": method.f.train(), "g": method.g.train(), "h": method.h.eval()}
    parameters = {name: [*net.parameters()] for name, net in nets.items()}
    (objective,) = method.objectives(batch, 0.5)
    gradients = torch.autograd.grad(
        objective.loss, [p for network_parameters in parameters.values() for p in network_parameters]
    )

    z = nets["f"](batch.x)
    task = cross_entropy(nets["g"](z), batch.y)
    confusion, bias = slow_losses(torch.log_softmax(nets["h"](z), dim=1), batch.bias)
    losses = {"f": task + 0.7 * confusion, "g": task, "h": bias}
    expected_gradients = [
        g for name in losses for g in torch.autograd.grad(losses[name], parameters[name], retain_graph=True)
    ]
    torch.testing.assert_close(gradients, tuple(expected_gradients))
    for name, term in (("task", task), ("confusion", confusion), ("bias", bias)):
        assert objective.terms[name].item() == pytest.approx(term.item(), rel=1e-6)


@pytest.mark.full
def test_with_alpha_0_blind_eye_is_erm_bit_for_bit(make_trainer: MakeTrainer) -> None:
    blind_eye_trainer, erm_trainer = make_trainer({"method": "blind_eye", "alpha": 0.0}), make_trainer("erm")
    list(blind_eye_trainer), list(erm_trainer)
    for name in ("f", "g"):
        states = [getattr(trainer.networks, name).state_dict() for trainer in (blind_eye_trainer, erm_trainer)]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_h_steps_update_only_h_before_the_joint_update(make_trainer: MakeTrainer, batch: Batch) -> None:
    method = make_trainer({"method": "blind_eye", "h_steps": 3}).method
    updated_networks = [objective.over for objective in method.objectives(batch, 0.0)]
    assert updated_networks == [(method.h,), (method.h,), (method.f, method.g, method.h)]


def train_and_get_entropy_of_h(make_trainer: MakeTrainer, batch: Batch, alpha: float) -> float:
    """Train h on the bias, then f with `alpha`; return the entropy of the predictions of h in nats."""
    bias_head_phase = {"method": "bias_head", "epochs": 8, "optimizer_h": {"lr": 0.01}}
    trainer = make_trainer(
        bias_head_phase, {"method": "blind_eye", "alpha": alpha, "epochs": 4, "optimizer_h": {"lr": 1e-6}}
    )
    list(trainer)
    nets = trainer.networks.eval()
    with torch.no_grad():
        return float(entropy(nets.h(nets.f(batch.x), batch.labelled)))


@pytest.mark.full
def test_f_learns_features_from_which_h_cannot_predict_the_bias(make_trainer: MakeTrainer, batch: Batch) -> None:
    entropy_without_alpha, entropy_with_alpha = (
        train_and_get_entropy_of_h(make_trainer, batch, alpha) for alpha in (0.0, 10.0)
    )
    assert entropy_with_alpha > entropy_without_alpha + 0.2
