"""DebiAN: a network finds groups that the classifier treats unequally; the worse gets more weight (Li et al., 2022)."""

import copy
from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from lntl.methods.base import Method, Objective, TrainingBatches, minimise
from lntl.methods.weights import restart, unwrap
from lntl.plugins import Settings
from lntl.types import Batch, DataSpec, Networks

__all__ = ["DebiAN"]

_EPSILON = 1e-6  # keeps a logarithm and a quotient finite; source: the authors' code


class DebiAN(Method):
    """Li et al., ECCV 2022: min_{f,g} E[w(x) CE(g(f(x)), y)] and, in the same step, min_d L_d; no bias label.

    The discoverer d, a network of the architecture of g(f(x)) with its own initial weights, divides the images of a
    class c into two groups: s = sigmoid(d(x)_y) is the share of x in the first, 1 - s in the second. With
    p = softmax(g(f(x)))_y,

        P1_c = sum s p / sum s and P2_c = sum (1 - s) p / sum (1 - s) over the batch's images of class c,
        L_d = mean over the classes c of the batch of -log |P1_c - P2_c| - penalty * log(1 - |mean s - mean (1 - s)|):

    d looks for two groups of equal size whose mean p differs most (equal opportunity). The classifier learns more
    from the group on which it is worse: w = 1 + s if P1_c <= P2_c, otherwise 2 - s. The gradient of each loss reaches
    only its own network. d is trained with the settings of optimizer_fg. CE and the logarithms are in nats.
    Source: "Discover and Mitigate Unknown Biases with Debiasing Alternate Networks", ECCV 2022, and the authors' code.

    Deviation: both losses are computed on one batch in one forward pass. The authors' code draws a second batch for d;
    each network uses the other in evaluation mode, and d uses the classifier after its update.
    """

    trains = ("f", "g")

    class Config(Settings):
        """Settings of a phase with `method: debian`."""

        penalty: float = Field(
            1.0, ge=0, le=1e9, description="Weight of the penalty on groups of unequal size; 1 in the authors' code."
        )

    config: Config

    def __init__(self, networks: Networks, config: Settings, spec: DataSpec) -> None:
        super().__init__(networks, config, spec)
        self.discoverer = nn.Sequential(*(copy.deepcopy(unwrap(net)) for net in (self.f, self.g)))

    def prepare(self, batches: TrainingBatches, seed: int) -> None:
        """Initialise d."""
        restart(self.networks, self.discoverer[0], self.discoverer[1], seed)

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield both losses over f, g and d."""
        y, image = batch.y, torch.arange(len(batch.y), device=batch.y.device)
        logits = self.g(self.f(batch.x))
        p = logits.softmax(dim=1)[image, y].detach()
        s = self.discoverer(batch.x)[image, y].sigmoid()
        weights = debian_weights(p, s.detach(), y, self.spec.num_classes)
        task = (weights * cross_entropy(logits, y, reduction="none")).mean()
        discovery = discovery_loss(p, s, y, self.spec.num_classes, self.config.penalty)
        over = (self.f, self.g, self.discoverer)
        yield minimise(task + discovery, over=over, task=task, discovery=discovery, group=s.detach().mean())


def group_means(p: Tensor, s: Tensor, y: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return P1 and P2, the mean p of both groups of each class, (num_classes,); 0 for a class without an image.

    Args:
        p: Probability that the classifier gives to the class of an image, (N,).
        s: Share of an image in the first group, (N,).
        y: Classes (N,) int64.
        num_classes: Number of classes.
    """
    member = one_hot(y, num_classes).type_as(s)
    p1, p2 = ((share * p) @ member / (share @ member + _EPSILON) for share in (s, 1 - s))
    return p1, p2


def debian_weights(p: Tensor, s: Tensor, y: Tensor, num_classes: int) -> Tensor:
    """Return the weight of each image in the classifier's loss, (N,) in [1, 2].

    Args:
        p: Probability that the classifier gives to the class of an image, (N,).
        s: Share of an image in the first group, (N,).
        y: Classes (N,) int64.
        num_classes: Number of classes.
    """
    p1, p2 = group_means(p, s, y, num_classes)
    return 1 + torch.where((p2 < p1)[y], 1 - s, s)


def discovery_loss(p: Tensor, s: Tensor, y: Tensor, num_classes: int, penalty: float = 1.0) -> Tensor:
    """Return L_d in nats, a scalar.

    Args:
        p: Probability that the classifier gives to the class of an image, (N,), without gradient.
        s: Share of an image in the first group, (N,).
        y: Classes (N,) int64.
        num_classes: Number of classes.
        penalty: Weight of the penalty on groups of unequal size.
    """
    p1, p2 = group_means(p, s, y, num_classes)
    member = one_hot(y, num_classes).type_as(s)
    count = member.sum(dim=0)
    size_gap = ((2 * s - 1) @ member / count.clamp(min=1)).abs()
    losses = -(_EPSILON + (p1 - p2).abs()).log() - penalty * (_EPSILON + 1 - size_gap).log()
    return (losses * (count > 0)).sum() / (count > 0).sum()
