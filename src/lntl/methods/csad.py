"""CSAD: f makes class features independent of bias features, measured across images (Zhu et al., ICCV 2021)."""

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize, softplus

from lntl.methods.base import Method, Objective, TrainingBatches, minimise
from lntl.methods.bias_labels import check_bias_values, labels_per_bias, values_per_bias
from lntl.ops import bias_cross_entropy, mean_over_positions
from lntl.plugins import Settings
from lntl.types import IGNORE, Batch, DataSpec, Networks

__all__ = ["CSAD"]

_UNITS, _VECTOR_SIZE = 128, 64  # hidden units, and size of the estimator's vectors; source: the authors' code
_CONTINUE = 0.5  # probability with which the random walk continues; else it restarts; source: the authors' code
_MAP_DISTANCE = 4  # bins of maps are alike below this squared distance; source: the authors' code
_EPSILON = 1e-7  # added to a probability before its logarithm; source: the authors' code
_MASKED_EXPONENT = -1e4  # replaces an exponent that is left out of a sum


class CSAD(Method):
    """Zhu et al., ICCV 2021: four minimisations per batch, with class features z and bias features r = e(z).

        1. min_{f,g} L_c(g(z), y)
        2. min_{e,q} L_B(q(r), b), z frozen, `bias_steps` times
        3. min_T L_T(z, r), z and r frozen, `estimator_steps` times
        4. min_f -lam * L_T(z, r), with e and T frozen

    The bias branch is a linear layer e and a small network q for each bias. T maps z and r to unit vectors u and v. The
    similarity of the class features of image i and the bias features of image j is

        A_ij = u_i v_j + (P_i log Q_j + Q_i log P_j) / 2,

    where P and Q are the distributions, one per row, of random walks with restart on softmax(tau u u^T) and
    softmax(tau v v^T). With pairs of alike bias (+; also an image with itself) and pairs of different bias (-),

        L_T = log(1 + sum+ exp(-alpha A)) / alpha + log(1 + sum- exp(alpha A)) / alpha.

    It bounds mutual information across images: T increases the similarity of pairs with alike bias, and f decreases it.
    L_c and L_B (mean over the biases) are cross-entropies in nats; e, q and T are trained with the settings of
    optimizer_h. Biases are alike if all labels are equal. For bias maps (bins of a color), the label of an image is
    the rounded mean bin of each channel; labels are alike if the sum of their squared differences is below 4, as in the
    authors' code.
    Source: "Learning Bias-Invariant Representation by Cross-Sample Mutual Information Minimization", ICCV 2021, and
    the authors' code.

    Deviation: g gets z itself; the authors' class branch has another linear layer before its classifier.
    Deviation: z is averaged over its positions for e and T; the authors flatten a map.
    Deviation: alpha and tau are constant; the authors' code trains them with T. T and the bias branch are not trained
    before the phase; the authors train T for 2 epochs and the bias branch for 20 epochs.
    Deviation: steps 3 and 4 share one forward pass of f.
    """

    trains = ("f", "g")
    sees_bias = True
    trained_with_h = ("bias_branch", "estimator")

    class Config(Settings):
        """Settings of a phase with `method: csad`."""

        lam: float = Field(1.0, ge=0, le=1e9, description="Weight of -L_T for f; 1 in the authors' code.")
        tau: float = Field(
            10.0, ge=0, le=1e4, description="Scale of the similarities in the random walk, no unit; 10 in their code."
        )
        alpha: float = Field(1.0, gt=0, le=1e4, description="Sharpness of L_T, no unit; 1 in the authors' code.")
        bias_steps: int = Field(
            10, ge=1, le=10_000, description="Updates of the bias branch per batch; 10 in the authors' code."
        )
        estimator_steps: int = Field(
            10, ge=1, le=10_000, description="Updates of T per batch; 10 in the authors' code."
        )

    config: Config

    def __init__(self, networks: Networks, config: Settings, spec: DataSpec) -> None:
        super().__init__(networks, config, spec)
        self.bias_branch = BiasBranch(networks.num_features, _count_values(spec))
        self.estimator = Estimator(networks.num_features, _UNITS)

    def prepare(self, batches: TrainingBatches, seed: int) -> None:
        """Check that the bias varies."""
        check_bias_values("csad", batches, self.spec)

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield the losses of the task, of the bias branch and of the estimator, and f's loss against the estimator."""
        config, labels = self.config, compute_image_labels(batch, self.spec)
        z = self.f(batch.x)
        task = cross_entropy(self.g(z), batch.y)
        yield minimise(task, over=(self.f, self.g), task=task)

        features = mean_over_positions(z).detach()
        for _ in range(config.bias_steps):
            bias = self.bias_branch.loss(features, labels)
            yield minimise(bias, over=(self.bias_branch,), bias=bias)

        z = mean_over_positions(self.f(batch.x))
        same, other = alike(labels, near=_MAP_DISTANCE if len(self.spec.bias_shape) == 3 else 1)
        with torch.no_grad():
            r = self.bias_branch(z)
        for _ in range(config.estimator_steps):
            u, v = self.estimator(z.detach(), r)
            mi = cross_sample_loss(u, v, same, other, config.tau, config.alpha)
            yield minimise(mi, over=(self.estimator,), mi=mi)
        u, v = self.estimator(z, self.bias_branch(z))
        mi = cross_sample_loss(u, v, same, other, config.tau, config.alpha)
        yield minimise(-config.lam * mi, over=(self.f,), mi=mi)


class BiasBranch(nn.Module):
    """e: features (N, C) -> bias features (N, 128), and q: from these to logits of each bias."""

    def __init__(self, channels: int, values: tuple[int, ...]) -> None:
        super().__init__()
        self.features = nn.Linear(channels, _UNITS)
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(_UNITS, 64), nn.LeakyReLU(), nn.Linear(64, number)) for number in values
        )

    def forward(self, z: Tensor) -> Tensor:
        """Return the bias features of features z (N, C)."""
        r: Tensor = self.features(z.type_as(self.features.weight))
        return r

    def loss(self, z: Tensor, labels: Tensor) -> Tensor:
        """Return L_B of labels (N, B) in nats: the mean over the known labels, and over the biases."""
        r = self(z)
        losses = [bias_cross_entropy(head(r), label) for head, label in zip(self.heads, labels.T, strict=True)]
        return torch.stack(losses).mean()


class Estimator(nn.Module):
    """T: class features (N, C) and bias features (N, D) -> unit vectors of both, (N, 64) each."""

    def __init__(self, class_channels: int, bias_channels: int) -> None:
        super().__init__()
        self.of_class, self.of_bias = (
            nn.Sequential(
                nn.Linear(channels, _UNITS), nn.LeakyReLU(), nn.Linear(_UNITS, _VECTOR_SIZE), nn.LeakyReLU(),
                nn.Linear(_VECTOR_SIZE, _VECTOR_SIZE),
            )
            for channels in (class_channels, bias_channels)
        )  # fmt: skip

    def forward(self, z: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """Return u and v."""
        return normalize(self.of_class(z.type_as(r)), dim=1), normalize(self.of_bias(r), dim=1)


def _count_values(spec: DataSpec) -> tuple[int, ...]:
    """Return the number of values of each label of `compute_image_labels`."""
    return (spec.num_bins,) * spec.bias_shape[0] if len(spec.bias_shape) == 3 else values_per_bias(spec)


def compute_image_labels(batch: Batch, spec: DataSpec) -> Tensor:
    """Return the bias labels of each image, (N, B) int64, IGNORE if unknown; for maps, the rounded mean bin."""
    if len(spec.bias_shape) != 3:
        return labels_per_bias(batch, spec)
    bins = batch.bias.flatten(2)
    known = bins != IGNORE
    count = known.sum(dim=2)
    mean = ((bins * known).sum(dim=2) / count.clamp(min=1)).round().long()
    return torch.where(count > 0, mean, IGNORE)


def alike(labels: Tensor, near: int = 1) -> tuple[Tensor, Tensor]:
    """Return the pairs of images with the same bias, and the pairs with different bias, (N, N) bool each.

    Args:
        labels: Labels of each bias (N, B) int64, IGNORE if unknown; an image with an unknown label is in no pair.
        near: Labels count as the same if the sum of their squared differences is below this.
    """
    known = (labels != IGNORE).all(dim=1)
    pairs = known[:, None] & known
    same = (labels[:, None] - labels).square().sum(dim=2) < near
    return pairs & same, pairs & ~same


def cross_sample_loss(
    u: Tensor, v: Tensor, same: Tensor, other: Tensor, tau: float = 10.0, alpha: float = 1.0
) -> Tensor:
    """Return L_T of a batch, a scalar.

    Args:
        u: Unit vectors from the class features, (N, D).
        v: Unit vectors from the bias features, (N, D).
        same: Pairs (i, j) whose bias is the same, (N, N) bool.
        other: Pairs whose bias differs, (N, N) bool.
        tau: Scale of the similarities in the random walk.
        alpha: Sharpness.
    """
    p, q = _walk_graph(u, tau), _walk_graph(v, tau)
    similarity = u @ v.T + (p @ (q + _EPSILON).log().T + q @ (p + _EPSILON).log().T) / 2
    return _log_sum(-alpha * similarity, same) / alpha + _log_sum(alpha * similarity, other) / alpha


def _log_sum(exponents: Tensor, pairs: Tensor) -> Tensor:
    """Return log(1 + sum of exp(exponent) over the pairs)."""
    return softplus(exponents.masked_fill(~pairs, _MASKED_EXPONENT).flatten().logsumexp(dim=0))


def _walk_graph(v: Tensor, tau: float) -> Tensor:
    """Return the distributions, one per row, of a random walk with restart on the similarities of unit vectors."""
    steps = (tau * v @ v.T).softmax(dim=1)
    steps = (steps + steps.T) / 2
    walk: Tensor = torch.linalg.inv(torch.eye(len(v), dtype=v.dtype, device=v.device) - _CONTINUE * steps)
    walk = (walk + walk.T) / 2
    return walk / walk.sum(dim=1, keepdim=True)
