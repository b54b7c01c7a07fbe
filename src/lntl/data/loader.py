"""Batches of a split, made on its device, or ahead of time by a thread if the split has workers."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch
from torch import Tensor

from lntl.seeding import derive, draw_with_replacement, permutation
from lntl.types import Batch, Split

AHEAD = 2  # number of batches that are made while one is trained on
P = TypeVar("P")
T = TypeVar("T")


class Loader:
    """A split in batches; the order and the augmentation of an epoch are functions of the seed given for it."""

    def __init__(self, split: Split, batch_size: int, device: torch.device) -> None:
        self.split = split.to(device)
        self.batch_size = batch_size
        self.device = device

    def __len__(self) -> int:
        """Return the number of batches in an epoch; the last one may be smaller, or larger by one image."""
        parts, left = divmod(len(self.split), self.batch_size)
        return parts + (left > 1 or (left == 1 and parts == 0))

    def _parts(self, order: Tensor) -> list[Tensor]:
        """Split an order into batches; a single last image joins the batch before, because BatchNorm needs two."""
        parts = list(order.split(self.batch_size))
        return parts if len(parts) == len(self) else [*parts[:-2], torch.cat(parts[-2:])]

    def batches(self, order_seed: int | None = None, start: int = 0, weights: Tensor | None = None) -> Iterator[Batch]:
        """Yield the batches from number `start` on, shuffled by `order_seed` or, without one, in the split's order.

        With `weights` (num_rows,) an epoch draws examples with replacement, in proportion to the weight of their row.
        Images of a shuffled epoch are augmented, if the split has augmentation. With replacement, each batch has its
        own augmentation seed, so that an example that is drawn again looks different.
        """
        split = self.split
        if order_seed is None:
            order = torch.arange(len(split))
        elif weights is None:
            order, split = permutation(len(split), order_seed), split.augmented(order_seed)
        else:
            order = draw_with_replacement(weights[split.row].cpu(), order_seed)

        def batch(numbered: tuple[int, Tensor]) -> Batch:
            number, index = numbered
            if order_seed is None or weights is None:
                return split.batch(index)
            return split.augmented(derive(order_seed, "augmentation", number)).batch(index)

        # With reader threads the index stays on the CPU; a thread that copies it from the device would wait for it.
        parts = list(enumerate(self._parts(order if split.workers else order.to(self.device))))[start:]
        yield from ahead(batch, parts) if split.workers else map(batch, parts)


def ahead(make: Callable[[P], T], parts: Iterable[P]) -> Iterator[T]:
    """Yield make(part) for each part in order; a thread makes up to AHEAD parts ahead of time."""
    pool, pending = ThreadPoolExecutor(1, thread_name_prefix="reader"), deque[Future[T]]()
    try:
        for part in parts:
            pending.append(pool.submit(make, part))
            if len(pending) > AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
