"""What all makers share: the table that they return and write, and reading the files of a download."""

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lntl.errors import UserError
from lntl.runs.files import write_text


@dataclass(frozen=True)
class Made:
    """n images: a list of n texts a column; `image` is the file below the download, `split` train, val or test.

    label, bias: the columns that are meant to be learnt and to be unlearnt; notes: what was left out, and why.
    """

    columns: dict[str, list[str]]
    label: str
    bias: str
    notes: list[str]


def write(path: Path, made: Made) -> None:
    """Write the table as CSV; raises UserError rather than replace a file."""
    if path.exists():
        raise UserError(f"{path} exists already; move it away first")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(made.columns)
    writer.writerows(zip(*made.columns.values(), strict=True))
    write_text(path, text.getvalue())


def found(source: Path, names: Sequence[str]) -> Path:
    """Return the first of the names that there is below the download; raises UserError where there is none."""
    for name in names:
        if (source / name).exists():
            return source / name
    first, *others = sorted(names, key=len)
    more = f" (nor {', '.join(others)})" if others else ""
    raise UserError(f"{source}: no {first} in it{more}; name the folder that you unpacked, see docs/DATA_SETS.md")


def lines(path: Path) -> dict[int, str]:
    """Return the lines of a text file that are not empty by their numbers, without the spaces around them."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read it as text: {error}") from error
    return {number: line.strip() for number, line in enumerate(text.splitlines(), start=1) if line.strip()}


def rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the fields of each row of a CSV file; raises UserError where it lacks a column."""
    numbered = lines(path)
    numbers, reader = list(numbered), csv.DictReader(numbered.values())
    if absent := [name for name in columns if name not in (reader.fieldnames or ())]:
        raise UserError(f"{path}: no column {', '.join(absent)}; its header is {', '.join(reader.fieldnames or ())}")
    for row in reader:
        yield numbers[reader.line_num - 1], row


def named(values: dict[str, str], given: str | None, where: str, what: str) -> str:
    """Return the name of a code, such as 0 for landbird; raises UserError for another code."""
    if given not in values:
        valid = ", ".join(f"{code} ({name})" for code, name in values.items())
        raise UserError(f"{where}: {what} is {given!r}; valid: {valid}")
    return values[given]


def place(key: str) -> float:
    """Return a number in [0, 1) that is a function of the key alone: a share of the keys lies below that share."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) / 2**64
