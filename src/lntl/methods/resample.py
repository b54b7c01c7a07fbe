"""Resampling: an epoch draws images as often as they would occur if bias and label were independent."""

from collections.abc import Iterator

from torch import Tensor
from torch.nn.functional import cross_entropy

from lntl.methods.base import Objective, minimise
from lntl.methods.posterior import effective_share
from lntl.methods.reweight import Reweight
from lntl.types import Batch

__all__ = ["Resample"]


class Resample(Reweight):
    """min_{f,g} E[CE(g(f(x)), y)] over rows drawn with replacement, in proportion to the weights of `reweight`.

    The expected loss is that of `reweight`. The variance within a batch is smaller, but rare images are repeated.
    Source: as for `reweight`; Idrissi et al., CLeaR 2022, compare the two for groups.
    """

    def sampling_weights(self) -> Tensor:
        """Return p(y) / p(y | b) of every training row, clipped."""
        return self.weights

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield the task loss over f and g."""
        task = cross_entropy(self.g(self.f(batch.x)), batch.y)
        yield minimise(task, over=(self.f, self.g), task=task, effective_share=effective_share(self.weights))
