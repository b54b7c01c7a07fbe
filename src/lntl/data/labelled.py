"""Data with a label and a bias an image or vector: their splits, and all that is told of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from lntl.data.biases import columns_of
from lntl.data.labels import Bias, Column, aligned, check_spelling, combine, features
from lntl.data.rows import LabelSettings, Rows
from lntl.errors import UserError
from lntl.types import IGNORE, SPLITS, Batch, DataSpec, Split


@dataclass(frozen=True)
class Labelled(Split):
    """A split's labels: tensors of n rows. A subclass says what x is."""

    y: Tensor
    bias: Tensor
    group: Tensor
    row: Tensor
    rank: Tensor
    sizes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device) -> Self:
        """Return the split with its tensors on `device`."""
        return self.each(lambda tensor: tensor.to(device))

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the split with every tensor changed."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors: dict[str, Any] = {name: change(v) for name, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **tensors)

    def x(self, index: Tensor) -> Tensor:
        """Return what the networks see of the examples at `index`, float (N, ...) on the split's device."""
        raise NotImplementedError

    def bias_labels(self, index: Tensor) -> Tensor:
        """Return the bias labels at `index` (N,) or (N, B), as a batch has them."""
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
            bias_features=features(bias, self.sizes, self.rank[index]),
        )


@dataclass(frozen=True)
class Labels:
    """All rows, checked and split: what a data set tells, and the labels of each split."""

    spec: DataSpec
    splits: dict[str, Labelled]
    val_note: str
    label_kind: str
    bias_kind: str
    notes: list[str]
    told: str  # number of rows, classes and bias values


def assemble(
    rows: Rows, bias: Sequence[Any], source: Any, input_shape: tuple[int, ...], settings: LabelSettings
) -> Labels:
    """Return the labels of rows without a fault; raises UserError where they cannot be learned from.

    bias: the settings of each bias; source: the images, for a bias that they show by themselves.
    """
    n, names = len(rows.label.code), rows.label.values
    if len(names) < 2:
        raise UserError(f"{rows.where}: {rows.label.name} has the one value {names[0]!r}; a task needs two classes")
    if rows.label.name in [each.column for each in bias]:
        raise UserError(f"{rows.where}: {rows.label.name} is named as label and as bias; what is learned cannot go")
    try:
        for column in (rows.label, rows.group_id):
            if column is not None:
                check_spelling(column)
        biases = columns_of(bias, rows.columns, source)
        joint = combine(biases)
    except UserError as error:
        raise UserError(f"{rows.where}: {error}") from error
    value = torch.where(joint.value == IGNORE, len(joint.names), joint.value)
    y = torch.from_numpy(rows.label.code)
    part, val_note = rows.parts((y * (len(joint.names) + 1) + value).numpy(), settings)
    splits = split_up(y, joint, torch.from_numpy(part))
    *others, last = [column.name for column in biases]
    kind = f"{', '.join(others)} and {last}" if others else last
    return Labels(
        spec=spec_of(names, joint, input_shape, n, splits["train"]),
        splits=splits,
        val_note=val_note,
        label_kind=rows.label.name,
        bias_kind=kind,
        notes=_missing(biases),
        told=f"{n} rows, {len(names)} classes of {rows.label.name}, {len(joint.names)} values of {kind}",
    )


def split_up(y: Tensor, bias: Bias, part: Tensor) -> dict[str, Labelled]:
    """Return the labels of each split; part (n,) is the place of a row's split in SPLITS."""
    group = torch.where(bias.value == IGNORE, IGNORE, y * len(bias.names) + bias.value)
    everything = Labelled(y, bias.label, group, torch.arange(len(y)), bias.rank, bias.sizes)
    places = {name: (part == place).nonzero()[:, 0] for place, name in enumerate(SPLITS)}
    return {name: everything.each(lambda tensor, index=index: tensor[index]) for name, index in places.items()}  # type: ignore[misc]


def spec_of(names: tuple[str, ...], bias: Bias, input_shape: tuple[int, ...], n: int, train: Labelled) -> DataSpec:
    """Return what a model must know of n rows; names: of the classes."""
    known = train.group != IGNORE
    y, value = train.y[known], train.group[known] - train.y[known] * len(bias.names)

    def told(value: Tensor, num_values: int) -> tuple[int, ...]:
        return aligned(y, value, len(names), num_values)

    each = [replace(one, aligned=told(torch.tensor(one.value_of_joint)[value], len(one.values))) for one in bias.each]
    return DataSpec(
        input_shape=input_shape,
        num_classes=len(names),
        num_bins=max(bias.sizes),
        bias_shape=tuple(bias.label.shape[1:]),
        class_names=names,
        bias_value_names=bias.names,
        num_rows=n,
        aligned=told(value, len(bias.names)),
        biases=tuple(each),
    )


def _missing(biases: Sequence[Column]) -> list[str]:
    shares = {column.name: float((column.code == IGNORE).mean()) for column in biases}
    return [f"{share:.1%} of the rows have no {name}" for name, share in shares.items() if share > 0]
