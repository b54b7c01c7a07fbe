"""The contract of data sets: defaults of optional attributes, and the error for a class that violates it."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lntl.data import load
from lntl.data.colored_mnist import ColoredMNIST
from lntl.errors import UserError
from lntl.plugins import Settings
from lntl.types import Batch, Dataset, ImageSplit, Split


class VectorSplit(Split):
    """Ten vectors that define only the required attributes of a split."""

    def __init__(self) -> None:
        self.y = self.group = self.row = torch.arange(10)

    def to(self, device: torch.device) -> "VectorSplit":
        return self

    def batch(self, index: Tensor) -> Batch:
        return Batch(index[:, None].float(), index, index + 5, index, index, index[:, None])


class MinimalDataset(Dataset):
    """A data set that sets only the required attributes."""

    class Config(Settings):
        pass

    def __init__(self, config: Any) -> None:
        self.splits = {name: VectorSplit() for name in ("train", "val", "test")}
        self.spec = ColoredMNIST(ColoredMNIST.Config(path="/nonexistent", max_images=100)).spec


class NoSplits(MinimalDataset):
    def __init__(self, config: Any) -> None:
        pass


class NoVal(MinimalDataset):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        del self.splits["val"]


class OtherSplit(MinimalDataset):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.splits["test"] = torch.utils.data.TensorDataset(torch.zeros(3))  # type: ignore[assignment]


class NoDataset:
    class Config(Settings):
        pass

    def __init__(self, config: Any) -> None:
        raise AssertionError("this class must not be instantiated")


def test_optional_attributes_have_defaults() -> None:
    data = load("test_dataset.MinimalDataset", MinimalDataset.Config())
    split = data.splits["train"]
    assert (data.transform, data.skipped_rows, data.bias_kind, data.row_name(7)) == (None, (), "bias value", "7")
    assert (len(split), split.workers, isinstance(split, ImageSplit)) == (10, 0, False)
    assert split.augmented(1) is split
    assert split.bias_labels(torch.tensor([2, 3])).tolist() == [7, 8]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoDataset", r"data\.name: '\S+' is not a class that derives from lntl\.types\.Dataset"),
        ("NoSplits", r"has no attribute 'splits'; its __init__ must set self\.splits and self\.spec"),
        ("NoVal", r"has no split val; self\.splits must hold train, val, test"),
        ("OtherSplit", r"the test split of \S+ is a TensorDataset; derive its class from lntl\.types\.Split"),
    ],
)
def test_a_class_that_violates_the_contract_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load(f"test_dataset.{name}", MinimalDataset.Config())
