"""Batches of a split that lives in memory: tensor operations on its device, no worker, no per-image Python."""

from collections.abc import Iterator

import torch
from torch import Tensor

from lntl.seeding import draws, permutation
from lntl.types import Batch, Split


class Loader:
    """A split in batches; the order of an epoch is a function of the seed given for it."""

    def __init__(self, split: Split, batch_size: int, device: torch.device) -> None:
        self.split = split.to(device)
        self.batch_size = batch_size
        self.device = device

    def __len__(self) -> int:
        """Return the number of batches in an epoch; the last one may be smaller."""
        return -(-len(self.split) // self.batch_size)

    def batches(self, order_seed: int | None = None, start: int = 0, weights: Tensor | None = None) -> Iterator[Batch]:
        """Yield the batches from number `start` on, shuffled by `order_seed` or, without one, in the split's order.

        With `weights` (num_rows,) an epoch draws examples in proportion to the weight of their row, with replacement.
        """
        n = len(self.split)
        if order_seed is None:
            order = torch.arange(n)
        else:
            order = permutation(n, order_seed) if weights is None else draws(weights[self.split.row].cpu(), order_seed)
        for index in order.to(self.device).split(self.batch_size)[start:]:
            yield self.split.batch(index)
