"""Read the authors' Colored MNIST files: a NumPy file around a pickled dict, read without running what it may hold."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from lntl.errors import UserError

_KEYS = ("train_image", "train_label", "test_image", "test_label")
_ALLOWED = {
    (module, name)
    for core in ("numpy.core", "numpy._core")
    for module, name in ((f"{core}.multiarray", "_reconstruct"), (f"{core}.multiarray", "scalar"))
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    AttributeError,
    TypeError,
    IndexError,
    pickle.UnpicklingError,
)


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that admits NumPy arrays, the plain containers around them, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def unpickled(path: Path) -> np.ndarray:
    """Return the array of objects of a .npy file; raises one of UNREADABLE where it asks for anything but arrays."""
    with path.open("rb") as file:
        if npy.read_magic(file) != (1, 0):
            raise ValueError("it is not a version 1.0 .npy file")
        npy.read_array_header_1_0(file)
        content: np.ndarray = _ArraysOnly(file, encoding="latin1").load()  # Python 2 wrote the official files
    return content


def read(path: Path) -> dict[str, np.ndarray]:
    """Return train_image, train_label, test_image, test_label: uint8 (n, 28, 28, 3) and int64 (n,).

    Raises UserError where the file is truncated, foreign, or asks for anything but arrays.
    """
    try:
        content = unpickled(path)
        return _check(content.item() if isinstance(content, np.ndarray) else content)
    except UNREADABLE as error:
        raise UserError(
            f"{path}: not a readable Colored MNIST file ({error}); "
            "fetch it again with scripts/download_dataset.sh, or move it away to use the embedded digits"
        ) from error


def _check(content: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    arrays = {key: np.asarray(content[key]) for key in _KEYS}
    for split in ("train", "test"):
        images, labels = arrays[f"{split}_image"], arrays[f"{split}_label"].reshape(-1)
        if images.dtype != np.uint8 or images.shape[1:] != (28, 28, 3) or len(images) != len(labels):
            raise ValueError(f"{split}_image is {images.dtype} {images.shape} for {len(labels)} labels")
        if len(labels) == 0 or not set(np.unique(labels)) <= set(range(10)):
            raise ValueError(f"{split}_label must hold the digits 0 to 9, and holds {np.unique(labels)[:20]}")
        arrays[f"{split}_label"] = labels.astype(np.int64)
    return arrays
