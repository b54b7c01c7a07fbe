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

MAX_NAMES = 10  # largest number of names in an error
_SPLIT_SPELLINGS = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}


class LeakingGroupsError(UserError):
    """Values of the column `group_id`, listed in `groups`, have rows in more than one split."""

    def __init__(self, where: str, column: str, groups: list[str]) -> None:
        names = ", ".join(groups[:MAX_NAMES])
        super().__init__(
            f"{where}: {len(groups)} values of {column} have rows in more than one split ({names}"
            f"{', ...' if len(groups) > MAX_NAMES else ''}), so the splits are not independent; keep all rows of "
            "a value in one split"
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
        None, description="Column such as the patient; all rows with the same value are in the same split."
    )
    missing: list[str] = Field([*MISSING], description="Texts that mean a missing value, as an empty text does.")

    @property
    def biases(self) -> Sequence[BiasSetting]:
        """The settings of each bias."""
        return self.bias


MAX_LISTED_ROWS = 50  # largest number of wrong rows listed in an error; the others are counted by kind
MAX_LISTED_IF_ALL_WRONG = 5  # the same if every row is wrong, because then a setting is the likely cause


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

    def valid_rows_or_raise(self, on_error: str) -> NDArray[np.bool_]:
        """Return a mask of the rows without faults, bool (n,).

        Raises:
            UserError: If rows are wrong and `on_error` is stop, if all rows are wrong, or if there are no rows.
        """
        if not self.n:
            raise UserError(f"{self.where}: the file has no row")
        is_valid = np.ones(self.n, dtype=np.bool_)
        is_valid[list(self._sentences)] = False
        if self._sentences and (on_error == "stop" or not is_valid.any()):
            any_valid = bool(is_valid.any())
            remedy = "correct them, or leave them out with data.on_error: skip" if any_valid else "check section `data`"
            heading = f"{self.where}: {len(self._sentences)} of {self.n} rows are wrong; {remedy}"
            raise UserError(
                "\n".join(
                    [
                        heading,
                        *(
                            f"  {line}"
                            for line in self._list_lines(MAX_LISTED_ROWS if any_valid else MAX_LISTED_IF_ALL_WRONG)
                        ),
                    ]
                )
            )
        return is_valid

    def _list_lines(self, limit: int) -> list[str]:
        lines = self.lines
        if len(lines) <= limit:
            return lines
        unlisted_kinds = Counter(kind for row in sorted(self._kinds)[limit:] for kind in self._kinds[row])
        counts = ", ".join(f"{kind} ({count})" for kind, count in unlisted_kinds.most_common())
        return [*lines[:limit], f"and {len(lines) - limit} more: {counts}"]


@dataclass(frozen=True)
class Rows:
    """n rows as they were read.

    Attributes:
        where: The file, for messages.
        unit: Word for a row of that file, such as "line".
        number: Number or name of each row in the file, (n,).
        label: Column of the label.
        split: Column of the split; None if the splits are drawn.
        group_id: Column whose equal values must not lie in two splits.
        columns: Columns of the biases, by name.
        missing_text: Description of a missing label.
        comma_advice: What to do about numbers with a decimal comma.
    """

    where: str
    unit: str
    number: NDArray[np.int64] | NDArray[np.object_]
    label: Column
    split: Column | None
    group_id: Column | None
    columns: dict[str, Column]
    missing_text: str = "empty"
    comma_advice: str = "write a decimal point"

    def name(self, row: int) -> str:
        """Return the name of a row, e.g. line 7."""
        return f"{self.unit} {self.number[row]}"

    def faults(self, biases: Sequence[BiasSetting]) -> Faults:
        """Return the faults of the rows: missing label, unknown split, or no number although the bias has bins."""
        faults = Faults(len(self.label.code), self.where, self.name)
        fault = f"{self.label.name} is {self.missing_text}{self.label.missing_hint()}"
        faults.add(np.flatnonzero(self.label.code == IGNORE).tolist(), fault)
        if self.split is not None:
            split, valid = self.split, ", ".join((*SPLITS, *_SPLIT_SPELLINGS))
            unknown_rows: list[int] = np.flatnonzero(_split_index(split) == IGNORE).tolist()
            faults.add(unknown_rows, "unknown split", lambda row: f" {split.text(row)!r} (valid: {valid})")
        for bias in biases:
            if bias.column is not None and (bias.bins or bias.edges):
                self._check_numbers(self.columns[bias.column], faults)
        return faults

    def _check_numbers(self, column: Column, faults: Faults) -> None:
        def detail(row: int) -> str:
            text = column.text(row)
            has_decimal_comma = not np.isnan(as_number(text.replace(",", ".", 1)))
            advice = f" (a decimal comma? {self.comma_advice})" if has_decimal_comma else ""
            return f": {text!r}{advice}"

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
        index, note = self._read_or_draw_splits(group, settings)
        count = np.bincount(index, minlength=len(SPLITS))
        if empty_splits := [name for name, n in zip(SPLITS, count, strict=True) if not n]:
            remedy = "set data.val_fraction higher, or add rows" if "drawn" in note else "each split needs rows"
            raise UserError(f"{self.where}: no row is in {', '.join(empty_splits)}; {remedy}")
        train_count = np.bincount(self.label.code[index == 0], minlength=len(self.label.values))
        if absent_classes := [name for name, n in zip(self.label.values, train_count, strict=True) if not n]:
            values, name = ", ".join(absent_classes[:MAX_NAMES]), self.label.name
            if len(absent_classes) <= MAX_NAMES:
                raise UserError(f"{self.where}: no training row has {name} {values}; add training rows")
            raise UserError(
                f"{self.where}: no training row has {name} {values} and {len(absent_classes) - MAX_NAMES} more of the "
                f"{len(train_count)} values; is {name} a number or an id? A class needs several rows"
            )
        return index, note

    def column_splits(self) -> Ints | None:
        """Return the index in SPLITS of each row from the split column (IGNORE if unknown); None without a column."""
        return None if self.split is None else _split_index(self.split)

    def _read_or_draw_splits(self, group: Ints, settings: LabelSettings) -> tuple[Ints, str]:
        val, test = settings.val_fraction, settings.test_fraction
        if self.split is None:
            index, draw_note = self._draw(np.arange(len(group)), group, (1 - val - test, val, test), settings)
            return index, f"{val:.0%} of the rows, {draw_note}"
        index = _split_index(self.split)
        self._check_groups(index)
        train = np.flatnonzero(index == 0)
        if (index == 1).any() or not len(train):
            return index, f"rows of {self.split.name} val"
        index[train], draw_note = self._draw(train, group, (1 - val, val), settings)
        return index, f"{val:.0%} of the training rows, {draw_note}"

    def _draw(self, rows: Ints, group: Ints, shares: Sequence[float], settings: LabelSettings) -> tuple[Ints, str]:
        """Return the part of each row (part 0 is train), and a phrase about the draw.

        If train lacks a class, the draw is repeated with strata of the class alone. If train still lacks a class,
        because it has too few rows, all its rows are moved to train.
        """
        label, cluster = self.label.code[rows], None if self.group_id is None else self.group_id.code[rows]
        part, strata = (
            assign(group[rows], shares, settings.seed, cluster),
            "label and bias" if settings.biases else "label",
        )
        moved_note = ""
        if np.setdiff1d(label, label[part == 0]).size:
            part, strata = assign(label, shares, settings.seed, cluster), "label only, because a group is small"
            if (absent_classes := np.setdiff1d(label, label[part == 0])).size:
                is_moved = np.isin(label, absent_classes)
                if cluster is not None:
                    is_moved |= np.isin(cluster, cluster[is_moved & (cluster != IGNORE)])
                if len({*part[~is_moved].tolist()} - {0}) < len(shares) - 1:
                    return part, f"drawn at random, stratified by {strata}, seed {settings.seed}"
                part[is_moved] = 0
                names = ", ".join(self.label.values[k] for k in absent_classes[:MAX_NAMES].tolist())
                moved_note = f", all rows of {self.label.name} {names} in train, because they are too few"
        group_note = "" if self.group_id is None else f", {self.group_id.name} kept together"
        return part, f"drawn at random, stratified by {strata}{group_note}{moved_note}, seed {settings.seed}"

    def _check_groups(self, index: Ints) -> None:
        if self.group_id is not None and len(leaking_groups := groups_in_several_parts(self.group_id.code, index)):
            names = [self.group_id.values[group] for group in leaking_groups.tolist()]
            raise LeakingGroupsError(self.where, self.group_id.name, names)


def _split_index(split: Column) -> Ints:
    """Return the index in SPLITS of each row, IGNORE if its split is unknown."""
    names = [_SPLIT_SPELLINGS.get(value.lower(), value.lower()) for value in split.values]
    index_of_value = np.array(
        [*(SPLITS.index(name) if name in SPLITS else IGNORE for name in names), IGNORE], dtype=np.int64
    )
    return np.asarray(index_of_value[np.where(split.code == IGNORE, -1, split.code)])


_GOLDEN_RATIO = (5**0.5 - 1) / 2  # its multiples modulo 1 are spread evenly over [0, 1)


def assign(stratum: Ints, shares: Sequence[float], seed: int, group: Ints | None = None) -> Ints:
    """Assign rows to parts of given shares at random, with equal shares of every stratum.

    Args:
        stratum: Index of the stratum of each row, (n,). A part gets its share of the rows of each stratum, rounded up
            or down at random (systematic sampling in random order).
        shares: Share of each part; they sum to 1.
        seed: Seed of the draw.
        group: Rows with the same number stay together and belong to their most frequent stratum, (n,); IGNORE for a
            row that is its own group.

    Returns:
        The part of each row, int64 (n,) in [0, len(shares)).
    """
    cluster = np.arange(len(stratum)) if group is None else _cluster_index(group)
    cluster_size = np.bincount(cluster)
    cluster_stratum = stratum if group is None else _majority_stratum(cluster, stratum)
    random = np.random.Generator(np.random.Philox(derive(seed, "split")))
    order = np.lexsort((random.random(len(cluster_size)), cluster_stratum))
    stratum_size = np.bincount(cluster_stratum, weights=cluster_size)
    start = (
        np.cumsum(cluster_size[order])
        - cluster_size[order]
        - (np.cumsum(stratum_size) - stratum_size)[cluster_stratum[order]]
    )
    # The offsets of consecutive strata are spread evenly, so that many small strata together keep the shares.
    offset = ((random.random() + _GOLDEN_RATIO * np.arange(len(stratum_size))) % 1)[cluster_stratum[order]]
    position = (start + offset * cluster_size[order]) / stratum_size[cluster_stratum[order]]
    part = np.empty(len(cluster_size), dtype=np.int64)
    part[order] = np.searchsorted(np.cumsum(shares)[:-1], position, side="right")
    return part[cluster]


def _cluster_index(group: Ints) -> Ints:
    """Return the index of each row's cluster: its group, or a cluster of its own if the group is unknown."""
    own_cluster = np.arange(len(group)) + group.max(initial=0) + 1
    return np.asarray(np.unique(np.where(group == IGNORE, own_cluster, group), return_inverse=True)[1], dtype=np.int64)


def _majority_stratum(cluster: Ints, stratum: Ints) -> Ints:
    """Return the most frequent stratum of each cluster; the last of equally frequent ones."""
    num_strata = int(stratum.max()) + 1
    pair, count = np.unique(cluster * num_strata + stratum, return_counts=True)
    majority = np.empty(int(cluster.max()) + 1, dtype=np.int64)
    order = np.lexsort((count, pair // num_strata))
    majority[pair[order] // num_strata] = pair[order] % num_strata  # for repeated indices, the last value is kept
    return majority


def groups_in_several_parts(group: Ints, part: Ints) -> Ints:
    """Return the groups that have rows in more than one part, in order."""
    known = group != IGNORE
    num_parts = int(part.max(initial=0)) + 1
    pairs = np.unique(group[known] * num_parts + part[known]) // num_parts
    groups, count = np.unique(pairs, return_counts=True)
    return np.asarray(groups[count > 1], dtype=np.int64)
