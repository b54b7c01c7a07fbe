"""Tables of small generated downloads have the expected rows; each fault of a download gives one sentence."""

import csv
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from downloads import (
    make_face_rows,
    save_object,
    write_bar,
    write_celeba,
    write_dogs_and_cats,
    write_imdb_crop,
    write_imdb_lists,
    write_isic,
    write_noise_images,
    write_utkface,
    write_waterbirds,
)
from scipy.io import savemat

from lntl.errors import UserError
from lntl.makers import bar as bar_maker
from lntl.makers import celeba as celeba_maker
from lntl.makers import dogs_and_cats as dogs_and_cats_maker
from lntl.makers import imdb_faces as imdb_faces_maker
from lntl.makers import isic as isic_maker
from lntl.makers import utkface as utkface_maker
from lntl.makers import waterbirds as waterbirds_maker
from lntl.makers.imdb_faces import read_metadata
from lntl.makers.tables import DatasetTable, check_images, compute_hash_fraction, write

PLACES = ("land", "water")


def write_and_read(made_table: DatasetTable, folder: Path, source: Path) -> list[dict[str, str]]:
    """Write the table and return its rows; every image must exist."""
    check_images(source, made_table)
    write(folder / "made.csv", made_table)
    with (folder / "made.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_of_waterbirds_has_label_background_and_split(tmp_path: Path) -> None:
    source = write_waterbirds(tmp_path / "birds")
    rows = write_and_read(waterbirds_maker.make(source), tmp_path, source)
    assert len(rows) == 48
    for k, row in enumerate(rows):
        assert (source / row["image"]).exists()
        assert row["label"] == ("landbird", "waterbird")[k % 2]
        assert row["background"] == PLACES[k // 6 % 2]
        assert row["split"] == ("train", "val", "test")[k // 2 % 3]


@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_the_table_of_celeba_has_the_attributes_and_the_partition(tmp_path: Path, kind: str) -> None:
    source = write_celeba(tmp_path / "faces", kind)
    rows = write_and_read(celeba_maker.make(source, ["Blond_Hair", "Male"]), tmp_path, source)
    assert len(rows) == 48
    for k, row in enumerate(rows):
        assert (source / row["image"]).exists()
        assert row["image"].endswith(f"/{k + 1:06d}.jpg")
        assert row["Blond_Hair"] == ("blond hair", "not blond hair")[k % 2]
        assert row["Male"] == ("male", "not male")[k // 6 % 2]
        assert row["split"] == ("train", "val", "test")[k // 2 % 3]


@pytest.mark.parametrize("train", ["tb1", "tb2"])
@pytest.mark.parametrize("is_nested", [False, True])
def test_the_table_of_dogs_and_cats_has_the_chosen_training_set(tmp_path: Path, train: str, is_nested: bool) -> None:
    source = write_dogs_and_cats(tmp_path / "pets")
    if is_nested:
        (source / "train").rename(source / "inner")
        (source / "train").mkdir()
        (source / "inner").rename(source / "train/train")
    rows = write_and_read(dogs_and_cats_maker.make(source, source, train, held_out=0.2), tmp_path, source)
    assert len(rows) == 80  # twenty bright and twenty dark images of each animal
    train_groups = {"tb1": {("dog", "bright"), ("cat", "dark")}, "tb2": {("dog", "dark"), ("cat", "bright")}}[train]
    for row in rows:
        assert (source / row["image"]).exists()
        name = Path(row["image"]).name
        assert row["label"] == name[:3]
        assert row["color"] == ("bright", "dark")[int(name.split(".")[1]) % 3]
        in_train_groups = (row["label"], row["color"]) in train_groups
        assert row["split"] == ("train" if in_train_groups and compute_hash_fraction(name) >= 0.2 else "test")
    train_group_rows = [row for row in rows if (row["label"], row["color"]) in train_groups]
    assert 0 < sum(row["split"] == "test" for row in train_group_rows) < 20
    table_without_held_out = dogs_and_cats_maker.make(source, source, train, held_out=0)
    assert table_without_held_out.columns["split"].count("train") == 40


def test_counterexamples_move_from_test_to_train(tmp_path: Path) -> None:
    source = write_dogs_and_cats(tmp_path / "pets")
    original_columns, *changed_columns = (
        dogs_and_cats_maker.make(source, source, "tb1", 0.2, num_added, seed).columns
        for num_added, seed in ((0, 0), (4, 0), (7, 0), (4, 1))
    )
    moved_sets = []
    for columns in changed_columns:
        assert columns["image"] == original_columns["image"]
        moved_rows = [k for k, split in enumerate(columns["split"]) if split != original_columns["split"][k]]
        assert {columns["split"][k] for k in moved_rows} == {"train"}
        assert {(columns["label"][k], columns["color"][k]) for k in moved_rows} == {("cat", "bright"), ("dog", "dark")}
        assert abs(sum(1 if columns["label"][k] == "cat" else -1 for k in moved_rows)) <= 1
        moved_sets.append(set(moved_rows))
    four_rows, seven_rows, other_rows = moved_sets
    assert (len(four_rows), len(seven_rows), len(other_rows)) == (4, 7, 4)
    assert four_rows < seven_rows
    assert four_rows != other_rows
    with pytest.raises(UserError, match=r"--counterexamples 21: at most 20, half of the 40 images of the other set"):
        dogs_and_cats_maker.make(source, source, "tb1", 0.2, 21)


@pytest.mark.parametrize("train", ["eb1", "eb2"])
def test_the_table_of_utkface_has_the_chosen_training_set(tmp_path: Path, train: str) -> None:
    source = write_utkface(tmp_path / "faces")
    made_table = utkface_maker.make(source, train, held_out=0.3)
    row_by_image = {row["image"]: row for row in write_and_read(made_table, tmp_path, source)}
    for k in range(80):
        gender, group = ("male", "female")[k % 2], ("0-29", None, "40+")[k // 2 % 3]
        name = f"part{k % 2}/{(20, 35, 50)[k // 2 % 3]}_{k % 2}_{k % 5}_{2017 + k}.jpg.chip.jpg"
        if group is None:
            assert name not in row_by_image
            continue
        in_train_groups = (gender == "female") == ((group == "0-29") == (train == "eb1"))
        row = row_by_image[name]
        assert (row["gender"], row["age_group"], row["age"]) == (gender, group, name[6:8])
        assert row["race"] == ("white", "black", "asian", "indian", "other")[k % 5]
        assert row["split"] == ("train" if in_train_groups and compute_hash_fraction(name) >= 0.3 else "test")
    assert {(row["gender"], row["age_group"]) for row in row_by_image.values() if row["split"] == "test"} == {
        (gender, group) for gender in ("male", "female") for group in ("0-29", "40+")
    }
    assert [note.split(" ", 1)[0] for note in made_table.notes] == ["26", "1"]
    assert utkface_maker.make(source, train, 0.3, 2).columns["split"].count("train") == 2 + sum(
        row["split"] == "train" for row in row_by_image.values()
    )


def test_one_of_several_equal_faces_is_used_if_their_labels_agree(tmp_path: Path) -> None:
    source = write_utkface(tmp_path / "faces")
    original_images = utkface_maker.make(source, "eb1", 0.2).columns["image"]
    kept_image, removed_image = (
        original_images[0],
        next(name for name in original_images if name[6:10] != original_images[0][6:10]),
    )
    age_and_gender = kept_image[6:10]
    (source / f"part0/{age_and_gender}_0_9999.jpg").write_bytes((source / kept_image).read_bytes())
    (source / f"part0/{age_and_gender}_1_9999.jpg").write_bytes((source / removed_image).read_bytes())
    made_table = utkface_maker.make(source, "eb1", 0.2)
    assert sorted(made_table.columns["image"]) == sorted({*original_images} - {removed_image})
    assert (
        made_table.notes[1]
        == "3 images are left out as duplicates, or because equal images have another gender or age group"
    )


def test_the_table_of_isic_has_diagnosis_artefacts_and_split(tmp_path: Path) -> None:
    source = write_isic(tmp_path / "isic")
    made_table = isic_maker.make(source, source, 2)
    row_by_image = {row["image"]: row for row in write_and_read(made_table, tmp_path, source)}
    assert len(row_by_image) == 60
    for k in range(60):
        row = row_by_image[f"images/ISIC_{k:07d}.jpg"]
        assert row["label"] == ("benign", "malignant")[k % 2]
        assert row["ruler"] == ("no ruler", "ruler")[k // 2 % 2]
        assert row["dark_corner"] == "no dark corner"
        assert row["split"] == ("train", "val", "test")[k // 4 % 3]
    assert made_table.notes == ["20 images are listed in val and in train; they are used only in val"]


def test_the_table_of_bar_has_the_action_and_no_bias(tmp_path: Path) -> None:
    source = write_bar(tmp_path / "bar")
    (source / "train/notes.txt").write_text("none")
    made_table = bar_maker.make(source)
    rows = write_and_read(made_table, tmp_path, source)
    assert len(rows) == 60
    for row in rows:
        assert (source / row["image"]).exists()
        assert row["image"].startswith(f"{row['split']}/")
        assert row["label"] == row["image"].partition("/")[2].partition("_")[0].replace("pole ", "")
    assert made_table.bias is None
    assert made_table.notes == [
        f"1 files are not images of an action and are left out, such as {source}/train/notes.txt"
    ]


def test_hash_fraction_is_uniform_and_depends_only_on_the_name() -> None:
    fractions = [compute_hash_fraction(f"cat.{k}.jpg") for k in range(5000)]
    assert fractions == [compute_hash_fraction(f"cat.{k}.jpg") for k in range(5000)]
    assert np.mean(np.array(fractions) < 0.2) == pytest.approx(0.2, abs=0.02)
    assert min(fractions) >= 0
    assert max(fractions) < 1


@pytest.mark.parametrize("train", ["eb1", "eb2"])
def test_the_table_of_imdb_faces_from_metadata_has_the_chosen_training_set(tmp_path: Path, train: str) -> None:
    source = write_imdb_crop(tmp_path / "imdb_crop", list(make_face_rows()))
    made_table = imdb_faces_maker.make(source, None, train)
    row_by_image = {row["image"]: row for row in write_and_read(made_table, tmp_path, source)}
    num_unused = 0
    for k, face in enumerate(make_face_rows()):
        gender, age = ("female", "male")[k % 2], (19, 34, 49)[k // 2 % 3] + 1
        group = {20: "0-29", 35: None, 50: "40+"}[age]
        train_age_groups = {"eb1": {"female": "0-29", "male": "40+"}, "eb2": {"female": "40+", "male": "0-29"}}[train]
        is_test = compute_hash_fraction(f"nm{k:07d}") < 0.2
        split = None if group is None else "test" if is_test else "train" if train_age_groups[gender] == group else None
        num_unused += split is None
        if split is None:
            assert face["full_path"] not in row_by_image
        else:
            expected = {"image": face["full_path"], "gender": gender, "age": str(age), "age_group": group}
            assert row_by_image[face["full_path"]] == expected | {"person": f"nm{k:07d}", "split": split}
    test_groups = {(row["gender"], row["age_group"]) for row in row_by_image.values() if row["split"] == "test"}
    assert len(test_groups) == 4  # the test set has all groups
    assert made_table.notes == [f"{num_unused} faces are in no set, or only in the other training set"]


def test_faces_with_doubtful_metadata_are_left_out_and_counted(tmp_path: Path) -> None:
    faces = list(make_face_rows(8))
    changes: list[dict[str, Any]] = [
        {"gender": np.nan},
        {"face_score": -np.inf},
        {"face_score": 0.5},
        {"second_face_score": 1.2},
        {"photo_taken": 1960},
        {"photo_taken": 2090},
        {"dob": 7.0},
    ]
    for face, change in zip(faces, changes, strict=False):
        face.update(change)
    remaining_faces, notes = read_metadata(write_imdb_crop(tmp_path / "imdb_crop", faces))
    assert [face.image for face in remaining_faces] == [faces[7]["full_path"]]
    assert notes == [
        "1 faces without a known gender are left out",
        "3 faces without an age from 0 to 100 years are left out",
        "2 faces with a detector score below 1 are left out",
        "1 faces with a second face are left out",
    ]


def test_the_age_is_computed_for_the_middle_of_the_year(tmp_path: Path) -> None:
    birthdays = [date(1950, 1, 1), date(1950, 6, 30), date(1950, 7, 1), date(1971, 12, 31), date(1904, 2, 29)]
    faces = list(make_face_rows(len(birthdays)))
    for face, day in zip(faces, birthdays, strict=True):
        face.update(dob=float(day.toordinal() + 366) + 0.25, photo_taken=2000)  # Matlab counts from the year 0
    remaining_faces, _ = read_metadata(write_imdb_crop(tmp_path / "imdb_crop", faces))
    middle_of_the_year = date(2000, 6, 30)
    ages = [
        2000 - day.year - ((day.month, day.day) > (middle_of_the_year.month, middle_of_the_year.day))
        for day in birthdays
    ]
    assert [face.age for face in remaining_faces] == ages == [50, 50, 49, 28, 96]


@pytest.mark.parametrize("train", ["eb1", "eb2"])
def test_the_table_of_imdb_faces_from_the_authors_lists_has_their_splits(tmp_path: Path, train: str) -> None:
    faces = list(make_face_rows())
    write_noise_images(tmp_path, [face["full_path"] for face in faces])
    made_table = imdb_faces_maker.make(tmp_path, write_imdb_lists(tmp_path / "lists", faces), train)
    rows = write_and_read(made_table, tmp_path, tmp_path)
    test_rows = [row for row in rows if row["split"] == "test"]
    num_between_groups = sum(face["photo_taken"] == 2005 for face in faces[-10:])
    assert {row["image"] for row in test_rows} == {f["full_path"] for f in faces[-10:] if f["photo_taken"] != 2005}
    assert made_table.notes == [f"{num_between_groups} faces are in no set, or only in the other training set"]
    train_pairs = {(row["gender"], row["age_group"]) for row in rows if row["split"] == "train"}
    assert (
        train_pairs
        == {"eb1": {("female", "0-29"), ("male", "40+")}, "eb2": {("female", "40+"), ("male", "0-29")}}[train]
    )
    assert {(row["image"], row["age"], row["gender"]) for row in rows} <= {
        (f["full_path"], str(f["photo_taken"] - 1970), ("female", "male")[int(f["gender"])]) for f in faces
    }


# --- invalid downloads ---


class CodeOnLoad:
    """An object that would run code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def make_dogs_and_cats(source: Path) -> object:
    return dogs_and_cats_maker.make(source, source, "tb1", 0.2)


def make_from_lists(source: Path) -> object:
    return imdb_faces_maker.make(source, source, "eb1")


def rewrite(name: str, old_text: str, new_text: str) -> Callable[[Path], object]:
    """Return a function that replaces the first `old_text` in a text file of a download."""

    def change(source: Path) -> None:
        text = (source / name).read_text()
        assert old_text in text
        (source / name).write_text(text.replace(old_text, new_text, 1))

    return change


def make_celeba(*names: str) -> Callable[[Path], object]:
    return lambda source: celeba_maker.make(source, list(names))


def write_celeba_txt(path: Path) -> Path:
    return write_celeba(path, "txt")


def write_celeba_csv(path: Path) -> Path:
    return write_celeba(path, "csv")


def write_4_imdb_faces(path: Path) -> Path:
    return write_imdb_crop(path, list(make_face_rows(4)))


def write_20_imdb_faces(path: Path) -> Path:
    return write_imdb_lists(path, list(make_face_rows(20)))


def test_repeated_attributes_are_refused(tmp_path: Path) -> None:
    source = write_celeba(tmp_path / "faces", "csv")
    for names in (["Male", "Male"], ["Male"], ["Blond_Hair", "Male", "Male"]):
        with pytest.raises(UserError, match="--attribute: name at least two different"):
            celeba_maker.make(source, names)


def change_nothing(path: Path) -> None:
    """Change nothing."""


ATTRIBUTES, PARTITION = "Anno/list_attr_celeba.txt", "Eval/list_eval_partition.txt"
FAULTS: dict[str, tuple[Any, Any, Any, str]] = {
    "missing images": (
        write_dogs_and_cats,
        lambda s: (s / "train").rename(s / "else"),
        make_dogs_and_cats,
        r"no train in it \(nor train/train\); name the folder that you unpacked, see docs/DATA_SETS\.md",
    ),
    "missing list": (
        write_dogs_and_cats,
        lambda s: (s / "list_dark.txt").unlink(),
        make_dogs_and_cats,
        r"no list_dark\.txt in it; name",
    ),
    "unknown image name": (
        write_dogs_and_cats,
        rewrite("list_dark.txt", "cat.4.jpg", "\n pig.4.jpg"),
        make_dogs_and_cats,
        r"list_dark\.txt: line 3 is 'pig\.4\.jpg'; expected a name like cat\.0\.jpg",
    ),
    "image in both lists": (
        write_dogs_and_cats,
        rewrite("list_dark.txt", "cat.4.jpg", "cat.3.jpg"),
        make_dogs_and_cats,
        r"list_dark\.txt: line 2: cat\.3\.jpg is already listed, as bright",
    ),
    "list that is not text": (
        write_dogs_and_cats,
        lambda s: (s / "list_dark.txt").write_bytes(b"\xff\xfe\x00"),
        make_dogs_and_cats,
        r"list_dark\.txt: cannot read it as text: .*codec",
    ),
    "missing metadata": (
        write_waterbirds,
        lambda s: (s / "metadata.csv").unlink(),
        waterbirds_maker.make,
        r"no metadata\.csv in it; name the folder",
    ),
    "row without its last fields": (
        write_waterbirds,
        rewrite("metadata.csv", ",1,0,0,/o/ocean/0001.jpg", ",1"),
        waterbirds_maker.make,
        r"metadata\.csv: line 3 has 3 fields, but the header has 6; name the folder",
    ),
    "unclosed quotation mark": (
        write_waterbirds,
        rewrite("metadata.csv", "1,001.", '1,"001.'),
        waterbirds_maker.make,
        r"metadata\.csv: line \d+ (has|is not CSV)",
    ),
    "missing column": (
        write_waterbirds,
        rewrite("metadata.csv", "place,", "ground,"),
        waterbirds_maker.make,
        r"metadata\.csv: no column place; its header is img_id, img_filename, y, split, ground, place_filename",
    ),
    "unknown code": (
        write_waterbirds,
        rewrite("metadata.csv", "1,001.Some_Bird/Some_Bird_0001.jpg,1,", "\n1,001.Some_Bird/Some_Bird_0001.jpg,7,"),
        waterbirds_maker.make,
        r"metadata\.csv: line 4: y is '7'; valid: 0 \(landbird\), 1 \(waterbird\)",
    ),
    "unknown attribute": (
        write_celeba_txt,
        change_nothing,
        make_celeba("Blond", "Male"),
        r"list_attr_celeba\.txt: no attribute 'Blond'; did you mean 'Blond_Hair'\?",
    ),
    "only one attribute": (
        write_celeba_csv,
        change_nothing,
        make_celeba("Male", "Male"),
        r"--attribute: name at least two different",
    ),
    "faces with other names": (
        write_utkface,
        lambda s: [path.rename(path.with_name(f"face_{path.name}")) for path in s.rglob("*.jpg")],
        lambda s: utkface_maker.make(s, "eb1", 0.2),
        r"no image in it is named like 25_1_0_20170116171048641\.jpg",
    ),
    "missing folder": (
        write_utkface,
        lambda s: s.rename(s.with_name("gone")),
        lambda s: utkface_maker.make(s, "eb1", 0.2),
        r"download: there is no such folder; name the folder that you unpacked",
    ),
    "missing list of the trap set": (
        write_isic,
        change_nothing,
        lambda s: isic_maker.make(s, s, 3),
        r"no isic_annotated_val3\.csv in it \(nor trap-sets/isic_annotated_val3\.csv\)",
    ),
    "lesion without its image": (
        write_isic,
        lambda s: (s / "images/ISIC_0000000.jpg").unlink(),
        lambda s: isic_maker.make(s, s, 2),
        r"1 of 60 listed images are not in this folder, such as ISIC_0000000\.jpg; name the folder",
    ),
    "lesion in train and test": (
        write_isic,
        rewrite("trap-sets/isic_annotated_train2.csv", "ISIC_0000000", "ISIC_0000008"),
        lambda s: isic_maker.make(s, s, 2),
        r"isic_annotated_train2\.csv: line 2: ISIC_0000008 is already listed, in test",
    ),
    "unknown diagnosis": (
        write_isic,
        rewrite("trap-sets/isic_annotated_test2.csv", "benign", "unknown"),
        lambda s: isic_maker.make(s, s, 2),
        r"isic_annotated_test2\.csv: line 2: label_string is 'unknown'; valid: benign \(benign\)",
    ),
    "missing test folder": (
        write_bar,
        lambda s: (s / "test").rename(s / "eval"),
        bar_maker.make,
        r"no test in it; name the folder that you unpacked",
    ),
    "names without an action": (
        write_waterbirds,
        lambda s: [(s / name).mkdir() for name in ("train", "test")],
        bar_maker.make,
        r"train: no image in it is named like climbing_0\.jpg",
    ),
    "missing photograph": (
        write_dogs_and_cats,
        lambda s: (s / "train/dog.1.jpg").unlink(),
        lambda s: check_images(s, make_dogs_and_cats(s)),
        r"1 of 80 listed images are missing, such as train/dog\.1\.jpg; unpack lists and images of the same version",
    ),
    "row with too few attributes": (
        write_celeba_txt,
        rewrite(ATTRIBUTES, "000001.jpg  -1", "000001.jpg"),
        make_celeba("Blond_Hair", "Male"),
        r"list_attr_celeba\.txt: 000001\.jpg has 3 values for 4 attributes",
    ),
    "attribute value 0": (
        write_celeba_txt,
        rewrite(ATTRIBUTES, "000001.jpg  -1  1", "000001.jpg  -1  0"),
        make_celeba("Blond_Hair", "Male"),
        r"000001\.jpg: Blond_Hair is '0'; valid: 1 \(blond hair\), -1 \(not blond hair\)",
    ),
    "partition value 3": (
        write_celeba_txt,
        rewrite(PARTITION, "000001.jpg 0", "000001.jpg 3"),
        make_celeba("Blond_Hair", "Male"),
        r"000001\.jpg: the partition is '3'; valid: 0 \(train\)",
    ),
    "image without a partition": (
        write_celeba_txt,
        rewrite(PARTITION, "000001.jpg 0\n", ""),
        make_celeba("Blond_Hair", "Male"),
        r"000001\.jpg has no row in list_eval_partition",
    ),
    "empty list of attributes": (
        write_celeba_txt,
        lambda s: (s / ATTRIBUTES).write_text(""),
        make_celeba("Blond_Hair", "Male"),
        r"list_attr_celeba\.txt: no attribute 'Blond_Hair'",
    ),
    "empty table of attributes": (
        write_celeba_csv,
        lambda s: (s / "list_attr_celeba.csv").write_text(""),
        make_celeba("Blond_Hair", "Male"),
        r"list_attr_celeba\.csv: no attribute 'Blond_Hair'",
    ),
    "imdb.mat with other fields": (
        write_4_imdb_faces,
        lambda s: savemat(s / "imdb.mat", {"imdb": {"dob": np.zeros((1, 3))}}),
        lambda s: imdb_faces_maker.make(s, None, "eb1"),
        r"imdb\.mat: not the metadata of IMDB-WIKI \(.+\); unpack imdb_crop\.tar again",
    ),
    "list instead of a dict of labels": (
        write_20_imdb_faces,
        lambda s: np.save(s / "imdb_age_gender.npy", np.array(["a", "b"])),
        make_from_lists,
        r"imdb_age_gender\.npy: not one of the authors' lists \(it has no dict\); fetch it again",
    ),
    "number instead of a list": (
        write_20_imdb_faces,
        lambda s: save_object(s / "imdb_split.npy", {"test_list": 3}),
        make_from_lists,
        r"imdb_split\.npy: not one of the authors' lists \(it has no list of names\); fetch it again",
    ),
    "missing imdb.mat": (
        write_4_imdb_faces,
        lambda s: (s / "imdb.mat").unlink(),
        lambda s: imdb_faces_maker.make(s, None, "eb1"),
        r"no imdb\.mat in it",
    ),
    "imdb.mat that is a text file": (
        write_4_imdb_faces,
        lambda s: (s / "imdb.mat").write_text("no metadata, only some words of text, more than a header has: " * 9),
        lambda s: imdb_faces_maker.make(s, None, "eb1"),
        r"imdb\.mat: not the metadata of IMDB-WIKI \(.+\); unpack imdb_crop\.tar again",
    ),
    "list that would run code": (
        write_20_imdb_faces,
        lambda s: save_object(s / "imdb_split.npy", CodeOnLoad()),
        make_from_lists,
        r"imdb_split\.npy: not one of the authors' lists \(it contains .*, which is not an array\)",
    ),
    "missing test list": (
        write_20_imdb_faces,
        lambda s: save_object(s / "imdb_split.npy", {"train_list": []}),
        make_from_lists,
        r"imdb_split\.npy: it has no test_list",
    ),
    "face without labels": (
        write_20_imdb_faces,
        lambda s: np.save(s / "eb1_img_list.npy", np.array(["07/nm1_rm2_1970-1-1_2000.jpg"])),
        make_from_lists,
        r"imdb_age_gender\.npy: it has no age and gender of 07/nm1_rm2_1970-1-1_2000\.jpg",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_download_gives_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.chdir(tmp_path)
    write_download, change, make, message = FAULTS[fault]
    source = write_download(tmp_path / "download")
    change(source)
    with pytest.raises(UserError) as error:
        make(source)
    assert re.search(message, str(error.value)), error.value
    assert "\n" not in str(error.value)
    assert not Path("ran").exists()


def test_a_table_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "made.csv").write_text("existing")
    with pytest.raises(UserError, match=r"made\.csv exists already; move it away first"):
        write(tmp_path / "made.csv", DatasetTable({"image": []}, "label", "bias", []))
    assert (tmp_path / "made.csv").read_text() == "existing"


MAKERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], DatasetTable]]] = {
    "waterbirds": (write_waterbirds, waterbirds_maker.make),
    "celeba": (write_celeba_csv, lambda source: celeba_maker.make(source, ["Blond_Hair", "Male"])),
    "dogs_and_cats": (write_dogs_and_cats, lambda source: dogs_and_cats_maker.make(source, source, "tb1", 0.2)),
    "imdb_faces": (
        lambda folder: write_imdb_crop(folder, list(make_face_rows())),
        lambda source: imdb_faces_maker.make(source, None, "eb1"),
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_wrong_folders_missing_images_and_empty_splits_give_one_sentence(tmp_path: Path, name: str) -> None:
    write_download, make = MAKERS[name]
    with pytest.raises(UserError, match="none: there is no such folder; name the folder that you unpacked"):
        make(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no .* in it.*; name the folder that you unpacked"):
        make(tmp_path / "empty")
    source = write_download(tmp_path / "download")
    table = make(source)
    images = table.columns["image"]
    for image in images[:4]:
        (source / image).unlink()
    with pytest.raises(UserError) as error:
        check_images(source, table)
    assert str(error.value) == (
        f"{source}: 4 of {len(images)} listed images are missing, such as {images[0]}; "
        "unpack lists and images of the same version again, or name the right folder"
    )
    for split in ("train", "test"):
        rows = [k for k, row_split in enumerate(table.columns["split"]) if row_split != split]
        columns = {column: [values[k] for k in rows] for column, values in table.columns.items()}
        with pytest.raises(UserError, match=f"download: it has no image for {split}"):
            check_images(source, DatasetTable(columns, table.label, table.bias, table.notes))
