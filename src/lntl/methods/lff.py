"""Learning from Failure: a biased network shows what the main network should learn (Nam et al., NeurIPS 2020)."""

import copy
from collections.abc import Callable, Iterable, Iterator

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lntl.methods.base import Method, Objective, minimise
from lntl.methods.weights import restart, unwrap
from lntl.plugins import Settings
from lntl.types import Batch, DataSpec, Networks

__all__ = ["LfF"]

_EPSILON = 1e-8  # keeps a weight finite if both losses are 0; source: the authors' code


class LfF(Method):
    """Nam et al., NeurIPS 2020: min_{f,g} E[W(x) CE(g(f(x)), y)] and min_b E[GCE(b(x), y)], in one step; no bias label.

    b is a network of the architecture of g(f(x)) with its own weights. GCE(p, y) = (1 - p_y^q) / q (Zhang and Sabuncu,
    2018) weights the gradient of the cross-entropy by p_y^q, so that b learns mostly from easy examples. The relative
    difficulty W = L_b / (L_b + L) in [0, 1], without gradient, is computed from the cross-entropies in nats of both
    networks. As in the authors' code, each cross-entropy is first replaced by its moving average over the visits of the
    example, which starts with the first loss. The average is then divided by the largest average of its class. b is
    trained with the settings of optimizer_fg. As in the authors' code, b starts from the given weights (model.weights,
    model.pretrained) with a new last layer, or from random weights if none are given.
    """

    trains = ("f", "g")

    class Config(Settings):
        """Settings of a phase with `method: lff`."""

        q: float = Field(
            0.7,
            gt=0,
            le=1,
            description="Exponent of the generalised cross-entropy, 0.7 in the paper; with 1 the loss is 1 - p_y.",
        )
        decay: float = Field(
            0.7,
            ge=0,
            lt=1,
            description="Decay of an example's average loss per visit; 0.7 in the authors' code.",
        )

    config: Config
    average: Tensor
    label: Tensor

    def __init__(self, networks: Networks, config: Settings, spec: DataSpec) -> None:
        super().__init__(networks, config, spec)
        self.biased = nn.Sequential(*(copy.deepcopy(unwrap(net)) for net in (self.f, self.g)))
        # The average losses of b and of g(f(x)); -1 for an example that is not visited yet.
        self.register_buffer("average", torch.full((2, spec.num_rows), -1.0))
        self.register_buffer("label", torch.zeros(spec.num_rows, dtype=torch.int64))

    def prepare(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Initialise b."""
        restart(self.networks, self.biased[0], self.biased[1], seed)

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield both losses over f, g and b; the gradient of each reaches only its own network."""
        main_losses = cross_entropy(self.g(self.f(batch.x)), batch.y, reduction="none")
        biased_losses = cross_entropy(self.biased(batch.x), batch.y, reduction="none")
        weight = self._update_difficulty(
            batch, torch.stack([biased_losses, main_losses]).detach().type_as(self.average)
        )
        task, gce = (weight * main_losses).mean(), generalised_cross_entropy(biased_losses, self.config.q).mean()
        yield minimise(task + gce, over=(self.f, self.g, self.biased), task=task, biased=gce, difficulty=weight.mean())

    def _update_difficulty(self, batch: Batch, losses: Tensor) -> Tensor:
        """Update the averages with the losses (2, N) of a batch; return W (N,)."""
        previous, decay = self.average[:, batch.row], self.config.decay
        self.average[:, batch.row] = torch.where(previous < 0, losses, decay * previous + (1 - decay) * losses)
        self.label[batch.row] = batch.y
        class_maximum = losses.new_full((2, self.spec.num_classes), _EPSILON)
        class_maximum = class_maximum.scatter_reduce(1, self.label.expand(2, -1), self.average, "amax")
        biased, main = self.average[:, batch.row] / class_maximum[:, batch.y]
        weight: Tensor = biased / (biased + main + _EPSILON)
        return weight


def generalised_cross_entropy(cross_entropies: Tensor, q: float) -> Tensor:
    """Return GCE = (1 - p^q) / q of cross-entropies -log p in nats."""
    return -torch.expm1(-q * cross_entropies) / q
