"""Batches cover a split once, in an order that follows from the seed."""

from itertools import chain

import pytest
import torch

from lntl.data.colored_mnist import ColoredMNIST
from lntl.data.loader import Loader

CPU = torch.device("cpu")


def rows(loader: Loader, seed: int | None = None, start: int = 0) -> list[list[int]]:
    return [batch.row.tolist() for batch in loader.batches(seed, start)]


@pytest.mark.parametrize("batch_size", [1, 7, 45, 90, 1000])
def test_every_row_comes_once_and_len_counts_the_batches(digits: ColoredMNIST, batch_size: int) -> None:
    split = digits.splits["train"]
    loader = Loader(split, batch_size, CPU)
    batches = rows(loader, seed=3)
    assert sorted(chain(*batches)) == sorted(split.row.tolist())
    assert len(batches) == len(loader)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 0 < len(batches[-1]) <= batch_size


def test_the_order_follows_from_the_seed(digits: ColoredMNIST) -> None:
    loader = Loader(digits.splits["train"], 32, CPU)
    torch.manual_seed(0)
    first = rows(loader, seed=3)
    torch.manual_seed(1)
    assert rows(loader, seed=3) == first
    assert rows(loader, seed=4) != first


def test_without_a_seed_the_order_is_the_splits(digits: ColoredMNIST) -> None:
    assert [*chain(*rows(Loader(digits.splits["val"], 4, CPU)))] == digits.splits["val"].row.tolist()


@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_an_epoch_taken_up_in_the_middle_goes_on_with_the_same_batches(digits: ColoredMNIST, start: int) -> None:
    loader = Loader(digits.splits["train"], 25, CPU)
    assert rows(loader, seed=3, start=start) == rows(loader, seed=3)[start:]
