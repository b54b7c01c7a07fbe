"""Labels of rows: categories, numbers in bins, several biases at once, and the bias value that indicates a class."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
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

MAX_VALUES = 1000  # largest number of values of one bias; each is an output of h
MAX_NAMED_BIASES = 8  # largest number of biases in the name of a combination; combinations of more biases are numbered
MISSING = ("NA", "NaN", "nan")  # default texts that, like an empty text, mean a missing value
_DIGITS = 17  # enough to print any two different float64 differently
_ZERO_WIDTH = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))
_MAX_NAMES = 3  # largest number of names in a note


@dataclass(frozen=True)
class Column:
    """A categorical column of n rows.

    Attributes:
        name: Name of the column.
        values: Names of the values, in order.
        code: Index into `values` of each row, (n,) int64, IGNORE if missing.
        rank: For numbers in bins, the share of the known rows with a smaller number, (n,) in [0, 1], 0 if missing.
        missing: Texts in the column that count as missing, such as "NA"; the empty text is not listed.
        notes: Sentences about merged spellings, and about values that differ only in case.
    """

    name: str
    values: tuple[str, ...]
    code: Ints
    rank: Floats | None = None
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def take(self, keep: NDArray[np.bool_]) -> "Column":
        """Return the rows where `keep` is true, with the values that still occur."""
        code = self.code[keep]
        present = np.unique(code[code != IGNORE])
        new_code = np.full(len(self.values) + 1, IGNORE)
        new_code[present] = np.arange(len(present))
        values = tuple(self.values[value] for value in present)
        return replace(self, values=values, code=new_code[np.where(code == IGNORE, -1, code)])

    def text(self, row: int) -> str:
        """Return the value of a row, empty if missing."""
        return "" if self.code[row] == IGNORE else self.values[self.code[row]]

    def numbers(self) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the column as numbers (n,), NaN if missing, and a mask (n,) of values that are not finite numbers."""
        number_of_value = np.array([*map(as_number, self.values), np.nan])
        number = number_of_value[np.where(self.code == IGNORE, -1, self.code)]
        return number, np.isnan(number) & (self.code != IGNORE)

    def missing_hint(self) -> str:
        """Return a clause about the texts that count as missing and the setting for them; empty if none occurs."""
        if not self.missing:
            return ""
        texts = ", ".join(map(repr, self.missing[:_MAX_NAMES]))
        counts = "counts" if len(self.missing) == 1 else "count"
        return f" ({texts} {counts} as missing; see data.missing)"


def as_number(text: str) -> float:
    """Return a text as a finite number, NaN for other texts; 1_12 is an id, not the number 112."""
    try:
        value = float(text)
    except ValueError:
        return float("nan")
    return value if np.isfinite(value) and "_" not in text else float("nan")


def as_text(value: object) -> str:
    """Return a value as text, as in a CSV file: empty if missing, a whole float without its decimal point."""
    if (
        value is None or type(value).__name__ == "NAType" or value != value
    ):  # NAType: pandas.NA, which has no truth value
        return ""
    if isinstance(value, bytes):
        return value.decode()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def categories(name: str, texts: Sequence[str], code: Ints, missing: Sequence[str] = ()) -> Column:
    """Return the column of texts[code].

    Texts are stripped. Empty texts and texts in `missing` mean a missing value. Texts that differ only in Unicode form
    or in zero-width characters are one value. Values are sorted as numbers if all are numbers, otherwise as texts.
    """
    stripped = [text.strip() for text in texts]
    nonmissing = {text for text in stripped if text and text not in missing}
    common_spelling = _common_spellings(nonmissing)
    values = {common_spelling.get(text, text) for text in nonmissing} - {""}
    numbers = {text: as_number(text) for text in values}
    is_numeric = not any(np.isnan(number) for number in numbers.values())
    ordered_values = sorted(values, key=lambda text: (numbers[text] if is_numeric else 0.0, text))
    code_of = {text: number for number, text in enumerate(ordered_values)}
    new_code = np.array(
        [
            *(
                code_of.get(common_spelling.get(text, text), IGNORE) if text in nonmissing else IGNORE
                for text in stripped
            ),
            IGNORE,
        ],
        dtype=np.int64,
    )
    return Column(
        name,
        tuple(ordered_values),
        new_code[np.where(code == IGNORE, -1, code)],
        missing=tuple(sorted({text for text in stripped if text in missing and text})),
        notes=tuple(_spelling_notes(name, common_spelling, ordered_values)),
    )


def _common_spellings(texts: set[str]) -> dict[str, str]:
    """Return the common spelling, in Unicode form NFC, of each text that has another spelling among the texts."""
    spellings: dict[str, list[str]] = defaultdict(list)
    for text in texts:
        spellings[text if text.isascii() else normalise_spelling(text)].append(text)
    return {
        text: common
        for common, texts_of_value in spellings.items()
        if len(texts_of_value) > 1 or not common
        for text in texts_of_value
    }


def normalise_spelling(text: str) -> str:
    """Return a text in Unicode form NFC, without zero-width characters."""
    return unicodedata.normalize("NFC", text.translate(_ZERO_WIDTH)).strip()


def _spelling_notes(name: str, common_spelling: dict[str, str], values: Sequence[str]) -> Iterable[str]:
    if common_spelling:
        names = ", ".join(repr(text) for text in sorted({*common_spelling.values()})[:_MAX_NAMES])
        yield f"{name}: spellings of {names} that differ only in Unicode form or invisible characters are one value"
    by_casefold: dict[str, list[str]] = defaultdict(list)
    for value in values:
        by_casefold[value.casefold()].append(value)
    for values_of_name in [group for group in by_casefold.values() if len(group) > 1][:_MAX_NAMES]:
        yield f"{name}: {' and '.join(map(repr, values_of_name))} differ only in case and are two values"


def check_spelling(column: Column) -> None:
    """Raise UserError if all values are numbers and one number has two spellings, such as 1 and 01."""
    if any(np.isnan(as_number(value)) for value in column.values):
        return
    first_spelling: dict[Decimal, str] = {}
    for value in column.values:
        if (first := first_spelling.setdefault(Decimal(value), value)) != value:
            raise UserError(f"{column.name}: {first!r} and {value!r} are one number in two spellings; choose one")


def bin_numbers(name: str, number: Floats, bins: int | None = None, edges: Sequence[float] | None = None) -> Column:
    """Return numbers (n,), NaN if missing, in `bins` bins of equal counts (quantiles), or in bins between `edges`.

    A bin includes its lower edge. Equal numbers share a bin, so that there may be fewer than `bins` bins.
    """
    known = ~np.isnan(number)
    if edges is None:
        edges = _quantiles(number[known], bins or 2) if known.any() else []
    if not edges:
        raise UserError(f"bias {name}: all its numbers are equal or missing, so it cannot be put into two bins")
    code = np.where(known, np.searchsorted(edges, number, side="right"), IGNORE)
    column = Column(name, _bin_names(name, edges), code.astype(np.int64), _ranks(number, known))
    return column.take(np.ones(len(number), dtype=np.bool_))


def _quantiles(number: Floats, bins: int) -> list[float]:
    """Return the edges of bins of equal counts; an empty list if all numbers are equal.

    If the smallest number fills more than one bin, the second bin begins at the next larger number.
    """
    larger_numbers = number[number > number.min()]
    positions = np.arange(1, bins) * (len(number) - 1) / bins  # exact where a quantile is one of the numbers
    cuts = np.interp(positions, np.arange(len(number)), np.sort(number))
    return np.unique(cuts.clip(larger_numbers.min())).tolist() if len(larger_numbers) else []


def _bin_names(name: str, edges: Sequence[float]) -> tuple[str, ...]:
    texts = _distinct_texts(edges)
    middle_names = [f"{name} {low} to {high}" for low, high in pairwise(texts)]
    return (f"{name} below {texts[0]}", *middle_names, f"{name} from {texts[-1]}")


def _distinct_texts(edges: Sequence[float]) -> list[str]:
    """Return different numbers as different texts, with four digits, or more if they need more."""
    integer_digits = len(f"{max(map(abs, edges)):.0f}")
    min_digits = integer_digits if 4 < integer_digits < _DIGITS else 4
    candidates = ([f"{edge:.{digits}g}" for edge in edges] for digits in range(min_digits, _DIGITS + 1))
    return next(texts for texts in candidates if len(set(texts)) == len(edges))


def _ranks(number: Floats, known: NDArray[np.bool_]) -> Floats:
    """Return the share of the known numbers that are smaller, plus half of those that are equal."""
    rank = np.zeros(len(number))
    _, index, count = np.unique(number[known], return_inverse=True, return_counts=True)
    rank[known] = ((np.cumsum(count) - count / 2) / max(known.sum(), 1))[index]
    return rank


@dataclass(frozen=True)
class JointBias:
    """All biases of n rows, and their combinations.

    Attributes:
        labels: Bias labels, (n,), or (n, B) for B > 1 biases, int64; IGNORE if missing.
        value: Index into `names` of each row's combination, (n,), IGNORE if one of the biases is missing.
        names: Names of the combinations that occur.
        num_values: Number of values of each bias.
        rank: Ranks of the C biases that are numbers in bins, (n, C) float32.
        specs: Each bias if there are several; () for one bias.
    """

    labels: Tensor
    value: Tensor
    names: tuple[str, ...]
    num_values: tuple[int, ...]
    rank: Tensor
    specs: tuple[BiasSpec, ...]


def combine(columns: Sequence[Column]) -> JointBias:
    """Return the biases as one JointBias; raises UserError if a bias has too few or too many values."""
    for column in columns:
        check_spelling(column)
        _check_num_values(column)
    codes = np.stack([column.code for column in columns], axis=1)
    known = (codes != IGNORE).all(axis=1)
    if not known.any():
        raise UserError(f"no row has values of all biases ({', '.join(column.name for column in columns)})")
    value = np.full(len(codes), IGNORE, dtype=np.int64)
    value[known], joint = _combinations(codes[known])
    value_names = _value_names(columns)
    names = tuple(", ".join(value_names[b][v] for b, v in enumerate(values)) for values in joint.tolist())
    if len(columns) > MAX_NAMED_BIASES:
        names = tuple(f"combination {number}" for number in range(1, len(names) + 1))
    specs = [BiasSpec(c.name, c.values, tuple(v)) for c, v in zip(columns, joint.T.tolist(), strict=True)]
    ranks = [column.rank for column in columns if column.rank is not None]
    return JointBias(
        labels=torch.from_numpy(codes[:, 0] if len(columns) == 1 else codes).contiguous(),
        value=torch.from_numpy(value),
        names=names,
        num_values=tuple(len(column.values) for column in columns),
        rank=torch.from_numpy(np.array(ranks, dtype=np.float32).reshape(len(ranks), len(codes)).T).contiguous(),
        specs=tuple(specs) if len(specs) > 1 else (),
    )


def _combinations(codes: Ints) -> tuple[Ints, Ints]:
    """Return the index of the combination of each row of codes (n, B), and the sorted combinations (m, B)."""
    combination = np.zeros(len(codes), dtype=np.int64)
    for column in codes.T:  # renumbered after each bias, because the number of possible combinations may overflow
        combination = np.unique(combination * (int(column.max()) + 1) + column, return_inverse=True)[1]
    _, first = np.unique(combination, return_index=True)
    return combination, codes[first]


def no_bias(n: int) -> JointBias:
    """Return the bias of n rows without bias annotation: one value, which no row has."""
    blank = torch.full((n,), IGNORE)
    return JointBias(blank, blank, ("unknown",), (1,), torch.zeros(n, 0), ())


def _check_num_values(column: Column) -> None:
    if len(column.values) < 2:
        only = f"only the value {column.values[0]!r}" if column.values else "no value at all"
        raise UserError(
            f"bias {column.name}: it has {only}{column.missing_hint()}, so there is nothing to unlearn; choose another "
            "column, or set data.bias: [] to train without bias labels"
        )
    if len(column.values) > MAX_VALUES:
        raise UserError(
            f"bias {column.name}: {len(column.values)} different values are more than {MAX_VALUES}; "
            f"put numbers into bins, e.g. data.bias: {{column: {column.name}, bins: 8}}"
        )


def _value_names(columns: Sequence[Column]) -> list[list[str]]:
    """Return the names of the values of each bias, with the name of the bias before each if names are not unique."""
    values = list(chain.from_iterable(column.values for column in columns))
    is_unique = len(set(values)) == len(values)
    return [[value if is_unique else f"{column.name} {value}" for value in column.values] for column in columns]


def bias_features(label: Tensor, num_values: Sequence[int], rank: Tensor) -> Tensor:
    """Return the bias as numbers in [0, 1]: one-hot values, zeros if missing, then ranks.

    Args:
        label: Bias labels, (N,) or (N, B).
        num_values: Number of values of each bias.
        rank: Ranks of the biases that are numbers, (N, C).

    Returns:
        float32 (N, sum(num_values) + C).
    """
    columns = label[:, None] if label.dim() == 1 else label
    one_hot_values = [
        one_hot(torch.where(column == IGNORE, size, column), size + 1)[:, :size]
        for column, size in zip(columns.unbind(dim=1), num_values, strict=True)
    ]
    return torch.cat([*(values.float() for values in one_hot_values), rank], dim=1)


def find_aligned_values(y: Tensor, value: Tensor, num_classes: int, num_bias_values: int) -> tuple[int, ...]:
    """Return the typical bias value of each class: the value b with the largest p(b | y) - p(b).

    Return () unless, for every class, this difference is positive and more than half of its rows have the value.
    """
    known = value != IGNORE
    group = y[known] * num_bias_values + value[known]
    count = torch.bincount(group, minlength=num_classes * num_bias_values).view(num_classes, num_bias_values).double()
    share_in_class = count / count.sum(dim=1, keepdim=True).clamp(min=1)
    excess_share = share_in_class - count.sum(dim=0) / count.sum().clamp(min=1)
    best_value = excess_share.argmax(dim=1)
    classes = torch.arange(num_classes)
    is_clear = (share_in_class[classes, best_value] > 0.5) & (excess_share[classes, best_value] > 1e-9)
    return tuple(best_value.tolist()) if bool(is_clear.all()) else ()
