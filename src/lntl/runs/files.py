"""Write files atomically (temporary file, flush, rename), and read them; each error message is one sentence."""

import io
import json
import math
import os
import re
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from tokenize import TokenError
from typing import IO, TypeVar

import numpy as np
from numpy.lib import format as npy
from pydantic import BaseModel, ValidationError

from lntl.errors import UserError

Model = TypeVar("Model", bound=BaseModel)
MAX_BYTES = 2**29  # largest size of all arrays of a file together
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.part")  # the name of a temporary file of `write_atomic`


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call `write(file)` on a temporary file in the folder of `path`, flush it to disk, and rename it to `path`.

    Raises UserError if the file cannot be written; `path` is then unchanged.
    """
    # The name is unique, because other processes may write `path`, too.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        raise make_write_error(path, error) from error
    finally:
        with suppress(OSError):  # it exists only if `write` failed
            temporary.unlink()


def make_write_error(path: Path, error: Exception) -> UserError:
    """Return the error for a file that cannot be written, with the reason and the free disk space."""
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    try:
        space = f"{shutil.disk_usage(path.parent).free / 2**20:.1f} MiB are free there"
    except OSError:
        space = f"the folder {path.parent} no longer exists"
    return UserError(
        f"{path}: cannot write it: {reason}; {space}: is the disk full, or the folder read-only? Files written before "
        "are complete, and --resume auto continues a run"
    )


def remove_temporary_files(folder: Path) -> None:
    """Remove temporary files of killed processes in a folder and its subfolders; links are not followed."""
    for path in _iterate_files(folder):
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _iterate_files(folder: Path) -> Iterator[Path]:
    """Yield the regular files in a folder and its subfolders."""
    for parent, _, names in os.walk(folder):  # follows no links
        yield from (path for name in names if not (path := Path(parent) / name).is_symlink())


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomic(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: BaseModel | Mapping[str, object]) -> None:
    """Write a JSON file atomically; for a model, only the fields that were set, in the order of its class."""
    values = content.model_dump(exclude_unset=True) if isinstance(content, BaseModel) else content
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, kind: type[Model]) -> Model:
    """Return the content of a JSON file as a model; raises UserError if it is missing, damaged or in another format."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error.strerror}") from error
    except ValidationError as error:
        raise UserError(
            f"{path}: is damaged, or written by another version ({describe_fault(error)}); remove it and make it again"
        ) from error


def read_arrays(path: Path, dimensions: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Return arrays of an .npz file.

    Args:
        path: The file.
        dimensions: Name and number of dimensions of each array; none of them may be empty.

    Raises:
        UserError: If an array is missing, has other dimensions, is damaged, or has a header that does not fit its size.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {name: archive.getinfo(f"{name}.npy") for name in dimensions}
            if sum(entry.file_size for entry in entries.values()) > MAX_BYTES:
                raise ValueError(f"larger than {MAX_BYTES // 2**20} MiB")
            # `read` verifies the checksum of an entry.
            arrays = {name: _parse_array(archive.read(entry)) for name, entry in entries.items()}
        if mismatches := [name for name, array in arrays.items() if array.ndim != dimensions[name] or not len(array)]:
            raise ValueError(f"the array {mismatches[0]} has another shape")
    except (*ZIP_ERRORS, SyntaxError, TokenError) as error:  # NumPy raises the last two for a damaged header
        raise UserError(
            f"{path}: is damaged, or written by another version ({str(error)[:200]}); remove it and make it again"
        ) from error
    return arrays


# Exceptions that zipfile and its readers raise for a damaged archive.
ZIP_ERRORS = (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def _parse_array(content: bytes) -> np.ndarray:
    """Return the array of an .npy file; raises ValueError if its header does not fit its size."""
    file = io.BytesIO(content)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[npy.read_magic(file)]
    shape, _, dtype = read_header(file)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"its header says {shape} of {dtype}, but it has another size")
    file.seek(0)
    array: np.ndarray = npy.read_array(file, allow_pickle=False)
    return array


def describe_fault(error: ValidationError) -> str:
    """Return a phrase for the first error of a document: the key and the fault."""
    fault = error.errors(include_url=False, include_input=False)[0]
    key = ".".join(map(str, fault["loc"])) or "the whole file"
    return f"{key[:100]}: {fault['msg'][:200]}"
