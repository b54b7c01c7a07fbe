"""IMDB faces with a bias of age and gender (Kim et al., CVPR 2019), from imdb_crop/ of IMDB-WIKI (Rothe et al., 2016).

EB1 has women of 0 to 29 years and men of 40 years and more, EB2 has the reverse; the test set has all four groups. The
authors' lists assign the faces to the sets. Without the lists, the metadata of the download are used.

imdb.mat: dob is a Matlab serial date number. photo_taken is a year. gender is 0 for female, 1 for male, or NaN.
second_face_score is NaN if there is no second face. Source: data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki.

The lists are four NumPy files. Two contain pickled dicts, which are read without running code: imdb_age_gender.npy has
age and gender of each file in imdb_crop/, and imdb_split.npy has the `test_list`. eb1_img_list.npy and eb2_img_list.npy
are the training sets. Source: github.com/feidfoe/learning-not-to-learn, dataset/IMDB, and public code that reads them.
"""

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lntl.data.array_file import READ_ERRORS, load_object_array
from lntl.errors import UserError
from lntl.makers.tables import DatasetTable, compute_hash_fraction, find_path

# Age groups in years. Source: a public reproduction of the paper; the paper does not state them.
YOUNG, OLD = "0-29", "40+"
SETS = {"eb1": {"female": YOUNG, "male": OLD}, "eb2": {"female": OLD, "male": YOUNG}}
TEST_SHARE = 0.2  # share of the persons whose faces are the test set, if there are no lists
GENDERS = {0: "female", 1: "male"}
MAX_AGE = 100  # years; a larger or negative age means a wrong date
MIN_SCORE = 1.0  # smallest score of the face detector; source: github.com/yu4u/age-gender-estimation
_EPOCH = 719529  # 1 January 1970 as a Matlab serial date number


class Face(NamedTuple):
    """A file in imdb_crop/, the gender (female or male), and the age in years."""

    image: str
    gender: str
    age: int


def make(source: Path, lists: Path | None, train: str) -> DatasetTable:
    """Return the columns image, gender, age, age_group, person and split; train is eb1 or eb2.

    Deviation: the paper cleaned the labels with networks; without the lists, faces are selected by the detector's
    scores. The test set then has the faces of a fifth of the persons; no face of these persons is in train. Faces
    between the age groups are left out of all sets.
    """
    if lists is None:
        faces, notes = read_metadata(source)
        splits = [(face, _choose_split(face, train)) for face in faces]
    else:
        notes = []
        splits = [(face, split) for split, faces in read_lists(lists, train).items() for face in faces]
    table: dict[str, list[str]] = {n: [] for n in ("image", "gender", "age", "age_group", "person", "split")}
    for face, split in splits:
        group = YOUNG if face.age < 30 else OLD if face.age >= 40 else None
        if group is not None and split is not None:
            row = (face.image, face.gender, str(face.age), group, person(face), split)
            for column, value in zip(table.values(), row, strict=True):
                column.append(value)
    if unused := len(splits) - len(table["image"]):
        notes.append(f"{unused} faces are in no set, or only in the other training set")
    return DatasetTable(table, "gender", "age_group", notes)


def person(face: Face) -> str:
    """Return the person in the file name, e.g. nm0000001 in 01/nm0000001_rm124825600_1899-5-10_1968.jpg."""
    return face.image.rpartition("/")[2].partition("_")[0]


def _choose_split(face: Face, train: str) -> str | None:
    if compute_hash_fraction(person(face)) < TEST_SHARE:
        return "test"
    is_young = SETS[train][face.gender] == YOUNG
    return "train" if (face.age < 30 if is_young else face.age >= 40) else None


def read_metadata(source: Path) -> tuple[list[Face], list[str]]:
    """Return the faces of known age and gender without a second face in the image, and notes on the other faces."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    path = find_path(source, ["imdb.mat"])
    try:
        fields = loadmat(path)["imdb"][0, 0]
        paths = [str(cell[0]) for cell in fields["full_path"][0]]
        dob, photo_year, gender, score, second_score = (
            fields[name][0].astype(np.float64)
            for name in ("dob", "photo_taken", "gender", "face_score", "second_face_score")
        )
        age = _compute_ages(dob, photo_year)
        masks = {
            "without a known gender": ~np.isin(gender, [*GENDERS]),
            f"without an age from 0 to {MAX_AGE} years": ~((age >= 0) & (age <= MAX_AGE)),
            f"with a detector score below {MIN_SCORE:g}": ~(np.isfinite(score) & (score >= MIN_SCORE)),
            "with a second face": ~np.isnan(second_score),
        }
        index = np.flatnonzero(~np.any([*masks.values()], axis=0)).tolist()
        faces = [Face(paths[k], GENDERS[int(gender[k])], int(age[k])) for k in index]
    except (
        MatReadError,
        ValueError,
        TypeError,
        LookupError,
        NotImplementedError,
        EOFError,
        OSError,
        zlib.error,
    ) as error:
        raise UserError(f"{path}: not the metadata of IMDB-WIKI ({error}); unpack imdb_crop.tar again") from error
    return faces, [f"{int(mask.sum())} faces {reason} are left out" for reason, mask in masks.items() if mask.any()]


def _compute_ages(dob: Any, photo_year: Any) -> Any:
    """Return the age in years in the middle of the year of the photograph (n,); NaN if it is unknown."""
    known = np.abs(dob) < 1e7  # days; larger numbers are not dates
    birth = (np.floor(np.where(known, dob, _EPOCH)).astype(np.int64) - _EPOCH).astype("datetime64[D]")
    year = birth.astype("datetime64[Y]").astype(np.int64) + 1970
    month = birth.astype("datetime64[M]").astype(np.int64) % 12 + 1
    return np.where(known, photo_year - year - (month >= 7), np.nan)


def read_lists(folder: Path, train: str) -> dict[str, list[Face]]:
    """Return the faces of train (the set eb1 or eb2) and of test, according to the authors' lists in a folder."""
    path = find_path(folder, ["imdb_age_gender.npy"])
    labels = {_decode(name): label for name, label in _read_dict(path).items()}
    splits = find_path(folder, ["imdb_split.npy"])
    content = _read_dict(splits)
    if "test_list" not in content:
        raise UserError(f"{splits}: it has no test_list; fetch it again")
    train_list = find_path(folder, [f"{train}_img_list.npy"])
    lists = {"train": (train_list, _read_content(train_list)), "test": (splits, content["test_list"])}
    for list_path, names in lists.values():
        if not isinstance(names, list | np.ndarray):
            raise UserError(f"{list_path}: not one of the authors' lists (it has no list of names); fetch it again")
    return {split: [_find_face(path, labels, _decode(name)) for name in names] for split, (_, names) in lists.items()}


def _read_dict(path: Path) -> dict[Any, Any]:
    content = _read_content(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: not one of the authors' lists (it has no dict); fetch it again")
    return content


def _read_content(path: Path) -> Any:
    """Return the dict or the list of names in a file."""
    try:
        try:
            content = np.load(path, allow_pickle=False)
        except ValueError:  # it contains objects
            content = load_object_array(path)
        return content.item() if content.ndim == 0 else content.ravel().tolist()
    except READ_ERRORS as error:
        raise UserError(f"{path}: not one of the authors' lists ({error}); fetch it again") from error


def _find_face(path: Path, labels: dict[str, Any], name: str) -> Face:
    try:
        label = labels[name]
        return Face(name, GENDERS[int(label["gender"])], int(label["age"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: it has no age and gender of {name}; use lists from one download") from error


def _decode(name: str | bytes) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
