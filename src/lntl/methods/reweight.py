"""Reweighting: the loss of each image is weighted as if bias and label were independent."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lntl.methods.base import Method, Objective, minimise
from lntl.methods.posterior import BiasPosterior, MaxWeight, balancing_weights, effective_share
from lntl.plugins import Settings
from lntl.types import Batch, DataSpec, Networks

__all__ = ["Reweight"]


class Reweight(Method):
    """min_{f,g} E[w CE(g(f(x)), y)] with w = p(y) / p(y | b), clipped, then scaled to a mean of 1; losses in nats.

    Under these weights label and bias are independent. p(y | b) is cross-fitted (`BiasPosterior`). The effective share
    (sum w)^2 / (n sum w^2), Kish's effective sample size over n, is logged; if it is small, few images dominate.
    Source: inverse propensity weights, Horvitz and Thompson, 1952; Li and Vasconcelos, CVPR 2019, for dataset bias.
    """

    trains = ("f", "g")
    mean_over_images = True
    sees_bias = True

    class Config(Settings):
        """Settings of a phase with `method: reweight`."""

        max_weight: MaxWeight = 100.0

    config: Config
    weights: Tensor

    def __init__(self, networks: Networks, config: Settings, spec: DataSpec) -> None:
        super().__init__(networks, config, spec)
        self.posterior = BiasPosterior(spec)
        self.register_buffer("weights", torch.zeros(spec.num_rows))

    def prepare(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Fit p(y | b) and compute the weight of every row."""
        self.posterior.fit(batches(), seed)
        self.weights.copy_(balancing_weights(self.posterior, batches(), self.config.max_weight))

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield the weighted loss over f and g."""
        losses = cross_entropy(self.g(self.f(batch.x)), batch.y, reduction="none")
        task = (self.weights[batch.row] * losses).mean()
        yield minimise(task, over=(self.f, self.g), task=task, effective_share=effective_share(self.weights))
