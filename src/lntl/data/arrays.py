"""The user's arrays in an .npz file: images or feature vectors x, label y and bias, one row per example."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from lntl.data import array_file
from lntl.data.biases import Biases, BiasSetting, ColumnName
from lntl.data.eval_transform import ArrayTransform
from lntl.data.labels import MISSING, Column, Ints, as_text, categories, combine, no_bias
from lntl.data.rows import MAX_NAMES, ColumnSettings, Rows
from lntl.data.splits import LabelledDataset, LabelledSplit, make_spec, split_labels
from lntl.errors import UserError
from lntl.types import Dataset, ImageSplit

__all__ = ["Arrays"]

_ROWS_PER_CHUNK = 4096  # rows per step of the computation of mean and std
_MAX_ROUNDING_ERROR = 1e-4  # largest accepted error of a value in float32, in units of its standard deviation


@dataclass(frozen=True)
class ArraySplit(LabelledSplit):
    """A split whose inputs are in memory: values (n, ...); batches contain (value - mean) / std."""

    values: Tensor
    mean: Tensor
    std: Tensor

    def x(self, index: Tensor) -> Tensor:
        """Return the examples at `index`, normalised, float32 (N, C, H, W) or (N, D)."""
        return normalise_values(self.values[index], self.mean, self.std)


class ImageArraySplit(ArraySplit, ImageSplit):
    """A split of images (n, C, H, W): uint8, or float in [0, 1]."""

    def pixels(self, index: Tensor) -> Tensor:
        """Return the images at `index` as uint8 (N, 3, H, W); gray images get three equal channels."""
        return _to_pixels(self.values[index.to(self.values.device)])


def _to_pixels(images: Tensor) -> Tensor:
    pixels = images if images.dtype == torch.uint8 else images.mul(255).round().clamp(0, 255).to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1)


@dataclass(frozen=True)
class _ImageArray:
    """Images (n, C, H, W) from which biases are computed."""

    values: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def pixels(self, index: Tensor) -> Tensor:
        return _to_pixels(self.values[index])

    def file_sizes(self) -> Tensor:
        raise UserError(
            "data.bias: {from: size} needs image files, but an array has none; name an array of bias labels instead"
        )


class Arrays(LabelledDataset):
    """Arrays of an .npz file, in memory."""

    class Config(ColumnSettings):
        """Settings of `data`."""

        path: str = Field(min_length=1, description="The .npz file; its arrays have one row per example.")
        x: ColumnName = Field(
            "x", description="Array of images (n, H, W), (n, H, W, C) or (n, C, H, W), or of vectors (n, D)."
        )
        label: ColumnName = Field("y", description="Array of the label, integers or texts.")
        bias: Biases = Field(
            [BiasSetting(column="bias")],
            description="Arrays of the bias, integers (-1: missing, unless the values are only -1 and 1) or texts, "
            "(n,) or (n, B) for B biases; with bins or edges for numbers; {from, bins} for a measure of the image; "
            "[] if the bias is not annotated.",
        )
        normalise: Literal["train", "none"] = Field(
            "train",
            description="train: scale each channel, or each number of a vector, to mean 0 and standard deviation 1 "
            "on train.",
        )

    def __init__(self, config: "Arrays.Config") -> None:
        where = f"arrays {config.path}"
        if config.x in _columns(config):
            raise UserError(f"{where}: {config.x} contains the inputs, so it cannot be a label, bias, split or group")
        arrays = array_file.read(Path(config.path), [config.x, *_columns(config)], config.x)
        values = array_file.check(arrays.pop(config.x), f"{where}: {config.x}")
        columns = {name: array_file.columns(name, arrays, where, config.missing) for name in _columns(config)}
        biases = [setting for bias in config.bias for setting in _settings_by_column(bias, columns)]
        rows = Rows(
            where=where,
            unit="row",
            number=np.arange(len(values)),
            label=_single_column(config.label, columns, where),
            split=None if config.split is None else _single_column(config.split, columns, where),
            group_id=None if config.group_id is None else _single_column(config.group_id, columns, where),
            columns={column.name: column for group in columns.values() for column in group},
            missing_text="missing (-1, unless the values are only -1 and 1; -100; NaN)",
        )
        faults = rows.faults(biases)
        if values.dtype.kind == "f":
            with np.errstate(over="ignore"):  # values that are not standardised reach the networks as float32
                inputs = values if config.normalise == "train" else values.astype(np.float32)
            finite = np.isfinite(inputs.reshape(len(values), -1)).all(axis=1)
            faults.add(np.flatnonzero(~finite).tolist(), f"{config.x} is not finite")
        keep = faults.valid_rows_or_raise(config.on_error)
        if not keep.all():
            rows, values = rows.take(keep), values[keep]
        x = torch.from_numpy(values)
        images = _ImageArray(x) if x.dim() == 4 else None
        labels = self._label(rows, biases, images, tuple(x.shape[1:]), config, faults)
        train = labels["train"].row
        if config.normalise == "none" and x.dim() == 2 and bool((rounded := loses_digits(x, train)).any()):
            self._note([_rounding_note(config.x, rounded)])
        x, mean, std = with_statistics(x, train if config.normalise == "train" else None)
        white = None if x.dim() < 4 else 1 if x.is_floating_point() else 255
        self.transform = ArrayTransform(x.shape[1:], mean, std, white)
        split_class = ImageArraySplit if x.dim() == 4 else ArraySplit
        self.splits = {
            name: split_class(**vars(split), values=x[split.row], mean=mean, std=std) for name, split in labels.items()
        }
        self._rows = rows

    def row_name(self, row: int) -> str:
        """Return the number of a row in the file, such as "row 7"."""
        return self._rows.name(row)


def _rounding_note(name: str, rounded: Tensor) -> str:
    """Return a sentence about the numbers of vectors that float32 cannot hold."""
    columns = rounded.nonzero()[:, 0].tolist()
    listed = ", ".join(f"{name}[{column}]" for column in columns[:MAX_NAMES])
    more = ", ..." if len(columns) > MAX_NAMES else ""
    return (
        f"the networks compute in float32, which loses digits of {listed}{more}; with data.normalise: train, "
        f"{name} is standardised in double precision first"
    )


def _columns(config: Arrays.Config) -> list[str]:
    """Return the names of all arrays in the settings except the inputs."""
    names = (config.label, *(setting.column for setting in config.bias), config.split, config.group_id)
    return [*dict.fromkeys(name for name in names if name is not None)]


def _settings_by_column(setting: BiasSetting, columns: dict[str, list[Column]]) -> list[BiasSetting]:
    """Return one setting for each column of the array of a bias."""
    if setting.column is None:
        return [setting]
    return [setting.model_copy(update={"column": column.name}) for column in columns[setting.column]]


def _single_column(name: str, columns: dict[str, list[Column]], where: str) -> Column:
    if len(columns[name]) > 1:
        raise UserError(f"{where}: {name} has {len(columns[name])} columns and must have one, (n,)")
    return columns[name][0]


def normalise_values(values: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Return (values - mean) / std as float32, computed in the dtype of mean and std."""
    return values.to(mean.dtype).sub(mean).div_(std).float()


def with_statistics(x: Tensor, train: Tensor | None, vectors: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """Return x in the dtype for storing it, and the mean and std for normalising batches.

    All three are float64 if float32 would lose digits of a feature, such as a time stamp. Otherwise vectors, mean and
    std are float32.

    Args:
        x: Images (n, C, H, W) or vectors (n, D) of any dtype.
        train: Rows for computing mean and std; None for mean 0 and std 1.
        vectors: Whether to compute mean and std also for vectors that lose no digits in float32.
    """
    if x.dim() == 4:
        return x, *statistics(x, train)
    if train is not None and bool(loses_digits(x, train).any()):
        return x.double(), *statistics(x, train, torch.float64)
    x = x.float()
    return x, *statistics(x, train if vectors else None)


def loses_digits(x: Tensor, train: Tensor) -> Tensor:
    """Return for each number of vectors (n, D) whether float32 would lose digits that vary over the training rows."""
    if x.dtype == torch.float32:
        return torch.zeros(x.shape[1], dtype=torch.bool)
    mean, std = statistics(x, train, torch.float64)
    scale = x.double().abs().amax(dim=0) if len(x) else mean
    limits = torch.finfo(torch.float32)
    is_rounded = (scale * limits.eps / 2 > _MAX_ROUNDING_ERROR * std) & _varies(x, train)
    return is_rounded | (scale > limits.max) | (std < limits.tiny)


def _varies(x: Tensor, train: Tensor) -> Tensor:
    """Return whether each channel (C,) or number (D,) has more than one value in the training rows."""
    axes = (0, 2, 3) if x.dim() == 4 else (0,)
    limits = [(x[rows].amin(dim=axes), x[rows].amax(dim=axes)) for rows in train.split(_ROWS_PER_CHUNK)]
    low, high = (torch.stack(values) for values in zip(*limits, strict=True))
    return low.amin(dim=0) < high.amax(dim=0)


def statistics(x: Tensor, train: Tensor | None, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel (C, 1, 1) or number (D,) over the training rows.

    They are computed in float64. The deviation is 1 if all values are equal. If `train` is None, they are 0 and 1.
    """
    shape = (x.shape[1], 1, 1) if x.dim() == 4 else (x.shape[1],)
    if train is None:
        return torch.zeros(shape), torch.ones(shape)
    axes = (0, 2, 3) if x.dim() == 4 else (0,)
    means = [x[rows].double().mean(dim=axes) * len(rows) for rows in train.split(_ROWS_PER_CHUNK)]
    mean = torch.stack(means).sum(dim=0).view(shape) / len(train)
    squares = [(x[rows].double() - mean).square().mean(dim=axes) * len(rows) for rows in train.split(_ROWS_PER_CHUNK)]
    std = (torch.stack(squares).sum(dim=0).view(shape) / len(train)).sqrt()
    # Rounding errors of the mean give equal values a deviation above 0.
    is_positive = (std > 0) & _varies(x, train).view(shape)
    return mean.to(dtype), torch.where(is_positive, std, 1).to(dtype)


class InMemory(Dataset):
    """Arrays in memory with only a train split; `lntl.sklearn` trains on it.

    Each channel of images is scaled to mean 0 and standard deviation 1. Vectors are not scaled, unless one of their
    numbers would lose digits in float32; then all their numbers are scaled to mean 0 and standard deviation 1.
    """

    def __init__(self, x: Tensor, code: Ints, class_names: tuple[str, ...], biases: Sequence[Column]) -> None:
        """Create the data set.

        Args:
            x: Images (n, C, H, W), uint8 or float32 in [0, 1], or vectors (n, D).
            code: Class of each example, (n,).
            class_names: Name of each class.
            biases: Columns of the biases; empty if the bias is unknown.
        """
        n = len(code)
        joint = combine(biases) if biases else no_bias(n)
        train = split_labels(torch.from_numpy(code), joint, np.zeros(n, dtype=np.int64))["train"]
        self.spec = make_spec(class_names, joint, tuple(x.shape[1:]), n, train)
        x, self.mean, self.std = with_statistics(x, train.row, vectors=False)
        split_class = ImageArraySplit if x.dim() == 4 else ArraySplit
        self.train = split_class(**vars(train), values=x, mean=self.mean, std=self.std)
        self.splits = {"train": self.train}


def label_columns(bias: Any) -> list[Column]:
    """Return labels (n,) or (n, B), texts or integers, as columns.

    None, NaN, NA, "" and the numbers of `array_file.missing_numbers` mean missing. Columns have the names of the data
    frame's columns or of the series. Raises UserError for numbers that are not integers.
    """
    values = np.asarray(bias, dtype=object)
    if values.ndim == 1:
        return [_column(str(getattr(bias, "name", None) or "bias"), values)]
    if values.ndim != 2:
        raise UserError(f"bias is an array {values.shape}; give one label per example, (n,), or several, (n, B)")
    names = getattr(bias, "columns", [f"bias {k}" for k in range(values.shape[1])])
    return [_column(str(name), column) for name, column in zip(names, values.T, strict=True)]


def _column(name: str, values: Any) -> Column:
    missing_values = array_file.missing_numbers(
        float(value) for value in values if isinstance(value, Real) and value == value
    )
    texts = [_text(name, value, missing_values) for value in values]
    number = {text: code for code, text in enumerate(dict.fromkeys(texts))}
    return categories(name, list(number), np.array([number[text] for text in texts], dtype=np.int64), MISSING)


def _text(name: str, value: Any, missing_values: Sequence[int]) -> str:
    """Return a label as text: "" for a missing label, and a float such as 3.0 as "3"."""
    text = as_text(value)
    if isinstance(value, float | np.floating) and text and not value.is_integer():
        raise UserError(
            f"{name} holds {value:g}, which is not an integer; put it into bins first, e.g. with "
            "sklearn.preprocessing.KBinsDiscretizer(encode='ordinal')"
        )
    return "" if text and value in missing_values else text
