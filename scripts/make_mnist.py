"""Rebuild the packaged MNIST digits from the four original files.

Usage: python scripts/make_mnist.py FOLDER [OUTPUT]

FOLDER contains the four unpacked *-ubyte files; the md5 of each is checked before anything is written.
The default of OUTPUT is src/lntl/data/mnist.npz.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

OUTPUT = Path(__file__).resolve().parents[1] / "src" / "lntl" / "data" / "mnist.npz"

MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the array of an idx file: 2 zero bytes, type, rank, one big-endian uint32 per dimension, values."""
    if not path.is_file():
        raise SystemExit(f"{path}: no such file")
    raw = path.read_bytes()
    if hashlib.md5(raw).hexdigest() != MD5[path.name]:
        raise SystemExit(f"{path}: not the original MNIST file (its md5 differs)")
    rank = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def main(folder: Path, output: Path = OUTPUT) -> None:
    """Write the images (n, 28, 28) and the labels of both splits to `output`."""
    arrays: dict[str, NDArray[np.uint8]] = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        arrays[f"{split}_images"] = read_idx(folder / f"{prefix}-images-idx3-ubyte")
        arrays[f"{split}_labels"] = read_idx(folder / f"{prefix}-labels-idx1-ubyte")
    with output.open("wb") as file:  # an open file, because numpy may add a suffix to a path
        np.savez_compressed(file, allow_pickle=False, **arrays)
    print(f"wrote {output}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    main(*map(Path, sys.argv[1:]))
