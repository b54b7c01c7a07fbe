"""What bias and label tell of each other, from a table of counts (K classes, B bias values), and what tests can show.

What is undefined is NaN.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from lntl.types import IGNORE

Ints = NDArray[np.int64]

LEVEL, POWER = 0.05, 0.8  # of the test of a difference, two-sided


def crosstab(y: Ints, value: Ints, num_classes: int, num_values: int) -> Ints:
    """Return the rows of each class and bias value, (K, B); rows whose value is IGNORE are in none."""
    known = value != IGNORE
    cell = y[known] * num_values + value[known]
    return np.bincount(cell, minlength=num_classes * num_values).reshape(num_classes, num_values)


def cramers_v(table: Ints) -> float:
    """Return sqrt(chi^2 / (n (min(K, B) - 1))) over the classes and values that occur: 0 independent, 1 determined.

    Source: Cramér, "Mathematical Methods of Statistics", 1946. Undefined where only one class or value occurs.
    """
    there = _occurring(table)
    n, least = there.sum(), min(there.shape) - 1
    if least < 1:
        return float("nan")
    expected = np.outer(there.sum(axis=1), there.sum(axis=0)) / n
    return float(np.sqrt((np.square(there - expected) / expected).sum() / (n * least)))


def normalised_mutual_information(table: Ints) -> float:
    """Return I(y; b) / ((H(y) + H(b)) / 2) in [0, 1]; undefined where only one class or value occurs."""
    there = _occurring(table)
    if min(there.shape) < 2:
        return float("nan")
    p = there / there.sum()
    of_class, of_value = _entropy(p.sum(axis=1)), _entropy(p.sum(axis=0))
    shared = of_class + of_value - _entropy(p.ravel())
    return float(max(0.0, shared) / ((of_class + of_value) / 2))


def best_rule(table: Ints) -> Ints:
    """Return of each bias value the class that most of its rows have, (B,); the most frequent class where it has none.

    No classifier that sees the bias alone is right more often on these rows.
    """
    return np.asarray(np.where(table.any(axis=0), table.argmax(axis=0), table.sum(axis=1).argmax()))


def rule_accuracy(table: Ints, rule: Ints) -> float:
    """Return the share of rows whose class is what the rule (B,) answers to their bias value."""
    return _share(table[rule, np.arange(table.shape[1])].sum(), table.sum())


def majority(table: Ints) -> float:
    """Return the share of the most frequent class."""
    return _share(table.sum(axis=1).max(), table.sum())


def detectable_difference(n: int) -> float:
    """Return the smallest difference of two accuracies, on n images each, that a test at LEVEL finds with POWER.

    d = (z_{1 - LEVEL/2} + z_POWER) sqrt((p1 (1 - p1) + p2 (1 - p2)) / n), solved for accuracies d apart around 1/2,
    where it is largest: d = z / sqrt(2 n + z^2), z being the sum. Two proportions, normal approximation.
    """
    z = NormalDist().inv_cdf(1 - LEVEL / 2) + NormalDist().inv_cdf(POWER)
    return float(z / np.sqrt(2 * n + z**2))


def _occurring(table: Ints) -> Ints:
    """Return the table without classes and values that have no row."""
    return table[table.any(axis=1)][:, table.any(axis=0)]


def _entropy(p: NDArray[np.float64]) -> float:
    """Return the entropy in nats; of a probability of 0 it takes nothing."""
    return float(-(p * np.log(np.where(p > 0, p, 1))).sum())


def _share(part: np.int64, whole: np.int64) -> float:
    return float(part / whole) if whole else float("nan")
