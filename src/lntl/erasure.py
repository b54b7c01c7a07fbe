"""LEACE: erase a bias from features in closed form, with the smallest change of the features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, one_hot

from lntl.errors import UserError
from lntl.types import IGNORE


class Eraser(nn.Module):
    """Affine erasure of a bias: z -> z - A B (z - mean); the identity until it is fitted.

    `LeaceFit.eraser` returns a fitted eraser. Append it to f to save it in checkpoints and exports.

    Args:
        num_features: C, the length of z.
        rank: Largest number of erased directions: columns of A (C, rank) and rows of B (rank, C).
    """

    mean: Tensor
    outward: Tensor
    inward: Tensor

    def __init__(self, num_features: int, rank: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("outward", torch.zeros(num_features, rank))
        self.register_buffer("inward", torch.zeros(rank, num_features))

    def forward(self, z: Tensor) -> Tensor:
        """Return features (N, C) without the bias."""
        return z - linear(linear(z - self.mean, self.inward), self.outward)

    @torch.no_grad()
    def copy_(self, other: "Eraser") -> None:
        """Copy the values of another eraser of the same size; the dtype and the device stay the same."""
        for buffer, value in zip(self.buffers(), other.buffers(), strict=True):
            buffer.copy_(value)

    @torch.no_grad()
    def reset(self) -> None:
        """Make this eraser the identity."""
        for buffer in self.buffers():
            buffer.zero_()


class LeaceFit:
    """Least-squares concept erasure (LEACE), fitted on features that come in batches.

    The eraser is z -> z - W^+ P W (z - mean). W = cov(z)^(-1/2) is the whitening matrix, b is the bias in one-hot
    coding, and P is the projection onto the columns of W cov(z, b). Among the affine maps after which cov(z, b) = 0,
    this one changes z least in mean square. On the rows of the fit, no linear classifier of the bias then has a lower
    cross-entropy (or any other convex loss) than the best constant. The theorem bounds the loss, not the accuracy, and
    holds for linear classifiers only, so the eraser should come directly before a linear layer.

    Count, means and cross-covariances are summed over the batches in float64 (weighted, by the update of Chan, Golub
    and LeVeque, 1983); the features themselves are not stored.

    Args:
        num_features: C, the length of z.
        num_values: Number of values of the bias, or of each of several biases, which are erased together.

    Source:
        Belrose et al., "LEACE: Perfect linear concept erasure in closed form", NeurIPS 2023, theorem 4.3.

    Example:
        >>> z, bias = torch.randn(500, 8), torch.arange(500) % 3
        >>> z[:, 0] += bias
        >>> fit = LeaceFit(num_features=8, num_values=3)
        >>> for part in torch.arange(500).split(100):
        ...     fit.update(z[part], bias[part])
        >>> eraser = fit.eraser()
        >>> erased = eraser(z.double())
        >>> means = torch.stack([erased[bias == value].mean(dim=0) for value in range(3)])
        >>> bool((means - means[0]).abs().max() < 1e-12)  # the bias values share one mean
        True
    """

    def __init__(self, num_features: int, num_values: int | Sequence[int]) -> None:
        self.num_values = (num_values,) if isinstance(num_values, int) else tuple(num_values)
        num_columns = sum(self.num_values)
        self.rank = min(num_features, num_columns)
        self._weight = torch.zeros((), dtype=torch.float64)
        self._mean_z = torch.zeros(num_features, dtype=torch.float64)
        self._mean_b = torch.zeros(num_columns, dtype=torch.float64)
        # Sums of products of deviations from the means: z with z, and z with b.
        self._zz = torch.zeros(num_features, num_features, dtype=torch.float64)
        self._zb = torch.zeros(num_features, num_columns, dtype=torch.float64)

    @torch.no_grad()
    def update(self, z: Tensor, bias: Tensor, weight: Tensor | None = None) -> None:
        """Add a batch to the statistics; rows whose bias is unknown are left out.

        Args:
            z: Features (N, C).
            bias: Bias value of each row, (N,) int64, or (N, B) of B biases; IGNORE where unknown.
            weight: Weight of each row, (N,), not negative; None: all weights are 1.
        """
        labels = bias.cpu().reshape(len(bias), -1)
        known = (labels != IGNORE).all(dim=1)
        z, labels = z.cpu().double()[known], labels[known]
        w = torch.ones(len(z), dtype=torch.float64) if weight is None else weight.cpu().double()[known]
        if not (total := w.sum()) > 0:
            return
        b = torch.cat([one_hot(c, k) for c, k in zip(labels.T, self.num_values, strict=True)], dim=1).double()
        mean_z, mean_b = w @ z / total, w @ b / total
        shift_z, shift_b = mean_z - self._mean_z, mean_b - self._mean_b
        z, b = z - mean_z, (b - mean_b) * w[:, None]
        merge_weight = self._weight * total / (self._weight + total)
        self._zz += (z * w[:, None]).T @ z + merge_weight * shift_z.outer(shift_z)
        self._zb += z.T @ b + merge_weight * shift_z.outer(shift_b)
        self._weight = self._weight + total
        self._mean_z += shift_z * total / self._weight
        self._mean_b += shift_b * total / self._weight

    def eraser(self) -> Eraser:
        """Return the eraser fitted on all batches so far, in float64 on the CPU.

        Raises:
            UserError: If a bias has the same value on all rows.
        """
        for frequencies in self._mean_b.split(self.num_values):
            if (frequencies > 0).sum() < 2:
                raise UserError(
                    "the bias is constant on the rows on which the eraser is fitted; there is nothing to erase"
                )
        variances, axes = torch.linalg.eigh(self._zz / self._weight)
        has_variance = variances > variances[-1] * len(variances) * torch.finfo(torch.float64).eps
        deviations, axes = variances[has_variance].sqrt(), axes[:, has_variance]
        whitened_cov = axes / deviations @ (axes.T @ (self._zb / self._weight))  # W cov(z, b)
        basis, singular_values, _ = torch.linalg.svd(whitened_cov, full_matrices=False)
        basis = basis[:, singular_values > 1e-10]  # smaller singular values are rounding errors
        eraser = Eraser(len(self._mean_z), self.rank).double()
        eraser.mean.copy_(self._mean_z)
        eraser.outward[:, : basis.shape[1]] = axes * deviations @ (axes.T @ basis)
        eraser.inward[: basis.shape[1]] = (axes / deviations @ (axes.T @ basis)).T
        return eraser
