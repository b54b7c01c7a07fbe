"""The authors' lists of IMDB faces: four NumPy files, of which two hold pickled dicts, read without running any code.

imdb_age_gender.npy has age and gender of each file below imdb_crop/, imdb_split.npy has the `test_list`,
eb1_img_list.npy and eb2_img_list.npy the training sets. Source: github.com/feidfoe/learning-not-to-learn, dataset/IMDB,
and public code that reads them.
"""

from pathlib import Path
from typing import Any

import numpy as np

from lntl.data.official_npy import UNREADABLE, unpickled
from lntl.errors import UserError
from lntl.makers.imdb_metadata import GENDERS, Face
from lntl.makers.tables import found


def read_lists(folder: Path, train: str) -> dict[str, list[Face]]:
    """Return the faces of `train` (eb1 or eb2) and of `test`."""
    path = found(folder, ["imdb_age_gender.npy"])
    labels = {_text(name): label for name, label in _content(path).items()}
    names = {
        "train": _content(found(folder, [f"{train}_img_list.npy"])),
        "test": _of(found(folder, ["imdb_split.npy"]), "test_list"),
    }
    return {split: [_face(path, labels, _text(name)) for name in listed] for split, listed in names.items()}


def _content(path: Path) -> Any:
    """Return the dict or the list of names that a file holds."""
    try:
        try:
            content = np.load(path, allow_pickle=False)
        except ValueError:  # it holds objects
            content = unpickled(path)
        return content.item() if content.ndim == 0 else content.ravel().tolist()
    except UNREADABLE as error:
        raise UserError(f"{path}: not one of the authors' lists ({error}); fetch it again") from error


def _of(path: Path, key: str) -> Any:
    content = _content(path)
    if key not in content:
        raise UserError(f"{path}: no {key} in it; fetch it again")
    return content[key]


def _face(path: Path, labels: dict[str, Any], name: str) -> Face:
    try:
        label = labels[name]
        return Face(name, GENDERS[int(label["gender"])], int(label["age"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: it has no age and gender of {name}; the lists must be of one download") from error


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
