"""Random splits: equal shares of each stratum, determined by the seed, each group in one split."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lntl.data.rows import assign, straddling
from lntl.types import IGNORE

SHARES = (0.7, 0.1, 0.2)
seeds = st.integers(0, 2**32)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), seeds)
def test_every_stratum_is_divided_by_the_shares_to_the_row(strata: list[int], seed: int) -> None:
    part = assign(np.array(strata), SHARES, seed)
    for stratum, n in Counter(strata).items():
        rows = [p for p, s in zip(part.tolist(), strata, strict=True) if s == stratum]
        for place, share in enumerate(SHARES):
            assert abs(rows.count(place) - share * n) < 1 + 1e-9


def test_the_split_follows_from_the_seed_and_not_from_the_order() -> None:
    strata = np.arange(100) % 3
    assert assign(strata, SHARES, 7).tolist() == assign(strata, SHARES, 7).tolist()
    assert assign(strata, SHARES, 8).tolist() != assign(strata, SHARES, 7).tolist()
    assert len(set(assign(np.zeros(100, dtype=np.int64), SHARES, 7)[:20].tolist())) > 1


def test_a_single_row_is_in_each_part_as_often_as_the_share_says() -> None:
    found = Counter(int(assign(np.array([0]), SHARES, seed)[0]) for seed in range(2000))
    for place, share in enumerate(SHARES):
        assert found[place] / 2000 == pytest.approx(share, abs=0.04)


@given(seeds)
def test_many_strata_of_one_row_keep_the_shares_together(seed: int) -> None:
    counts = np.bincount(assign(np.arange(100), SHARES, seed), minlength=3)
    np.testing.assert_allclose(counts, [70, 10, 20], atol=3)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), min_size=1, max_size=200), seeds)
def test_a_group_is_in_one_part(rows: list[tuple[int, int]], seed: int) -> None:
    stratum, group = (np.array(column) for column in zip(*rows, strict=True))
    part = assign(stratum, SHARES, seed, group)
    sides: dict[int, set[int]] = {}
    for g, p in zip(group.tolist(), part.tolist(), strict=True):
        sides.setdefault(g, set()).add(p)
    assert all(len(places) == 1 for places in sides.values())
    assert straddling(group, part).tolist() == []


def test_groups_approximate_the_shares_of_each_stratum() -> None:
    random = np.random.default_rng(0)
    group = random.integers(0, 800, 6000)
    stratum = group % 4
    part = assign(stratum, SHARES, 0, group)
    for value in range(4):
        found = np.bincount(part[stratum == value], minlength=3) / (stratum == value).sum()
        np.testing.assert_allclose(found, SHARES, atol=0.02)


def test_rows_of_unknown_group_are_split_one_by_one() -> None:
    group = np.full(1000, IGNORE)
    group[:100] = 5
    part = assign(np.zeros(1000, dtype=np.int64), SHARES, 0, group)
    assert len(set(part[:100].tolist())) == 1
    assert np.bincount(part[100:], minlength=3).min() > 50


def test_a_group_counts_in_the_stratum_of_most_of_its_rows() -> None:
    group = np.repeat(np.arange(100), 3)
    stratum = np.tile([0, 1, 1], 100)  # by the majority all groups are of stratum 1
    expected = assign(np.ones(300, dtype=np.int64), SHARES, 3, group)
    assert assign(stratum, SHARES, 3, group).tolist() == expected.tolist()


def test_straddling_returns_the_groups_in_two_parts() -> None:
    group, part = np.array([4, 4, 7, 7, IGNORE, IGNORE, 2]), np.array([0, 2, 1, 1, 0, 1, 0])
    assert straddling(group, part).tolist() == [4]
