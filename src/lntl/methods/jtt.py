"""Just Train Twice: train again, and draw the errors of the previous phase more often (Liu et al., ICML 2021)."""

from collections.abc import Callable, Iterable, Iterator

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from lntl.methods.base import Method, Objective, minimise
from lntl.methods.weights import restart, unwrap
from lntl.plugins import Settings
from lntl.types import Batch, DataSpec, Networks

__all__ = ["JTT"]


class JTT(Method):
    """Liu et al., ICML 2021: min_{f,g} L_c(f, g) on the training rows, the error set repeated lambda_up times.

    The error set E contains the rows that are misclassified at the end of the previous phase. That phase trains the
    identification model: a short phase of `erm`, whose number of epochs is T in the paper. Its last weights are used,
    not their moving average. No bias label is needed. Then f and g are initialised again with a new last layer: from
    the given weights (model.weights, model.pretrained) as in the paper, or from random weights if none are given.
    Deviation: an epoch draws n rows with replacement, and a row of E is lambda_up times as likely as another row; the
    paper's epoch goes through all n + (lambda_up - 1) |E| rows.
    """

    trains = ("f", "g")
    mean_over_images = True

    class Config(Settings):
        """Settings of a phase with `method: jtt`."""

        lambda_up: float = Field(
            50.0,
            ge=1,
            le=1e9,
            description="Weight of a row of the error set; the authors use 100 on Waterbirds and 50 on CelebA.",
        )
        restart: bool = Field(True, description="Whether f and g are initialised again, as in the paper, or continue.")

    config: Config
    wrong: Tensor

    def __init__(self, networks: Networks, config: Settings, spec: DataSpec) -> None:
        super().__init__(networks, config, spec)
        self.register_buffer("wrong", torch.zeros(spec.num_rows, dtype=torch.bool))

    def prepare(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Find the error set, and initialise f and g again."""
        for batch in batches():
            self.wrong[batch.row] = self.g(self.f(batch.x)).argmax(dim=1) != batch.y
        if self.config.restart:
            restart(self.networks, unwrap(self.f), unwrap(self.g), seed)

    def sampling_weights(self) -> Tensor:
        """Return lambda_up for the rows of the error set and 1 for the others."""
        return 1 + (self.config.lambda_up - 1) * self.wrong.float()

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield the task loss over f and g; `errors` is the share of the batch that is in the error set."""
        task = cross_entropy(self.g(self.f(batch.x)), batch.y)
        yield minimise(task, over=(self.f, self.g), task=task, errors=self.wrong[batch.row].float().mean())
