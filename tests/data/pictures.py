"""Small pictures for tests, as arrays and as files."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def gradient(width: int, height: int) -> NDArray[np.uint8]:
    """Return a picture that differs at every place: red grows to the right, green downwards, blue is 60."""
    rows, columns = np.mgrid[:height, :width]
    red, green = columns * 255 // max(1, width - 1), rows * 255 // max(1, height - 1)
    return np.stack([red, green, np.full_like(red, 60)], axis=2).astype(np.uint8)


def folder_of(folder: Path, count: int, side: int = 20) -> list[Path]:
    """Write `count` PNG files of random pixels; return their paths."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(count)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return paths
