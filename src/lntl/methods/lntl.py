"""Learning Not to Learn: unlearn a known bias by reversed gradients and an information term (Kim et al., CVPR 2019)."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lntl.methods.base import Objective, minimise
from lntl.methods.bias_head import HSmoothing
from lntl.methods.posterior import TaskMethod, TaskSettings
from lntl.ops import (
    adversarial,
    bias_accuracy,
    bias_cross_entropy,
    entropy,
    frozen,
    limit_gradient_ratio,
    reverse_gradient,
)
from lntl.plugins import Settings, Weight
from lntl.types import Batch

__all__ = ["LNTL"]


class LNTL(TaskMethod):
    """Kim et al., CVPR 2019, eq. 9: min_{f,g} max_h L_c(f, g) + lam * E[log q_h(b | f(x))] - mu * L_B(f, h).

    q_h is the softmax of h's logits, and the expectation runs over b ~ q_h, so that the term is the negative entropy of
    h's prediction. L_c and L_B are cross-entropies in nats; L_B is summed over the bias channels, each averaged over
    its labelled positions.
    With task: bias_product (our addition) L_c is the loss of the bias product. In training the label predicts the bias;
    with this loss f can remove the bias without losing the label.
    """

    trains = ("f", "g", "h")
    mean_over_images = True

    class Config(TaskSettings):
        """Settings of a phase with `method: lntl`."""

        lam: Weight = Field(
            0.01, description="Weight of the information term; 0.01 in the authors' code, 0 to leave it out."
        )
        mu: Weight = Field(
            0.1,
            description="Scale of the reversed gradient, 0.1 in the authors' code; training.adversarial_lambda sets "
            "it, too.",
        )
        mu_ramp: Literal["constant", "linear", "dann"] = Field(
            "constant", description="How mu grows over the phase; dann: 2 / (1 + exp(-10 p)) - 1 (Ganin et al., 2016)."
        )
        h_positions: Literal["labelled", "all"] = Field(
            "labelled",
            description="Positions at which h predicts: those with a bias label, or all, as in the authors' code, "
            "whose information term includes the background.",
        )
        h_steps: int = Field(
            1, ge=1, le=10_000, description="Updates of h per batch, so that h keeps up with f; for updates `joint`."
        )
        h_smoothing: HSmoothing = 0.0
        max_gradient_ratio: float | None = Field(
            None,
            gt=0,
            le=1e12,
            description="Largest norm of the adversary's gradient at z, divided by the norm of the task's gradient. "
            "The limit decreases as the task is learned. For updates `joint`; null for no limit.",
        )
        updates: Literal["joint", "alternating"] = Field(
            "joint",
            description="joint: eq. 9 in one step; alternating: the authors' two sub-steps per batch, each with its "
            "own forward pass and optimiser step.",
        )

    config: Config

    @classmethod
    def in_parts(cls, config: Settings) -> bool:
        """Return False if the ratio of gradients is limited, because their norms depend on the whole batch."""
        assert isinstance(config, LNTL.Config)
        return config.max_gradient_ratio is None

    def mu(self, progress: float) -> float:
        """Return the scale of the reversed gradient at `progress` in [0, 1)."""
        ramp = {"constant": 1.0, "linear": progress, "dann": 2 / (1 + math.exp(-10 * progress)) - 1}
        return self.config.mu * ramp[self.config.mu_ramp]

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield eq. 9 as one objective, or as the two objectives of the authors' code."""
        joint = self.config.updates == "joint"
        mu = self.mu(progress)
        return self._yield_joint(batch, mu) if joint else self._yield_alternating(batch, mu)

    def _get_adversary(self, batch: Batch) -> nn.Module:
        """Return the network that predicts the bias, called as adversary(z, where): h, or another in a subclass."""
        return self.h

    def _find_positions(self, batch: Batch) -> Tensor | None:
        return batch.labelled if self.config.h_positions == "labelled" else None

    def _yield_joint(self, batch: Batch, mu: float) -> Iterator[Objective]:
        z = self.f(batch.x)
        z_for_g, z_for_h, ratio = limit_gradient_ratio(z, self.config.max_gradient_ratio)
        task = self.task_loss(self.g(z_for_g), batch)
        where, adversary = self._find_positions(batch), self._get_adversary(batch)
        own_networks = tuple(self.own_networks.values())
        labels, smoothing, count = batch.bias_at(where), self.config.h_smoothing, batch.known_count
        for _ in range(self.config.h_steps - 1):
            bias = bias_cross_entropy(adversary(z.detach(), where), labels, smoothing, count)
            yield minimise(bias, over=(self.h, *own_networks))
        reversed_logits, frozen_logits = adversarial(adversary, z_for_h, mu, where)  # one forward pass of h
        bias = bias_cross_entropy(reversed_logits, labels, smoothing, count)
        mi = -entropy(frozen_logits, batch.position_count(where))
        loss = task + self.config.lam * mi + bias
        diagnostics = {"h_accuracy": bias_accuracy(reversed_logits, labels, count), "gradient_ratio": ratio}
        terms = {"task": task, "mi": mi, "bias": bias, "mu": torch.tensor(mu)} | diagnostics
        yield minimise(loss, over=(self.f, self.g, self.h, *own_networks), **terms)

    def _yield_alternating(self, batch: Batch, mu: float) -> Iterator[Objective]:
        z = self.f(batch.x)
        task = self.task_loss(self.g(z), batch)
        where, adversary = self._find_positions(batch), self._get_adversary(batch)
        mi = -entropy(frozen(adversary)(z, where), batch.position_count(where))
        yield minimise(task + self.config.lam * mi, over=(self.f, self.g), task=task, mi=mi)
        reversed_logits, labels = adversary(reverse_gradient(self.f(batch.x), mu), where), batch.bias_at(where)
        count = batch.known_count
        bias = bias_cross_entropy(reversed_logits, labels, self.config.h_smoothing, count)
        terms = {"bias": bias, "mu": torch.tensor(mu), "h_accuracy": bias_accuracy(reversed_logits, labels, count)}
        yield minimise(bias, over=(self.f, self.h, *self.own_networks.values()), **terms)
