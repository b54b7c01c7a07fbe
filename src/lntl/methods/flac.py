"""FLAC: make the features of two images similar if their bias features differ (Sarridis et al., 2024)."""

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from lntl.methods.base import Method, Objective, TrainingBatches, minimise
from lntl.methods.bias_classifier import BiasClassifiers, BiasClassifierSettings
from lntl.methods.bias_labels import check_bias_values
from lntl.ops import mean_over_positions
from lntl.plugins import Settings
from lntl.types import Batch, DataSpec, Networks

__all__ = ["FLAC"]

_DISTANCE_EPSILON = 1e-6  # added to squared distances, so that their root has a gradient; source: the authors' code
_SUM_EPSILON = 1e-7  # added to the sum by which a row is divided; source: the authors' code


class FLAC(Method):
    """Sarridis et al., 2024: min_{f,g} L_c(f, g) + alpha * sum_k L_FLAC(f(x), b_k(x), y).

    b_k is a bias classifier of bias k, fitted on the training data before the phase and then frozen. With unit vectors
    u, the similarity of two images is s_ij = 1 / (1 + |u_i - u_j|^exponent): s^z for f's features, s^b for b's. A pair
    counts if class and bias disagree: the same class with s^b_ij < t, or different classes with s^b_ij > t, where t is
    the mean of the smallest and the largest s^b of the batch. Over the pairs of row i,

        p_ij = (1 - s^b_ij) / sum_j (1 - s^b_ij),  q_ij = s^z_ij / sum_j s^z_ij,

    and L_FLAC is the mean over all pairs of (p_ij - q_ij) (log p_ij - log q_ij), 0 without a pair. L_c is the
    cross-entropy in nats. Source: "FLAC: Fairness-Aware Representation Learning by Suppressing Attribute-Class
    Associations", IEEE TPAMI 2024, and the authors' code.

    Deviation: the bias classifier learns only from the training data; the authors' code loads a trained classifier and
    does not say on which data it was trained.
    Deviation: features are averaged over their positions if z is a map. The authors' features are the input of the last
    layer, which is z if f ends there (`split: last` of convnet).
    """

    trains = ("f", "g")
    sees_bias = True

    class Config(BiasClassifierSettings):
        """Settings of a phase with `method: flac`."""

        alpha: float = Field(
            110.0,
            ge=0,
            le=1e9,
            description="Weight of L_FLAC; the authors use 110, 1500, 2000 and 10000 on Biased-MNIST at rho 0.990, "
            "0.995, 0.997 and 0.999.",
        )
        exponent: float = Field(
            0.5, gt=0, le=100, description="Exponent of the distance in the similarity; 0.5 in the authors' code."
        )

    config: Config

    def __init__(self, networks: Networks, config: Settings, spec: DataSpec) -> None:
        super().__init__(networks, config, spec)
        self.bias_classifiers = BiasClassifiers(networks, spec)

    def prepare(self, batches: TrainingBatches, seed: int) -> None:
        """Fit the bias classifiers."""
        check_bias_values("flac", batches, self.spec)
        self.bias_classifiers.fit(batches, self.config, seed)

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield the task loss and L_FLAC over f and g."""
        z = self.f(batch.x)
        task, features = cross_entropy(self.g(z), batch.y), mean_over_positions(z)
        flac = torch.stack(
            [
                flac_loss(features, mean_over_positions(b), batch.y, self.config.exponent)
                for b in self.bias_classifiers(batch.x)
            ]
        ).sum()
        yield minimise(task + self.config.alpha * flac, over=(self.f, self.g), task=task, flac=flac)


def flac_loss(z: Tensor, b: Tensor, y: Tensor, exponent: float = 0.5) -> Tensor:
    """Return L_FLAC of a batch, a scalar without unit; 0 if no pair counts.

    Args:
        z: Features (N, C).
        b: Features of a bias classifier (N, D), without gradient.
        y: Classes (N,) int64.
        exponent: Exponent of the distance in the similarity.
    """
    s_z, s_b = _compute_similarities(z, exponent), _compute_similarities(b, exponent)
    threshold, same = (s_b.max() + s_b.min()) / 2, y[:, None] == y
    pairs = torch.where(same, s_b < threshold, s_b > threshold)
    p, q = _compute_shares(1 - s_b, pairs), _compute_shares(s_z, pairs)
    return ((p - q) * (p.log() - q.log())).sum() / pairs.sum().clamp(min=1)


def _compute_similarities(v: Tensor, exponent: float) -> Tensor:
    """Return 1 / (1 + distance^exponent) of the unit vectors of v, (N, N)."""
    u = normalize(v, dim=1)
    squares = u.square().sum(dim=1)  # 0 if v is 0, else 1
    squared_distances = (squares[:, None] + squares - 2 * u @ u.T).clamp(min=0)
    return 1 / (1 + (squared_distances + _DISTANCE_EPSILON) ** (exponent / 2))


def _compute_shares(weight: Tensor, pairs: Tensor) -> Tensor:
    """Return the weights of the pairs of each row, divided by their sum; 1 for other pairs, whose loss is then 0."""
    total = (weight * pairs).sum(dim=1, keepdim=True) + _SUM_EPSILON
    return torch.where(pairs, weight / total, 1.0)
