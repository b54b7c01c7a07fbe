"""Rows of labels as read from a file: find wrong rows, and assign the rows to splits."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lntl.data.biases import Biases, BiasSetting, ColumnName
from lntl.data.labels import MISSING, Column, Ints, as_number
from lntl.errors import UserError
from lntl.plugins import Settings
from lntl.seeding import derive
from lntl.types import IGNORE, SPLITS

NAMED = 10  # largest number of names in an error
_SPELLINGS = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}


class LeakingGroupsError(UserError):
    """The column `group_id` has values, `groups`, with rows in more than one split."""

    def __init__(self, where: str, column: str, groups: list[str]) -> None:
        names = ", ".join(groups[:NAMED])
        super().__init__(
            f"{where}: {len(groups)} values of {column} have rows in more than one split ({names}"
            f"{', ...' if len(groups) > NAMED else ''}), so the splits are not independent; keep all rows of a value "
            "in one split"
        )
        self.column, self.groups = column, groups


class LabelSettings(Settings):
    """Settings of data with a label and bias labels for each example."""

    val_fraction: float = Field(
        0.1,
        gt=0,
        lt=0.5,
        description="Share of the rows (of train, if a split column has test rows) that is drawn as val.",
    )
    test_fraction: float = Field(
        0.2, gt=0, lt=0.5, description="Share of the rows that is drawn as test, if there is no split column."
    )
    seed: int = Field(
        0, ge=0, lt=2**63, description="Seed of the drawn splits, which are stratified by label and bias."
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="Wrong rows: stop and name them all, or skip them and list them in the run."
    )

    @property
    def biases(self) -> Sequence[BiasSetting]:
        """The settings of each bias."""
        raise NotImplementedError

    @property
    def bias_from_images(self) -> bool:
        """Whether a bias is computed from the images; the images are then read when the data set is built."""
        return any(bias.computed is not None for bias in self.biases)

    def skipping_errors(self) -> Self:
        """Return the settings that skip wrong rows instead of stopping."""
        return self.model_copy(update={"on_error": "skip"})

    def without_opening_images(self) -> Self:
        """Return the settings that do not open the images when the data set is built, if that is possible."""
        return self

    def without_groups(self) -> Self:
        """Return the settings without `group_id`."""
        return self.model_copy(update={"group_id": None})


class ColumnSettings(LabelSettings):
    """Settings of data whose labels are columns of a table, or arrays of a file."""

    label: ColumnName
    bias: Biases
    split: ColumnName | None = Field(
        None, description="Column with train, val or test; null: all splits are drawn; without val rows, val is drawn."
    )
    group_id: ColumnName | None = Field(
        None, description="Column, such as the patient, of whose values each has rows in one split only."
    )
    missing: list[str] = Field([*MISSING], description="Texts that, like an empty one, stand for a missing value.")

    @property
    def biases(self) -> Sequence[BiasSetting]:
        """The settings of each bias."""
        return self.bias


SHOWN = 50  # largest number of wrong rows listed in an error; the others are counted by kind
FEW = 5  # the same if every row is wrong, because a setting is then the likely cause


class Faults:
    """The faults of n rows, collected so that one error names all wrong rows.

    `where` names the file; `row_name(i)` is the name of row i, such as "line 7".
    """

    def __init__(self, n: int, where: str, row_name: Callable[[int], str]) -> None:
        self.n, self.where, self.row_name = n, where, row_name
        self._kinds: dict[int, list[str]] = {}  # by row
        self._sentences: dict[int, list[str]] = {}

    def add(self, rows: Iterable[int], kind: str, detail: Callable[[int], str] = lambda row: "") -> None:
        """Record a fault of rows; faults are counted by `kind`, and a row is described by `kind` and `detail(row)`."""
        for row in rows:
            self._kinds.setdefault(row, []).append(kind)
            self._sentences.setdefault(row, []).append(f"{kind}{detail(row)}")

    @property
    def lines(self) -> list[str]:
        """One sentence for each wrong row, in the order of the rows."""
        return [f"{self.row_name(row)}: {'; '.join(self._sentences[row])}" for row in sorted(self._sentences)]

    def settle(self, on_error: str) -> NDArray[np.bool_]:
        """Return a mask of the rows without faults, bool (n,).

        Raises:
            UserError: If rows are wrong and `on_error` is stop, if all rows are wrong, or if there are no rows.
        """
        if not self.n:
            raise UserError(f"{self.where}: it has no row")
        right = np.ones(self.n, dtype=np.bool_)
        right[list(self._sentences)] = False
        if self._sentences and (on_error == "stop" or not right.any()):
            any_right = bool(right.any())
            remedy = "correct them, or leave them out with data.on_error: skip" if any_right else "check section `data`"
            head = f"{self.where}: {len(self._sentences)} of {self.n} rows are wrong; {remedy}"
            raise UserError("\n".join([head, *(f"  {line}" for line in self._shown(SHOWN if any_right else FEW))]))
        return right

    def _shown(self, limit: int) -> list[str]:
        lines = self.lines
        if len(lines) <= limit:
            return lines
        rest = Counter(kind for row in sorted(self._kinds)[limit:] for kind in self._kinds[row])
        counts = ", ".join(f"{kind} ({count})" for kind, count in rest.most_common())
        return [*lines[:limit], f"and {len(lines) - limit} more: {counts}"]


@dataclass(frozen=True)
class Rows:
    """n rows as they were read.

    Attributes:
        where: The file, for messages.
        unit: What a row is in that file, such as "line".
        number: Number or name of each row in that unit, (n,).
        label: Column of the label.
        split: Column of the split; None if the splits are drawn.
        group_id: Column whose equal values must not lie in two splits.
        columns: Columns of the biases, by name.
        blank: Description of a missing label.
    """

    where: str
    unit: str
    number: NDArray[np.int64] | NDArray[np.object_]
    label: Column
    split: Column | None
    group_id: Column | None
    columns: dict[str, Column]
    blank: str = "empty"

    def name(self, row: int) -> str:
        """Return the name of a row, e.g. line 7."""
        return f"{self.unit} {self.number[row]}"

    def faults(self, biases: Sequence[BiasSetting]) -> Faults:
        """Return the faults: a missing label, an unknown split, or a bias with bins that is not a number."""
        faults = Faults(len(self.label.code), self.where, self.name)
        blank = f"{self.label.name} is {self.blank}{self.label.missing_hint()}"
        faults.add(np.flatnonzero(self.label.code == IGNORE).tolist(), blank)
        if self.split is not None:
            split, valid = self.split, ", ".join((*SPLITS, *_SPELLINGS))
            unknown: list[int] = np.flatnonzero(_split_index(split) == IGNORE).tolist()
            faults.add(unknown, "unknown split", lambda row: f" {split.text(row)!r} (valid: {valid})")
        for bias in biases:
            if bias.column is not None and (bias.bins or bias.edges):
                self._check_numbers(self.columns[bias.column], faults)
        return faults

    def _check_numbers(self, column: Column, faults: Faults) -> None:
        def detail(row: int) -> str:
            text = column.text(row)
            comma = not np.isnan(as_number(text.replace(",", ".", 1)))
            return f": {text!r}{' (a decimal comma? set data.decimal)' if comma else ''}"

        faults.add(np.flatnonzero(column.numbers()[1]).tolist(), f"{column.name} is not a number", detail)

    def take(self, keep: NDArray[np.bool_]) -> "Rows":
        """Return the rows where `keep` is true."""
        split, group_id = (column and column.take(keep) for column in (self.split, self.group_id))
        return replace(
            self,
            number=self.number[keep],
            label=self.label.take(keep),
            split=split,
            group_id=group_id,
            columns={name: column.take(keep) for name, column in self.columns.items()},
        )

    def assign_splits(self, group: Ints, settings: LabelSettings) -> tuple[Ints, str]:
        """Return the index in SPLITS of each row, and a sentence about the source of val.

        Without a split column all splits are drawn; without val rows, val is drawn from train. A draw takes an equal
        share of every group.

        Args:
            group: Group of each row, (n,).
            settings: Shares and seed.

        Raises:
            UserError: If a split has no row, train lacks a class, or a value of `group_id` is in two splits.
        """
        index, note = self._given_or_drawn(group, settings)
        count = np.bincount(index, minlength=len(SPLITS))
        if empty := [name for name, n in zip(SPLITS, count, strict=True) if not n]:
            remedy = "set data.val_fraction higher, or add rows" if "drawn" in note else "each split needs rows"
            raise UserError(f"{self.where}: no row is in {', '.join(empty)}; {remedy}")
        learned = np.bincount(self.label.code[index == 0], minlength=len(self.label.values))
        if absent := [name for name, n in zip(self.label.values, learned, strict=True) if not n]:
            values, name = ", ".join(absent[:NAMED]), self.label.name
            if len(absent) <= NAMED:
                raise UserError(f"{self.where}: no training row has {name} {values}; add training rows")
            raise UserError(
                f"{self.where}: no training row has {name} {values} and {len(absent) - NAMED} more of the "
                f"{len(learned)} values; is {name} a number or an id? A class needs several rows"
            )
        return index, note

    def given_splits(self) -> Ints | None:
        """Return the index in SPLITS of each row by the split column, IGNORE if unknown; None without a column."""
        return None if self.split is None else _split_index(self.split)

    def _given_or_drawn(self, group: Ints, settings: LabelSettings) -> tuple[Ints, str]:
        val, test = settings.val_fraction, settings.test_fraction
        if self.split is None:
            index, how = self._draw(np.arange(len(group)), group, (1 - val - test, val, test), settings)
            return index, f"{val:.0%} of the rows, {how}"
        index = _split_index(self.split)
        self._check_groups(index)
        train = np.flatnonzero(index == 0)
        if (index == 1).any() or not len(train):
            return index, f"rows of {self.split.name} val"
        index[train], how = self._draw(train, group, (1 - val, val), settings)
        return index, f"{val:.0%} of the training rows, {how}"

    def _draw(self, rows: Ints, group: Ints, shares: Sequence[float], settings: LabelSettings) -> tuple[Ints, str]:
        """Return the part of each of the rows (part 0 is train), and a phrase about the draw.

        If train lacks a class, the draw is repeated with strata of the class alone. If train still lacks a class,
        because it has too few rows, all its rows are moved to train.
        """
        label, unit = self.label.code[rows], None if self.group_id is None else self.group_id.code[rows]
        part, by = assign(group[rows], shares, settings.seed, unit), "label and bias" if settings.biases else "label"
        moved = ""
        if np.setdiff1d(label, label[part == 0]).size:
            part, by = assign(label, shares, settings.seed, unit), "label only, because a group is small"
            if (absent := np.setdiff1d(label, label[part == 0])).size:
                move = np.isin(label, absent)
                if unit is not None:
                    move |= np.isin(unit, unit[move & (unit != IGNORE)])
                if len({*part[~move].tolist()} - {0}) < len(shares) - 1:
                    return part, f"drawn at random, stratified by {by}, seed {settings.seed}"
                part[move] = 0
                names = ", ".join(self.label.values[k] for k in absent[:NAMED].tolist())
                moved = f", all rows of {self.label.name} {names} in train, because they are too few"
        together = "" if self.group_id is None else f", {self.group_id.name} kept together"
        return part, f"drawn at random, stratified by {by}{together}{moved}, seed {settings.seed}"

    def _check_groups(self, index: Ints) -> None:
        if self.group_id is not None and len(leaking := straddling(self.group_id.code, index)):
            names = [self.group_id.values[group] for group in leaking.tolist()]
            raise LeakingGroupsError(self.where, self.group_id.name, names)


def _split_index(split: Column) -> Ints:
    """Return the index in SPLITS of each row, IGNORE if its split is unknown."""
    names = [_SPELLINGS.get(value.lower(), value.lower()) for value in split.values]
    of_value = np.array([*(SPLITS.index(name) if name in SPLITS else IGNORE for name in names), IGNORE], dtype=np.int64)
    return np.asarray(of_value[np.where(split.code == IGNORE, -1, split.code)])


_GOLDEN = (5**0.5 - 1) / 2  # golden ratio, whose multiples modulo 1 are spread evenly over [0, 1)


def assign(stratum: Ints, shares: Sequence[float], seed: int, group: Ints | None = None) -> Ints:
    """Assign rows to parts of given shares at random, with equal shares of every stratum.

    Args:
        stratum: Number of the stratum of each row, (n,). A part gets its share of the rows of each stratum, rounded up
            or down at random (systematic sampling in random order).
        shares: Share of each part; they sum to 1.
        seed: Seed of the draw.
        group: Rows with the same number stay together and belong to their most frequent stratum, (n,); IGNORE for a
            row that is its own group.

    Returns:
        The part of each row, int64 (n,) in [0, len(shares)).
    """
    unit = np.arange(len(stratum)) if group is None else _units(group)
    size = np.bincount(unit)
    of_unit = stratum if group is None else _majority(unit, stratum)
    random = np.random.Generator(np.random.Philox(derive(seed, "split")))
    order = np.lexsort((random.random(len(size)), of_unit))
    total = np.bincount(of_unit, weights=size)
    begin = np.cumsum(size[order]) - size[order] - (np.cumsum(total) - total)[of_unit[order]]
    # The offsets of consecutive strata are spread evenly, so that many small strata together keep the shares.
    offset = ((random.random() + _GOLDEN * np.arange(len(total))) % 1)[of_unit[order]]
    position = (begin + offset * size[order]) / total[of_unit[order]]
    part = np.empty(len(size), dtype=np.int64)
    part[order] = np.searchsorted(np.cumsum(shares)[:-1], position, side="right")
    return part[unit]


def _units(group: Ints) -> Ints:
    """Return the number of each row's unit: its group, or a unit of its own if the group is unknown."""
    alone = np.arange(len(group)) + group.max(initial=0) + 1
    return np.asarray(np.unique(np.where(group == IGNORE, alone, group), return_inverse=True)[1], dtype=np.int64)


def _majority(unit: Ints, stratum: Ints) -> Ints:
    """Return the most frequent stratum of each unit; the last of equally frequent ones."""
    strata = int(stratum.max()) + 1
    pair, count = np.unique(unit * strata + stratum, return_counts=True)
    majority = np.empty(int(unit.max()) + 1, dtype=np.int64)
    order = np.lexsort((count, pair // strata))
    majority[pair[order] // strata] = pair[order] % strata  # for repeated indices, the last value is kept
    return majority


def straddling(group: Ints, part: Ints) -> Ints:
    """Return the groups that have rows in more than one part, in order."""
    known = group != IGNORE
    parts = int(part.max(initial=0)) + 1
    pairs = np.unique(group[known] * parts + part[known]) // parts
    groups, count = np.unique(pairs, return_counts=True)
    return np.asarray(groups[count > 1], dtype=np.int64)
