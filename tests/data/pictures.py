"""Make small images for tests, as arrays and as files."""

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def make_gradient(width: int, height: int) -> NDArray[np.uint8]:
    """Return an image without equal pixels: red grows to the right, green downwards, blue is 60."""
    rows, columns = np.mgrid[:height, :width]
    red, green = columns * 255 // max(1, width - 1), rows * 255 // max(1, height - 1)
    return np.stack([red, green, np.full_like(red, 60)], axis=2).astype(np.uint8)


def write_images(folder: Path, count: int, side: int = 20) -> list[Path]:
    """Write `count` PNG files of random pixels; return their paths."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number}.png" for number in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    return paths


def encode_16_bit_png(values: NDArray[np.int64], chunks: dict[bytes, bytes] | None = None) -> bytes:
    """Return a PNG file of values (height, width, channels) from 0 to 65535; `chunks` are put before the pixels."""
    height, width, channels = values.shape
    color_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    scan_lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    all_chunks = {b"IHDR": header} | (chunks or {}) | {b"IDAT": zlib.compress(scan_lines), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in all_chunks.items()
    )
