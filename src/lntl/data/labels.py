"""Labels of rows: texts with their names, numbers in bins, several biases at once, and what tells a class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import chain, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from lntl.errors import UserError
from lntl.types import IGNORE, BiasSpec

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

MAX_VALUES = 1000  # of one bias: each is an output of h
MISSING = ("NA", "NaN", "nan")  # texts that, as an empty one, stand for a missing value
_DIGITS = 17  # that tell any two float64 apart


@dataclass(frozen=True)
class Column:
    """A column of n rows: its value by number, code (n,) int64, IGNORE where missing, and the values' names in order.

    rank (n,) in [0, 1], of numbers in bins: the share of the known rows below, 0 where missing.
    """

    name: str
    values: tuple[str, ...]
    code: Ints
    rank: Floats | None = None

    def take(self, keep: NDArray[np.bool_]) -> "Column":
        """Return the column of the rows kept, with the values that still occur."""
        code = self.code[keep]
        there = np.unique(code[code != IGNORE])
        renamed = np.full(len(self.values) + 1, IGNORE)
        renamed[there] = np.arange(len(there))
        values = tuple(self.values[value] for value in there)
        return replace(self, values=values, code=renamed[np.where(code == IGNORE, -1, code)])

    def text(self, row: int) -> str:
        """Return what stands in a row, empty where nothing does."""
        return "" if self.code[row] == IGNORE else self.values[self.code[row]]

    def numbers(self) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the column as numbers (n,), NaN where missing, and where it is neither missing nor a finite number."""
        of_value = np.array([*map(_number, self.values), np.nan])
        number = of_value[np.where(self.code == IGNORE, -1, self.code)]
        return number, np.isnan(number) & (self.code != IGNORE)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return float("nan")
    return value if np.isfinite(value) else float("nan")


def categories(name: str, texts: Sequence[str], code: Ints, missing: Sequence[str] = ()) -> Column:
    """Return the column of texts[code]; texts are stripped, those that are empty or in `missing` are no value.

    The values are in order of their numbers where all are numbers, else of their texts.
    """
    stripped = [text.strip() for text in texts]
    used = {text for text in stripped if text and text not in missing}
    numbers = {text: _number(text) for text in used}
    numeric = not any(np.isnan(number) for number in numbers.values())
    values = sorted(used, key=lambda text: (numbers[text] if numeric else 0.0, text))
    number_of = {text: number for number, text in enumerate(values)}
    renamed = np.array([*(number_of.get(text, IGNORE) for text in stripped), IGNORE], dtype=np.int64)
    return Column(name, tuple(values), renamed[np.where(code == IGNORE, -1, code)])


def check_spelling(column: Column) -> None:
    """Raise UserError where all values are numbers, and one of them is spelt in two ways, such as 1 and 01."""
    if any(np.isnan(_number(value)) for value in column.values):
        return
    spelt: dict[Decimal, str] = {}
    for value in column.values:
        if (other := spelt.setdefault(Decimal(value), value)) != value:
            raise UserError(f"{column.name}: {other!r} and {value!r} are one number in two spellings; choose one")


def binned(name: str, number: Floats, bins: int | None = None, edges: Sequence[float] | None = None) -> Column:
    """Return numbers (n,), NaN where missing, in bins: `bins` of equal counts (quantiles), or between given edges.

    A bin holds its lower edge. Equal numbers are never parted, so that there may be fewer bins than asked for.
    """
    known = ~np.isnan(number)
    if edges is None:
        edges = _quantiles(number[known], bins or 2) if known.any() else []
    if not edges:
        raise UserError(f"bias {name}: all its numbers are equal, or none is known, so that it has no two bins")
    code = np.where(known, np.searchsorted(edges, number, side="right"), IGNORE)
    return Column(name, _bin_names(name, edges), code.astype(np.int64), _ranks(number, known)).take(
        np.ones(len(number), dtype=np.bool_)
    )


def _quantiles(number: Floats, bins: int) -> list[float]:
    """Return the edges of bins of equal counts; none where all numbers are equal.

    Where the smallest number fills more than a bin, the next larger number begins the second.
    """
    above = number[number > number.min()]
    cuts = np.quantile(number, np.linspace(0, 1, bins + 1)[1:-1])
    return np.unique(cuts.clip(above.min())).tolist() if len(above) else []


def _bin_names(name: str, edges: Sequence[float]) -> tuple[str, ...]:
    texts = _told_apart(edges)
    between = [f"{name} {low} to {high}" for low, high in pairwise(texts)]
    return (f"{name} below {texts[0]}", *between, f"{name} from {texts[-1]}")


def _told_apart(edges: Sequence[float]) -> list[str]:
    """Return different numbers as different texts: four digits, or all before the point, or as many as it takes."""
    whole = len(f"{max(map(abs, edges)):.0f}")
    least = whole if 4 < whole < _DIGITS else 4
    texts = ([f"{edge:.{digits}g}" for edge in edges] for digits in range(least, _DIGITS + 1))
    return next(each for each in texts if len(set(each)) == len(edges))


def _ranks(number: Floats, known: NDArray[np.bool_]) -> Floats:
    """Return the share of the known numbers that are smaller, plus half of those that are equal."""
    rank = np.zeros(len(number))
    _, place, count = np.unique(number[known], return_inverse=True, return_counts=True)
    rank[known] = ((np.cumsum(count) - count / 2) / max(known.sum(), 1))[place]
    return rank


@dataclass(frozen=True)
class Bias:
    """One bias or several, of n rows.

    label: (n,), or (n, B) of B > 1 biases, int64 with IGNORE; value (n,): the place of the row's combination among
    those that occur, IGNORE where one of the biases is missing; names: of these combinations; sizes: number of values
    of each bias; rank (n, C) float32: of the C biases that are numbers in bins; each: the biases apart, where several.
    """

    label: Tensor
    value: Tensor
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    rank: Tensor
    each: tuple[BiasSpec, ...]


def combine(columns: Sequence[Column]) -> Bias:
    """Return the biases together; raises UserError where one has too few or too many values."""
    for column in columns:
        check_spelling(column)
        _check_size(column)
    sizes = tuple(len(column.values) for column in columns)
    codes = np.stack([column.code for column in columns], axis=1)
    known = (codes != IGNORE).all(axis=1)
    cell = np.ravel_multi_index(tuple(np.where(known[:, None], codes, 0).T), sizes)
    there, place = np.unique(cell[known], return_inverse=True)
    value = np.full(len(codes), IGNORE, dtype=np.int64)
    value[known] = place
    if not len(there):
        raise UserError(f"no row has a value of each of {', '.join(column.name for column in columns)}")
    value_of_joint = np.stack(np.unravel_index(there, sizes))  # (B, combinations)
    called = _names(columns)
    names = tuple(", ".join(called[b][v] for b, v in enumerate(values)) for values in value_of_joint.T.tolist())
    each = [BiasSpec(c.name, c.values, tuple(v)) for c, v in zip(columns, value_of_joint.tolist(), strict=True)]
    ranks = [column.rank for column in columns if column.rank is not None]
    return Bias(
        label=torch.from_numpy(codes[:, 0] if len(columns) == 1 else codes).contiguous(),
        value=torch.from_numpy(value),
        names=names,
        sizes=sizes,
        rank=torch.from_numpy(np.array(ranks, dtype=np.float32).reshape(len(ranks), len(codes)).T).contiguous(),
        each=tuple(each) if len(each) > 1 else (),
    )


def unknown(n: int) -> Bias:
    """Return the bias of n rows of which it is not known: one value, which no row has."""
    blank = torch.full((n,), IGNORE)
    return Bias(blank, blank, ("unknown",), (1,), torch.zeros(n, 0), ())


def _check_size(column: Column) -> None:
    if len(column.values) < 2:
        only = f"the one value {column.values[0]!r}" if column.values else "no value at all"
        raise UserError(f"bias {column.name}: it has {only}, so there is nothing to unlearn; name another column")
    if len(column.values) > MAX_VALUES:
        raise UserError(
            f"bias {column.name}: {len(column.values)} different values are more than {MAX_VALUES}; "
            f"put numbers into bins, e.g. data.bias: {{column: {column.name}, bins: 8}}"
        )


def _names(columns: Sequence[Column]) -> list[list[str]]:
    """Return the names of each bias's values, with that of the bias in front where another one has the same."""
    every = list(chain.from_iterable(column.values for column in columns))
    distinct = len(set(every)) == len(every)
    return [[value if distinct else f"{column.name} {value}" for value in column.values] for column in columns]


def features(label: Tensor, sizes: Sequence[int], rank: Tensor) -> Tensor:
    """Return the bias in numbers on [0, 1], float32 (N, sum(sizes) + C): one-hot values, zeros where missing, ranks."""
    columns = label[:, None] if label.dim() == 1 else label
    hot = [
        one_hot(torch.where(column == IGNORE, size, column), size + 1)[:, :size]
        for column, size in zip(columns.unbind(dim=1), sizes, strict=True)
    ]
    return torch.cat([*(each.float() for each in hot), rank], dim=1)


def aligned(y: Tensor, value: Tensor, num_classes: int, num_bias_values: int) -> tuple[int, ...]:
    """Return of each class the bias value that is most frequent beyond its share: largest p(b | y) - p(b).

    Only where for every class that is positive and the majority of the class has the value; else ().
    """
    known = value != IGNORE
    cell = y[known] * num_bias_values + value[known]
    count = torch.bincount(cell, minlength=num_classes * num_bias_values).view(num_classes, num_bias_values).double()
    within = count / count.sum(dim=1, keepdim=True).clamp(min=1)
    excess = within - count.sum(dim=0) / count.sum().clamp(min=1)
    best = excess.argmax(dim=1)
    classes = torch.arange(num_classes)
    tells = (within[classes, best] > 0.5) & (excess[classes, best] > 1e-9)
    return tuple(best.tolist()) if bool(tells.all()) else ()
