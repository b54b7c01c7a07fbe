"""Your own arrays in an .npz file: images or feature vectors x, label y and bias, one row an example."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from lntl.data import array_file
from lntl.data.biases import Biases, BiasSetting, check_numbers
from lntl.data.eval_transform import ArrayTransform
from lntl.data.faults import Faults
from lntl.data.labelled import Labelled, assemble
from lntl.data.labels import Column
from lntl.data.rows import LabelSettings, Rows
from lntl.errors import UserError
from lntl.types import Dataset, ImageSplit

__all__ = ["Arrays"]

_AT_ONCE = 4096  # rows whose statistics are taken at once


@dataclass(frozen=True)
class ArraySplit(Labelled):
    """A split whose x lies in memory: values (n, ...), shown as (value - mean) / std."""

    values: Tensor
    mean: Tensor
    std: Tensor

    def x(self, index: Tensor) -> Tensor:
        """Return the examples at `index`, normalised, float32 (N, C, H, W) or (N, D)."""
        return self.values[index].float().sub_(self.mean).div_(self.std)


class ImageArraySplit(ArraySplit, ImageSplit):
    """A split of images (n, C, H, W): uint8, or float in [0, 1]."""

    def pixels(self, index: Tensor) -> Tensor:
        """Return the images at `index` as uint8 (N, 3, H, W), three equal channels where they are grey."""
        return _pixels(self.values[index.to(self.values.device)])


def _pixels(images: Tensor) -> Tensor:
    bytes_ = images if images.dtype == torch.uint8 else images.mul(255).round().clamp(0, 255).to(torch.uint8)
    return bytes_.expand(-1, 3, -1, -1)


@dataclass(frozen=True)
class _Pictures:
    """Images (n, C, H, W) whose biases are to be computed."""

    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def pixels(self, index: Tensor) -> Tensor:
        return _pixels(self.values[index])


class Arrays(Dataset):
    """Arrays of an .npz file, in memory."""

    class Config(LabelSettings):
        """Settings of `data`."""

        path: str = Field(min_length=1, description="The .npz file; arrays have a row an example.")
        x: str = Field(
            "x", description="Array of images (n, H, W), (n, H, W, C) or (n, C, H, W), or of vectors (n, D)."
        )
        label: str = Field("y", description="Array of the label, integers or texts.")
        bias: Biases = Field(
            [BiasSetting(column="bias")],
            min_length=1,
            description="Arrays of the bias, integers (-1: missing, unless 1 is all there is beside it) or texts, "
            "(n,) or (n, several); with bins or edges for numbers; {from, bins} for what an image shows by itself.",
        )
        split: str | None = Field(None, description="Array with train, val or test; without it the splits are drawn.")
        group_id: str | None = Field(None, description="Array whose equal values never lie in two splits.")
        normalise: Literal["train", "none"] = Field(
            "train", description="train: every channel, or number of a vector, to mean 0 and deviation 1 on train."
        )

        @property
        def biases(self) -> Sequence[BiasSetting]:
            """The settings of each bias."""
            return self.bias

    def __init__(self, config: "Arrays.Config") -> None:
        self.config = config
        where = f"arrays {config.path}"
        arrays = array_file.read(Path(config.path), _wanted(config), config.x)
        x = array_file.as_tensor(arrays.pop(config.x), f"{where}: {config.x}")
        found = {name: array_file.columns(name, arrays, where) for name in _wanted(config) if name != config.x}
        bias = [setting for each in config.bias for setting in _one_a_column(each, found)]
        rows = Rows(
            where=where,
            unit="row",
            number=np.arange(len(x)),
            label=_single(config.label, found, where),
            split=None if config.split is None else _single(config.split, found, where),
            group_id=None if config.group_id is None else _single(config.group_id, found, where),
            columns={column.name: column for several in found.values() for column in several},
            blank="missing (-1, unless 1 is all there is beside it; -100; NaN; NA)",
        )
        faults = rows.faults()
        check_numbers(bias, rows.columns, faults)
        if x.is_floating_point():
            faults.add((~x.flatten(1).isfinite().all(dim=1)).nonzero()[:, 0].tolist(), f"{config.x} is not finite")
        self._assemble(rows, x, faults, bias)

    def _assemble(self, rows: Rows, x: Tensor, faults: Faults, bias: list[Any]) -> None:
        keep = faults.settle(self.config.on_error)
        if not keep.all():
            rows, x = rows.take(keep), x[torch.from_numpy(keep)]
        shown = [setting.computed for setting in bias if setting.computed is not None]
        if shown and (x.dim() < 4 or "size" in shown):
            raise UserError(
                f"{rows.where}: {self.config.x} holds no image {'files' if x.dim() == 4 else 'at all'}, of "
                f"which a bias from: {shown[0]} could be told; name an array"
            )
        labels = assemble(rows, bias, _Pictures(x), tuple(x.shape[1:]), self.config)
        mean, std = statistics(x, labels.splits["train"].row if self.config.normalise == "train" else None)
        white = None if x.dim() < 4 else 1 if x.is_floating_point() else 255
        self.transform = ArrayTransform(x.shape[1:], mean, std, white)
        kind = ImageArraySplit if x.dim() == 4 else ArraySplit
        self.spec, self.val_note = labels.spec, labels.val_note
        self.label_kind, self.bias_kind = labels.label_kind, labels.bias_kind
        self.splits = {
            name: kind(**vars(split), values=x[split.row], mean=mean, std=std) for name, split in labels.splits.items()
        }
        self.skipped_rows = faults.lines
        left_out = [f"{len(self.skipped_rows)} rows are left out, for they are wrong"] if self.skipped_rows else []
        self.notes = [*labels.notes, *left_out]
        self.source = "; ".join([f"{rows.where}: {labels.told}", *self.notes])
        self._rows = rows

    def row_name(self, row: int) -> str:
        """Return the number of a row in the file, such as "row 7"."""
        return self._rows.name(row)


def _wanted(config: "Arrays.Config") -> list[str]:
    """Return the names of the arrays that the settings ask for."""
    biases = [setting.column for setting in config.bias]
    names = (config.x, config.label, *biases, config.split, config.group_id)
    return [*dict.fromkeys(name for name in names if name is not None)]


def _one_a_column(setting: Any, found: dict[str, list[Column]]) -> list[Any]:
    """Return the setting of a bias for each column of its array."""
    if setting.column is None:
        return [setting]
    return [setting.model_copy(update={"column": column.name}) for column in found[setting.column]]


def _single(name: str, found: dict[str, list[Column]], where: str) -> Column:
    if len(found[name]) > 1:
        raise UserError(f"{where}: {name} has {len(found[name])} columns and must have one, (n,)")
    return found[name][0]


def statistics(x: Tensor, train: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return mean and deviation over the training rows of each channel (C, 1, 1) or number (D,); 0 and 1 without.

    A deviation of 0 counts as 1.
    """
    shape = (x.shape[1], 1, 1) if x.dim() == 4 else (x.shape[1],)
    if train is None:
        return torch.zeros(shape), torch.ones(shape)
    over = (0, 2, 3) if x.dim() == 4 else (0,)
    means = [x[rows].double().mean(dim=over) * len(rows) for rows in train.split(_AT_ONCE)]
    mean = torch.stack(means).sum(dim=0).view(shape) / len(train)
    squares = [(x[rows].double() - mean).square().mean(dim=over) * len(rows) for rows in train.split(_AT_ONCE)]
    std = (torch.stack(squares).sum(dim=0).view(shape) / len(train)).sqrt()
    return mean.float(), torch.where(std > 0, std, 1).float()
