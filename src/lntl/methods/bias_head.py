"""Pre-train the bias head: h learns the bias from features that stand still."""

from collections.abc import Iterator

import torch

from lntl.methods.base import Method, Objective, minimise
from lntl.ops import bias_cross_entropy
from lntl.types import Batch

__all__ = ["BiasHead"]


class BiasHead(Method):
    """min_h L_B(h(f(x)), b), with f fixed."""

    trains = ("h",)
    sees_bias = True

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield the bias loss over h."""
        with torch.no_grad():
            z = self.f(batch.x)
        where = batch.labelled
        bias = bias_cross_entropy(self.h(z, where), batch.bias_at(where))
        yield minimise(bias, over=(self.h,), bias=bias)
