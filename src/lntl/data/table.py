"""Your own images, listed in a table (CSV or Parquet): one row per image, with columns for label, bias and split."""

import csv
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lntl.data.biases import Biases, ColumnName
from lntl.data.image_files import FileList, FileSettings, LabelledFiles
from lntl.data.labels import Column, as_number, as_text, categories
from lntl.data.rows import ColumnSettings, Rows
from lntl.errors import UserError
from lntl.plugins import did_you_mean
from lntl.types import IGNORE

__all__ = ["Table"]


class Table(LabelledFiles):
    """Image files listed in a table."""

    class Config(FileSettings, ColumnSettings):
        """Settings of `data`."""

        path: str = Field(min_length=1, description="The table: CSV (.csv, .tsv) or Parquet (.parquet).")
        image: ColumnName = Field(
            "image",
            description="Column of the image files: paths relative to root, with or without suffix; in Parquet also "
            "the contents of the files as bytes.",
        )
        label: ColumnName = Field("label", description="Column of the label; its values are the names of the classes.")
        bias: Biases = Field(
            description="Column of the bias; or a list of them, {column, bins} or {column, edges} for numbers, "
            "{from, bins} for a measure of the image; [] if the bias is not annotated.",
        )
        root: str | None = Field(None, description="Folder of the images; null: the folder of the table.")
        delimiter: str | None = Field(
            None,
            min_length=1,
            max_length=1,
            description="Delimiter between fields; null: a comma in .csv, a tab in .tsv.",
        )
        decimal: Literal[".", ","] = Field(".", description="Decimal mark of numbers that are put into bins.")

    def __init__(self, config: "Table.Config") -> None:
        path = Path(config.path)
        biases = [bias.column for bias in config.bias if bias.column is not None]
        names = [name for name in (config.label, config.split, config.group_id, *biases) if name is not None]
        content = read(path, config.image, names, config.missing, config.delimiter)
        columns = content.columns
        numbers = [bias.column for bias in config.bias if bias.column is not None and (bias.bins or bias.edges)]
        ambiguous: dict[str, NDArray[np.int64]] = {}
        if config.decimal == ",":
            if content.unit == "line":  # in Parquet, numbers have a type
                ambiguous = {name: _rows_with_decimal_points(columns[name]) for name in numbers}
            columns |= {name: _with_decimal_points(columns[name]) for name in numbers}
        rows = Rows(
            where=f"table {path}",
            unit=content.unit,
            number=content.number,
            label=columns[config.label],
            split=columns[config.split] if config.split is not None else None,
            group_id=columns[config.group_id] if config.group_id is not None else None,
            columns=columns,
            comma_advice="set data.decimal",
        )
        faults = rows.faults(config.biases)
        for name, indices in ambiguous.items():
            text = rows.columns[name].text
            faults.add(
                indices.tolist(),
                f"{name} has a decimal point",
                lambda row, text=text: f": {text(row)!r}, but data.decimal is a comma",  # type: ignore[misc]
            )
        faults.add(
            content.wrong_field_counts,
            "wrong number of fields",
            lambda row: f" ({content.wrong_field_counts[row]}, the header has {content.num_fields})",
        )
        root = path.parent if config.root is None else Path(config.root)
        files = FileList(root, [name.strip() for name in content.image_names], content.images)
        super().__init__(rows, files, faults, config)


def _rows_with_decimal_points(column: Column) -> NDArray[np.int64]:
    """Return the indices of numbers such as 1.234, which may be a thousand where the decimal mark is a comma."""
    is_ambiguous = [*("." in text and not np.isnan(as_number(text)) for text in column.values), False]
    return np.flatnonzero(np.array(is_ambiguous)[np.where(column.code == IGNORE, -1, column.code)])


def _with_decimal_points(column: Column) -> Column:
    """Return numbers with a decimal comma as numbers with a decimal point; other texts do not change."""
    texts = [text if "." in text else text.replace(",", ".") for text in column.values]
    return replace(categories(column.name, texts, column.code), missing=column.missing, notes=column.notes)


_ROWS_PER_CHUNK = 300  # rows held as strings; more would start the garbage collector, which doubles the reading time


class ColumnError(UserError):
    """A table lacks a requested column, or has several columns of this name."""


class _Codes(dict[str, int]):
    """A number for each text, counted from 0 in the order of first occurrence."""

    def __missing__(self, text: str) -> int:
        self[text] = number = len(self)
        return number


@dataclass(frozen=True)
class TableContent:
    """Named columns of a table of n rows.

    Attributes:
        unit: "line" for CSV, "row" for Parquet: the unit of `number` in messages.
        image_names: The image column as text.
        columns: The other columns, by name.
        number: Number of each row, (n,), from 1: its line in CSV, its row in Parquet.
        wrong_field_counts: Number of fields by row, only for rows with more or fewer fields than the header.
        num_fields: Number of fields of the header.
        images: Contents of the image files if the image column has contents, otherwise None.
    """

    unit: str
    image_names: list[str]
    columns: dict[str, Column]
    number: NDArray[np.int64]
    wrong_field_counts: dict[int, int]
    num_fields: int
    images: list[bytes] | None = None


def read(
    path: Path, image_column: str, names: Sequence[str], missing: Sequence[str], delimiter: str | None
) -> TableContent:
    """Return columns of a table.

    Args:
        path: Parquet if the suffix is .parquet or .pq, else CSV.
        image_column: The column with the image files.
        names: The other columns.
        missing: Texts that stand for a missing value.
        delimiter: Delimiter between fields of a CSV file; None: a tab in .tsv files, else a comma.

    Raises:
        UserError: If the file cannot be read, or lacks a column.
    """
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return _read_parquet(path, image_column, names, missing)
        with path.open(encoding="utf-8-sig", newline="") as file:
            separator = delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
            return _read_csv(
                path, csv.reader(file, delimiter=separator, strict=True), separator, image_column, names, missing
            )
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: line {_first_undecodable_line(path)} is not UTF-8 ({error.reason}); save it as CSV UTF-8"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot read the table: {error.strerror}; set data.path to your table") from error


def _first_undecodable_line(path: Path) -> int:
    """Return the number of the first line that is not UTF-8; the decoder reads ahead and does not know this line."""
    with path.open("rb") as file:
        return next(
            number for number, line in enumerate(file, start=1) if line.decode(errors="ignore").encode() != line
        )


def _read_csv(
    path: Path, reader: Any, separator: str, image_column: str, names: Sequence[str], missing: Sequence[str]
) -> TableContent:
    rows = _CsvRows(reader)
    try:
        header = [name.strip() for name in next(reader, [])]
        if not header:
            raise UserError(f"{path}: the file or its first line is empty; the first line must name the columns")
        if len(header) == 1 and image_column not in header:
            raise UserError(
                f"{path}: with delimiter {separator!r} its header has one column, {header[0]!r}; set data.delimiter"
            )
        check_header(path, header, (image_column, *names))
        texts: list[str] = []
        codes = {name: (_Codes(), array("q")) for name in names}
        for chunk in rows.chunks(len(header)):
            columns = dict(zip(header, zip(*chunk, strict=True), strict=True)) if chunk else dict.fromkeys(header, ())
            texts.extend(columns[image_column])
            for name, (code, numbers) in codes.items():
                numbers.extend(map(code.__getitem__, columns[name]))
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: {error}; is a quotation mark not closed?") from error
    category_columns = {
        name: categories(name, [*code], np.asarray(numbers), missing) for name, (code, numbers) in codes.items()
    }
    return TableContent("line", texts, category_columns, np.asarray(rows.lines), rows.wrong_field_counts, len(header))


class _CsvRows:
    """The rows of a CSV file in chunks, without empty lines.

    A row with more or fewer fields than the header is recorded in `wrong_field_counts`, and cut or padded.
    """

    def __init__(self, reader: Any) -> None:
        self.reader = reader
        self.lines = array("q")
        self.wrong_field_counts: dict[int, int] = {}

    def chunks(self, num_fields: int) -> Iterator[list[list[str]]]:
        """Yield lists of rows, each of `num_fields` fields."""
        line = self.reader.line_num
        while chunk := list(islice(self.reader, _ROWS_PER_CHUNK)):
            start = line + 1
            line = self.reader.line_num
            # In the usual case no loop over the rows is needed.
            if line - start + 1 == len(chunk) and set(map(len, chunk)) == {num_fields}:
                self.lines.extend(range(start, line + 1))
            else:
                chunk = [*self._cut_or_pad(chunk, start, num_fields)]
            yield chunk

    def _cut_or_pad(self, chunk: list[list[str]], line: int, num_fields: int) -> Iterator[list[str]]:
        for row in chunk:
            if row:
                if len(row) != num_fields:
                    self.wrong_field_counts[len(self.lines)] = len(row)
                self.lines.append(line)
                yield (row + [""] * num_fields)[:num_fields]
            line += 1 + sum(field.count("\n") + field.count("\r") - field.count("\r\n") for field in row)


def check_header(path: Path, header: Sequence[str], names: Iterable[str]) -> None:
    """Raise ColumnError if a table lacks a column, or has several columns of this name."""
    faults = [f"no column {name!r}{did_you_mean(name, [*header])}" for name in names if name not in header]
    counts = Counter(header)
    faults += [f"{counts[name]} columns have the name {name!r}" for name in dict.fromkeys(names) if counts[name] > 1]
    if faults:
        raise ColumnError(
            "\n".join([f"{path}: it does not have the columns of the settings", *(f"  {fault}" for fault in faults)])
        )


def _read_parquet(path: Path, image_column: str, names: Sequence[str], missing: Sequence[str]) -> TableContent:
    try:
        from pyarrow import ArrowException, parquet, types  # optional: only for Parquet files
    except ImportError as error:
        raise UserError(
            f"{path}: reading Parquet needs pyarrow: pip install pyarrow, or save the table as CSV"
        ) from error
    try:
        header = parquet.read_schema(path).names
        check_header(path, header, (image_column, *names))
        table = parquet.read_table(path, columns=[*dict.fromkeys((image_column, *names))])
        images = _image_contents(path, image_column, table.column(image_column))
        for name in names:
            if types.is_nested(table.column(name).type):
                raise UserError(f"{path}: {name} holds {table.column(name).type}; a column must hold texts or numbers")
        columns = {name: categories(name, *arrow_texts(table.column(name)), missing) for name in names}
        texts = [f"row {k}" if image else "" for k, image in enumerate(images, start=1)] if images else []
        texts = texts or [as_text(value) for value in table.column(image_column).to_pylist()]
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, FileNotFoundError):
            raise UserError(f"{path}: there is no such file; set data.path to your table") from error
        raise UserError(f"{path}: not a readable Parquet file: {error}") from error
    return TableContent("row", texts, columns, np.arange(1, len(texts) + 1), {}, len(header), images)


def _image_contents(path: Path, name: str, column: Any) -> list[bytes] | None:
    """Return the contents of image files from a column of bytes, or of {bytes, path}; None for other columns."""
    from pyarrow import types

    if types.is_struct(column.type) and "bytes" in [field.name for field in column.type]:
        column = column.combine_chunks().field("bytes")
    if types.is_nested(column.type):
        raise UserError(
            f"{path}: {name} holds {column.type}; it must hold names of image files, or their contents as bytes"
        )
    if not (types.is_binary(column.type) or types.is_large_binary(column.type)):
        return None
    return [value or b"" for value in column.to_pylist()]


def arrow_texts(column: Any, text_of: Callable[[object], str] = as_text) -> tuple[list[str], NDArray[np.int64]]:
    """Return the texts in an Arrow column of texts or numbers, and the index of each row's text, (n,) int64.

    `text_of` returns the text of a value.
    """
    encoded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    values = [*map(text_of, encoded.dictionary.to_pylist()), ""]
    code = encoded.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False).astype(np.int64)
    return values, code
