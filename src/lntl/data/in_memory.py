"""Arrays that are in memory already, all of them for training: what `lntl.sklearn` learns from."""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lntl.data.array_file import blank
from lntl.data.arrays import ArraySplit, ImageArraySplit, statistics
from lntl.data.labelled import spec_of, split_up
from lntl.data.labels import MISSING, Column, Ints, categories, combine, unknown
from lntl.errors import UserError
from lntl.types import Dataset


class InMemory(Dataset):
    """x as `array_file.as_tensor` gives it, a class (n,) with the names of all, and the biases, none where not known.

    Every channel of images is brought to mean 0 and deviation 1; vectors stay as they are.
    """

    def __init__(self, x: Tensor, code: Ints, class_names: tuple[str, ...], biases: Sequence[Column]) -> None:
        n = len(code)
        joint = combine(biases) if biases else unknown(n)
        train = split_up(torch.from_numpy(code), joint, torch.zeros(n))["train"]
        self.spec = spec_of(class_names, joint, tuple(x.shape[1:]), n, train)
        self.mean, self.std = statistics(x, train.row if x.dim() == 4 else None)
        kind = ImageArraySplit if x.dim() == 4 else ArraySplit
        self.train = kind(**vars(train), values=x, mean=self.mean, std=self.std)
        self.splits = {"train": self.train}


def columns(bias: Any) -> list[Column]:
    """Return labels (n,) or (n, B), texts or integers, as columns; None, NaN, NA, "" and `blank` are no value.

    A data frame's columns and a series keep their names. Raises UserError for numbers that are not whole.
    """
    values = np.asarray(bias, dtype=object)
    if values.ndim == 1:
        return [_column(str(getattr(bias, "name", None) or "bias"), values)]
    if values.ndim != 2:
        raise UserError(f"bias is an array {values.shape}; give one label an example, (n,), or several, (n, B)")
    names = getattr(bias, "columns", [f"bias {k}" for k in range(values.shape[1])])
    return [_column(str(name), column) for name, column in zip(names, values.T, strict=True)]


def _column(name: str, values: Any) -> Column:
    missing = blank(float(value) for value in values if isinstance(value, Real) and value == value)
    texts = [_text(name, value, missing) for value in values]
    number = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    return categories(name, list(number), np.array([number[text] for text in texts], dtype=np.int64), MISSING)


def _text(name: str, value: Any, missing: Sequence[int]) -> str:
    """Return a label as text, whole numbers as integers; nothing for what stands for a missing one."""
    if value is None or type(value).__name__ == "NAType" or value != value or value in missing:
        return ""
    if not isinstance(value, float):
        return str(value)
    if not value.is_integer():
        raise UserError(
            f"{name} holds {value:g}, a number that is not whole; put it into bins first, e.g. with "
            "sklearn.preprocessing.KBinsDiscretizer(encode='ordinal')"
        )
    return str(int(value))
