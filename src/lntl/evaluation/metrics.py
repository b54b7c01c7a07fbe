"""Metrics: functions of a tally, and one record for each that says everything else about it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

HEADLINES = 5  # metrics that fit into a line of the log and across the table of results


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of R samples of images; K classes, B bias values.

    Attributes:
        cells: Images by class, bias value and predicted class, (R, K, B, K); those of unknown bias value are in none.
        unknown: Images of unknown bias value by class and predicted class, (R, K, K).
        gaps: Sum of confidence minus correctness over the images of each bin of the confidence, (R, bins).
        bias_hits: Bias labels that h gets right, (R,).
        bias_labels: Bias labels that are known, (R,).
        bias_images: Images with a known bias label, (R,).
        aligned: Whether a bias value goes with a class in training, (K, B) bool.
    """

    cells: Array
    unknown: Array
    gaps: Array
    bias_hits: Array
    bias_labels: Array
    bias_images: Array
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


def share(part: Array, whole: Array) -> Array:
    """Return part / whole, NaN where the whole is nothing."""
    part, whole = np.broadcast_arrays(part, whole)
    ratio: Array = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio


@dataclass(frozen=True, slots=True)
class Metric:
    """All that is known about a metric; configuration, tables, files, pages and documentation derive from it.

    Attributes:
        function: From a tally of R samples to the metric's values, (R,) float64, NaN where it is undefined.
        label: What it is called in prose and on pages.
        column: What it is called at the head of a narrow column.
        meaning: What it is, in a phrase that begins with an article.
        undefined: Why it is undefined on a tally for which it is.
        images: Number of images that its value and its interval rest on.
        higher_is_better: Its direction: False for an error or a gap.
        unit: Unit of its values.
    """

    function: Callable[[Tally], Array]
    label: str
    column: str
    meaning: str
    undefined: Callable[[Tally], str]
    images: Callable[[Tally], int]
    higher_is_better: bool = True
    unit: str = "share in [0, 1]"

    @property
    def name(self) -> str:
        """Its name in configurations and files: that of its function."""
        return self.function.__name__


def _all_images(t: Tally) -> int:
    return int(t.total[0])


def _known_images(t: Tally) -> int:
    """Return the number of images whose bias value is known."""
    return int(t.count[0].sum())


def _worst_group_images(t: Tally) -> int:
    count, accuracies = t.count[0], group_accuracy(t)[0]
    return int(count[accuracies == worst_group_accuracy(t)[0]].min(initial=count.max()))


def _no_known_bias(t: Tally) -> str:
    return "no image has a known bias value"


def _unaligned(reason: str) -> Callable[[Tally], str]:
    """Return a function that gives the reason, or says that the data do not tell which bias values are aligned."""
    unknown = "the data do not say which bias value goes with a class in training"
    return lambda t: reason if t.aligned.any() else unknown


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            accuracy,
            label="accuracy",
            column="accuracy",
            meaning="the share of right predictions",
            undefined=lambda t: "there is no image",
            images=_all_images,
        ),
        Metric(
            unbiased_accuracy,
            label="unbiased accuracy",
            column="unbiased",
            meaning="the mean of the accuracies of the groups that have an image",
            undefined=_no_known_bias,
            images=_known_images,
        ),
        Metric(
            worst_group_accuracy,
            label="worst-group accuracy",
            column="worst group",
            meaning="the lowest accuracy among the groups that have an image",
            undefined=_no_known_bias,
            images=_worst_group_images,
        ),
        Metric(
            f1_score_macro,
            label="macro F1",
            column="macro F1",
            meaning="the mean of the F1 scores of the classes that occur as label or prediction",
            undefined=lambda t: "there is no image",
            images=_all_images,
        ),
        Metric(
            bias_accuracy,
            label="accuracy of h",
            column="bias (h)",
            meaning="h's accuracy over the known bias labels (chance is the share of the most frequent value)",
            undefined=lambda t: "no bias label is known",
            images=lambda t: int(t.bias_images[0]),
        ),
        Metric(
            aligned_accuracy,
            label="accuracy where the bias fits",
            column="aligned",
            meaning="the accuracy on images whose bias value is the one that goes with their class in training",
            undefined=_unaligned("no image has the bias value that goes with its class in training"),
            images=lambda t: int(t.count[0][t.aligned].sum()),
        ),
        Metric(
            conflicting_accuracy,
            label="accuracy where the bias conflicts",
            column="conflicting",
            meaning="the accuracy on images whose bias value is not the one that goes with their class in training",
            undefined=_unaligned("every image has the bias value that goes with its class in training"),
            images=lambda t: int(t.count[0][~t.aligned].sum()) if t.aligned.any() else 0,
        ),
        Metric(
            expected_calibration_error,
            label="expected calibration error",
            column="calibration error",
            meaning="the mean distance of confidence from accuracy over 15 equal-width bins of the largest probability",
            undefined=lambda t: "a probability is not a finite number",
            images=_all_images,
            higher_is_better=False,
        ),
        Metric(
            demographic_parity_gap,
            label="demographic-parity gap",
            column="parity gap",
            meaning="the largest difference between bias values of the share of images that are predicted as one class",
            undefined=lambda t: "all images have the same bias value",
            images=_known_images,
            higher_is_better=False,
        ),
        Metric(
            equalised_odds_gap,
            label="equalised-odds gap",
            column="odds gap",
            meaning="the largest difference between bias values of a class's true or false positive rate",
            undefined=lambda t: "no class, and no rest of the classes, occurs with two bias values",
            images=_known_images,
            higher_is_better=False,
        ),
    )
}


def lower_is_better(name: str) -> bool:
    """Return whether a metric of this name is better where it is lower; False for a name that is no metric's."""
    return name in METRICS and not METRICS[name].higher_is_better
