"""Split rows at random into parts of given shares, alike in every stratum, a group of rows never on two sides."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lntl.seeding import derive
from lntl.types import IGNORE

Ints = NDArray[np.int64]
_GOLDEN = (5**0.5 - 1) / 2  # multiples of the golden ratio fill [0, 1) most evenly


def assign(stratum: Ints, shares: Sequence[float], seed: int, group: Ints | None = None) -> Ints:
    """Return the part of each row, int64 (n,) in [0, len(shares)); shares sum to 1.

    stratum (n,): rows of one stratum are dealt out systematically in random order, so that a part gets its share of
    each, rounded up or down at random. group (n,), IGNORE where unknown: rows of one group stay together and count as
    of the stratum that most of them have.
    """
    unit = np.arange(len(stratum)) if group is None else _units(group)
    size = np.bincount(unit)
    of_unit = stratum if group is None else _majority(unit, stratum)
    random = np.random.Generator(np.random.Philox(derive(seed, "split")))
    order = np.lexsort((random.random(len(size)), of_unit))
    total = np.bincount(of_unit, weights=size)
    begin = np.cumsum(size[order]) - size[order] - (np.cumsum(total) - total)[of_unit[order]]
    # Offsets of strata that follow each other are spread evenly, so that many small strata keep the shares together.
    offset = ((random.random() + _GOLDEN * np.arange(len(total))) % 1)[of_unit[order]]
    place = (begin + offset * size[order]) / total[of_unit[order]]
    part = np.empty(len(size), dtype=np.int64)
    part[order] = np.searchsorted(np.cumsum(shares)[:-1], place, side="right")
    return part[unit]


def _units(group: Ints) -> Ints:
    """Return the number of each row's unit: its group, or itself where the group is not known."""
    alone = np.arange(len(group)) + group.max(initial=0) + 1
    return np.asarray(np.unique(np.where(group == IGNORE, alone, group), return_inverse=True)[1], dtype=np.int64)


def _majority(unit: Ints, stratum: Ints) -> Ints:
    """Return the most frequent stratum of each unit, of equals the last."""
    strata = int(stratum.max()) + 1
    pair, count = np.unique(unit * strata + stratum, return_counts=True)
    majority = np.empty(int(unit.max()) + 1, dtype=np.int64)
    order = np.lexsort((count, pair // strata))
    majority[pair[order] // strata] = pair[order] % strata  # of repeated places the last value stays
    return majority


def straddling(group: Ints, part: Ints) -> Ints:
    """Return the groups that have rows in more than one part, in order."""
    known = group != IGNORE
    parts = int(part.max(initial=0)) + 1
    pairs = np.unique(group[known] * parts + part[known]) // parts
    found, count = np.unique(pairs, return_counts=True)
    return np.asarray(found[count > 1], dtype=np.int64)
