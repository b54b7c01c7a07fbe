"""Faces, ages and genders of imdb.mat, the metadata of IMDB-WIKI.

dob is a Matlab serial date number, photo_taken a year, gender 0 for female, 1 for male or NaN, second_face_score NaN
where there is no second face. Source: data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lntl.errors import UserError
from lntl.makers.tables import found

GENDERS = {0: "female", 1: "male"}
OLDEST = 100  # years: beyond it, and below 0, a date is wrong
MIN_SCORE = 1.0  # of the face detector; source: the usual preprocessing (github.com/yu4u/age-gender-estimation)
_EPOCH = 719529  # 1 January 1970 as a Matlab serial date number


class Face(NamedTuple):
    """A file below imdb_crop/, female or male, and the age in years."""

    image: str
    gender: str
    age: int


def read_metadata(source: Path) -> tuple[list[Face], list[str]]:
    """Return the faces whose age and gender are known and that are alone in their image; and what was left out."""
    path = found(source, ["imdb.mat"])
    fields = _fields(path)
    age = _ages(fields["dob"].astype(np.float64), fields["photo_taken"].astype(np.int64))
    gender, score = fields["gender"].astype(np.float64), fields["face_score"].astype(np.float64)
    second = fields["second_face_score"].astype(np.float64)
    wrong = {
        "of no known gender": np.isnan(gender),
        f"of no age from 0 to {OLDEST} years": (age < 0) | (age > OLDEST),
        f"with a detector score below {MIN_SCORE:g}": ~(np.isfinite(score) & (score >= MIN_SCORE)),
        "with a second face": ~np.isnan(second),
    }
    notes = [f"{int(each.sum())} faces {what} are left out" for what, each in wrong.items() if each.any()]
    keep = np.flatnonzero(~np.any([*wrong.values()], axis=0)).tolist()
    return [Face(str(fields["full_path"][k][0]), GENDERS[int(gender[k])], int(age[k])) for k in keep], notes


def _fields(path: Path) -> dict[str, Any]:
    """Return the fields of the struct `imdb`, each an array of n values."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    names = ("dob", "photo_taken", "full_path", "gender", "face_score", "second_face_score")
    try:
        struct = loadmat(path)["imdb"][0, 0]
        return {name: struct[name][0] for name in names}
    except (MatReadError, ValueError, TypeError, KeyError, IndexError, NotImplementedError) as error:
        raise UserError(f"{path}: not the metadata of IMDB-WIKI ({error}); unpack imdb_crop.tar again") from error


def _ages(dob: Any, taken: Any) -> Any:
    """Return the age in years in the middle of the year in which the photograph was taken; dob (n,), taken (n,)."""
    birth = (np.floor(dob).astype(np.int64) - _EPOCH).astype("datetime64[D]")
    year = birth.astype("datetime64[Y]").astype(np.int64) + 1970
    month = birth.astype("datetime64[M]").astype(np.int64) % 12 + 1
    return taken - year - (month >= 7)
