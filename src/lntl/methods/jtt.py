"""Just Train Twice: train again, with the errors of the phase before drawn more often (Liu et al., ICML 2021)."""

from collections.abc import Callable, Iterable, Iterator

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from lntl.methods.base import Method, Objective, minimise
from lntl.methods.weights import inner, restart
from lntl.plugins import Settings
from lntl.types import Batch, DataSpec, Networks

__all__ = ["JTT"]


class JTT(Method):
    """Liu et al., ICML 2021: min_{f,g} L_c(f, g) on the training rows, those of the error set lambda_up times each.

    The error set E holds the rows whose class argmax g(f(x)) misses at the end of the phase before, the identification
    model (a short phase of `erm`, its epochs the paper's T; the weights, not their average), without any bias label.
    Then f and g start again from first weights.
    Deviation: an epoch draws as many rows as there are, with replacement, a row of E lambda_up times as likely as
    another; the paper's epoch goes through all n + (lambda_up - 1) |E| of them.
    f and g start again from the given weights (model.weights, model.pretrained) as in the paper, with a new last layer;
    without them from random weights.
    """

    trains = ("f", "g")
    mean_over_images = True

    class Config(Settings):
        """Settings of a phase with `method: jtt`."""

        lambda_up: float = Field(
            50.0,
            ge=1,
            le=1e9,
            description="How many times an error counts; the authors have 100 on Waterbirds, 50 on CelebA.",
        )
        restart: bool = Field(
            True, description="Whether f and g start again from first weights, as in the paper, or continue."
        )

    config: Config
    wrong: Tensor

    def __init__(self, networks: Networks, config: Settings, spec: DataSpec) -> None:
        super().__init__(networks, config, spec)
        self.register_buffer("wrong", torch.zeros(spec.num_rows, dtype=torch.bool))

    def prepare(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Find the error set, and restart f and g."""
        for batch in batches():
            self.wrong[batch.row] = self.g(self.f(batch.x)).argmax(dim=1) != batch.y
        if self.config.restart:
            restart(self.networks, inner(self.f), inner(self.g), seed)

    def sampling_weights(self) -> Tensor:
        """Return lambda_up for the rows of the error set and 1 for the others."""
        return 1 + (self.config.lambda_up - 1) * self.wrong.float()

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield the task loss over f and g; `errors` is the share of the batch that is in the error set."""
        task = cross_entropy(self.g(self.f(batch.x)), batch.y)
        yield minimise(task, over=(self.f, self.g), task=task, errors=self.wrong[batch.row].float().mean())
