"""Association of bias and label, compared with scipy, scikit-learn and loops; the smallest detectable difference."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lntl.audit.association import (
    Table,
    best_rule,
    cramers_v,
    crosstab,
    detectable_difference,
    majority_share,
    normalised_mutual_information,
    rule_accuracy,
)
from lntl.types import IGNORE

TABLES = arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.integers(0, 30)).filter(np.any)


def make_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the class and the bias value of rows with the counts of a table."""
    y, value = (index.ravel().repeat(table.ravel()) for index in np.indices(table.shape))
    return y, value


def test_crosstab_counts_the_rows_with_a_known_bias() -> None:
    y, value = np.array([0, 2, 2, 1, 2]), np.array([1, 0, 0, IGNORE, 3])
    expected = np.zeros((3, 4), dtype=int)
    for row, label in enumerate(y):
        if value[row] != IGNORE:
            expected[label, value[row]] += 1
    assert crosstab(y, value, 3, 4).dense().tolist() == expected.tolist()


def make_table(counts: np.ndarray) -> Table:
    return crosstab(*make_rows(counts), *counts.shape)


@given(TABLES)
def test_cramers_v_and_mutual_information_equal_their_formulas(counts: np.ndarray) -> None:
    """The test compares V^2, because a rounding error of 1e-16 in chi^2 is an error of 1e-8 in V near independence."""
    nonempty_counts = counts[counts.any(axis=1)][:, counts.any(axis=0)]
    if min(nonempty_counts.shape) < 2:
        assert math.isnan(cramers_v(make_table(counts)))
        assert math.isnan(normalised_mutual_information(make_table(counts)))
        return
    n, chi, mutual_information, entropies = nonempty_counts.sum(), 0.0, 0.0, [0.0, 0.0]
    rows, columns = nonempty_counts.sum(axis=1) / n, nonempty_counts.sum(axis=0) / n
    for k, b in np.ndindex(*nonempty_counts.shape):
        expected, p = n * rows[k] * columns[b], nonempty_counts[k, b] / n
        chi += (nonempty_counts[k, b] - expected) ** 2 / expected
        mutual_information += p * math.log(p / (rows[k] * columns[b])) if p else 0
    for axis, shares in enumerate((rows, columns)):
        entropies[axis] = -sum(p * math.log(p) for p in shares)
    v = cramers_v(make_table(counts))
    assert v**2 == pytest.approx(chi / (n * (min(nonempty_counts.shape) - 1)), abs=1e-12)
    assert normalised_mutual_information(make_table(counts)) == pytest.approx(
        2 * mutual_information / sum(entropies), abs=1e-12
    )


@given(TABLES)
def test_no_rule_is_more_accurate_than_the_best_rule(counts: np.ndarray) -> None:
    table, num_correct, total = make_table(counts), 0, 0
    for column in counts.T.tolist():
        num_correct, total = num_correct + max(column), total + sum(column)
    assert rule_accuracy(table, best_rule(table)) == pytest.approx(num_correct / total)
    assert majority_share(table) == pytest.approx(max(sum(row) for row in counts.tolist()) / total)
    most_frequent_class = counts.sum(axis=1).argmax()
    # If two counts are equal, argmax returns the first class.
    expected = [column.argmax() if column.any() else most_frequent_class for column in counts.T]
    assert best_rule(table).tolist() == expected


def test_the_rule_of_training_is_scored_on_other_rows() -> None:
    train, test = np.array([[9, 0, 0], [1, 5, 0]]), np.array([[1, 3, 2], [4, 2, 8]])
    rule = best_rule(make_table(train))
    assert rule.tolist() == [0, 1, 0]  # no training row has the last value, so it gets the most frequent class
    assert rule_accuracy(make_table(test), rule) == pytest.approx((1 + 2 + 2) / 20)


def test_without_rows_all_measures_are_undefined() -> None:
    empty_table = make_table(np.zeros((2, 3), dtype=np.int64))
    values = (
        cramers_v(empty_table),
        normalised_mutual_information(empty_table),
        majority_share(empty_table),
        rule_accuracy(empty_table, best_rule(empty_table)),
    )
    assert all(map(math.isnan, values))


@pytest.mark.parametrize("n", [1, 12, 30, 500, 10_000])
def test_the_detectable_difference_has_the_stated_power(n: int) -> None:
    normal = NormalDist()

    def compute_power(difference: float) -> float:
        p1, p2 = 0.5 - difference / 2, 0.5 + difference / 2
        error = math.sqrt((p1 * (1 - p1) + p2 * (1 - p2)) / n)
        return normal.cdf(difference / error - normal.inv_cdf(0.975))

    low, high = 0.0, 1 - 1e-12
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if compute_power(middle) < 0.8 else (low, middle)
    assert detectable_difference(n) == pytest.approx(high, rel=1e-6)


def test_more_images_make_smaller_differences_detectable() -> None:
    assert detectable_difference(30) == pytest.approx(0.340, abs=1e-3)
    assert detectable_difference(3000) == pytest.approx(0.0361, abs=1e-3)
