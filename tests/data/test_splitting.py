"""Random splits take equal shares of each stratum, depend only on the seed, and keep each group in one split."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lntl.data.rows import assign, groups_in_several_parts
from lntl.types import IGNORE

SHARES = (0.7, 0.1, 0.2)
seeds = st.integers(0, 2**32)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), seeds)
def test_every_stratum_is_divided_by_the_shares_up_to_one_row(strata: list[int], seed: int) -> None:
    split_of_row = assign(np.array(strata), SHARES, seed)
    for stratum, n in Counter(strata).items():
        splits = [split for split, value in zip(split_of_row.tolist(), strata, strict=True) if value == stratum]
        for split, share in enumerate(SHARES):
            assert abs(splits.count(split) - share * n) < 1 + 1e-9


def test_the_split_follows_from_the_seed_and_not_from_the_order() -> None:
    strata = np.arange(100) % 3
    assert assign(strata, SHARES, 7).tolist() == assign(strata, SHARES, 7).tolist()
    assert assign(strata, SHARES, 8).tolist() != assign(strata, SHARES, 7).tolist()
    assert len(set(assign(np.zeros(100, dtype=np.int64), SHARES, 7)[:20].tolist())) > 1


def test_a_single_row_is_in_each_split_with_the_probability_of_its_share() -> None:
    counts = Counter(int(assign(np.array([0]), SHARES, seed)[0]) for seed in range(2000))
    for split, share in enumerate(SHARES):
        assert counts[split] / 2000 == pytest.approx(share, abs=0.04)


@given(seeds)
def test_many_strata_of_one_row_have_the_shares_in_total(seed: int) -> None:
    counts = np.bincount(assign(np.arange(100), SHARES, seed), minlength=3)
    np.testing.assert_allclose(counts, [70, 10, 20], atol=3)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), min_size=1, max_size=200), seeds)
def test_a_group_is_in_one_split(rows: list[tuple[int, int]], seed: int) -> None:
    stratum, group = (np.array(column) for column in zip(*rows, strict=True))
    split_of_row = assign(stratum, SHARES, seed, group)
    splits_of_group: dict[int, set[int]] = {}
    for group_id, split in zip(group.tolist(), split_of_row.tolist(), strict=True):
        splits_of_group.setdefault(group_id, set()).add(split)
    assert all(len(splits) == 1 for splits in splits_of_group.values())
    assert groups_in_several_parts(group, split_of_row).tolist() == []


def test_groups_approximate_the_shares_of_each_stratum() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 800, 6000)
    stratum = group % 4
    split_of_row = assign(stratum, SHARES, 0, group)
    for value in range(4):
        shares = np.bincount(split_of_row[stratum == value], minlength=3) / (stratum == value).sum()
        np.testing.assert_allclose(shares, SHARES, atol=0.02)


def test_rows_of_unknown_group_are_split_individually() -> None:
    group = np.full(1000, IGNORE)
    group[:100] = 5
    split_of_row = assign(np.zeros(1000, dtype=np.int64), SHARES, 0, group)
    assert len(set(split_of_row[:100].tolist())) == 1
    assert np.bincount(split_of_row[100:], minlength=3).min() > 50


def test_a_group_counts_in_the_stratum_of_most_of_its_rows() -> None:
    group = np.repeat(np.arange(100), 3)
    stratum = np.tile([0, 1, 1], 100)  # most rows of every group are in stratum 1
    expected = assign(np.ones(300, dtype=np.int64), SHARES, 3, group)
    assert assign(stratum, SHARES, 3, group).tolist() == expected.tolist()


def test_groups_in_several_parts_returns_the_groups_in_two_splits() -> None:
    group, split_of_row = np.array([4, 4, 7, 7, IGNORE, IGNORE, 2]), np.array([0, 2, 1, 1, 0, 1, 0])
    assert groups_in_several_parts(group, split_of_row).tolist() == [4]
