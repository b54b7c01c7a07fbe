"""The causal check: give each image every bias value in turn, and see whether the prediction stays.

A probe tells what features hold; this tells what the prediction uses.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lntl.data.loader import Loader
from lntl.evaluation import bootstrap
from lntl.seeding import derive
from lntl.types import Networks


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over images with its bootstrap interval: the percentiles of resampled images' means."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Answers:
    """Probabilities (n, values, classes) of n images that wore each bias value in turn, and their classes y (n,)."""

    probabilities: Tensor
    y: Tensor

    @property
    def predicted(self) -> Tensor:
        """The predicted class of each image under each bias value, (n, values)."""
        return self.probabilities.argmax(dim=2)

    @property
    def flipped(self) -> Tensor:
        """Whether the prediction is not the same for all bias values, bool (n,)."""
        return (self.predicted != self.predicted[:, :1]).any(dim=1)

    @property
    def change(self) -> Tensor:
        """The mean over bias values v of total variation TV(p_v, mean of p) = 1/2 sum_k |p_v - mean of p|_k, (n,)."""
        distance = (self.probabilities - self.probabilities.mean(dim=1, keepdim=True)).abs().sum(dim=2) / 2
        return distance.mean(dim=1)

    @property
    def accuracy(self) -> list[float]:
        """The accuracy over all images under each bias value."""
        return [float(hits) for hits in (self.predicted == self.y[:, None]).double().mean(dim=0)]


@torch.inference_mode()
def answers(networks: Networks, loaders: Iterable[Loader]) -> Answers:
    """Run the networks over the same images under each bias value, a loader for each; they are left in eval mode."""
    networks.eval()
    columns, y = [], torch.zeros(0, dtype=torch.int64)
    for loader in loaders:
        rows = [(networks.g(networks.f(b.x)).float().softmax(dim=1).cpu(), b.y.cpu()) for b in loader.batches()]
        probabilities, y = (torch.cat(column) for column in zip(*rows, strict=True))
        columns.append(probabilities)
    return Answers(torch.stack(columns, dim=1), y)


def mean_interval(values: Tensor, seed: int) -> Interval:
    """Return the mean of values (n,) with the percentile interval of its bootstrap resamples."""
    random = np.random.default_rng(derive(seed, "bootstrap"))
    each = values.double().numpy()
    means = [each[random.integers(len(each), size=len(each))].mean() for _ in range(bootstrap.RESAMPLES)]
    low, high = bootstrap.interval(np.array(means))
    assert low is not None
    assert high is not None
    return Interval(float(each.mean()), low, high)
