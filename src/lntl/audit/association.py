"""Measures of the association of bias and label, and the smallest difference that a test set can detect."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from lntl.types import IGNORE

Ints = NDArray[np.int64]

SIGNIFICANCE, POWER = 0.05, 0.8  # level and power of a two-sided test for a difference of two accuracies
NEIGHBOURS = 15  # number of the most similar training images that predict the bias value of an image
CONTRAST_NOISE = 0.05  # standard deviation of the noise of contrasts, which have the order 1
MAX_CELLS = 10_000_000  # largest number of (class, value) cells for which Cramér's V is computed


@dataclass(frozen=True)
class Table:
    """Contingency table of class and bias value; only the C cells that contain examples are stored.

    Attributes:
        num_classes: Number of classes.
        num_values: Number of bias values.
        cells: Index class * num_values + bias value of each cell, (C,) ascending.
        count: Number of examples in each cell, (C,).
    """

    num_classes: int
    num_values: int
    cells: Ints
    count: Ints

    @property
    def classes(self) -> Ints:
        """The class of each cell, (C,)."""
        return np.asarray(self.cells // self.num_values)

    @property
    def values(self) -> Ints:
        """The bias value of each cell, (C,)."""
        return np.asarray(self.cells % self.num_values)

    @property
    def num_examples(self) -> int:
        """Number of examples in the table."""
        return int(self.count.sum())

    @property
    def class_count(self) -> Ints:
        """Number of examples of each class, (num_classes,)."""
        return _sum_by_index(self.classes, self.count, self.num_classes)

    @property
    def value_count(self) -> Ints:
        """Number of examples of each bias value, (num_values,)."""
        return _sum_by_index(self.values, self.count, self.num_values)

    def dense(self) -> Ints:
        """Return the counts of all cells, also of empty ones, (num_classes, num_values)."""
        counts = np.zeros(self.num_classes * self.num_values, dtype=np.int64)
        counts[self.cells] = self.count
        return counts.reshape(self.num_classes, self.num_values)


def crosstab(y: Ints, value: Ints, num_classes: int, num_values: int) -> Table:
    """Return the table of n examples, given their y and value, (n,); examples whose value is IGNORE are left out."""
    known = value != IGNORE
    cells, count = np.unique(y[known] * num_values + value[known], return_counts=True)
    return Table(num_classes, num_values, cells, count)


def cramers_v(table: Table) -> float:
    """Return sqrt(chi^2 / (n (min(K, B) - 1))) over the K classes and B values that occur.

    Returns:
        0 if label and bias are independent, 1 if one determines the other; NaN if only one class or value occurs, or
        if there are more than MAX_CELLS cells.

    Source: Cramér, "Mathematical Methods of Statistics", 1946.
    """
    from scipy.stats.contingency import association  # imported here because it is slow to import

    rows, columns = _indices_of_occurring(table)
    shape = (int(rows.max(initial=-1)) + 1, int(columns.max(initial=-1)) + 1)
    if min(shape) < 2 or math.prod(shape) > MAX_CELLS:
        return math.nan
    counts = np.zeros(shape, dtype=np.int64)
    counts[rows, columns] = table.count
    return float(association(counts, method="cramer"))


def normalised_mutual_information(table: Table) -> float:
    """Return I(y; b) / ((H(y) + H(b)) / 2) in [0, 1]; NaN if only one class or value occurs."""
    from scipy.sparse import csr_array
    from scipy.stats import entropy
    from sklearn.metrics import mutual_info_score

    rows, columns = _indices_of_occurring(table)
    if min(rows.max(initial=-1), columns.max(initial=-1)) < 1:
        return math.nan
    mutual_information = mutual_info_score(None, None, contingency=csr_array((table.count, (rows, columns))))
    return float(2 * mutual_information / (entropy(table.class_count) + entropy(table.value_count)))


def best_rule(table: Table) -> Ints:
    """Return the most frequent class of each bias value, (num_values,).

    A value without examples gets the most frequent class of all examples. No classifier that sees only the bias is more
    accurate on these examples.
    """
    rule = np.full(table.num_values, table.class_count.argmax())
    # The last assignment to a value remains: its most frequent class, the first of equally frequent ones.
    order = np.lexsort((-table.classes, table.count))
    rule[table.values[order]] = table.classes[order]
    return rule


def rule_accuracy(table: Table, rule: Ints) -> float:
    """Return the accuracy of a rule that predicts class rule[value] from the bias value; rule: (num_values,)."""
    return _share(table.count[rule[table.values] == table.classes].sum(), table.num_examples)


def majority_share(table: Table) -> float:
    """Return the share of the most frequent class."""
    return _share(table.class_count.max(), table.num_examples)


def color_features(color: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return mean colors (n, 3) in [0, 255] and their directions, which a thin and a thick stroke share: (n, 6)."""
    length = np.linalg.norm(color, axis=1, keepdims=True)
    return np.concatenate([color / 255, color / np.maximum(length, 1)], axis=1)


def contrast_features(contrast: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return contrasts (n, 3) with noise, so that rounded pixel values do not show the color of a plain stroke."""
    noise = np.random.default_rng(0).normal(scale=CONTRAST_NOISE, size=contrast.shape)
    return (contrast + noise).astype(np.float32)


def neighbour_accuracy(
    train_x: NDArray[np.float32], train_value: Ints, val_x: NDArray[np.float32], val_value: Ints
) -> float:
    """Return how well features of an image predict its bias value: balanced accuracy on val.

    The prediction is the most frequent bias value of the nearest training images.

    Args:
        train_x: Features of training images, (n, d).
        train_value: Their bias values, (n,); IGNORE if unknown.
        val_x: The same of images of val, (m, d).
        val_value: Their bias values, (m,).

    Returns:
        The mean over the values in val of the share of their images that are predicted correctly; NaN if fewer than
        two values are known in train or none is in val.
    """
    in_train, in_val = train_value != IGNORE, val_value != IGNORE
    if len(np.unique(train_value[in_train])) < 2 or not in_val.any():
        return math.nan
    from sklearn.metrics import recall_score  # imported here because they are slow to import
    from sklearn.neighbors import KNeighborsClassifier

    classifier = KNeighborsClassifier(min(NEIGHBOURS, int(in_train.sum())))
    classifier.fit(train_x[in_train], train_value[in_train])
    value, predicted = val_value[in_val], classifier.predict(val_x[in_val])
    return float(recall_score(value, predicted, labels=np.unique(value), average="macro"))


def detectable_difference(n: int) -> float:
    """Return the smallest difference of two accuracies, each on n images, that a test detects with POWER.

    The test compares two proportions at level SIGNIFICANCE, in the normal approximation:
    d = z sqrt((p1 (1 - p1) + p2 (1 - p2)) / n) with z = z_{1 - SIGNIFICANCE/2} + z_POWER. For p1 and p2 around 1/2,
    where d is largest, d = z / sqrt(2 n + z^2).
    """
    z = NormalDist().inv_cdf(1 - SIGNIFICANCE / 2) + NormalDist().inv_cdf(POWER)
    return float(z / np.sqrt(2 * n + z**2))


def _indices_of_occurring(table: Table) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the class and the bias value of each cell as indices among the classes and values that occur."""
    return (
        np.unique(table.classes, return_inverse=True)[1].reshape(-1),
        np.unique(table.values, return_inverse=True)[1].reshape(-1),
    )


def _sum_by_index(index: Ints, count: Ints, size: int) -> Ints:
    """Return the sums of the counts that have the same index, (size,)."""
    total = np.zeros(size, dtype=np.int64)
    np.add.at(total, index, count)
    return total


def _share(part: np.int64 | int, whole: int) -> float:
    return float(part / whole) if whole else math.nan
