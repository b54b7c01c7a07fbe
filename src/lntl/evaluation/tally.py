"""Count predictions, and bootstrap samples of them, into tallies, from which the metrics are computed."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lntl.evaluation.metrics import METRICS, Array, Ints, Tally
from lntl.evaluation.predict import Predictions
from lntl.types import IGNORE

CONFIDENCE = 0.95  # confidence level of the intervals
RESAMPLES = 1000
SEED = 0
_SAMPLES_PER_CHUNK = 50  # samples that are counted together
BINS = 15  # equal-width bins of the confidence; source: Guo et al., ICML 2017


class Counter:
    """Counts the images of n predictions, or of many weighted samples of them, into a tally."""

    def __init__(self, p: Predictions) -> None:
        """Sort the images into kinds: images of one class, bias value and predicted class are counted together."""
        self._num_classes, self._num_values = p.num_classes, p.num_bias_values
        y, group, predicted = p.y.numpy(), p.group.numpy(), p.predicted.numpy()
        known, num_groups = group != IGNORE, p.num_groups
        # A kind is (group, predicted class); without a bias value, num_groups + class replaces the group.
        kinds, self._kind = np.unique(
            np.where(known, group, num_groups + y) * p.num_classes + predicted, return_inverse=True
        )
        true_cell, self._predicted = np.divmod(kinds, p.num_classes)
        self._known = true_cell < num_groups
        true_group = true_cell[self._known]
        value = true_group % max(1, self._num_values)
        self._value, self._class = (
            value,
            np.where(self._known, true_cell // max(1, self._num_values), true_cell - num_groups),
        )
        predicted_group = self._predicted[self._known] * self._num_values + value
        self._cells, cell = np.unique(np.concatenate([true_group, predicted_group]), return_inverse=True)
        self._true_cell, self._predicted_cell = np.split(cell, 2)
        self._is_correct = self._class == self._predicted
        confidence = p.probabilities.double().amax(dim=1).numpy()
        self._gap = confidence - p.correct.double().numpy()
        # Bins (low, high] as in Guo et al. A confidence of NaN falls into the last bin and makes its sum NaN.
        self._bin = np.digitize(confidence, np.linspace(0, 1, BINS + 1)[1:-1], right=True)
        self._bias_hits, self._bias_labels = (n.double().numpy() for n in (p.bias_hits, p.bias_labels))
        self._aligned = np.array(p.aligned, dtype=np.int64) if p.aligned else None
        self._h_is_trained = p.h_is_trained
        self._groups = np.union1d(group[known], [] if p.all_groups is None else p.all_groups.numpy()).astype(np.int64)

    def __call__(self, weights: Array) -> Tally:
        """Return the counts of the images, each weighted by `weights` (R, n)."""
        counts = _sum_by_index(weights, self._kind, len(self._predicted))  # images of each kind
        known, correct = counts[:, self._known], counts * self._is_correct
        return Tally(
            num_values=self._num_values,
            cell_class=self._cells // max(1, self._num_values),
            cell_value=self._cells % max(1, self._num_values),
            count=_sum_by_index(known, self._true_cell, len(self._cells)),
            right=_sum_by_index(correct[:, self._known], self._true_cell, len(self._cells)),
            answered=_sum_by_index(known, self._predicted_cell, len(self._cells)),
            value_count=_sum_by_index(known, self._value, self._num_values),
            labelled=_sum_by_index(counts, self._class, self._num_classes),
            predicted=_sum_by_index(counts, self._predicted, self._num_classes),
            hits=_sum_by_index(correct, self._class, self._num_classes),
            gaps=np.stack([np.bincount(self._bin, row * self._gap, BINS) for row in weights]),
            bias_hits=weights @ self._bias_hits,
            bias_labels=weights @ self._bias_labels,
            bias_images=weights @ (self._bias_labels > 0).astype(np.float64),
            aligned=self._aligned,
            groups=self._groups,
            h_is_trained=self._h_is_trained,
        )


def _sum_by_index(counts: Array, index: NDArray[np.intp], size: int) -> Array:
    """Return the sums of the columns (R, n) that have the same index (n,), (R, size)."""
    return np.stack([np.bincount(index, row, size) for row in counts])


def tally(p: Predictions) -> Tally:
    """Return the counts of the predictions as one sample (R = 1), in which each image counts once."""
    return Counter(p)(np.ones((1, len(p.y))))


def confusion(p: Predictions) -> Ints:
    """Return the number of images by class and predicted class, (K, K)."""
    cell = p.y.numpy() * p.num_classes + p.predicted.numpy()
    return np.bincount(cell, minlength=p.num_classes**2).reshape(p.num_classes, -1)


def compute(p: Predictions, names: Sequence[str]) -> dict[str, float | None]:
    """Return the named metrics of the predictions; None if undefined."""
    counts = tally(p)
    values = {name: float(METRICS[name].function(counts)[0]) for name in names}
    return {name: None if np.isnan(value) else value for name, value in values.items()}


def resample(p: Predictions, statistics: Mapping[str, Callable[[Tally], Array]]) -> dict[str, Array]:
    """Return the values of each statistic on RESAMPLES bootstrap samples, (RESAMPLES, ...).

    A sample draws n of the n images with replacement; an image's weight is how often it was drawn. All statistics see
    the same samples.
    """
    random, n, count = np.random.default_rng(SEED), len(p.y), Counter(p)
    parts = []
    for _ in range(RESAMPLES // _SAMPLES_PER_CHUNK):
        drawn = [np.bincount(random.integers(n, size=n), minlength=n) for _ in range(_SAMPLES_PER_CHUNK)]
        counts = count(np.stack(drawn).astype(np.float64))
        parts.append({name: statistic(counts) for name, statistic in statistics.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in statistics}


def interval(values: Array) -> tuple[float, float] | tuple[None, None]:
    """Return the percentile interval of a statistic's values (R,), without samples in which it is undefined."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None, None
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
