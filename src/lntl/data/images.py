"""Image files as tensors: decoded by threads, cached, and augmented as a function of seed and index."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from lntl.data import cache, transforms
from lntl.data.decoding import (
    DepthWarnings,
    EncodedImage,
    ImageFile,
    UnreadableImageError,
    check_header,
    count_frames,
    has_8_bit_signature,
    has_more_than_8_bits,
    highest_value,
)
from lntl.data.image_settings import ImageSettings, Normalise
from lntl.seeding import derive, uniforms

__all__ = ["ImageSettings", "ImageSource", "Normalise"]

IMAGES_PER_CHECK = 64  # images that a thread checks at a time
HEADER_SAMPLE = 64  # number of training images whose headers show whether images have more than 8 bits
BIT_DEPTHS = (8, 10, 12, 14, 16)  # of cameras and scanners
_EIGHT_BIT_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".jpe", ".gif", ".bmp", ".webp")  # formats with at most 8 bits
A = TypeVar("A")
B = TypeVar("B")


class ImageSource:
    """Images in the order of their files: index i is file i.

    Args:
        paths: The files.
        settings: How the images are read.
        warn: Whether to log a warning about each file that is brighter than `settings.white`.
    """

    def __init__(self, paths: Sequence[ImageFile], settings: ImageSettings, warn: bool = False) -> None:
        self.paths, self.settings = paths, settings
        self.highest: dict[int, int] = {}  # known highest values of images with more than 8 bits, by index
        self.deep: list[int] = []  # indices of images with more than 8 bits, by their headers
        self.multiple: list[int] = []  # indices of files with several frames or pages
        on_bright = DepthWarnings(settings.white) if warn or settings.white is None else None
        self._store = cache.CACHES[settings.cache](paths, settings, on_bright)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of an image as the network sees it."""
        return 3, self.settings.size, self.settings.size

    @property
    def workers(self) -> int:
        """Number of threads that load images."""
        return self.settings.workers

    def check(self, indices: Sequence[int] | None = None, *, full: bool = True) -> list[tuple[int, str]]:
        """Return the indices of unreadable images, with the reasons.

        Args:
            indices: The images to check; None for all.
            full: Whether to decode every image (into the cache, if there is one), not only its header.
        """

        def examine(index: int) -> None:
            if count_frames(self.paths[index]) > 1:
                self.multiple.append(index)
            if not full:
                if check_header(self.paths[index]):
                    self.deep.append(index)
            elif (value := _highest_value(self.paths[index])) is not None:
                self.highest[index] = value  # decoded later, when `white` is known
                self.deep.append(index)
            else:
                self._store(index)

        indices = range(len(self)) if indices is None else indices

        def faults(part: Sequence[int]) -> list[tuple[int, str]]:
            unreadable = []
            for index in part:
                try:
                    examine(index)
                except UnreadableImageError as error:
                    unreadable.append((index, error.reason))
            return unreadable

        parts = (indices[start : start + IMAGES_PER_CHECK] for start in range(0, len(indices), IMAGES_PER_CHECK))
        return [*chain.from_iterable(self._map(faults, parts))]

    def choose_white(self, train: Sequence[int]) -> list[int]:
        """Choose `settings.white` for images with more than 8 bits, unless it is set.

        White is 255, 1023, 4095, 16383 or 65535 (8 to 16 bits), the smallest of these values that no training image
        exceeds. If the headers have not been checked before, only a sample of the training images is read to find out
        whether there are images with more than 8 bits.

        Args:
            train: Indices of the training images.

        Returns:
            Indices of the images that are known to be brighter than white.
        """
        white = self.settings.white
        if white is None:
            if not self.highest:
                sample = train[:: max(1, len(train) // HEADER_SAMPLE)]
                deep = set(self.deep)
                if deep or any(_highest_value(self.paths[index], header=True) is not None for index in sample):
                    candidates = [index for index in train if index in deep] if deep else train
                    self.highest = {
                        i: value for i in candidates if (value := _highest_value(self.paths[i])) is not None
                    }
            highest = [self.highest[index] for index in train if index in self.highest]
            if not highest:
                if self.deep:  # they are noted in the description of the data
                    self._store.on_bright = None
                return []
            white = next(2**bits - 1 for bits in BIT_DEPTHS if max(highest) < 2**bits)
            self.settings = self.settings.model_copy(update={"white": white})
            self._store.white, self._store.on_bright = white, None
        return sorted(index for index, value in self.highest.items() if value > white)

    def file_sizes(self) -> Tensor:
        """Return the size of each file in bytes, float64 (n,)."""
        sizes = [len(file.content) if isinstance(file, EncodedImage) else file.stat().st_size for file in self.paths]
        return torch.tensor(sizes, dtype=torch.float64)

    def load(self, index: Tensor, seed: int | None = None) -> Tensor:
        """Return the images at `index` (N,) as float32 (N, 3, H, W), normalised; augmented if a seed is given.

        Raises UnreadableImageError.
        """
        indices, out = index.cpu(), transforms.empty_images(len(index), self.settings.size, np.float32)

        def fill(part: slice) -> None:
            squares = self._load_squares(indices[part])
            if seed is None:
                pixels = transforms.center_crop(squares, self.settings.size)
            else:
                pixels = transforms.augment(squares, indices[part], seed, self.settings)
            transforms.normalise(pixels, self.settings, out[part])
            if seed is not None and self.settings.random_colors:
                numbers = uniforms(derive(seed, "random colors"), indices[part], transforms.RANDOM_COLORS)
                x = out[part].permute(0, 3, 1, 2)
                share, inverted = self.settings.random_colors, self.settings.random_invert
                x.copy_(transforms.random_colors(x, share, inverted, numbers))

        self._fill_in_parts(fill, len(index))
        return out.permute(0, 3, 1, 2)

    def in_color(self) -> "ImageSource":
        """Return the images in color, even if the network gets gray images."""
        if not self.settings.grayscale:
            return self
        return ImageSource(self.paths, self.settings.model_copy(update={"grayscale": False}))

    def pixels(self, index: Tensor) -> Tensor:
        """Return the images at `index` as uint8 (N, 3, H, W), as in evaluation."""
        indices, out = index.cpu(), transforms.empty_images(len(index), self.settings.size, np.uint8)

        def fill(part: slice) -> None:
            out[part] = transforms.center_crop(self._load_squares(indices[part]), self.settings.size).permute(
                0, 2, 3, 1
            )

        self._fill_in_parts(fill, len(index))
        return out.permute(0, 3, 1, 2)

    def _load_squares(self, index: Tensor) -> Tensor:
        """Return the stored squares (N, 3, S, S) uint8, channels last in memory, gray if `settings.grayscale`."""
        squares = transforms.empty_images(len(index), self.settings.stored_side, np.uint8)
        for square, position in zip(squares.numpy(), index.tolist(), strict=True):
            square[...] = self._store(position)
        if self.settings.grayscale:
            squares.copy_(transforms.luma(squares.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return squares.permute(0, 3, 1, 2)

    def _fill_in_parts(self, fill: Callable[[slice], None], n: int) -> None:
        """Call `fill` for slices that together cover range(n); the threads share the slices."""
        size = -(-n // (2 * self.workers)) if self.workers else n
        parts = (slice(start, min(start + size, n)) for start in range(0, n, max(1, size)))
        deque(self._map(fill, parts), maxlen=0)

    def _map(self, make: Callable[[A], B], items: Iterable[A]) -> Iterable[B]:
        return self._pool.map(make, items) if self.workers else map(make, items)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.workers, thread_name_prefix="images")


def _highest_value(path: ImageFile, header: bool = False) -> int | None:
    """Return the highest value of an image with more than 8 bits (with `header`: 0), None for other images."""
    if isinstance(path, Path) and path.name.lower().endswith(_EIGHT_BIT_SUFFIXES) and has_8_bit_signature(path):
        return None
    if header:
        return 0 if has_more_than_8_bits(path) else None
    return highest_value(path)
