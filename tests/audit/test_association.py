"""Association of bias and label against scipy, scikit-learn and loops; the difference that a test can show."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats.contingency import association
from sklearn.metrics import normalized_mutual_info_score

from lntl.audit.association import (
    best_rule,
    cramers_v,
    crosstab,
    detectable_difference,
    majority,
    normalised_mutual_information,
    rule_accuracy,
)
from lntl.types import IGNORE

TABLES = arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.integers(0, 30)).filter(np.any)


def rows_of(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return class and bias value of rows that have the counts of the table."""
    y, value = (place.ravel().repeat(table.ravel()) for place in np.indices(table.shape))
    return y, value


def test_the_table_counts_rows_of_known_value() -> None:
    y, value = np.array([0, 2, 2, 1, 2]), np.array([1, 0, 0, IGNORE, 3])
    expected = np.zeros((3, 4), dtype=int)
    for row, label in enumerate(y):
        if value[row] != IGNORE:
            expected[label, value[row]] += 1
    assert crosstab(y, value, 3, 4).tolist() == expected.tolist()


@given(TABLES)
def test_cramers_v_and_mutual_information_are_those_of_the_libraries(table: np.ndarray) -> None:
    there = table[table.any(axis=1)][:, table.any(axis=0)]
    if min(there.shape) < 2:
        assert math.isnan(cramers_v(table))
        assert math.isnan(normalised_mutual_information(table))
    else:
        assert cramers_v(table) == pytest.approx(association(there, method="cramer"), abs=1e-6)
        expected = normalized_mutual_info_score(*rows_of(table))
        assert normalised_mutual_information(table) == pytest.approx(expected, abs=1e-9)


@given(TABLES)
def test_no_rule_is_right_more_often_than_the_best(table: np.ndarray) -> None:
    right, total = 0, 0
    for column in table.T.tolist():
        right, total = right + max(column), total + sum(column)
    assert rule_accuracy(table, best_rule(table)) == pytest.approx(right / total)
    assert majority(table) == pytest.approx(max(sum(row) for row in table.tolist()) / total)


def test_the_rule_of_training_is_asked_on_other_rows() -> None:
    train, test = np.array([[9, 0, 0], [1, 5, 0]]), np.array([[1, 3, 2], [4, 2, 8]])
    rule = best_rule(train)
    assert rule.tolist() == [0, 1, 0]  # no training row has the last value: the more frequent class
    assert rule_accuracy(test, rule) == pytest.approx((1 + 2 + 2) / 20)


def test_of_no_rows_nothing_is_told() -> None:
    empty = np.zeros((2, 3), dtype=np.int64)
    values = (
        cramers_v(empty),
        normalised_mutual_information(empty),
        majority(empty),
        rule_accuracy(empty, np.zeros(3, int)),
    )
    assert all(map(math.isnan, values))


@pytest.mark.parametrize("n", [1, 12, 30, 500, 10_000])
def test_the_detectable_difference_has_the_power_that_it_says(n: int) -> None:
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
