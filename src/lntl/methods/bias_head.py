"""Pre-train the bias head: h learns the bias from frozen features."""

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field

from lntl.methods.base import Method, Objective, minimise
from lntl.ops import bias_cross_entropy
from lntl.plugins import Settings
from lntl.types import Batch

__all__ = ["BiasHead"]


_DESCRIPTION = (
    "Label smoothing of L_B: share of the uniform distribution in the labels of h, which reduces overconfidence of h "
    "(Zhang et al., ICLR 2023, for adversarial training)."
)
HSmoothing = Annotated[float, Field(ge=0, lt=1, description=_DESCRIPTION)]  # for every method that trains h


class BiasHead(Method):
    """min_h L_B(h(f(x)), b) with f frozen; L_B is the cross-entropy in nats."""

    trains = ("h",)
    mean_over_images = True
    sees_bias = True

    class Config(Settings):
        """Settings of a phase with `method: bias_head`."""

        h_smoothing: HSmoothing = 0.0

    config: Config

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield the bias loss over h."""
        with torch.no_grad():
            z = self.f(batch.x)
        where = batch.labelled
        bias = bias_cross_entropy(self.h(z, where), batch.bias_at(where), self.config.h_smoothing, batch.known_count)
        yield minimise(bias, over=(self.h,), bias=bias)
