"""FairKL: contrastive loss by class, with similarities that do not depend on the bias (Barbano et al., ICLR 2023)."""

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from lntl.methods.base import Method, Objective, TrainingBatches, minimise
from lntl.methods.bias_labels import check_bias_values, labels_per_bias
from lntl.ops import mean_over_positions, reverse_gradient
from lntl.plugins import Settings
from lntl.types import IGNORE, Batch

__all__ = ["FairKL"]

_MASKED_LOGIT = -1e9  # replaces a logit that is left out of a sum of exponentials
_VARIANCE_EPSILON = 1e-12  # added to a variance, so that its root has a gradient if all similarities are equal


class FairKL(Method):
    """Barbano et al., ICLR 2023: min_f alpha * L_eps + lam * R_FairKL and, in one step, min_g L_c(g(z), y), z frozen.

    With unit vectors v = z / |z| and s_ij = v_i v_j / t, eps-SupInfoNCE in nats is

        L_eps = mean over i of the mean over j in P(i) of -log( exp(s_ij) / (exp(s_ij - eps) + sum_n exp(s_in)) ),

    where P(i) are the other images of the class of i, and n runs over images of other classes. An image with
    empty P(i) is left out. R_FairKL makes the distribution of the cosines v_i v_j the same for pairs with equal bias
    (a, "aligned") and with different bias (c, "conflicting"), among pairs of one class (+) and of two classes (-):

        R_FairKL = sum over + and - of (m_a - m_c)^2 + std_weight * (s_a - s_c)^2, plus pull * (m-_a - m+_c),

    with the mean m and the standard deviation s over the batch's pairs. A difference counts only if both kinds of pairs
    occur. With several biases the terms are summed. Images whose bias is unknown are in no pair. L_c is the
    cross-entropy in nats. Source: "Unbiased Supervised Contrastive Learning", ICLR 2023, and the authors' code, from
    which the squares and the last term are taken.

    Deviation: in the authors' code an image forms a pair with itself, and the standard deviations count other pairs as
    0.
    Deviation: the authors' code multiplies L_eps by t / 0.07, and its last layer gets v.
    Deviation: features are averaged over their positions if z is a map. The authors' features are the input of the last
    layer, which is z if f ends there (`split: last` of convnet).
    """

    trains = ("f", "g")
    sees_bias = True

    class Config(Settings):
        """Settings of a phase with `method: fairkl`."""

        alpha: float = Field(1.0, ge=0, le=1e9, description="Weight of eps-SupInfoNCE; 1 in the authors' code.")
        lam: float = Field(
            1.0,
            ge=0,
            le=1e9,
            description="Weight of R_FairKL; the authors tune it, and their value for digits is not known.",
        )
        temperature: float = Field(0.1, gt=0, le=1e6, description="t, no unit; 0.1 in the authors' code.")
        epsilon: float = Field(
            0.25, ge=0, le=1e6, description="eps, margin in units of s; 0 in the authors' configuration for digits."
        )
        std_weight: float = Field(
            1.0, ge=0, le=1e9, description="Weight of the standard deviations in R_FairKL; 1 in the authors' code."
        )
        pull: float = Field(
            1.0,
            ge=0,
            le=1e9,
            description="Weight of m-_a - m+_c in R_FairKL; 1 in the authors' code, 0 for only the divergence.",
        )
        task_weight: float = Field(
            0.0,
            ge=0,
            le=1e9,
            description="Weight of L_c for f; 0, as in the authors' code: f learns only from the contrastive loss.",
        )

    config: Config

    def prepare(self, batches: TrainingBatches, seed: int) -> None:
        """Check that the bias varies."""
        check_bias_values("fairkl", batches, self.spec)

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield the task loss, the contrastive loss and R_FairKL over f and g."""
        config, z = self.config, self.f(batch.x)
        task = cross_entropy(self.g(reverse_gradient(z, -config.task_weight)), batch.y)
        v = normalize(mean_over_positions(z), dim=1)
        contrast = sup_info_nce(v, batch.y, config.temperature, config.epsilon)
        labels = labels_per_bias(batch, self.spec)
        fair = torch.stack([fair_kl(v, batch.y, bias, config.std_weight, config.pull) for bias in labels.T]).sum()
        loss = task + config.alpha * contrast + config.lam * fair
        yield minimise(loss, over=(self.f, self.g), task=task, contrast=contrast, fairkl=fair)


def sup_info_nce(v: Tensor, y: Tensor, temperature: float = 0.1, epsilon: float = 0.0) -> Tensor:
    """Return eps-SupInfoNCE in nats, a scalar; 0 if no class has two images.

    Args:
        v: Unit vectors (N, D).
        y: Classes (N,) int64.
        temperature: t, no unit.
        epsilon: Margin between images of the same class and of other classes, in units of the similarity over t.
    """
    s, same = v @ v.T / temperature, y[:, None] == y
    others = s.masked_fill(same, _MASKED_LOGIT).logsumexp(dim=1, keepdim=True)
    positive = same & ~torch.eye(len(v), dtype=torch.bool, device=v.device)
    losses = (torch.logaddexp(s - epsilon, others) - s).masked_fill(~positive, 0).sum(dim=1)
    counts = positive.sum(dim=1)
    return (losses / counts.clamp(min=1)).sum() / (counts > 0).sum().clamp(min=1)


def fair_kl(v: Tensor, y: Tensor, bias: Tensor, std_weight: float = 1.0, pull: float = 0.0) -> Tensor:
    """Return R_FairKL of a batch, a scalar without unit; 0 if no two kinds of pairs can be compared.

    Args:
        v: Unit vectors (N, D).
        y: Classes (N,) int64.
        bias: Labels of one bias (N,) int64, IGNORE if unknown.
        std_weight: Weight of the standard deviations.
        pull: Weight of the mean over pairs with equal bias and two classes, minus the mean over pairs with different
            bias and one class.
    """
    cosines, known = v @ v.T, bias != IGNORE
    pairs = known[:, None] & known & ~torch.eye(len(v), dtype=torch.bool, device=v.device)
    same_class, same_bias = y[:, None] == y, bias[:, None] == bias
    total = torch.zeros((), dtype=v.dtype, device=v.device)
    for classes, sign in ((same_class, -1), (~same_class, 1)):
        aligned, aligned_std, has_aligned = pair_moments(cosines, pairs & classes & same_bias)
        conflicting, conflicting_std, has_conflicting = pair_moments(cosines, pairs & classes & ~same_bias)
        difference = (aligned - conflicting).square() + std_weight * (aligned_std - conflicting_std).square()
        total = total + has_aligned * has_conflicting * difference
        total = total + pull * (aligned if sign > 0 else -conflicting)
    return total


def pair_moments(cosines: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return mean and standard deviation of the cosines (N, N) over `pairs` (N, N), and whether there are any pairs."""
    count = pairs.sum().clamp(min=1)
    mean = (cosines * pairs).sum() / count
    variance = ((cosines - mean).square() * pairs).sum() / count
    return mean, (variance + _VARIANCE_EPSILON).sqrt(), pairs.any()
