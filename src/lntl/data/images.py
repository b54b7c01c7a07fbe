"""Image files as tensors: decoded by threads, kept in a cache, augmented as a function of (seed, place)."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
from torch import Tensor

from lntl.data import cache, transforms
from lntl.data.decoding import UnreadableImageError, check_header
from lntl.data.image_settings import ImageSettings, Normalise

__all__ = ["ImageSettings", "ImageSource", "Normalise"]

CHECKED = 64  # images that a thread checks at a time
A = TypeVar("A")
B = TypeVar("B")


class ImageSource:
    """Images in the order of their paths; place i is image i, whatever the batch it comes in."""

    def __init__(self, paths: Sequence[Path], settings: ImageSettings) -> None:
        self.paths, self.settings = paths, settings
        self._store = cache.store(paths, settings)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of an image as the network sees it."""
        return 3, self.settings.size, self.settings.size

    @property
    def workers(self) -> int:
        """Threads that read ahead."""
        return self.settings.workers

    def check(self, *, full: bool = True) -> list[tuple[int, str]]:
        """Return the place of each image that cannot be used, and what is wrong with it.

        A full check decodes every image, into the cache where there is one; else only the headers are read.
        """
        examine: Callable[[int], object] = self._store if full else lambda place: check_header(self.paths[place])

        def faults(places: range) -> list[tuple[int, str]]:
            found = []
            for place in places:
                try:
                    examine(place)
                except UnreadableImageError as error:
                    found.append((place, error.reason))
            return found

        parts = (range(len(self))[start : start + CHECKED] for start in range(0, len(self), CHECKED))
        return [*chain.from_iterable(self._map(faults, parts))]

    def load(self, index: Tensor, seed: int | None = None) -> Tensor:
        """Return the images at `index` (N,) as float32 (N, 3, H, W), normalised; augmented where a seed is given.

        Raises UnreadableImageError.
        """
        places, out = index.cpu(), transforms.empty(len(index), self.settings.size, np.float32)

        def fill(part: slice) -> None:
            stored = self._stored(places[part])
            if seed is None:
                pixels = transforms.middle(stored, self.settings.size)
            else:
                pixels = transforms.augmented(stored, places[part], seed, self.settings)
            transforms.normalise(pixels, self.settings, out[part])

        self._in_parts(fill, len(index))
        return out.permute(0, 3, 1, 2)

    def pixels(self, index: Tensor) -> Tensor:
        """Return the images at `index` as uint8 (N, 3, H, W), as evaluation sees them."""
        places, out = index.cpu(), transforms.empty(len(index), self.settings.size, np.uint8)

        def fill(part: slice) -> None:
            out[part] = transforms.middle(self._stored(places[part]), self.settings.size).permute(0, 2, 3, 1)

        self._in_parts(fill, len(index))
        return out.permute(0, 3, 1, 2)

    def _stored(self, index: Tensor) -> Tensor:
        """Return the stored squares (N, 3, S, S) uint8, channels last in memory."""
        squares = transforms.empty(len(index), self.settings.stored, np.uint8)
        for square, place in zip(squares.numpy(), index.tolist(), strict=True):
            square[...] = self._store(place)
        return squares.permute(0, 3, 1, 2)

    def _in_parts(self, fill: Callable[[slice], None], n: int) -> None:
        """Call fill on all of range(n), in parts that the threads share."""
        size = -(-n // (2 * self.workers)) if self.workers else n
        parts = (slice(start, min(start + size, n)) for start in range(0, n, max(1, size)))
        deque(self._map(fill, parts), maxlen=0)

    def _map(self, make: Callable[[A], B], items: Iterable[A]) -> Iterable[B]:
        return self._pool.map(make, items) if self.workers else map(make, items)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.workers, thread_name_prefix="images")
