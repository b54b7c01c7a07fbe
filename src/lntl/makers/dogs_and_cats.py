"""Dogs and Cats with a bias of color (Kim et al., CVPR 2019): TB1 has bright dogs and dark cats, TB2 the reverse.

The photographs are in the folder train/ of Kaggle's "Dogs vs. Cats". The authors' list_bright.txt and list_dark.txt
(github.com/feidfoe/learning-not-to-learn, dataset/dogs_and_cats) have one file name per line. Images in neither list
are not used.
"""

import re
from pathlib import Path

from lntl.errors import UserError
from lntl.makers.tables import DatasetTable, compute_hash_fraction, find_path, lines, move_counterexamples

SETS = {"tb1": {"dog": "bright", "cat": "dark"}, "tb2": {"dog": "dark", "cat": "bright"}}
_NAME = re.compile(r"(cat|dog)\.\d+\.jpg")


def make(source: Path, lists: Path, train: str, held_out: float, added: int = 0, seed: int = 0) -> DatasetTable:
    """Return the columns image, label, color and split.

    Training uses the set `train` (tb1 or tb2) without the share `held_out`. Test is this share and the other set.
    `added` images of the other set, chosen with the seed, move from test to train.

    Deviation: the paper tests on the other set and, separately, on a mixed set whose labels do not seem to be public.
    Here the held-out share makes test a mixed set: it has bright and dark images of both classes. With `held_out` 0,
    test is only the other set.
    """
    folder = find_path(source, ["train/train", "train"]).relative_to(source).as_posix()
    table: dict[str, list[str]] = {"image": [], "label": [], "color": [], "split": []}
    other_set: dict[str, str] = {}
    for name, color in _read_colors(lists).items():
        label = name.partition(".")[0]
        in_train_set = SETS[train][label] == color
        if not in_train_set:
            other_set[f"{folder}/{name}"] = label
        table["image"].append(f"{folder}/{name}")
        table["label"].append(label)
        table["color"].append(color)
        table["split"].append("train" if in_train_set and compute_hash_fraction(name) >= held_out else "test")
    move_counterexamples(table, other_set, added, seed)
    return DatasetTable(table, "label", "color", [])


def _read_colors(lists: Path) -> dict[str, str]:
    """Return the color, bright or dark, of each file name in the two lists, in the order of the lists."""
    colors: dict[str, str] = {}
    for color in ("bright", "dark"):
        path = find_path(lists, [f"list_{color}.txt"])
        for number, name in lines(path).items():
            if not _NAME.fullmatch(name):
                raise UserError(f"{path}: line {number} is {name!r}; expected a name like cat.0.jpg or dog.0.jpg")
            if name in colors:
                raise UserError(f"{path}: line {number}: {name} is already listed, as {colors[name]}")
            colors[name] = color
    return colors
