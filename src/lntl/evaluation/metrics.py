"""Metrics, each in [0, 1]: functions of a tally, one value a sample (R,), NaN where the metric is undefined."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from lntl.evaluation.predict import Predictions
from lntl.evaluation.tally import Array, Tally, share, tally


def accuracy(t: Tally) -> Array:
    """Return the share of right predictions."""
    return share(np.einsum("rkk->r", t.confusion), t.total)


def unbiased_accuracy(t: Tally) -> Array:
    """Return the mean of the accuracies of the groups that have an image."""
    return _mean(group_accuracy(t).reshape(len(t.cells), -1))


def worst_group_accuracy(t: Tally) -> Array:
    """Return the lowest accuracy among the groups that have an image."""
    worst: Array = np.fmin.reduce(group_accuracy(t), axis=(1, 2))
    return worst


def f1_score_macro(t: Tally) -> Array:
    """Return the mean of the F1 scores of the classes that occur as label or prediction."""
    right = np.einsum("rkk->rk", t.confusion)
    return _mean(share(2 * right, t.confusion.sum(axis=1) + t.confusion.sum(axis=2)))


def bias_accuracy(t: Tally) -> Array:
    """Return h's accuracy over the known bias labels (chance is the share of the most frequent value)."""
    return share(t.bias_hits, t.bias_labels)


def aligned_accuracy(t: Tally) -> Array:
    """Return the accuracy on images whose bias value is the one that goes with their class in training."""
    return _accuracy_where(t, t.aligned)


def conflicting_accuracy(t: Tally) -> Array:
    """Return the accuracy on images whose bias value is not the one that goes with their class in training."""
    return _accuracy_where(t, ~t.aligned & t.aligned.any())


def expected_calibration_error(t: Tally) -> Array:
    """Return the mean distance of confidence from accuracy over 15 equal-width bins of the largest probability."""
    return share(np.abs(t.gaps).sum(axis=1), t.total)


def demographic_parity_gap(t: Tally) -> Array:
    """Return the largest difference between bias values of the share of images that are predicted as one class.

    max_c (max_b P(c predicted | b) - min_b P(c predicted | b)), over the bias values that occur.
    """
    rate = share(t.cells.sum(axis=1), t.count.sum(axis=1)[..., None])
    return _largest(_spread(rate))


def equalised_odds_gap(t: Tally) -> Array:
    """Return the largest difference between bias values of a class's true or false positive rate.

    max_c max(spread_b P(c predicted | y = c, b), spread_b P(c predicted | y != c, b)), the spread being maximum minus
    minimum over the bias values for which the rate is defined.
    """
    hits, positives = t.right.swapaxes(1, 2), t.count.swapaxes(1, 2)  # (R, B, K)
    false = share(t.cells.sum(axis=1) - hits, positives.sum(axis=2, keepdims=True) - positives)
    return _largest(np.concatenate([_spread(share(hits, positives)), _spread(false)], axis=1))


def group_accuracy(t: Tally) -> Array:
    """Return the accuracy of each group, (R, K, B)."""
    return share(t.right, t.count)


def class_accuracy(t: Tally) -> Array:
    """Return the accuracy of each class, (R, K)."""
    return share(np.einsum("rkk->rk", t.confusion), t.confusion.sum(axis=2))


def bias_value_accuracy(t: Tally) -> Array:
    """Return the accuracy on the images of each bias value, (R, B)."""
    return share(t.right.sum(axis=1), t.count.sum(axis=1))


def _mean(values: Array) -> Array:
    """Return the mean over the last axis of what is no NaN."""
    there = ~np.isnan(values)
    return share(np.where(there, values, 0).sum(axis=-1), there.sum(axis=-1))


def _accuracy_where(t: Tally, groups: NDArray[np.bool_]) -> Array:
    """Return the accuracy on the images of the groups (K, B) that are marked."""
    return share((t.right * groups).sum(axis=(1, 2)), (t.count * groups).sum(axis=(1, 2)))


def _largest(values: Array) -> Array:
    """Return the maximum over the last axis of what is no NaN."""
    largest: Array = np.fmax.reduce(values, axis=-1)
    return largest


def _spread(rates: Array) -> Array:
    """Return maximum minus minimum of rates (R, B, K) over B, NaN where fewer than two of them are defined."""
    spread = np.fmax.reduce(rates, axis=1) - np.fmin.reduce(rates, axis=1)
    return np.where((~np.isnan(rates)).sum(axis=1) > 1, spread, np.nan)


METRICS: dict[str, Callable[[Tally], Array]] = {
    metric.__name__: metric
    for metric in (
        accuracy,
        unbiased_accuracy,
        worst_group_accuracy,
        f1_score_macro,
        bias_accuracy,
        aligned_accuracy,
        conflicting_accuracy,
        expected_calibration_error,
        demographic_parity_gap,
        equalised_odds_gap,
    )
}


def compute(p: Predictions, names: Sequence[str]) -> dict[str, float | None]:
    """Return the named metrics of the predictions, None for those that are undefined."""
    counts = tally(p)
    values = {name: float(METRICS[name](counts)[0]) for name in names}
    return {name: None if np.isnan(value) else value for name, value in values.items()}
