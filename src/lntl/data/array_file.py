"""Read arrays from .npz and .npy files without running code: inputs as a tensor, labels as columns."""

import math
import pickle
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tokenize import TokenError
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray
from torch import Tensor

from lntl.data.labels import MISSING, Column, as_text, categories, normalise_spelling
from lntl.errors import UserError
from lntl.plugins import did_you_mean
from lntl.types import IGNORE

CHANNELS = (1, 3)  # possible numbers of channels of an image
NAMES_SUFFIX = "_names"  # the array y_names contains the names of the integers in y

Array = NDArray[Any]
# Exceptions that NumPy, zipfile and pickle raise for damaged files.
READ_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    BadZipFile,
    TypeError,
    AttributeError,
    MemoryError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    LookupError,
    zlib.error,
    SyntaxError,
    TokenError,
    pickle.UnpicklingError,
)
# The only globals that a pickle of arrays may contain: NumPy's arrays, scalars and types, and the encoding of bytes.
_ALLOWED_GLOBALS = {
    (module, name)
    for core in ("numpy.core", "numpy._core")
    for module, name in ((f"{core}.multiarray", "_reconstruct"), (f"{core}.multiarray", "scalar"))
} | {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}


class ArrayError(UserError):
    """A file lacks a requested array."""


def read(path: Path, names: Sequence[str], first: str) -> dict[str, Array]:
    """Return the named arrays of a file, and for each array NAME also NAME_names if the file has it.

    Args:
        path: The .npz file.
        names: The arrays to read.
        first: Name of one of these arrays; all others must have its number of rows.

    Raises:
        UserError: If the file is not readable, lacks an array, or an array has another number of rows.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array instead of an archive of named arrays")
            missing = [f"{name!r}{did_you_mean(name, file.files)}" for name in names if name not in file.files]
            if missing:
                raise ArrayError(f"{path}: no array {', '.join(missing)}")
            name_arrays = [name + NAMES_SUFFIX for name in names if name + NAMES_SUFFIX in file.files]
            for name in (*names, *name_arrays):
                _check_header(file, name)
            arrays = {name: file[name] for name in (*names, *name_arrays)}
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file; set data.path to an .npz file") from error
    except READ_ERRORS as error:
        reason = error if isinstance(error, OSError | MemoryError) or is_zipfile(path) else "not an .npz archive"
        raise UserError(f"{path}: not a readable .npz file of plain arrays ({reason}); set data.path to one") from error
    for name in names:
        if arrays[name].ndim == 0 or len(arrays[name]) != len(arrays[first]):
            raise UserError(
                f"{path}: {name} has the shape {arrays[name].shape}, {first} {arrays[first].shape}; every array needs "
                "one row for each example"
            )
    return arrays


def _check_header(file: np.lib.npyio.NpzFile, name: str) -> None:
    """Raise ValueError if the header of an array states another number of bytes than the archive contains.

    NumPy allocates the size in the header before it reads the data.
    """
    archive = file.zip
    assert archive is not None  # it is open
    member = archive.getinfo(name if name in archive.namelist() else f"{name}.npy")  # NumPy reads the same member
    with archive.open(member) as content:
        version = npy.read_magic(content)
        read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
        if read_header is None:
            raise ValueError(f"{name} is a .npy of version {version}")
        shape, _, dtype = read_header(content)
        if dtype.hasobject:
            raise ValueError(f"{name} holds Python objects; save plain numbers or texts")
        if (size := math.prod(shape) * dtype.itemsize) != member.file_size - content.tell():
            actual = member.file_size - content.tell()
            raise ValueError(f"{name} is damaged: its header says {size} bytes {shape}, and it holds {actual}")


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that accepts only NumPy arrays and Python's built-in containers."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED_GLOBALS:
            raise pickle.UnpicklingError(f"it contains {module}.{name}, which is not an array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def load_object_array(path: Path) -> Array:
    """Return the object array in a .npy file; raises one of READ_ERRORS if its pickle contains anything but arrays."""
    with path.open("rb") as file:
        if npy.read_magic(file) != (1, 0):
            raise ValueError("it is not a version 1.0 .npy file")
        npy.read_array_header_1_0(file)
        content: Array = _ArraysOnly(file, encoding="latin1").load()  # Python 2 wrote the official files
    return content


def as_tensor(x: Array, what: str) -> Tensor:
    """Return images as a tensor (n, C, H, W), uint8 or float32 in [0, 1]; vectors as (n, D) in a dtype of torch."""
    return torch.from_numpy(np.require(check(x, what), requirements=["C", "W"]))


def check(x: Array, what: str) -> Array:
    """Return images as an array (n, C, H, W), uint8 or float32 in [0, 1]; vectors as (n, D) in a dtype of torch."""
    if x.dtype.kind not in "uif":
        raise UserError(f"{what} is {x.dtype} and must hold numbers")
    if x.ndim >= 2 and 0 in x.shape[1:]:
        raise UserError(f"{what} has the shape {x.shape}, so its rows are empty; every row needs at least one number")
    if x.ndim == 2:
        torch_dtypes = (np.float32, np.float64, np.uint8, np.int8, np.int16, np.int32, np.int64)
        x = x.astype(x.dtype.newbyteorder("="), copy=False)
        return x if x.dtype in torch_dtypes else x.astype(np.float64 if x.dtype.itemsize > 2 else np.float32)
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[3] in CHANNELS and x.shape[1] not in CHANNELS:
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    if x.ndim != 4 or x.shape[1] not in CHANNELS or (x.dtype.kind != "f" and x.dtype != np.uint8):
        raise UserError(
            f"{what} is {x.dtype} {x.shape}; images are uint8 or float (n, H, W), (n, H, W, C) or (n, C, H, W) "
            "with 1 or 3 channels, vectors are (n, D)"
        )
    if x.dtype.kind == "f":
        _check_range(x, what)
    return x if x.dtype == np.uint8 else x.astype(np.float32, copy=False)


def _check_range(x: Array, what: str) -> None:
    finite = np.isfinite(x)  # rows with other values are reported elsewhere
    with np.errstate(over="ignore"):
        low, high = (
            float(np.float32(limit))
            for limit in (x.min(where=finite, initial=np.inf), x.max(where=finite, initial=-np.inf))
        )
    if low < 0 or high > 1:
        raise UserError(f"{what} holds images from {low:g} to {high:g}; give them as uint8, or as float in [0, 1]")


def columns(name: str, arrays: dict[str, Array], where: str, missing: Sequence[str] = MISSING) -> list[Column]:
    """Return an array of labels (n,) or (n, B) as columns; NaN, `missing_numbers` and texts in `missing` are IGNORE."""
    array = arrays[name]
    if array.ndim > 2 or array.dtype.kind not in "biufUS":
        raise UserError(f"{where}: {name} is {array.dtype} {array.shape}; labels are integers, numbers or texts (n,)")
    if array.ndim == 1 or array.shape[1] == 1:
        return [_column(name, array.reshape(-1), arrays.get(name + NAMES_SUFFIX), where, missing)]
    return [_column(f"{name} {k}", column, None, where, missing) for k, column in enumerate(array.T)]


def _column(name: str, array: Array, names: Array | None, where: str, missing: Sequence[str]) -> Column:
    """Return the column of an array (n,); numbers are sorted as numbers, other values as texts."""
    if array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: {name} holds bytes that are not UTF-8; save texts") from error
    values, code = np.unique(array, return_inverse=True)
    missing_values = missing_numbers(values.tolist()) if values.dtype.kind in "iu" else ()
    texts = ["" if value in missing_values else as_text(value) for value in values.tolist()]
    column = categories(name, texts, code, missing)
    if -1 in missing_values and -1 in values:
        count = int((array == -1).sum())
        column = replace(
            column, notes=(*column.notes, f"{name}: -1 means a missing value ({count} of {len(array)} rows)")
        )
    if names is None:
        return column
    return replace(
        column, values=_value_names(column.values, [str(text) for text in names.reshape(-1)], f"{where}: {name}")
    )


def missing_numbers(numbers: Iterable[float]) -> tuple[int, ...]:
    """Return the integers that mean missing: -1 and IGNORE; only IGNORE if all other values are -1 and 1."""
    return (IGNORE,) if {*numbers} - {IGNORE} == {-1, 1} else (-1, IGNORE)


def _value_names(texts: Sequence[str], names: Sequence[str], what: str) -> tuple[str, ...]:
    """Return names[k] for each text that is an integer k."""
    if unnamed := [text for text in texts if not (text.isdecimal() and int(text) < len(names))]:
        raise UserError(f"{what} contains {unnamed[0]}, for which {what.rpartition(' ')[2]}{NAMES_SUFFIX} has no name")
    named = tuple(names[int(text)] for text in texts)
    spellings = [normalise_spelling(name) for name in named]
    if repeated := [name for name in spellings if spellings.count(name) > 1]:
        raise UserError(
            f"{what}{NAMES_SUFFIX} gives the name {repeated[0]!r} to {spellings.count(repeated[0])} values; give each "
            "value a name of its own"
        )
    return named
