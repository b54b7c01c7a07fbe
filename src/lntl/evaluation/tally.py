"""Tally: what every metric is computed from, counted over the images or over many weighted samples of them at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lntl.evaluation.predict import Predictions
from lntl.types import IGNORE

Array = NDArray[np.float64]

BINS = 15  # equal-width bins of the confidence; source: Guo et al., ICML 2017


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of R samples; K classes, B bias values.

    cells (R, K, B, K): images by class, bias value and predicted class; gaps (R, BINS): sum of confidence minus
    correctness over the images whose confidence lies in the bin; bias_hits, bias_labels (R,): as in Predictions;
    aligned (K, B) bool: which bias value goes with a class in training. Images whose bias value is unknown are in no
    cell; unknown (R, K, K) counts them by class and predicted class.
    """

    cells: Array
    unknown: Array
    gaps: Array
    bias_hits: Array
    bias_labels: Array
    aligned: NDArray[np.bool_]

    @property
    def count(self) -> Array:
        """Images in each group, (R, K, B)."""
        total: Array = self.cells.sum(axis=3)
        return total

    @property
    def right(self) -> Array:
        """Right predictions in each group, (R, K, B)."""
        hits: Array = np.einsum("rkbk->rkb", self.cells)
        return hits

    @property
    def confusion(self) -> Array:
        """Images by class and predicted class, (R, K, K), those of unknown bias value among them."""
        total: Array = self.cells.sum(axis=2) + self.unknown
        return total

    @property
    def total(self) -> Array:
        """Images, (R,)."""
        images: Array = self.confusion.sum(axis=(1, 2))
        return images


def tally(p: Predictions, weights: Array | None = None) -> Tally:
    """Return the counts of the images, each weighted by `weights` (R, n); without them each counts once (R = 1)."""
    if weights is None:
        weights = np.ones((1, len(p.y)))
    shape = (p.num_classes, p.num_bias_values + 1, p.num_classes)  # one bias value more: unknown
    bias = p.bias.where(p.bias != IGNORE, p.num_bias_values)
    cell = np.ravel_multi_index((p.y.numpy(), bias.numpy(), p.predicted.numpy()), shape)
    confidence = p.probabilities.double().amax(dim=1).numpy()
    gap = confidence - p.correct.double().numpy()
    # (low, high] as in Guo et al.; a confidence that is no number falls into the last bin and makes it none as well
    place = np.digitize(confidence, np.linspace(0, 1, BINS + 1)[1:-1], right=True)
    aligned = np.zeros((p.num_classes, p.num_bias_values), dtype=np.bool_)
    if p.aligned:
        aligned[np.arange(p.num_classes), list(p.aligned)] = True
    flat = np.stack([np.bincount(cell, row, int(np.prod(shape))) for row in weights], dtype=np.float64)
    cells = flat.reshape(-1, *shape)
    return Tally(
        cells=cells[:, :, :-1],
        unknown=cells[:, :, -1],
        gaps=np.stack([np.bincount(place, row * gap, BINS) for row in weights]),
        bias_hits=weights @ p.bias_hits.double().numpy(),
        bias_labels=weights @ p.bias_labels.double().numpy(),
        aligned=aligned,
    )


def share(part: Array, whole: Array) -> Array:
    """Return part / whole, NaN where the whole is nothing."""
    part, whole = np.broadcast_arrays(part, whole)
    ratio: Array = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio
