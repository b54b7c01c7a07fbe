"""Kernel dependence of features and bias as a penalty (HSIC, Gretton et al., ALT 2005)."""

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from lntl.methods.base import Method, Objective, minimise
from lntl.ops import mean_over_positions
from lntl.plugins import Settings, Weight
from lntl.types import IGNORE, Batch

__all__ = ["HSIC"]

_MIN_DIVISOR = 1e-6  # lower bound of a kernel width, and of a product of norms of centred kernels


class HSIC(Method):
    """min_{f,g} L_c(f, g) + alpha * D(z, bias_features), with D a kernel measure of dependence, 0 if independent.

    Gretton et al., ALT 2005, the biased estimator on a batch of n: D = HSIC(K, L) = tr(K H L H) / (n - 1)^2, with
    H = I - 1/n, K (n, n) the kernel of z and L (n, n) that of the bias features (N, A).
    Kernels: k(u, v) = exp(-|u - v|^2 / (2 s^2)), s the median distance of the batch's pairs, without gradient.
    `cka` is the normalised form, D = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) in [0, 1] (Kornblith et al., ICML 2019);
    its scale does not depend on the spread of the kernels. Examples whose bias is unknown are left out.
    Deviation: z is averaged over its positions if it is a map. Bahng et al. (ICML 2020) use the input of the last
    layer (`split: last` of convnet), and penalise dependence on the features of a network that is biased by design;
    here the bias features themselves are known.
    """

    trains = ("f", "g")
    sees_bias = True

    class Config(Settings):
        """Settings of a phase with `method: hsic`."""

        alpha: Weight = Field(
            1.0, description="Weight of the dependence in the loss; 1 is our choice, not from a paper."
        )
        estimator: Literal["cka", "hsic"] = Field(
            "cka", description="cka: normalised, in [0, 1]; hsic: the biased estimator of Gretton et al. (2005)."
        )

    config: Config

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield the task loss and the dependence over f and g."""
        z = self.f(batch.x)
        task = cross_entropy(self.g(z), batch.y)
        known = batch.group != IGNORE
        K = centre_kernel(kernel(mean_over_positions(z), known), known)
        L = centre_kernel(kernel(batch.bias_features.type_as(z), known), known)
        dependence = cka(K, L) if self.config.estimator == "cka" else hsic(K, L, known)
        loss = task + self.config.alpha * dependence
        yield minimise(loss, over=(self.f, self.g), task=task, dependence=dependence)


def kernel(v: Tensor, known: Tensor) -> Tensor:
    """Return exp(-|v_i - v_j|^2 / (2 s^2)) (N, N) of v (N, A), s the median distance of two known examples, detached.

    If most examples are equal, s is 0, and the kernel is 1 for equal examples and 0 for others.
    """
    distances = torch.cdist(v, v, compute_mode="donot_use_mm_for_euclid_dist")
    pairs = known[:, None] & known & ~torch.eye(len(v), dtype=torch.bool, device=v.device)
    width = distances.detach().masked_fill(~pairs, torch.nan).nanmedian().nan_to_num().clamp(min=_MIN_DIVISOR)
    return torch.exp(-(distances / width).square() / 2)


def centre_kernel(K: Tensor, known: Tensor) -> Tensor:
    """Return H K H over the known examples, 0 in the rows and columns of other examples."""
    weight = known.type_as(K)
    pairs, n = weight[:, None] * weight, weight.sum().clamp(min=1)
    rows = (K * pairs).sum(dim=1) / n
    centred_kernel: Tensor = pairs * (K - rows[:, None] - rows + rows.sum() / n)
    return centred_kernel


def hsic(K: Tensor, L: Tensor, known: Tensor) -> Tensor:
    """Return HSIC of two centred kernels (N, N): tr(K H L H) / (n - 1)^2."""
    value: Tensor = (K * L).sum() / (known.sum() - 1).clamp(min=1).square()
    return value


def cka(K: Tensor, L: Tensor) -> Tensor:
    """Return the normalised HSIC of two centred kernels (N, N): the cosine of K and L as vectors."""
    value: Tensor = (K * L).sum() / (K.norm() * L.norm()).clamp(min=_MIN_DIVISOR)
    return value
