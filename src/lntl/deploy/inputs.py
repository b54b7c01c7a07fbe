"""Read the images or vectors to predict: folders, image files, tables, data sets on disk, arrays of an .npz file."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lntl.data import array_file, huggingface
from lntl.data.array_file import ArrayError
from lntl.data.decoding import suffixes
from lntl.data.eval_transform import EncodedFiles, ImageInput
from lntl.data.folders import image_files
from lntl.data.image_files import FileList
from lntl.data.rows import MAX_NAMES
from lntl.data.table import ColumnError, TableContent
from lntl.data.table import read as read_table
from lntl.errors import UserError

log = logging.getLogger("lntl")

PARQUET_SUFFIXES = (".parquet", ".pq")
TABLE_SUFFIXES = (".csv", ".tsv", *PARQUET_SUFFIXES)
# Advice about settings in the readers' errors, and the advice about options that replaces it.
_OPTION_ADVICE = {"set data.delimiter": "set --delimiter", "set data.path to": "name"}


@dataclass(frozen=True)
class Inputs:
    """Images or vectors to predict, and their names."""

    names: Sequence[str]
    images: ImageInput


@dataclass(frozen=True)
class Layout:
    """Layout of tables and .npz files; None means: as in the run's data, or else the default.

    Args:
        column: Column of a table with the paths, or name of an array; default: image for a table, x for arrays.
        root: Folder of a table's paths; default: the folder of the table.
        delimiter: Delimiter of CSV fields; default: a comma, or a tab in .tsv.
    """

    column: str | None = None
    root: Path | None = None
    delimiter: str | None = None

    def __post_init__(self) -> None:
        """Raise UserError if the delimiter is not one character."""
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise UserError(f"--delimiter {self.delimiter}: give one character")

    def with_defaults(self, kind: str, data: Mapping[str, Any]) -> "Layout":
        """Return the layout with missing values taken from `data`, the run's section `data`, if its name is `kind`."""
        settings = data if data.get("name") == kind else {}
        root = self.root or (Path(settings["root"]) if settings.get("root") else None)
        column = self.column or settings.get("x" if kind == "arrays" else "image")
        return Layout(column, root, self.delimiter or settings.get("delimiter"))


def read(targets: Sequence[Path], data: Mapping[str, Any], layout: Layout = Layout()) -> Inputs:
    """Return the images or vectors of folders, image files, tables of paths or an .npz file, in their order.

    Args:
        targets: The files and folders.
        data: Section `data` of the run's configuration.
        layout: Layout of tables and .npz files.

    Raises:
        UserError: If a target is missing, contains no image, or cannot be read.
    """
    if any(target.suffix.lower() == ".npz" for target in targets):
        if len(targets) > 1:
            raise UserError("an .npz file cannot be combined with other files; predict it in a separate command")
        return _load_array(targets[0], layout.with_defaults("arrays", data).column or "x")
    if len(targets) == 1 and (encoded := _read_encoded(targets[0], data, layout)) is not None:
        return encoded
    table_layout = layout.with_defaults("table", data)
    pairs = [pair for target in targets for pair in _list_paths(target, table_layout)]
    return Inputs([name for name, _ in pairs], [path for _, path in pairs])


def _load_array(path: Path, name: str) -> Inputs:
    with _advice_about_options(f"--column names the array, here {name!r}"):
        x = array_file.read(path, [name], name)[name]
    return Inputs([f"{path}[{row}]" for row in range(len(x))], x)


def _read_encoded(target: Path, data: Mapping[str, Any], layout: Layout) -> Inputs | None:
    """Return the images of a Hugging Face data set or of a Parquet column of contents; None for other targets."""
    if target.suffix.lower() in PARQUET_SUFFIXES and target.is_file():
        column = (
            layout.with_defaults("table", data).column or layout.with_defaults("huggingface", data).column or "image"
        )
        with _advice_about_options(f"--column names the column of the images, here {column!r}"):
            table = read_table(target, column, [], [], None)
        files = None if table.images is None else FileList(Path(), table.image_names, table.images)
    elif huggingface.is_data_set(target):
        column = layout.with_defaults("huggingface", data).column or "image"
        with _advice_about_options(f"--column names the column of the images, here {column!r}"):
            files = huggingface.read_images(target, column, data.get("arrow_dir"))
    else:
        return None
    if files is None:
        return None
    if not files.names:
        raise UserError(f"{target}: it has no row")
    _find_files(files, target)
    names = (
        [f"{target}: {name or 'empty'}" for name in files.names]
        if files.contents is not None
        else list(map(str, files))
    )
    return Inputs(names, EncodedFiles(files))


def _find_files(files: FileList, target: Path) -> None:
    """Find files whose names differ from those in `files` only in suffix or Unicode form, and log how many."""
    for note in files.find()[1]:
        log.warning("%s: %s", target, note)


def _list_paths(target: Path, layout: Layout) -> list[tuple[str, str]]:
    """Return name and path of each image of a folder or a table, or of an image file."""
    if target.is_dir():
        files = image_files(target)
        if not files.names:
            raise UserError(f"{target}: it contains no image file ({', '.join(suffixes())}){files.hint}")
        if files.note:
            log.warning("%s: %s", target, files.note)
        return [(str(target / name),) * 2 for name in sorted(files.names)]
    if not target.exists():
        raise UserError(f"{target}: there is no such file or folder")
    if target.suffix.lower() not in TABLE_SUFFIXES:
        return [(str(target), str(target))]
    column, root = layout.column or "image", layout.root or target.parent
    if not root.is_dir():
        raise UserError(f"{target}: there is no folder {root} of its images; set --root")
    with _advice_about_options(f"--column names the column of the paths, here {column!r}"):
        table = read_table(target, column, [], [], layout.delimiter)
    _check_rows(table, target)
    listed = FileList(root, [name.strip() for name in table.image_names])
    _find_files(listed, target)
    return [
        (str(root / name) if name else f"{target}, {table.unit} {number} (the image is empty)", str(path))
        for path, name, number in zip(listed, listed.names, table.number, strict=True)
    ]


def _check_rows(table: TableContent, target: Path) -> None:
    """Raise UserError if a table has no row, or a row with another number of fields than the header."""
    if not table.image_names:
        raise UserError(f"{target}: it has no row")
    if table.wrong_field_counts:
        rows = [f"{table.unit} {table.number[row]} has {n}" for row, n in table.wrong_field_counts.items()]
        more = f" and {len(rows) - MAX_NAMES} more rows" if len(rows) > MAX_NAMES else ""
        raise UserError(
            f"{target}: the header has {table.num_fields} fields, but {', '.join(rows[:MAX_NAMES])}{more}; correct the "
            "rows, or set --delimiter"
        )


@contextmanager
def _advice_about_options(column: str) -> Iterator[None]:
    """Replace advice about settings in errors by advice about options; `column` is added to errors about a column."""
    try:
        yield
    except UserError as error:
        message = str(error)
        for setting, option in _OPTION_ADVICE.items():
            message = message.replace(setting, option)
        raise UserError(f"{message}\n  {column}" if isinstance(error, ArrayError | ColumnError) else message) from error
