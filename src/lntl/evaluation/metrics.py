"""Metrics: each has a function of a tally, and a record with its name, meaning and direction.

The function of a metric takes a `Tally` of R samples of images and returns (R,) float64, shares in [0, 1] and NaN where
the metric is undefined.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # lntl.types imports torch, which takes seconds; the configuration only needs the names of metrics
    from lntl.types import BiasSpec

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

NUM_HEADLINES = 5  # number of metrics in each line of the log and in the table of results
# Up to this number of groups, sums include empty groups, because numpy's rounding depends on the zeros.
MAX_DENSE_GROUPS = 2**16
MAX_NAMES, MAX_LENGTH = 5, 150  # largest number of names in a sentence, and of characters of each


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts of R samples of images; K classes, B bias values, C cells (class, bias value).

    Only cells that contain an image, by its class or by its predicted class, are stored, so that memory and time grow
    with the number of images and not with K * B.

    Attributes:
        num_values: B.
        cell_class: Class of each cell, (C,); cells ascend by class, then by bias value.
        cell_value: Bias value of each cell, (C,).
        count: Images of the cell, (R, C).
        right: Images of the cell that are predicted as the cell's class, (R, C).
        answered: Images with the cell's bias value, of any class, predicted as the cell's class, (R, C).
        value_count: Images of each bias value, (R, B).
        labelled: Images of each class, including those of unknown bias value, (R, K).
        predicted: Images predicted as each class, including those of unknown bias value, (R, K).
        hits: Correct predictions of each class, including those of unknown bias value, (R, K).
        gaps: Sum of confidence minus correctness over the images of each bin of the confidence, (R, bins).
        bias_hits: Bias labels that h predicts correctly, (R,).
        bias_labels: Bias labels that are known, (R,); 0 if h is not trained.
        bias_images: Images with a known bias label, (R,).
        aligned: The bias value that indicates each class in training, (K,); None if there is none.
        groups: Groups class * B + bias value that occur in any split of the data, (E,) ascending.
        h_is_trained: Whether h is trained.
    """

    num_values: int
    cell_class: Ints
    cell_value: Ints
    count: Array
    right: Array
    answered: Array
    value_count: Array
    labelled: Array
    predicted: Array
    hits: Array
    gaps: Array
    bias_hits: Array
    bias_labels: Array
    bias_images: Array
    aligned: Ints | None
    groups: Ints
    h_is_trained: bool

    @property
    def total(self) -> Array:
        """Images, (R,)."""
        images: Array = self.labelled.sum(axis=1)
        return images

    @property
    def cells(self) -> Ints:
        """Index class * B + bias value of each cell, (C,)."""
        return self.cell_class * self.num_values + self.cell_value

    @property
    def is_aligned(self) -> NDArray[np.bool_]:
        """Whether the bias value of each cell is the one that indicates its class in training, (C,)."""
        if self.aligned is None:
            return np.zeros(len(self.cell_class), dtype=np.bool_)
        return np.asarray(self.aligned[self.cell_class] == self.cell_value)

    @property
    def classes(self) -> Ints:
        """Classes that occur in any split with a known bias value, ascending."""
        return np.unique(self.groups // max(1, self.num_values))

    @property
    def values(self) -> Ints:
        """Bias values that occur in any split, ascending."""
        return np.unique(self.groups % max(1, self.num_values))


def accuracy(t: Tally) -> Array:
    """Return the share of right predictions."""
    return share(t.hits.sum(axis=1), t.total)


def unbiased_accuracy(t: Tally) -> Array:
    """Return the mean of the accuracies of the groups that have an image."""
    values, groups = group_accuracy(t), t.labelled.shape[1] * t.num_values
    if groups <= MAX_DENSE_GROUPS:
        dense = np.full((len(values), groups), np.nan)
        dense[:, t.cells] = values
        values = dense
    return _mean(values)


def worst_group_accuracy(t: Tally) -> Array:
    """Return the lowest accuracy among the groups that have an image."""
    worst: Array = np.fmin.reduce(group_accuracy(t), axis=1, initial=np.nan)
    return worst


def f1_score_macro(t: Tally) -> Array:
    """Return the mean of the F1 scores of the classes that occur as label or prediction."""
    return _mean(share(2 * t.hits, t.predicted + t.labelled))


def bias_accuracy(t: Tally) -> Array:
    """Return h's accuracy over the known bias labels (chance is the share of the most frequent value)."""
    return share(t.bias_hits, t.bias_labels)


def aligned_accuracy(t: Tally) -> Array:
    """Return the accuracy on images whose bias value is the one that indicates their class in training."""
    return share(t.right[:, t.is_aligned].sum(axis=1), t.count[:, t.is_aligned].sum(axis=1))


def conflicting_accuracy(t: Tally) -> Array:
    """Return the accuracy on images whose bias value is not the one that indicates their class in training."""
    conflicting = ~t.is_aligned if t.aligned is not None else t.is_aligned
    return share(t.right[:, conflicting].sum(axis=1), t.count[:, conflicting].sum(axis=1))


def expected_calibration_error(t: Tally) -> Array:
    """Return the mean distance of confidence from accuracy over 15 equal-width bins of the largest probability.

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    return share(np.abs(t.gaps).sum(axis=1), t.total)


def demographic_parity_gap(t: Tally) -> Array:
    """Return the largest difference between two bias values in the share of images predicted as one class.

    max_c (max_b P(c predicted | b) - min_b P(c predicted | b)), over the bias values b that occur in any split.
    Undefined if one of them has no image.
    """
    values = t.values
    if len(values) < 2 or not len(t.cell_class):
        return np.full(len(t.count), np.nan)
    rate = share(t.answered, t.value_count[:, t.cell_value])
    return np.where((t.value_count[:, values] > 0).all(axis=1), _largest_spread(rate, t.cell_class, values), np.nan)


def equalised_odds_gap(t: Tally) -> Array:
    """Return the largest difference between two bias values in a class's true or false positive rate.

    max_c max(spread_b P(c predicted | y = c, b), spread_b P(c predicted | y != c, b)), where spread is the maximum
    minus the minimum over the bias values b that occur in any split. Undefined if a class that occurs in any split has
    no image with one of these bias values.
    """
    classes, values = t.classes, t.values
    groups = len(classes) * len(values)
    undefined = np.full(len(t.count), np.nan)
    if min(len(classes), len(values)) < 2 or groups > len(t.cell_class):
        return undefined
    is_complete = (t.count > 0).sum(axis=1) == groups
    true_rate = share(t.right, t.count)
    false_rate = share(t.answered - t.right, t.value_count[:, t.cell_value] - t.count)
    has_images = np.isin(t.cell_class, classes)  # a class that is only predicted has no true positive rate
    spreads = [
        _largest_spread(true_rate[:, has_images], t.cell_class[has_images], values),
        _largest_spread(false_rate, t.cell_class, values),
    ]
    return np.where(is_complete, np.maximum(*spreads), undefined)


def group_accuracy(t: Tally) -> Array:
    """Return the accuracy of each cell, (R, C)."""
    return share(t.right, t.count)


def class_accuracy(t: Tally) -> Array:
    """Return the accuracy of each class, (R, K)."""
    return share(t.hits, t.labelled)


def bias_value_accuracy(t: Tally) -> Array:
    """Return the accuracy on the images of each bias value, (R, B)."""
    correct: Array = np.stack([np.bincount(t.cell_value, row, t.num_values) for row in t.right])
    return share(correct, t.value_count)


def _mean(values: Array) -> Array:
    """Return the mean over the last axis of the values that are not NaN."""
    defined = ~np.isnan(values)
    return share(np.where(defined, values, 0).sum(axis=-1), defined.sum(axis=-1))


def _largest_spread(rates: Array, classes: Ints, values: Ints) -> Array:
    """Return the largest difference between two bias values in the rate of one class, (R,).

    rates: (R, C) of cells in ascending order of their classes (C,). A bias value without a cell has the rate 0.
    """
    starts = np.flatnonzero(np.diff(classes, prepend=-1))
    highest, lowest = np.maximum.reduceat(rates, starts, axis=1), np.minimum.reduceat(rates, starts, axis=1)
    is_complete = np.diff(starts, append=len(classes)) == len(values)
    largest: Array = (highest - np.where(is_complete, lowest, 0)).max(axis=1)
    return largest


def share(part: Array, whole: Array) -> Array:
    """Return part / whole, NaN where the whole is 0."""
    part, whole = np.broadcast_arrays(part, whole)
    ratio: Array = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio


@dataclass(frozen=True, slots=True)
class CellNames:
    """Names of the groups, made of the names of the label and the bias, of the classes and the bias values."""

    classes: Sequence[str]
    values: Sequence[str]
    label: str = "class"
    bias: str = "bias"
    biases: "Sequence[BiasSpec]" = ()

    def __getitem__(self, cell: int) -> str:
        """Return the name of the group class * B + bias value: "cat with night", or "Blond_Hair=1, Male=0".

        The second form is used for names without letters and for several biases.
        """
        label, value = divmod(int(cell), len(self.values))
        name, bias_value = self.classes[label], self.values[value]
        if not self.biases and all(any(map(str.isalpha, text)) for text in (name, bias_value)):
            return f"{name} with {bias_value}"
        bias_pairs = [(bias.name, bias.values[bias.value_of_joint[value]]) for bias in self.biases]
        pairs = [(self.label, name), *(bias_pairs[:MAX_NAMES] or [(self.bias, bias_value)])]
        num_more = len(bias_pairs) - MAX_NAMES
        return ", ".join(f"{key}={text}" for key, text in pairs) + (f" and {num_more} more" if num_more > 0 else "")


def bias_name(kind: str, biases: "Sequence[BiasSpec]") -> str:
    """Return the name of the bias for a sentence; for many biases, their number."""
    return kind if len(biases) <= MAX_NAMES else f"combination of {len(biases)} biases"


def join_names(names: Sequence[str]) -> str:
    """Return names joined for a sentence: at most MAX_NAMES of them, each cut after MAX_LENGTH characters."""
    texts = [name if len(name) <= MAX_LENGTH else f"{name[: MAX_LENGTH - 1]}…" for name in names[:MAX_NAMES]]
    num_more = len(names) - MAX_NAMES
    return "; ".join(texts) + (f"; and {num_more} more" if num_more > 0 else "")


def format_count(n: int, noun: str) -> str:
    """Return a number with its noun, such as 1 row or 3 rows."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


@dataclass(frozen=True, slots=True)
class Metric:
    """The function and description of a metric, for configuration, tables, files, pages and documentation.

    Attributes:
        function: From a tally of R samples to the metric's values, (R,) float64, NaN where it is undefined.
        label: Name in prose and on pages.
        column: Short name for a table column.
        meaning: Definition as a phrase that begins with an article.
        undefined: Function that returns the reason if the metric is undefined on a tally.
        images: Function that returns the number of images in the metric.
        higher_is_better: False for an error or a gap.
        over_groups: Whether it is computed over the groups with images; tables then show the number of these groups.
        unit: Unit of its values.
    """

    function: Callable[[Tally], Array]
    label: str
    column: str
    meaning: str
    undefined: Callable[[Tally, CellNames], str]
    images: Callable[[Tally], int]
    higher_is_better: bool = True
    over_groups: bool = False
    unit: str = "share in [0, 1]"

    @property
    def name(self) -> str:
        """Name in configurations and files: the name of the function."""
        return self.function.__name__


def _all_images(t: Tally) -> int:
    return int(t.total[0])


def _known_images(t: Tally) -> int:
    """Return the number of images whose bias value is known."""
    return int(t.count[0].sum())


def _constant_reason(reason: str) -> Callable[[Tally, CellNames], str]:
    return lambda t, names: reason


_NO_KNOWN_BIAS = "no image has a known bias value"


def _aligned_reason(reason: str) -> Callable[[Tally, CellNames], str]:
    """Return a function that returns the reason, or that aligned bias values are unknown."""
    unknown = "the data do not say which bias value indicates a class in training"
    return lambda t, names: unknown if t.aligned is None else reason


def _parity_reason(t: Tally, names: CellNames) -> str:
    if not t.count[0].any():
        return _NO_KNOWN_BIAS
    if len(t.values) < 2:
        return "all images have the same bias value"
    missing = t.values[t.value_count[0][t.values] == 0]
    return (
        f"no image has {names.bias} {join_names([names.values[value] for value in missing])}, so its rates are "
        "undefined"
    )


def _odds_reason(t: Tally, names: CellNames) -> str:
    if not t.count[0].any():
        return _NO_KNOWN_BIAS
    if len(t.values) < 2:
        return "all images have the same bias value"
    if len(t.classes) < 2:
        return "all images have the same class"
    is_present = np.zeros((len(t.classes), len(t.values)), dtype=np.bool_)
    has_images = t.count[0] > 0
    is_present[
        np.searchsorted(t.classes, t.cell_class[has_images]), np.searchsorted(t.values, t.cell_value[has_images])
    ] = True
    missing = np.argwhere(~is_present)
    cells = t.classes[missing[:, 0]] * t.num_values + t.values[missing[:, 1]]
    return f"no image is {join_names([names[cell] for cell in cells])}, so one of the compared rates is undefined"


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            accuracy,
            label="accuracy",
            column="accuracy",
            meaning="the share of right predictions",
            undefined=_constant_reason("there is no image"),
            images=_all_images,
        ),
        Metric(
            unbiased_accuracy,
            label="unbiased accuracy",
            column="unbiased",
            meaning="the mean of the accuracies of the groups that have an image",
            undefined=_constant_reason(_NO_KNOWN_BIAS),
            images=_known_images,
            over_groups=True,
        ),
        Metric(
            worst_group_accuracy,
            label="worst-group accuracy",
            column="worst group",
            meaning="the lowest accuracy among the groups that have an image",
            undefined=_constant_reason(_NO_KNOWN_BIAS),
            images=_known_images,
            over_groups=True,
        ),
        Metric(
            f1_score_macro,
            label="macro F1",
            column="macro F1",
            meaning="the mean of the F1 scores of the classes that occur as label or prediction",
            undefined=_constant_reason("there is no image"),
            images=_all_images,
        ),
        Metric(
            bias_accuracy,
            label="accuracy of h",
            column="bias (h)",
            meaning="h's accuracy over the known bias labels (chance is the share of the most frequent value)",
            undefined=lambda t, names: "no bias label is known" if t.h_is_trained else "h was not trained",
            images=lambda t: int(t.bias_images[0]),
        ),
        Metric(
            aligned_accuracy,
            label="accuracy on aligned images",
            column="aligned",
            meaning="the accuracy on images whose bias value is the one that indicates their class in training",
            undefined=_aligned_reason("no image has the bias value that indicates its class in training"),
            images=lambda t: int(t.count[0][t.is_aligned].sum()),
        ),
        Metric(
            conflicting_accuracy,
            label="accuracy on conflicting images",
            column="conflicting",
            meaning="the accuracy on images whose bias value is not the one that indicates their class in training",
            undefined=_aligned_reason("every image has the bias value that indicates its class in training"),
            images=lambda t: int(t.count[0][~t.is_aligned].sum()) if t.aligned is not None else 0,
        ),
        Metric(
            expected_calibration_error,
            label="expected calibration error",
            column="calibration error",
            meaning="the mean distance of confidence from accuracy over 15 equal-width bins of the largest probability",
            undefined=_constant_reason("a probability is not a finite number"),
            images=_all_images,
            higher_is_better=False,
        ),
        Metric(
            demographic_parity_gap,
            label="demographic-parity gap",
            column="parity gap",
            meaning="the largest difference between two bias values in the share of images predicted as one class",
            undefined=_parity_reason,
            images=_known_images,
            higher_is_better=False,
        ),
        Metric(
            equalised_odds_gap,
            label="equalised-odds gap",
            column="odds gap",
            meaning="the largest difference between two bias values in a class's true or false positive rate",
            undefined=_odds_reason,
            images=_known_images,
            higher_is_better=False,
        ),
    )
}


def lower_is_better(name: str) -> bool:
    """Return whether lower values of a metric are better; False for an unknown name."""
    return name in METRICS and not METRICS[name].higher_is_better
