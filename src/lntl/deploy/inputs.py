"""What to predict: folders, image files, tables of paths, or arrays of an .npz file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lntl.data import array_file, tabular
from lntl.data.folders import SUFFIXES, image_files
from lntl.data.given import Images
from lntl.errors import UserError

TABLES = (".csv", ".tsv", ".parquet", ".pq")


@dataclass(frozen=True)
class Inputs:
    """What to predict: images or vectors, and a name for each."""

    names: Sequence[str]
    images: Images


def read(targets: Sequence[Path], column: str | None) -> Inputs:
    """Return what folders, image files, tables of paths and an .npz of arrays hold, in their order.

    column: of the tables' paths (image), or the name of the array (x).
    """
    if any(target.suffix.lower() == ".npz" for target in targets):
        if len(targets) > 1:
            raise UserError("an .npz file is predicted alone; give it in a command of its own")
        return _arrays(targets[0], column or "x")
    names = [name for target in targets for name in _paths(target, column or "image")]
    return Inputs(names, names)


def _arrays(path: Path, name: str) -> Inputs:
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
    try:
        table = tabular.read(target, column, [], [], None)
    except tabular.ColumnError as error:
        raise UserError(f"{error}\n  the column of the paths is named by --column, here {column!r}") from error
    return [str(target.parent / name.strip()) for name in table.plain]
