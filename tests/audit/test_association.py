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


def rows_of(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return class and bias value of rows that have the counts of the table."""
    y, value = (place.ravel().repeat(table.ravel()) for place in np.indices(table.shape))
    return y, value


def test_the_table_counts_rows_whose_bias_is_known() -> None:
    y, value = np.array([0, 2, 2, 1, 2]), np.array([1, 0, 0, IGNORE, 3])
    expected = np.zeros((3, 4), dtype=int)
    for row, label in enumerate(y):
        if value[row] != IGNORE:
            expected[label, value[row]] += 1
    assert crosstab(y, value, 3, 4).dense().tolist() == expected.tolist()


def table_of(counts: np.ndarray) -> Table:
    return crosstab(*rows_of(counts), *counts.shape)


@given(TABLES)
def test_cramers_v_and_mutual_information_equal_their_formulas(counts: np.ndarray) -> None:
    """V is compared by its square, for a rounding error of 1e-16 in chi^2 is one of 1e-8 in V near independence."""
    present = counts[counts.any(axis=1)][:, counts.any(axis=0)]
    if min(present.shape) < 2:
        assert math.isnan(cramers_v(table_of(counts)))
        assert math.isnan(normalised_mutual_information(table_of(counts)))
        return
    n, chi, shared, entropies = present.sum(), 0.0, 0.0, [0.0, 0.0]
    rows, columns = present.sum(axis=1) / n, present.sum(axis=0) / n
    for k, b in np.ndindex(*present.shape):
        expected, p = n * rows[k] * columns[b], present[k, b] / n
        chi += (present[k, b] - expected) ** 2 / expected
        shared += p * math.log(p / (rows[k] * columns[b])) if p else 0
    for which, shares in enumerate((rows, columns)):
        entropies[which] = -sum(p * math.log(p) for p in shares)
    found = cramers_v(table_of(counts))
    assert found**2 == pytest.approx(chi / (n * (min(present.shape) - 1)), abs=1e-12)
    assert normalised_mutual_information(table_of(counts)) == pytest.approx(2 * shared / sum(entropies), abs=1e-12)


@given(TABLES)
def test_no_rule_is_more_accurate_than_the_best_rule(counts: np.ndarray) -> None:
    table, right, total = table_of(counts), 0, 0
    for column in counts.T.tolist():
        right, total = right + max(column), total + sum(column)
    assert rule_accuracy(table, best_rule(table)) == pytest.approx(right / total)
    assert majority_share(table) == pytest.approx(max(sum(row) for row in counts.tolist()) / total)
    commonest = counts.sum(axis=1).argmax()
    first = [column.argmax() if column.any() else commonest for column in counts.T]  # of equals the first class
    assert best_rule(table).tolist() == first


def test_the_rule_of_training_is_scored_on_other_rows() -> None:
    train, test = np.array([[9, 0, 0], [1, 5, 0]]), np.array([[1, 3, 2], [4, 2, 8]])
    rule = best_rule(table_of(train))
    assert rule.tolist() == [0, 1, 0]  # no training row has the last value: the more frequent class
    assert rule_accuracy(table_of(test), rule) == pytest.approx((1 + 2 + 2) / 20)


def test_without_rows_all_measures_are_undefined() -> None:
    empty = table_of(np.zeros((2, 3), dtype=np.int64))
    values = (
        cramers_v(empty),
        normalised_mutual_information(empty),
        majority_share(empty),
        rule_accuracy(empty, best_rule(empty)),
    )
    assert all(map(math.isnan, values))


@pytest.mark.parametrize("n", [1, 12, 30, 500, 10_000])
def test_the_detectable_difference_has_the_stated_power(n: int) -> None:
    normal = NormalDist()

    def power(difference: float) -> float:
        p1, p2 = 0.5 - difference / 2, 0.5 + difference / 2
        error = math.sqrt((p1 * (1 - p1) + p2 * (1 - p2)) / n)
        return normal.cdf(difference / error - normal.inv_cdf(0.975))

    low, high = 0.0, 1 - 1e-12
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if power(middle) < 0.8 else (low, middle)
    assert detectable_difference(n) == pytest.approx(high, rel=1e-6)


def test_thirty_images_show_a_difference_of_a_third_and_more_a_smaller_one() -> None:
    assert detectable_difference(30) == pytest.approx(0.340, abs=1e-3)
    assert detectable_difference(3000) == pytest.approx(0.0361, abs=1e-3)
