"""Build splits from labelled rows: their labels, the DataSpec, and descriptions for reports."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from lntl.data.biases import BiasSetting, Images, bias_columns
from lntl.data.labels import (
    MAX_NAMED_BIASES,
    Ints,
    JointBias,
    bias_features,
    check_spelling,
    combine,
    find_aligned_values,
    no_bias,
)
from lntl.data.rows import Faults, LabelSettings, Rows
from lntl.errors import UserError
from lntl.types import IGNORE, SPLITS, Batch, Dataset, DataSpec, Split


@dataclass(frozen=True)
class SplitLabels:
    """The labels of a split of n examples.

    Attributes:
        y: Class, (n,) int64.
        bias: Bias labels, (n,) or (n, B) int64.
        group: Group, (n,) int64, IGNORE if a bias is unknown.
        row: Index in the whole data set, (n,) int64.
        rank: Ranks of the biases that are numbers, (n, C) float32.
        num_values: Number of values of each bias.
    """

    y: Tensor
    bias: Tensor
    group: Tensor
    row: Tensor
    rank: Tensor
    num_values: tuple[int, ...]

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return a copy with `change` applied to every tensor of the instance."""
        tensors: dict[str, Any] = {k: change(value) for k, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)


@dataclass(frozen=True)
class LabelledSplit(SplitLabels, Split):
    """A split with a label and a bias for each example; a subclass adds x."""

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device) -> Self:
        """Return the split with its tensors on `device`."""
        return self.map(lambda tensor: tensor.to(device))

    def x(self, index: Tensor) -> Tensor:
        """Return the network input of the examples at `index`, float (N, ...) on the split's device."""
        raise NotImplementedError

    def bias_labels(self, index: Tensor) -> Tensor:
        """Return the bias labels at `index`, (N,) or (N, B)."""
        return self.bias[index]

    def batch(self, index: Tensor) -> Batch:
        """Return the examples at `index` with their labels."""
        bias = self.bias_labels(index)
        return Batch(
            x=self.x(index),
            y=self.y[index],
            bias=bias,
            group=self.group[index],
            row=self.row[index],
            bias_features=bias_features(bias, self.num_values, self.rank[index]),
        )


class LabelledDataset(Dataset):
    """A data set made of labelled rows.

    Attributes:
        notes: Remarks on the data, one sentence each.
    """

    notes: Sequence[str] = ()

    def _label(
        self,
        rows: Rows,
        biases: Sequence[BiasSetting],
        images: Images | None,
        input_shape: tuple[int, ...],
        settings: LabelSettings,
        faults: Faults,
    ) -> dict[str, SplitLabels]:
        """Return the labels of each split, and set every attribute of `Dataset` that follows from them.

        Args:
            rows: The rows without faults.
            biases: The setting of each bias; empty if the bias is not annotated.
            images: The images of the rows, for biases that are computed from them.
            input_shape: Shape of one x.
            settings: How the splits are drawn.
            faults: The rows that are left out.

        Raises:
            UserError: If the rows have only one class, or their labels or biases are invalid.
        """
        n, names = len(rows.label.code), rows.label.values
        if len(names) < 2:
            raise UserError(
                f"{rows.where}: {rows.label.name} has only the value {names[0]!r}{rows.label.missing_hint()}; a task "
                "needs two classes"
            )
        if rows.label.name in [setting.column for setting in biases]:
            raise UserError(f"{rows.where}: label and bias are both {rows.label.name}; they must be different columns")
        try:
            check_spelling(rows.label)
            columns = bias_columns(biases, rows.columns, images)
            joint = combine(columns) if columns else no_bias(n)
        except UserError as error:
            raise UserError(f"{rows.where}: {error}") from error
        y = torch.from_numpy(rows.label.code)
        value = torch.where(joint.value == IGNORE, len(joint.names), joint.value)
        index, self.val_note = rows.assign_splits((y * (len(joint.names) + 1) + value).numpy(), settings)
        labels = split_labels(y, joint, index)
        self.spec = make_spec(names, joint, input_shape, n, labels["train"])
        self.label_kind, self.bias_kind = rows.label.name, _describe_biases([column.name for column in columns])
        self.skipped_rows = faults.lines
        values = f"{len(joint.names)} values of {self.bias_kind}" if columns else "no bias annotated"
        self.source = f"{rows.where}: {n} rows, {len(names)} classes of {self.label_kind}, {values}"
        shares = [(column, float((column.code == IGNORE).mean())) for column in columns]
        self._note(f"{share:.1%} of the rows have no {c.name}{c.missing_hint()}" for c, share in shares if share > 0)
        columns_with_notes = [rows.label, *columns, *([rows.group_id] if rows.group_id else [])]
        self._note(dict.fromkeys(note for column in columns_with_notes for note in column.notes))
        if self.skipped_rows:
            self._note([f"{len(self.skipped_rows)} wrong rows are left out"])
        return labels

    def _note(self, notes: Iterable[str]) -> None:
        """Add notes, also to the description of the source."""
        new_notes = [*notes]
        self.notes = [*self.notes, *new_notes]
        self.source = "; ".join([self.source, *new_notes])


def _describe_biases(biases: list[str]) -> str:
    """Return the name of the property that the bias values describe, such as "sky and age"."""
    *others, last = biases or ["bias value"]
    if len(biases) > MAX_NAMED_BIASES:
        return f"{biases[0]}, {biases[1]} and {len(biases) - 2} more biases"
    return f"{', '.join(others)} and {last}" if others else last


def split_labels(y: Tensor, bias: JointBias, index: Ints) -> dict[str, SplitLabels]:
    """Return the labels of each split; `index` (n,) is the index in SPLITS of each row's split."""
    group = torch.where(bias.value == IGNORE, IGNORE, y * len(bias.names) + bias.value)
    labels = SplitLabels(y, bias.labels, group, torch.arange(len(y)), bias.rank, bias.num_values)
    rows = {name: torch.from_numpy(np.flatnonzero(index == k)) for k, name in enumerate(SPLITS)}
    return {name: labels.map(lambda tensor, rows=rows[name]: tensor[rows]) for name in SPLITS}  # type: ignore[misc]


def make_spec(
    names: tuple[str, ...], bias: JointBias, input_shape: tuple[int, ...], n: int, train: SplitLabels
) -> DataSpec:
    """Return the DataSpec of n rows; `names` are the names of the classes."""
    known = train.group != IGNORE
    y, value = train.y[known], train.group[known] - train.y[known] * len(bias.names)
    biases = [
        replace(spec, aligned=find_aligned_values(y, spec.labels(value), len(names), len(spec.values)))
        for spec in bias.specs
    ]
    return DataSpec(
        input_shape=input_shape,
        num_classes=len(names),
        num_bins=max(bias.num_values),
        bias_shape=tuple(bias.labels.shape[1:]),
        class_names=names,
        bias_value_names=bias.names,
        num_rows=n,
        aligned=find_aligned_values(y, value, len(names), len(bias.names)),
        biases=tuple(biases),
    )
