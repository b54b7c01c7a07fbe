"""UTKFace (Zhang et al., CVPR 2017) as a stand-in for the paper's faces: gender with a bias of age, EB1 and EB2.

The files of the download are named [age]_[gender]_[race]_[date].jpg; gender is 0 for male and 1 for female, race is 0
to 4. Source: susanqq.github.io/UTKFace. EB1 has women of 0 to 29 years and men of 40 years and more, EB2 the reverse.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from lntl.errors import UserError
from lntl.makers.imdb_faces import OLD, SETS, YOUNG
from lntl.makers.tables import DatasetTable, compute_hash_fraction, move_counterexamples, require_folder

GENDERS = {"0": "male", "1": "female"}
RACES = {"0": "white", "1": "black", "2": "asian", "3": "indian", "4": "other"}
_NAME = re.compile(r"(\d{1,3})_([01])_([0-4])_\d+\.jpg(\.chip\.jpg)?")


def make(source: Path, train: str, held_out: float, added: int = 0, seed: int = 0) -> DatasetTable:
    """Return the columns image, gender, age, age_group, race and split; train is eb1 or eb2.

    Test is the other set and the share `held_out` of the set `train`, so that test has all four groups. `added` faces
    of the other set move to train. If files are equal in every byte, only the first is used, or none if they differ
    in gender or age group.

    Deviation: the faces of the paper are from IMDB-WIKI. Faces between the age groups are in no set. The download does
    not tell which person a photograph shows, so a person may be in train and test.
    """
    names = sorted(path.relative_to(source).as_posix() for path in require_folder(source).rglob("*.jpg"))
    faces = {name: match for name in names if (match := _NAME.fullmatch(name.rpartition("/")[2]))}
    if not faces:
        raise UserError(
            f"{source}: no image in it is named like 25_1_0_20170116171048641.jpg.chip.jpg (age, gender, race, date); "
            "name the folder that you unpacked, see docs/DATA_SETS.md"
        )
    labels = {name: (GENDERS[match[2]], _find_age_group(int(match[1]))) for name, match in faces.items()}
    copies = _find_copies(source, labels)
    table: dict[str, list[str]] = {n: [] for n in ("image", "gender", "age", "age_group", "race", "split")}
    other_set: dict[str, str] = {}
    for name, match in faces.items():
        gender, group = labels[name]
        if group is None or name in copies:
            continue
        in_train_set = SETS[train][gender] == group
        if not in_train_set:
            other_set[name] = gender
        split = "train" if in_train_set and compute_hash_fraction(name) >= held_out else "test"
        row = (name, gender, str(int(match[1])), group, RACES[match[3]], split)
        for column, value in zip(table.values(), row, strict=True):
            column.append(value)
    num_between = sum(group is None and name not in copies for name, (_, group) in labels.items())
    notes = [f"{num_between} faces are between the age groups and in no set"]
    if copies:
        notes.append(
            f"{len(copies)} images are left out as duplicates, or because equal images have another gender or age group"
        )
    if num_unnamed := len(names) - len(faces):
        notes.append(
            f"{num_unnamed} images are left out, because their names do not have the form age_gender_race_date.jpg"
        )
    move_counterexamples(table, other_set, added, seed)
    return DatasetTable(table, "gender", "age_group", notes)


def _find_age_group(age: int) -> str | None:
    return YOUNG if age < 30 else OLD if age >= 40 else None


def _find_copies(source: Path, labels: Mapping[str, tuple[str, str | None]]) -> set[str]:
    """Return the files to leave out of each set of equal files: all but the first, or all if their labels differ."""
    names_by_digest: dict[bytes, list[str]] = {}
    for name in labels:
        digest = hashlib.blake2b((source / name).read_bytes(), digest_size=16).digest()
        names_by_digest.setdefault(digest, []).append(name)
    return {
        name
        for names in names_by_digest.values()
        for name in (names[1:] if len({labels[name] for name in names}) == 1 else names)
    }
