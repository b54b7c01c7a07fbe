"""Small pictures for tests, as arrays and as files."""

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def gradient(width: int, height: int) -> NDArray[np.uint8]:
    """Return a picture without equal pixels: red grows to the right, green downwards, blue is 60."""
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


def png_of_16_bits(values: NDArray[np.int64], chunks: dict[bytes, bytes] | None = None) -> bytes:
    """Return a PNG file of values (height, width, channels) from 0 to 65535, with further chunks before the pixels."""
    height, width, channels = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = {b"IHDR": header} | (chunks or {}) | {b"IDAT": zlib.compress(lines), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
        for name, part in parts.items()
    )
