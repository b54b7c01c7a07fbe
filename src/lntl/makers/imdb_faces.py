"""IMDB faces with a bias of age and gender (Kim et al., CVPR 2019), from imdb_crop/ of IMDB-WIKI (Rothe et al., 2016).

EB1 holds women of 0 to 29 years and men of 40 and more, EB2 the reverse; the test set holds all four. The authors'
lists say whose face is in which set; without them the metadata of the download do.
"""

from pathlib import Path

from lntl.makers.imdb_lists import read_lists
from lntl.makers.imdb_metadata import Face, read_metadata
from lntl.makers.tables import Made, place

# Borders in years as a public reproduction of the paper states them; not confirmed in the paper itself.
YOUNG, OLD = "0-29", "40+"
SETS = {"eb1": {"female": YOUNG, "male": OLD}, "eb2": {"female": OLD, "male": YOUNG}}
TESTED = 0.2  # share of the persons whose faces are the test set, where no list says so


def make(source: Path, lists: Path | None, train: str) -> Made:
    """Return image, gender, age, age_group, person, split; train is eb1 or eb2.

    Deviation: the paper cleaned the labels with networks; without its lists here the detector's scores do. The test set
    is then a fifth of the persons, none of whom is in train. Faces between the age groups are left out of all sets.
    """
    if lists is None:
        faces, notes = read_metadata(source)
        splits = [(face, _split(face, train)) for face in faces]
    else:
        notes = []
        splits = [(face, split) for split, listed in read_lists(lists, train).items() for face in listed]
    table: dict[str, list[str]] = {n: [] for n in ("image", "gender", "age", "age_group", "person", "split")}
    for face, split in splits:
        group = age_group(face.age)
        if group is not None and split is not None:
            row = (face.image, face.gender, str(face.age), group, person(face), split)
            for column, value in zip(table.values(), row, strict=True):
                column.append(value)
    if unused := len(splits) - len(table["image"]):
        notes.append(f"{unused} faces are in no set, or in the other training set alone")
    return Made(table, "gender", "age_group", notes)


def age_group(age: int) -> str | None:
    """Return the group of an age in years; None between the groups."""
    return YOUNG if age < 30 else OLD if age >= 40 else None


def person(face: Face) -> str:
    """Return the person: file names are like 01/nm0000001_rm124825600_1899-5-10_1968.jpg, the person first."""
    return face.image.rpartition("/")[2].partition("_")[0]


def _split(face: Face, train: str) -> str | None:
    if place(person(face)) < TESTED:
        return "test"
    return "train" if SETS[train][face.gender] == age_group(face.age) else None
