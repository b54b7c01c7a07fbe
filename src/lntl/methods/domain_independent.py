"""Domain-independent training: a task head for each bias value, summed at test (Wang et al., CVPR 2020)."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch.nn.functional import cross_entropy

from lntl.errors import UserError
from lntl.methods.base import Method, Objective, minimise
from lntl.plugins import Settings
from lntl.types import IGNORE, Batch, DataSpec, Networks

__all__ = ["DomainIndependent"]


class DomainIndependent(Method):
    """Wang et al., CVPR 2020: min_{f,g} mean of -log p_d(y | x); d is the bias value of x, p_d the softmax of head d.

    The heads g_d: z -> (N, num_classes) share all of g except its last layer; d = group mod num_bias_values, and images
    without a bias label are ignored. At test, g(z) is the sum over d of the logits of the heads, or of their
    probabilities (model.heads_sum); in the paper, the logits are better if the bias is unknown. Losses are in nats.
    Source: "Towards Fairness in Visual Recognition: Effective Strategies for Bias Mitigation", CVPR 2020, and the
    authors' code.
    """

    trains = ("f", "g")
    mean_over_images = True
    sees_bias = True
    required_model_settings: ClassVar = {"heads": "per_bias"}

    def __init__(self, networks: Networks, config: Settings, spec: DataSpec) -> None:
        super().__init__(networks, config, spec)
        if getattr(self.g, "num_bias_values", None) != spec.num_bias_values:
            raise UserError("domain_independent: g has no task head for each bias value; set model.heads: per_bias")

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield the task loss over f and g; each image uses the head of its bias value."""
        known = batch.group != IGNORE
        logits = self.g(self.f(batch.x), batch.group % self.spec.num_bias_values)
        total = cross_entropy(logits, torch.where(known, batch.y, IGNORE), ignore_index=IGNORE, reduction="sum")
        task = total / (known.sum().clamp(min=1) if batch.counts is None else batch.counts.groups.clamp(min=1e-9))
        yield minimise(task, over=(self.f, self.g), task=task)
