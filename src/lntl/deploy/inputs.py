"""What to predict: folders, image files, tables of paths, or arrays of an .npz file."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lntl.data import array_file, tabular
from lntl.data.array_file import ArrayError
from lntl.data.folders import SUFFIXES, image_files
from lntl.data.given import Images
from lntl.data.tabular import ColumnError
from lntl.errors import UserError

TABLES = (".csv", ".tsv", ".parquet", ".pq")


@dataclass(frozen=True)
class Inputs:
    """What to predict: images or vectors, and a name for each."""

    names: Sequence[str]
    images: Images


def read(targets: Sequence[Path], data: Mapping[str, Any], column: str | None = None) -> Inputs:
    """Return what folders, image files, tables of paths and an .npz of arrays hold, in their order.

    column: of the tables' paths, or the name of the array. Where it is not given, it is that of `data`, the run's own
    settings of data, else image or x.
    """
    if any(target.suffix.lower() == ".npz" for target in targets):
        if len(targets) > 1:
            raise UserError("an .npz file is predicted alone; give it in a command of its own")
        return _arrays(targets[0], column or _of("arrays", data).get("x", "x"))
    column = column or _of("table", data).get("image", "image")
    names = [name for target in targets for name in _paths(target, column)]
    return Inputs(names, names)


def _of(kind: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings of data of that kind, none of any other."""
    return data if data.get("name") == kind else {}


def _arrays(path: Path, name: str) -> Inputs:
    with _hint(f"the array is named by --column, here {name!r}"):
        x = array_file.read(path, [name], name)[name]
    return Inputs([f"{path}[{row}]" for row in range(len(x))], x)


def _paths(target: Path, column: str) -> list[str]:
    if target.is_dir():
        if names := sorted(image_files(target)):
            return [str(target / name) for name in names]
        raise UserError(f"{target}: no image file ({', '.join(SUFFIXES)}) lies in it")
    if not target.exists():
        raise UserError(f"{target}: there is no such file or folder")
    if target.suffix.lower() not in TABLES:
        return [str(target)]
    with _hint(f"the column of the paths is named by --column, here {column!r}"):
        table = tabular.read(target, column, [], [], None)
    return [str(target.parent / name.strip()) for name in table.plain]


@contextmanager
def _hint(column: str) -> Iterator[None]:
    """Add a line to an error that says that a column or array is not there."""
    try:
        yield
    except (ArrayError, ColumnError) as error:
        raise UserError(f"{error}\n  {column}") from error
