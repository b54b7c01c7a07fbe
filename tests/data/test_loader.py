"""Batches cover a split once, in an order that depends on the seed, and can be prefetched."""

import threading
import time
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import write_images
from torch import Tensor

from lntl.data.biased_mnist import BiasedMNIST
from lntl.data.colored_mnist import ColoredMNIST
from lntl.data.images import ImageSettings, ImageSource
from lntl.data.loader import MAX_AHEAD, Loader
from lntl.errors import UserError
from lntl.types import Batch, Split

CPU = torch.device("cpu")


def get_rows(loader: Loader, seed: int | None = None, start: int = 0) -> list[list[int]]:
    return [batch.row.tolist() for batch in loader.batches(seed, start)]


@pytest.mark.parametrize("batch_size", [1, 7, 45, 90, 1000])
def test_every_row_comes_once_and_len_counts_the_batches(digits: ColoredMNIST, batch_size: int) -> None:
    split = digits.splits["train"]
    loader = Loader(split, batch_size, CPU)
    batches = get_rows(loader, seed=3)
    assert sorted(chain(*batches)) == sorted(split.row.tolist())
    assert len(batches) == len(loader)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 0 < len(batches[-1]) <= batch_size


@pytest.mark.parametrize(("batch_size", "sizes"), [(89, [90]), (88, [88, 2]), (1, [1] * 90)])
def test_a_single_last_image_is_added_to_the_previous_batch(
    digits: ColoredMNIST, batch_size: int, sizes: list[int]
) -> None:
    loader = Loader(digits.splits["train"], batch_size, CPU)
    assert [len(batch) for batch in get_rows(loader, seed=3)] == sizes
    assert len(loader) == len(sizes)


def test_the_order_depends_only_on_the_seed(digits: ColoredMNIST) -> None:
    loader = Loader(digits.splits["train"], 32, CPU)
    torch.manual_seed(0)
    order = get_rows(loader, seed=3)
    torch.manual_seed(1)
    assert get_rows(loader, seed=3) == order
    assert get_rows(loader, seed=4) != order


def test_without_a_seed_the_order_is_that_of_the_split(digits: ColoredMNIST) -> None:
    assert [*chain(*get_rows(Loader(digits.splits["val"], 4, CPU)))] == digits.splits["val"].row.tolist()


@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_an_epoch_continues_from_the_middle_with_the_same_batches(digits: ColoredMNIST, start: int) -> None:
    loader = Loader(digits.splits["train"], 25, CPU)
    assert get_rows(loader, seed=3, start=start) == get_rows(loader, seed=3)[start:]


# --- splits whose images are augmented or prefetched ---


@dataclass(frozen=True)
class NumberSplit(Split):
    """A split of n examples, whose x is the row number plus the seed of the augmentation."""

    n: int = 50
    workers: int = 0
    seed: int | None = None
    started_batches: list[tuple[int, str]] = field(default_factory=list)  # first row and thread of each batch
    unreadable_row: int | None = None  # this row cannot be read
    row_and_event: tuple[int, threading.Event] | None = None  # this row is returned only after the event
    images: ImageSource | None = None  # source of x instead of the row

    def __len__(self) -> int:
        return self.n

    @property
    def row(self) -> Tensor:
        return torch.arange(self.n)

    def to(self, device: torch.device) -> "NumberSplit":
        return self

    def augmented(self, seed: int) -> "NumberSplit":
        return replace(self, seed=seed)

    def batch(self, index: Tensor) -> Batch:
        self.started_batches.append((int(index[0]), threading.current_thread().name))
        if self.row_and_event is not None and self.row_and_event[0] in index:
            self.row_and_event[1].wait(20)
        if self.unreadable_row is not None and (index == self.unreadable_row).any():
            raise UserError(f"row {self.unreadable_row} cannot be read")
        x = (index + (self.seed or 0)).float() if self.images is None else self.images.load(index, self.seed)
        return Batch(x, y=index, bias=index, group=index, row=index, bias_features=index[:, None])


def get_inputs(loader: Loader, *arguments: Any) -> list[list[float]]:
    return [batch.x.tolist() for batch in loader.batches(*arguments)]


@pytest.mark.parametrize("workers", [0, 2])
def test_only_a_shuffled_epoch_is_augmented_with_its_seed(workers: int) -> None:
    loader = Loader(NumberSplit(workers=workers), 8, CPU)
    assert sorted(chain(*get_inputs(loader, 1000))) == [1000.0 + row for row in range(50)]
    assert [*chain(*get_inputs(loader))] == [*range(50)]
    weights = torch.eye(50)[7]  # always the same row
    inputs = get_inputs(loader, 1000, 0, weights)
    assert [len({*batch}) for batch in inputs] == [1] * 7  # the images of a batch have the same augmentation
    assert len({*chain(*inputs)}) == 7  # different batches have different augmentations


@pytest.mark.parametrize("start", [0, 3, 6, 7])
@pytest.mark.parametrize("seed", [None, 5])
def test_prefetching_gives_the_same_batches(start: int, seed: int | None) -> None:
    plain_loader, prefetching_loader = (Loader(NumberSplit(workers=workers), 8, CPU) for workers in (0, 4))
    assert get_inputs(prefetching_loader, seed, start) == get_inputs(plain_loader, seed, start)
    assert get_rows(prefetching_loader, seed, start) == get_rows(plain_loader, seed, start)


def wait_for(split: NumberSplit, batches: int) -> None:
    """Wait until the split has begun to load `batches` batches."""
    deadline = time.monotonic() + 20
    while len(split.started_batches) < batches and time.monotonic() < deadline:
        time.sleep(0.001)


def test_one_thread_prefetches_a_limited_number_of_batches() -> None:
    split = NumberSplit(workers=1)
    batches = Loader(split, 5, CPU).batches()
    next(batches)
    wait_for(split, MAX_AHEAD + 1)
    time.sleep(0.02)
    assert [row for row, _ in split.started_batches] == [5 * number for number in range(MAX_AHEAD + 1)]
    assert {name for _, name in split.started_batches} == {"reader_0"}
    batches.close()


def test_closing_an_epoch_early_ends_its_thread_after_the_current_batch() -> None:
    may_return = threading.Event()
    split = NumberSplit(n=1000, workers=1, row_and_event=(5, may_return))
    batches = Loader(split, 5, CPU).batches()
    next(batches)
    wait_for(split, 2)
    threading.Timer(0.1, may_return.set).start()  # close() waits until the thread has finished its second batch
    batches.close()
    assert [row for row, _ in split.started_batches] == [0, 5]
    assert not any(thread.name.startswith("reader") for thread in threading.enumerate())


def test_an_error_while_prefetching_is_raised_when_its_batch_is_requested() -> None:
    batches = Loader(NumberSplit(workers=1, unreadable_row=17), 5, CPU).batches()
    assert [next(batches).row[0].item() for _ in range(3)] == [0, 5, 10]
    with pytest.raises(UserError, match="row 17 cannot be read"):
        next(batches)


def test_an_image_split_gives_the_same_batches_with_and_without_threads(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 30)
    epochs = []
    for workers in (0, 2):
        settings = ImageSettings(size=14, crop="shift", flip=True, cache="memory", workers=workers)
        loader = Loader(NumberSplit(n=30, workers=workers, images=ImageSource(paths, settings)), 8, CPU)
        epochs.append([torch.cat([batch.x for batch in loader.batches(seed)]) for seed in (1, 2, None)])
    for x_without_threads, x_with_threads in zip(*epochs, strict=True):
        assert torch.equal(x_without_threads, x_with_threads)
    assert len({float(x.sum()) for x in epochs[0]}) == 3


def test_an_image_drawn_twice_gets_two_augmentations() -> None:
    split = BiasedMNIST(BiasedMNIST.Config(random_colors=1.0, max_images=100)).splits["train"]
    weights = torch.zeros(60000)
    weights[split.row[4]] = 1.0
    first_batch, second_batch, *_ = Loader(split, 8, CPU).batches(3, weights=weights)
    assert set(first_batch.row.tolist() + second_batch.row.tolist()) == {int(split.row[4])}
    assert not torch.equal(first_batch.x[0], second_batch.x[0])
    _, repeated_batch, *_ = Loader(split, 8, CPU).batches(3, weights=weights)
    assert torch.equal(second_batch.x, repeated_batch.x)
    (resumed_batch, *_) = Loader(split, 8, CPU).batches(3, start=1, weights=weights)
    assert torch.equal(second_batch.x, resumed_batch.x)
