"""The table that makers return, and functions that write it and that read the files of a download."""

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
class DatasetTable:
    """The table of a data set.

    Args:
        columns: A list of n texts for each column; `image` is a path in the download, `split` is train, val or test.
        label: Column that the network learns.
        bias: Column that the network unlearns; None if the bias is not annotated.
        notes: Sentences about images that were left out.
    """

    columns: dict[str, list[str]]
    label: str
    bias: str | None
    notes: list[str]


def write(path: Path, data_table: DatasetTable) -> None:
    """Write the table as CSV; raises UserError if the file exists."""
    if path.exists():
        raise UserError(f"{path} exists already; move it away first")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(data_table.columns)
    writer.writerows(zip(*data_table.columns.values(), strict=True))
    write_text(path, text.getvalue())


def find_path(source: Path, names: Sequence[str]) -> Path:
    """Return the path of the first of `names` that exists in the download; raises UserError if none exists."""
    require_folder(source)
    for name in names:
        if (source / name).exists():
            return source / name
    first, *alternatives = sorted(names, key=len)
    more = f" (nor {', '.join(alternatives)})" if alternatives else ""
    raise UserError(f"{source}: no {first} in it{more}; {REMEDY}")


def lines(path: Path) -> dict[int, str]:
    """Return the stripped, non-empty lines of a text file by line number."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read it as text: {error}") from error
    return {number: line.strip() for number, line in enumerate(text.splitlines(), start=1) if line.strip()}


def rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the fields of each row of a CSV file.

    Raises UserError if a column is missing or a row has another number of fields than the header.
    """
    line_by_number = lines(path)
    numbers, reader = list(line_by_number), csv.reader(line_by_number.values())
    try:
        header = next(reader, [])
        if absent := [name for name in columns if name not in header]:
            raise UserError(f"{path}: no column {', '.join(absent)}; its header is {', '.join(header)}")
        for row in reader:
            line = numbers[reader.line_num - 1]
            if len(row) != len(header):
                raise UserError(
                    f"{path}: line {line} has {len(row)} fields, but the header has {len(header)}; {REMEDY}"
                )
            yield line, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}: line {numbers[reader.line_num - 1]} is not CSV ({error}); {REMEDY}") from error


def find_name(values: dict[str, str], code: str, position: str, key: str) -> str:
    """Return the name for a code, e.g. landbird for 0; raises UserError for an unknown code."""
    if code not in values:
        valid = ", ".join(f"{valid_code} ({name})" for valid_code, name in values.items())
        raise UserError(f"{position}: {key} is {code!r}; valid: {valid}")
    return values[code]


def compute_hash_fraction(key: str) -> float:
    """Return a hash of the key, uniform in [0, 1)."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) / 2**64


def require_folder(source: Path) -> Path:
    """Return `source`; raises UserError if it is not a folder."""
    if not source.is_dir():
        raise UserError(f"{source}: there is no such folder; {REMEDY}")
    return source


def check_images(source: Path, data_table: DatasetTable) -> None:
    """Raise UserError if train or test has no image, or if an image of the table is not in the download."""
    for split in ("train", "test"):
        if split not in data_table.columns["split"]:
            notes = "".join(f"; {note}" for note in data_table.notes)
            raise UserError(f"{source}: it has no image for {split}{notes}; {REMEDY}")
    missing = [name for name in data_table.columns["image"] if not (source / name).is_file()]
    if missing:
        raise UserError(
            f"{source}: {len(missing)} of {len(data_table.columns['image'])} listed images are missing, such as "
            f"{missing[0]}; unpack lists and images of the same version again, or name the right folder"
        )


def move_counterexamples(table: dict[str, list[str]], other_set: Mapping[str, str], count: int, seed: int) -> None:
    """Move `count` images of a table from test to train.

    Each class contributes the same number, if it has enough images. With the same seed, a larger `count` moves all
    images that a smaller `count` moves.

    Args:
        table: The columns, changed in place.
        other_set: The class of each image, by file, of the set that is not used for training.
        count: Number of images to move.
        seed: Seed of the random choice.

    Raises:
        UserError: If fewer images would stay in test than are moved.
    """
    if 2 * count > len(other_set):
        raise UserError(
            f"--counterexamples {count}: at most {len(other_set) // 2}, half of the {len(other_set)} images of the "
            "other set, because the rest is the test set"
        )
    order, rank = sorted(other_set, key=lambda name: compute_hash_fraction(f"{seed}/{name}")), dict[str, int]()
    class_count: Counter[str] = Counter()
    for name in order:
        rank[name] = class_count[other_set[name]]
        class_count[other_set[name]] += 1
    selection = set(sorted(order, key=rank.__getitem__)[:count])
    table["split"] = ["train" if n in selection else s for n, s in zip(table["image"], table["split"], strict=True)]
