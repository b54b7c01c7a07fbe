"""CelebA (Liu et al., ICCV 2015): faces with forty attributes, such as blond hair, which is rare among the men.

list_attr_celeba.txt contains the number of images, the names of the attributes, and one line per image with 1 or -1
for each attribute. list_eval_partition.txt contains 0 (train), 1 (val) or 2 (test) for each image. The copy at Kaggle
has both files as .csv.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from lntl.errors import UserError
from lntl.makers import tables
from lntl.makers.tables import DatasetTable, find_name, find_path, lines
from lntl.plugins import did_you_mean

SPLITS = {"0": "train", "1": "val", "2": "test"}
_FOLDERS = ("", "Anno/", "Eval/")  # folders of the two files, in the copy at Kaggle and in the original


def make(source: Path, attributes: Sequence[str]) -> DatasetTable:
    """Return a table of image, split and the attributes; the first attribute is the label, the second the bias."""
    if len(set(attributes)) < max(2, len(attributes)):
        raise UserError("--attribute: name at least two different attributes: first the label, then the bias")
    folder = find_path(
        source, [f"{parent}img_align_celeba{child}" for parent in ("", "Img/") for child in ("/img_align_celeba", "")]
    )
    folder_name = folder.relative_to(source).as_posix()
    split = dict(_read_partition(_find_file(source, "list_eval_partition")))
    table: dict[str, list[str]] = {"image": [], "split": [], **{name: [] for name in attributes}}
    path = _find_file(source, "list_attr_celeba")
    for name, values in _read_attributes(path, attributes):
        if name not in split:
            raise UserError(f"{path}: {name} has no row in list_eval_partition; take both files from the same download")
        table["image"].append(f"{folder_name}/{name}")
        table["split"].append(split[name])
        for attribute, value in zip(attributes, values, strict=True):
            words = attribute.lower().replace("_", " ")
            codes = {"1": words, "-1": f"not {words}"}
            table[attribute].append(find_name(codes, value, f"{path}: {name}", attribute))
    return DatasetTable(table, attributes[0], attributes[1], [])


def _find_file(source: Path, name: str) -> Path:
    return find_path(source, [f"{folder}{name}{ending}" for ending in (".txt", ".csv") for folder in _FOLDERS])


def _read_partition(path: Path) -> Iterator[tuple[str, str]]:
    """Yield each image with its split."""
    if path.suffix == ".csv":
        pairs = [(row["image_id"], row["partition"]) for _, row in tables.rows(path, ["image_id", "partition"])]
    else:
        pairs = [(line.split()[0], line.split()[-1]) for line in lines(path).values()]
    for name, code in pairs:
        yield name, find_name(SPLITS, code, f"{path}: {name}", "the partition")


def _read_attributes(path: Path, selection: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each image with its values of the selected attributes."""
    is_csv = path.suffix == ".csv"
    content = [line.split("," if is_csv else None) for line in lines(path).values()]
    header = 0 if is_csv else 1  # the first line of the .txt is the number of images
    names = content[header][is_csv:] if content[header:] else []
    for name in selection:
        if name not in names:
            raise UserError(f"{path}: no attribute {name!r}{did_you_mean(name, names)}")
    columns = [1 + names.index(name) for name in selection]
    for image, *values in content[header + 1 :]:
        if len(values) != len(names):
            raise UserError(f"{path}: {image} has {len(values)} values for {len(names)} attributes")
        yield image, [[image, *values][column] for column in columns]
