"""Rows as they were read: which of them are wrong, and which split each is in."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lntl.data.biases import BiasSetting
from lntl.data.faults import Faults
from lntl.data.labels import Column, Ints
from lntl.data.splitting import assign, straddling
from lntl.errors import UserError
from lntl.plugins import Settings
from lntl.types import IGNORE, SPLITS

_TOLD = 10  # names in an error
_SPELLINGS = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}


class LeakingGroupsError(UserError):
    """Groups of rows that lie in more than one split; `groups` are their names, `column` what they are values of."""

    def __init__(self, where: str, column: str, groups: list[str]) -> None:
        some = ", ".join(groups[:10])
        super().__init__(
            f"{where}: {len(groups)} values of {column} have rows in more than one split ({some}"
            f"{', ...' if len(groups) > 10 else ''}), so that the test rows are not new; give each of them one split"
        )
        self.column, self.groups = column, groups


class LabelSettings(Settings):
    """Settings of data with a label and a bias an image."""

    val_fraction: float = Field(
        0.1, gt=0, lt=0.5, description="Share of the rows (of train, where test is given) for val, where none is given."
    )
    test_fraction: float = Field(
        0.2, gt=0, lt=0.5, description="Share of the rows for test, where no split is given at all."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the splits that are drawn, stratified by label and bias.")
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="Rows that are wrong: stop and name them all, or leave them out and list them in the run."
    )

    @property
    def biases(self) -> Sequence[BiasSetting]:
        """The settings of each bias."""
        raise NotImplementedError

    @property
    def bias_from_images(self) -> bool:
        """Whether a bias is computed from the images, which are then read when the data set is built."""
        return any(bias.computed is not None for bias in self.biases)

    def lenient(self) -> Self:
        """Return the settings with wrong rows left out rather than an error."""
        return self.model_copy(update={"on_error": "skip"})

    def unread(self) -> Self:
        """Return the settings without a look into the images when the data set is built, where that is possible."""
        return self

    def without_groups(self) -> Self:
        """Return the settings with `group_id` ignored."""
        return self.model_copy(update={"group_id": None})


@dataclass(frozen=True)
class Rows:
    """n rows as they were read: label, split and group as far as given, the columns of the biases by their names.

    number (n,): what a row is called, with the unit; blank: what a label is that is missing.
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
        """Return what a row is called, e.g. line 7."""
        return f"{self.unit} {self.number[row]}"

    def faults(self) -> Faults:
        """Return the rows whose label is missing or whose split is not known, for others to add to."""
        found = Faults(len(self.label.code), self.where, self.name)
        found.add(np.flatnonzero(self.label.code == IGNORE).tolist(), f"{self.label.name} is {self.blank}")
        if self.split is not None:
            split, valid = self.split, ", ".join((*SPLITS, *_SPELLINGS))
            unknown: list[int] = np.flatnonzero(_places(split) == IGNORE).tolist()
            found.add(unknown, "unknown split", lambda row: f" {split.text(row)!r} (valid: {valid})")
        return found

    def take(self, keep: NDArray[np.bool_]) -> "Rows":
        """Return the rows kept."""
        split, group_id = (column and column.take(keep) for column in (self.split, self.group_id))
        return replace(
            self,
            number=self.number[keep],
            label=self.label.take(keep),
            split=split,
            group_id=group_id,
            columns={name: column.take(keep) for name, column in self.columns.items()},
        )

    def parts(self, stratum: Ints, settings: LabelSettings) -> tuple[Ints, str]:
        """Return the place in SPLITS of each row, and where val comes from.

        What is not given is drawn: all splits, or val from train; alike in every stratum (n,). Raises UserError where a
        split has no row, train lacks a class, or a group is in two splits.
        """
        part, note = self._given_or_drawn(stratum, settings)
        count = np.bincount(part, minlength=len(SPLITS))
        if empty := [name for name, n in zip(SPLITS, count, strict=True) if not n]:
            remedy = "set data.val_fraction higher, or add rows" if "drawn" in note else "each split needs some"
            raise UserError(f"{self.where}: no row is in {', '.join(empty)}; {remedy}")
        learned = np.bincount(self.label.code[part == 0], minlength=len(self.label.values))
        if absent := [name for name, n in zip(self.label.values, learned, strict=True) if not n]:
            some, name = ", ".join(absent[:_TOLD]), self.label.name
            if len(absent) <= _TOLD:
                raise UserError(f"{self.where}: no training row has {name} {some}; add some")
            raise UserError(
                f"{self.where}: no training row has {name} {some} and {len(absent) - _TOLD} more of the "
                f"{len(learned)} values; is {name} a number or an id? A class needs several rows"
            )
        return part, note

    def _given_or_drawn(self, stratum: Ints, settings: LabelSettings) -> tuple[Ints, str]:
        group = None if self.group_id is None else self.group_id.code
        kept = "" if self.group_id is None else f", {self.group_id.name} kept together"
        drawn = f"drawn at random, stratified by label and bias{kept}, seed {settings.seed}"
        val, test = settings.val_fraction, settings.test_fraction
        if self.split is None:
            return assign(stratum, (1 - val - test, val, test), settings.seed, group), f"{val:.0%} of the rows, {drawn}"
        part = _places(self.split)
        self._check_groups(part)
        train = part == 0
        if (part == 1).any() or not train.any():
            return part, f"rows of {self.split.name} val"
        part[train] = assign(stratum[train], (1 - val, val), settings.seed, None if group is None else group[train])
        return part, f"{val:.0%} of the training rows, {drawn}"

    def _check_groups(self, part: Ints) -> None:
        if self.group_id is not None and len(found := straddling(self.group_id.code, part)):
            names = [self.group_id.values[group] for group in found.tolist()]
            raise LeakingGroupsError(self.where, self.group_id.name, names)


def _places(split: Column) -> Ints:
    """Return the place in SPLITS of each row, IGNORE where there is none."""
    spelt = [_SPELLINGS.get(value.lower(), value.lower()) for value in split.values]
    of_value = np.array([*(SPLITS.index(name) if name in SPLITS else IGNORE for name in spelt), IGNORE], dtype=np.int64)
    return np.asarray(of_value[np.where(split.code == IGNORE, -1, split.code)])
