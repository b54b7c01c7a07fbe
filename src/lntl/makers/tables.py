"""What all makers share: the table that they return and write, and reading the files of a download."""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lntl.errors import UserError
from lntl.runs.files import write_text

REMEDY = "name the folder that you unpacked, see docs/DATA_SETS.md"


@dataclass(frozen=True)
class Made:
    """n images: a list of n texts a column; `image` is the file below the download, `split` train, val or test.

    label, bias: the columns that are meant to be learnt and to be unlearnt, bias None where it is not annotated; notes:
    what was left out, and why.
    """

    columns: dict[str, list[str]]
    label: str
    bias: str | None
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
    folder_of(source)
    for name in names:
        if (source / name).exists():
            return source / name
    first, *others = sorted(names, key=len)
    more = f" (nor {', '.join(others)})" if others else ""
    raise UserError(f"{source}: no {first} in it{more}; {REMEDY}")


def lines(path: Path) -> dict[int, str]:
    """Return the lines of a text file that are not empty by their numbers, without the spaces around them."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read it as text: {error}") from error
    return {number: line.strip() for number, line in enumerate(text.splitlines(), start=1) if line.strip()}


def rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the fields of each row of a CSV file.

    Raises UserError where it lacks a column, or a row has another number of fields than the header.
    """
    numbered = lines(path)
    numbers, reader = list(numbered), csv.reader(numbered.values())
    try:
        header = next(reader, [])
        if absent := [name for name in columns if name not in header]:
            raise UserError(f"{path}: no column {', '.join(absent)}; its header is {', '.join(header)}")
        for row in reader:
            line = numbers[reader.line_num - 1]
            if len(row) != len(header):
                raise UserError(f"{path}: line {line} has {len(row)} fields, and the header {len(header)}; {REMEDY}")
            yield line, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}: line {numbers[reader.line_num - 1]} is no CSV ({error}); {REMEDY}") from error


def named(values: dict[str, str], given: str, where: str, what: str) -> str:
    """Return the name of a code, such as 0 for landbird; raises UserError for another code."""
    if given not in values:
        valid = ", ".join(f"{code} ({name})" for code, name in values.items())
        raise UserError(f"{where}: {what} is {given!r}; valid: {valid}")
    return values[given]


def place(key: str) -> float:
    """Return a number in [0, 1) that is a function of the key alone: a share of the keys lies below that share."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) / 2**64


def folder_of(source: Path) -> Path:
    """Return a folder; raises UserError where it is none."""
    if not source.is_dir():
        raise UserError(f"{source}: there is no such folder; {REMEDY}")
    return source


def check_images(source: Path, made: Made) -> None:
    """Raise UserError if train or test has no image, or an image is not in the download."""
    for split in ("train", "test"):
        if split not in made.columns["split"]:
            notes = "".join(f"; {note}" for note in made.notes)
            raise UserError(f"{source}: it has no image for {split}{notes}; {REMEDY}")
    missing = [name for name in made.columns["image"] if not (source / name).is_file()]
    if missing:
        raise UserError(
            f"{source}: {len(missing)} of {len(made.columns['image'])} listed images are missing, the first "
            f"{missing[0]}; unpack the download anew, lists and images of one version, or name its folder"
        )


def counterexamples(table: dict[str, list[str]], others: Mapping[str, str], added: int, seed: int) -> None:
    """Move `added` images from test to train of a table.

    They are equally many of each class where it has enough; with one seed, a larger number adds to a smaller one.

    Args:
        table: The columns, changed in place.
        others: The class of each image of the other set, by file.
        added: Their number.
        seed: Of their choice.

    Raises:
        UserError: If fewer images would be left for test than are added.
    """
    if 2 * added > len(others):
        raise UserError(
            f"--counterexamples {added}: at most {len(others) // 2}, half of the {len(others)} images of the other "
            "set, for the rest of them is the test set"
        )
    order, rank = sorted(others, key=lambda name: place(f"{seed}/{name}")), dict[str, int]()
    ranked: Counter[str] = Counter()
    for name in order:
        rank[name] = ranked[others[name]]
        ranked[others[name]] += 1
    moved = set(sorted(order, key=rank.__getitem__)[:added])
    table["split"] = ["train" if n in moved else s for n, s in zip(table["image"], table["split"], strict=True)]
