"""Read the columns asked for of a CSV or Parquet file, each as its distinct texts and a number a row."""

import csv
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lntl.data.labels import Column, categories
from lntl.errors import UserError
from lntl.plugins import did_you_mean

_AT_ONCE = 300  # rows held as texts: so few that the garbage collector is not called, which halves the time


class ColumnError(UserError):
    """A table lacks a column that is asked for, or has it twice."""


class _Codes(dict[str, int]):
    """Numbers texts in the order in which they are first asked for."""

    def __missing__(self, text: str) -> int:
        self[text] = number = len(self)
        return number


@dataclass(frozen=True)
class Table:
    """n rows: `plain` is a column as it stands, `columns` are the others by name.

    number (n,): the line (CSV) or row (Parquet) that a row stands in, from 1, as `unit` says; ragged: rows that have
    not as many fields as the header, with their number of fields; width: that of the header.
    """

    unit: str
    plain: list[str]
    columns: dict[str, Column]
    number: NDArray[np.int64]
    ragged: dict[int, int]
    width: int


def read(path: Path, plain: str, names: Sequence[str], missing: Sequence[str], delimiter: str | None) -> Table:
    """Return columns of the file; texts in `missing` are no value. Raises UserError where the file is not as it says.

    delimiter: of CSV; None for a tab in .tsv files, else a comma.
    """
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            return _parquet(path, plain, names, missing)
        with path.open(encoding="utf-8-sig", newline="") as file:
            mark = delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
            return _csv(path, csv.reader(file, delimiter=mark, strict=True), mark, plain, names, missing)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: line {_undecodable(path)} is not UTF-8 ({error.reason}); save it as CSV UTF-8"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot read it: {error.strerror}; set data.path to your table") from error


def _undecodable(path: Path) -> int:
    """Return the line of a file that is not UTF-8: its decoder, which reads on ahead, does not know."""
    with path.open("rb") as file:
        return next(number for number, line in enumerate(file, start=1) if not _decodes(line))


def _decodes(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _csv(path: Path, reader: Any, mark: str, plain: str, names: Sequence[str], missing: Sequence[str]) -> Table:
    rows = _Rows(reader)
    try:
        header = [name.strip() for name in next(reader, [])]
        if not header:
            raise UserError(f"{path}: it is empty, or its first line is; that must name the columns")
        if len(header) == 1 and plain not in header:
            raise UserError(f"{path}: its header is one column, {header[0]!r}, at {mark!r}; set data.delimiter")
        _check_header(path, header, (plain, *names))
        texts: list[str] = []
        codes = {name: (_Codes(), array("q")) for name in names}
        for chunk in rows.chunks(len(header)):
            columns = dict(zip(header, zip(*chunk, strict=True), strict=True)) if chunk else dict.fromkeys(header, ())
            texts.extend(columns[plain])
            for name, (code, found) in codes.items():
                found.extend(map(code.__getitem__, columns[name]))
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: {error}; is a quotation mark left open?") from error
    coded = {name: categories(name, [*code], np.asarray(found), missing) for name, (code, found) in codes.items()}
    return Table("line", texts, coded, np.asarray(rows.lines), rows.ragged, len(header))


class _Rows:
    """The rows of a CSV file in chunks, empty lines left out; rows of another width are noted, and fitted."""

    def __init__(self, reader: Any) -> None:
        self.reader = reader
        self.lines = array("q")
        self.ragged: dict[int, int] = {}

    def chunks(self, width: int) -> Iterator[list[list[str]]]:
        """Yield lists of rows, each of `width` fields."""
        line = self.reader.line_num
        while chunk := list(islice(self.reader, _AT_ONCE)):
            begun = line + 1
            line = self.reader.line_num
            if line - begun + 1 == len(chunk) and set(map(len, chunk)) == {width}:  # the usual case, without a loop
                self.lines.extend(range(begun, line + 1))
            else:
                chunk = [*self._fitted(chunk, begun, width)]
            yield chunk

    def _fitted(self, chunk: list[list[str]], line: int, width: int) -> Iterator[list[str]]:
        for row in chunk:
            if row:
                if len(row) != width:
                    self.ragged[len(self.lines)] = len(row)
                self.lines.append(line)
                yield (row + [""] * width)[:width]
            line += 1 + sum(field.count("\n") + field.count("\r") - field.count("\r\n") for field in row)


def _check_header(path: Path, header: Sequence[str], names: Iterable[str]) -> None:
    faults = [f"no column {name!r}{did_you_mean(name, [*header])}" for name in names if name not in header]
    counts = Counter(header)
    faults += [f"{counts[name]} columns are called {name!r}" for name in dict.fromkeys(names) if counts[name] > 1]
    if faults:
        raise ColumnError("\n".join([f"{path}: its columns do not fit", *(f"  {fault}" for fault in faults)]))


def _parquet(path: Path, plain: str, names: Sequence[str], missing: Sequence[str]) -> Table:
    try:
        from pyarrow import ArrowException, parquet, types  # optional: only for Parquet files
    except ImportError as error:
        raise UserError(f"{path}: Parquet files are read by pyarrow: pip install pyarrow, or save it as CSV") from error
    try:
        header = parquet.read_schema(path).names
        _check_header(path, header, (plain, *names))
        table = parquet.read_table(path, columns=[*dict.fromkeys((plain, *names))])
        for name in table.column_names:
            if types.is_nested(table.column(name).type):
                raise UserError(f"{path}: {name} holds {table.column(name).type}; a column holds texts or numbers")
        columns = {name: _coded(name, table.column(name), missing) for name in names}
    except (ArrowException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise UserError(f"{path}: there is no such file; set data.path to your table") from error
        raise UserError(f"{path}: not a readable Parquet file: {error}") from error
    texts = [_text(value) for value in table.column(plain).to_pylist()]
    return Table("row", texts, columns, np.arange(1, len(texts) + 1), {}, len(header))


def _coded(name: str, column: Any, missing: Sequence[str]) -> Column:
    """Return a column of Parquet, of texts, numbers or the like."""
    coded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    values = [*map(_text, coded.dictionary.to_pylist()), ""]
    code = coded.indices.fill_null(len(values) - 1).to_numpy(zero_copy_only=False).astype(np.int64)
    return categories(name, values, code, missing)


def _text(value: Any) -> str:
    """Return a value as CSV would hold it: nothing for null and NaN, a whole number without its point."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
