"""Batches of a split, made on its device; if the split has workers, a thread makes them in advance."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from lntl.seeding import derive, draw_with_replacement, permutation
from lntl.types import Batch, Split

MAX_AHEAD = 2  # number of batches that are made in advance
P = TypeVar("P")
T = TypeVar("T")


class Loader:
    """A split in batches; the order and the augmentation of an epoch depend only on its seed.

    Args:
        split: The split.
        batch_size: Images per batch.
        device: Device of the batches.
        parts: Number of parts that a training batch is divided into, each with at least two images.

    Attributes:
        row_weights: Weights (num_rows,) by which all weights of `batches` are multiplied; None: 1.
    """

    def __init__(self, split: Split, batch_size: int, device: torch.device, parts: int = 1) -> None:
        self.split = split.to(device)
        self.batch_size = batch_size
        self.device = device
        self.parts = parts
        self.row_weights: Tensor | None = None

    def __len__(self) -> int:
        """Return the number of batches in an epoch; the last may be smaller, or larger by up to two images per part."""
        batches, remainder = divmod(len(self.split), self.batch_size)
        return batches + (remainder >= 2 * self.parts or (remainder > 0 and batches == 0))

    def size(self, number: int) -> int:
        """Return the number of images in a batch, counted from 0."""
        return self.batch_size if number < len(self) - 1 else len(self.split) - number * self.batch_size

    def _split_order(self, order: Tensor) -> list[Tensor]:
        """Split an order into batches; a last batch that is too small for BatchNorm joins the one before."""
        parts = list(order.split(self.batch_size))
        return parts if len(parts) == len(self) else [*parts[:-2], torch.cat(parts[-2:])]

    def batches(
        self,
        order_seed: int | None = None,
        start: int = 0,
        weights: Tensor | None = None,
        share: tuple[int, int] = (0, 1),
        turns: tuple[int, int] = (0, 1),
    ) -> Iterator[Batch]:
        """Yield the batches from number `start` on, shuffled by `order_seed` or, without one, in the split's order.

        share=(i, n) yields only part i, counted from 0, of the n parts of each batch. turns=(i, n) yields batch i and
        every n-th batch after it.

        With `weights` (num_rows,) an epoch draws examples with replacement, in proportion to the weight of their row.
        Images of a shuffled epoch are augmented, if the split has augmentation. With replacement, each batch has its
        own augmentation seed, so that an example that is drawn again looks different.
        """
        split = self.split
        if self.row_weights is not None:
            weights = self.row_weights * (1.0 if weights is None else weights.double().cpu())
        if order_seed is None:
            order = torch.arange(len(split))
        elif weights is None:
            order, split = permutation(len(split), order_seed), split.augmented(order_seed)
        else:
            order = draw_with_replacement(weights[split.row].cpu(), order_seed)

        def batch(item: tuple[int, Tensor]) -> Batch:
            number, index = item
            if order_seed is None or weights is None:
                return split.batch(index)
            return split.augmented(derive(order_seed, "augmentation", number)).batch(index)

        # With reader threads the index stays on the CPU: copying it from the device makes a thread wait for the device.
        batch_indices = self._split_order(order if split.workers else order.to(self.device))
        parts = [(number, part.tensor_split(share[1])[share[0]]) for number, part in enumerate(batch_indices)]
        parts = parts[start:][turns[0] :: turns[1]]
        yield from ahead(batch, parts) if split.workers else map(batch, parts)


def ahead(make: Callable[[P], T], parts: Iterable[P]) -> Iterator[T]:
    """Yield make(part) for each part in order; a thread makes up to MAX_AHEAD parts ahead of time."""
    pool, pending = ThreadPoolExecutor(1, thread_name_prefix="reader"), deque[Future[T]]()
    try:
        for part in parts:
            pending.append(pool.submit(make, part))
            if len(pending) > MAX_AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
