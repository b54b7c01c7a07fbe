"""From invented downloads to tables, compared with the rule that made each download; each fault of a download once."""

import csv
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from downloads import (
    bar,
    celeba,
    dogs_and_cats,
    imdb_crop,
    imdb_lists,
    isic,
    people,
    pictures,
    save_object,
    utkface,
    waterbirds,
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
from lntl.makers.tables import Made, check_images, hash_fraction, write

PLACES = ("land", "water")


def table(made: Made, folder: Path, source: Path) -> list[dict[str, str]]:
    """Return the rows of the written table; every image must be there."""
    check_images(source, made)
    write(folder / "made.csv", made)
    with (folder / "made.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_waterbirds(tmp_path: Path) -> None:
    source = waterbirds(tmp_path / "birds")
    found = table(waterbirds_maker.make(source), tmp_path, source)
    assert len(found) == 48
    for k, row in enumerate(found):
        assert (source / row["image"]).exists()
        assert row["label"] == ("landbird", "waterbird")[k % 2]
        assert row["background"] == PLACES[k // 6 % 2]
        assert row["split"] == ("train", "val", "test")[k // 2 % 3]


@pytest.mark.parametrize("kind", ["txt", "csv"])
def test_celeba(tmp_path: Path, kind: str) -> None:
    source = celeba(tmp_path / "faces", kind)
    found = table(celeba_maker.make(source, ["Blond_Hair", "Male"]), tmp_path, source)
    assert len(found) == 48
    for k, row in enumerate(found):
        assert (source / row["image"]).exists()
        assert row["image"].endswith(f"/{k + 1:06d}.jpg")
        assert row["Blond_Hair"] == ("blond hair", "not blond hair")[k % 2]
        assert row["Male"] == ("male", "not male")[k // 6 % 2]
        assert row["split"] == ("train", "val", "test")[k // 2 % 3]


@pytest.mark.parametrize("train", ["tb1", "tb2"])
@pytest.mark.parametrize("nested", [False, True])
def test_dogs_and_cats(tmp_path: Path, train: str, nested: bool) -> None:
    source = dogs_and_cats(tmp_path / "pets")
    if nested:
        (source / "train").rename(source / "inner")
        (source / "train").mkdir()
        (source / "inner").rename(source / "train/train")
    found = table(dogs_and_cats_maker.make(source, source, train, held_out=0.2), tmp_path, source)
    assert len(found) == 80  # twenty bright and twenty dark of each
    learned = {"tb1": {("dog", "bright"), ("cat", "dark")}, "tb2": {("dog", "dark"), ("cat", "bright")}}[train]
    for row in found:
        assert (source / row["image"]).exists()
        name = Path(row["image"]).name
        assert row["label"] == name[:3]
        assert row["color"] == ("bright", "dark")[int(name.split(".")[1]) % 3]
        inside = (row["label"], row["color"]) in learned
        assert row["split"] == ("train" if inside and hash_fraction(name) >= 0.2 else "test")
    kept = [row for row in found if (row["label"], row["color"]) in learned]
    assert 0 < sum(row["split"] == "test" for row in kept) < 20
    whole = dogs_and_cats_maker.make(source, source, train, held_out=0)
    assert whole.columns["split"].count("train") == 40


def test_counterexamples_move_from_test_to_train_and_a_larger_number_includes_a_smaller(tmp_path: Path) -> None:
    source = dogs_and_cats(tmp_path / "pets")
    plain, *made = (
        dogs_and_cats_maker.make(source, source, "tb1", 0.2, added, seed).columns
        for added, seed in ((0, 0), (4, 0), (7, 0), (4, 1))
    )
    moved = []
    for columns in made:
        assert columns["image"] == plain["image"]
        changed = [k for k, split in enumerate(columns["split"]) if split != plain["split"][k]]
        assert {columns["split"][k] for k in changed} == {"train"}
        assert {(columns["label"][k], columns["color"][k]) for k in changed} == {("cat", "bright"), ("dog", "dark")}
        assert abs(sum(1 if columns["label"][k] == "cat" else -1 for k in changed)) <= 1
        moved.append(set(changed))
    four, seven, other_seed = moved
    assert (len(four), len(seven), len(other_seed)) == (4, 7, 4)
    assert four < seven
    assert four != other_seed
    with pytest.raises(UserError, match=r"--counterexamples 21: at most 20, half of the 40 images of the other set"):
        dogs_and_cats_maker.make(source, source, "tb1", 0.2, 21)


@pytest.mark.parametrize("train", ["eb1", "eb2"])
def test_utkface(tmp_path: Path, train: str) -> None:
    source = utkface(tmp_path / "faces")
    made = utkface_maker.make(source, train, held_out=0.3)
    found = {row["image"]: row for row in table(made, tmp_path, source)}
    for k in range(80):
        gender, group = ("male", "female")[k % 2], ("0-29", None, "40+")[k // 2 % 3]
        name = f"part{k % 2}/{(20, 35, 50)[k // 2 % 3]}_{k % 2}_{k % 5}_{2017 + k}.jpg.chip.jpg"
        if group is None:
            assert name not in found
            continue
        own = (gender == "female") == ((group == "0-29") == (train == "eb1"))
        row = found[name]
        assert (row["gender"], row["age_group"], row["age"]) == (gender, group, name[6:8])
        assert row["race"] == ("white", "black", "asian", "indian", "other")[k % 5]
        assert row["split"] == ("train" if own and hash_fraction(name) >= 0.3 else "test")
    assert {(row["gender"], row["age_group"]) for row in found.values() if row["split"] == "test"} == {
        (gender, group) for gender in ("male", "female") for group in ("0-29", "40+")
    }
    assert [note.split(" ", 1)[0] for note in made.notes] == ["26", "1"]
    assert utkface_maker.make(source, train, 0.3, 2).columns["split"].count("train") == 2 + sum(
        row["split"] == "train" for row in found.values()
    )


def test_one_of_equal_faces_is_used_and_none_if_their_labels_differ(tmp_path: Path) -> None:
    source = utkface(tmp_path / "faces")
    before = utkface_maker.make(source, "eb1", 0.2).columns["image"]
    first, other = before[0], next(name for name in before if name[6:10] != before[0][6:10])
    age_and_gender = first[6:10]
    (source / f"part0/{age_and_gender}_0_9999.jpg").write_bytes((source / first).read_bytes())
    (source / f"part0/{age_and_gender}_1_9999.jpg").write_bytes((source / other).read_bytes())
    made = utkface_maker.make(source, "eb1", 0.2)
    assert sorted(made.columns["image"]) == sorted({*before} - {other})
    assert (
        made.notes[1] == "3 images are left out as duplicates, or because equal images have another gender or age group"
    )


def test_isic(tmp_path: Path) -> None:
    source = isic(tmp_path / "isic")
    made = isic_maker.make(source, source, 2)
    found = {row["image"]: row for row in table(made, tmp_path, source)}
    assert len(found) == 60
    for k in range(60):
        row = found[f"images/ISIC_{k:07d}.jpg"]
        assert row["label"] == ("benign", "malignant")[k % 2]
        assert row["ruler"] == ("no ruler", "ruler")[k // 2 % 2]
        assert row["dark_corner"] == "no dark corner"
        assert row["split"] == ("train", "val", "test")[k // 4 % 3]
    assert made.notes == ["20 images of val are listed in train, too, and are in val alone"]


def test_bar(tmp_path: Path) -> None:
    source = bar(tmp_path / "bar")
    (source / "train/notes.txt").write_text("none")
    made = bar_maker.make(source)
    found = table(made, tmp_path, source)
    assert len(found) == 60
    for row in found:
        assert (source / row["image"]).exists()
        assert row["image"].startswith(f"{row['split']}/")
        assert row["label"] == row["image"].partition("/")[2].partition("_")[0].replace("pole ", "")
    assert made.bias is None
    assert made.notes == [f"1 files are not images of an action and are left out, first {source}/train/notes.txt"]


def test_a_place_is_a_uniform_function_of_the_name() -> None:
    fractions = [hash_fraction(f"cat.{k}.jpg") for k in range(5000)]
    assert fractions == [hash_fraction(f"cat.{k}.jpg") for k in range(5000)]
    assert np.mean(np.array(fractions) < 0.2) == pytest.approx(0.2, abs=0.02)
    assert min(fractions) >= 0
    assert max(fractions) < 1


@pytest.mark.parametrize("train", ["eb1", "eb2"])
def test_imdb_faces_from_metadata(tmp_path: Path, train: str) -> None:
    source = imdb_crop(tmp_path / "imdb_crop", list(people()))
    made = imdb_faces_maker.make(source, None, train)
    found = {row["image"]: row for row in table(made, tmp_path, source)}
    unused = 0
    for k, face in enumerate(people()):
        gender, age = ("female", "male")[k % 2], (19, 34, 49)[k // 2 % 3] + 1
        group = {20: "0-29", 35: None, 50: "40+"}[age]
        wanted = {"eb1": {"female": "0-29", "male": "40+"}, "eb2": {"female": "40+", "male": "0-29"}}[train]
        test = hash_fraction(f"nm{k:07d}") < 0.2
        split = None if group is None else "test" if test else "train" if wanted[gender] == group else None
        unused += split is None
        if split is None:
            assert face["full_path"] not in found
        else:
            expected = {"image": face["full_path"], "gender": gender, "age": str(age), "age_group": group}
            assert found[face["full_path"]] == expected | {"person": f"nm{k:07d}", "split": split}
    tested = {(row["gender"], row["age_group"]) for row in found.values() if row["split"] == "test"}
    assert len(tested) == 4  # the test set holds all groups
    assert made.notes == [f"{unused} faces are in no set, or only in the other training set"]


def test_faces_with_doubtful_metadata_are_left_out_and_counted(tmp_path: Path) -> None:
    faces = list(people(8))
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
    kept, notes = read_metadata(imdb_crop(tmp_path / "imdb_crop", faces))
    assert [face.image for face in kept] == [faces[7]["full_path"]]
    assert notes == [
        "1 faces of no known gender are left out",
        "3 faces of no age from 0 to 100 years are left out",
        "2 faces with a detector score below 1 are left out",
        "1 faces with a second face are left out",
    ]


def test_the_age_is_that_of_the_middle_of_the_year(tmp_path: Path) -> None:
    born = [date(1950, 1, 1), date(1950, 6, 30), date(1950, 7, 1), date(1971, 12, 31), date(1904, 2, 29)]
    faces = list(people(len(born)))
    for face, day in zip(faces, born, strict=True):
        face.update(dob=float(day.toordinal() + 366) + 0.25, photo_taken=2000)  # Matlab counts from the year 0
    kept, _ = read_metadata(imdb_crop(tmp_path / "imdb_crop", faces))
    middle = date(2000, 6, 30)
    ages = [2000 - day.year - ((day.month, day.day) > (middle.month, middle.day)) for day in born]
    assert [face.age for face in kept] == ages == [50, 50, 49, 28, 96]


@pytest.mark.parametrize("train", ["eb1", "eb2"])
def test_imdb_faces_from_the_authors_lists(tmp_path: Path, train: str) -> None:
    faces = list(people())
    pictures(tmp_path, [face["full_path"] for face in faces])
    made = imdb_faces_maker.make(tmp_path, imdb_lists(tmp_path / "lists", faces), train)
    found = table(made, tmp_path, tmp_path)
    test = [row for row in found if row["split"] == "test"]
    between = sum(face["photo_taken"] == 2005 for face in faces[-10:])
    assert {row["image"] for row in test} == {f["full_path"] for f in faces[-10:] if f["photo_taken"] != 2005}
    assert made.notes == [f"{between} faces are in no set, or only in the other training set"]
    pairs = {(row["gender"], row["age_group"]) for row in found if row["split"] == "train"}
    assert pairs == {"eb1": {("female", "0-29"), ("male", "40+")}, "eb2": {("female", "40+"), ("male", "0-29")}}[train]
    assert {(row["image"], row["age"], row["gender"]) for row in found} <= {
        (f["full_path"], str(f["photo_taken"] - 1970), ("female", "male")[int(f["gender"])]) for f in faces
    }


# --- what is wrong ---


class Runs:
    """Would run code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def pets(source: Path) -> object:
    return dogs_and_cats_maker.make(source, source, "tb1", 0.2)


def listed(source: Path) -> object:
    return imdb_faces_maker.make(source, source, "eb1")


def rewrite(name: str, old: str, new: str) -> Callable[[Path], object]:
    """Return a function that changes a text file of a download, wherever its first `old` is."""

    def change(source: Path) -> None:
        text = (source / name).read_text()
        assert old in text
        (source / name).write_text(text.replace(old, new, 1))

    return change


def attributes(*names: str) -> Callable[[Path], object]:
    return lambda source: celeba_maker.make(source, list(names))


def txt(path: Path) -> Path:
    return celeba(path, "txt")


def kaggle(path: Path) -> Path:
    return celeba(path, "csv")


def crop(path: Path) -> Path:
    return imdb_crop(path, list(people(4)))


def lists(path: Path) -> Path:
    return imdb_lists(path, list(people(20)))


def test_attributes_are_named_once(tmp_path: Path) -> None:
    source = celeba(tmp_path / "faces", "csv")
    for names in (["Male", "Male"], ["Male"], ["Blond_Hair", "Male", "Male"]):
        with pytest.raises(UserError, match="--attribute: name at least two different"):
            celeba_maker.make(source, names)


def nothing(path: Path) -> None:
    """Change nothing."""


ATTR, PART = "Anno/list_attr_celeba.txt", "Eval/list_eval_partition.txt"
FAULTS: dict[str, tuple[Any, Any, Any, str]] = {
    "no images": (
        dogs_and_cats,
        lambda s: (s / "train").rename(s / "else"),
        pets,
        r"no train in it \(nor train/train\); name the folder that you unpacked, see docs/DATA_SETS\.md",
    ),
    "no list": (dogs_and_cats, lambda s: (s / "list_dark.txt").unlink(), pets, r"no list_dark\.txt in it; name"),
    "a foreign name": (
        dogs_and_cats,
        rewrite("list_dark.txt", "cat.4.jpg", "\n pig.4.jpg"),
        pets,
        r"list_dark\.txt: line 3 is 'pig\.4\.jpg'; expected a name like cat\.0\.jpg",
    ),
    "bright and dark": (
        dogs_and_cats,
        rewrite("list_dark.txt", "cat.4.jpg", "cat.3.jpg"),
        pets,
        r"list_dark\.txt: line 2: cat\.3\.jpg is already listed, as bright",
    ),
    "no text": (
        dogs_and_cats,
        lambda s: (s / "list_dark.txt").write_bytes(b"\xff\xfe\x00"),
        pets,
        r"list_dark\.txt: cannot read it as text: .*codec",
    ),
    "no metadata": (
        waterbirds,
        lambda s: (s / "metadata.csv").unlink(),
        waterbirds_maker.make,
        r"no metadata\.csv in it; name the folder",
    ),
    "a row without its last fields": (
        waterbirds,
        rewrite("metadata.csv", ",1,0,0,/o/ocean/0001.jpg", ",1"),
        waterbirds_maker.make,
        r"metadata\.csv: line 3 has 3 fields, but the header has 6; name the folder",
    ),
    "a quotation mark left open": (
        waterbirds,
        rewrite("metadata.csv", "1,001.", '1,"001.'),
        waterbirds_maker.make,
        r"metadata\.csv: line \d+ (has|is not CSV)",
    ),
    "no column": (
        waterbirds,
        rewrite("metadata.csv", "place,", "ground,"),
        waterbirds_maker.make,
        r"metadata\.csv: no column place; its header is img_id, img_filename, y, split, ground, place_filename",
    ),
    "an unknown code": (
        waterbirds,
        rewrite("metadata.csv", "1,001.Some_Bird/Some_Bird_0001.jpg,1,", "\n1,001.Some_Bird/Some_Bird_0001.jpg,7,"),
        waterbirds_maker.make,
        r"metadata\.csv: line 4: y is '7'; valid: 0 \(landbird\), 1 \(waterbird\)",
    ),
    "an unknown attribute": (
        txt,
        nothing,
        attributes("Blond", "Male"),
        r"list_attr_celeba\.txt: no attribute 'Blond'; did you mean 'Blond_Hair'\?",
    ),
    "one attribute": (kaggle, nothing, attributes("Male", "Male"), r"--attribute: name at least two different"),
    "faces with other names": (
        utkface,
        lambda s: [path.rename(path.with_name(f"face_{path.name}")) for path in s.rglob("*.jpg")],
        lambda s: utkface_maker.make(s, "eb1", 0.2),
        r"no image in it is named like 25_1_0_20170116171048641\.jpg",
    ),
    "no folder": (
        utkface,
        lambda s: s.rename(s.with_name("gone")),
        lambda s: utkface_maker.make(s, "eb1", 0.2),
        r"download: there is no such folder; name the folder that you unpacked",
    ),
    "no list of the trap set": (
        isic,
        nothing,
        lambda s: isic_maker.make(s, s, 3),
        r"no isic_annotated_val3\.csv in it \(nor trap-sets/isic_annotated_val3\.csv\)",
    ),
    "a lesion without its image": (
        isic,
        lambda s: (s / "images/ISIC_0000000.jpg").unlink(),
        lambda s: isic_maker.make(s, s, 2),
        r"1 of 60 listed images are not below it, the first ISIC_0000000\.jpg; name the folder",
    ),
    "a lesion in train and test": (
        isic,
        rewrite("trap-sets/isic_annotated_train2.csv", "ISIC_0000000", "ISIC_0000008"),
        lambda s: isic_maker.make(s, s, 2),
        r"isic_annotated_train2\.csv: line 2: ISIC_0000008 is already listed, in test",
    ),
    "another diagnosis": (
        isic,
        rewrite("trap-sets/isic_annotated_test2.csv", "benign", "unknown"),
        lambda s: isic_maker.make(s, s, 2),
        r"isic_annotated_test2\.csv: line 2: label_string is 'unknown'; valid: benign \(benign\)",
    ),
    "no test folder": (
        bar,
        lambda s: (s / "test").rename(s / "eval"),
        bar_maker.make,
        r"no test in it; name the folder that you unpacked",
    ),
    "no action": (
        waterbirds,
        lambda s: [(s / name).mkdir() for name in ("train", "test")],
        bar_maker.make,
        r"train: no image in it is named like climbing_0\.jpg",
    ),
    "a missing photograph": (
        dogs_and_cats,
        lambda s: (s / "train/dog.1.jpg").unlink(),
        lambda s: check_images(s, pets(s)),
        r"1 of 80 listed images are missing, the first train/dog\.1\.jpg; unpack lists and images of one version again",
    ),
    "a short row": (
        txt,
        rewrite(ATTR, "000001.jpg  -1", "000001.jpg"),
        attributes("Blond_Hair", "Male"),
        r"list_attr_celeba\.txt: 000001\.jpg has 3 values for 4 attributes",
    ),
    "an attribute of 0": (
        txt,
        rewrite(ATTR, "000001.jpg  -1  1", "000001.jpg  -1  0"),
        attributes("Blond_Hair", "Male"),
        r"000001\.jpg: Blond_Hair is '0'; valid: 1 \(blond hair\), -1 \(not blond hair\)",
    ),
    "a partition of 3": (
        txt,
        rewrite(PART, "000001.jpg 0", "000001.jpg 3"),
        attributes("Blond_Hair", "Male"),
        r"000001\.jpg: the partition is '3'; valid: 0 \(train\)",
    ),
    "no partition": (
        txt,
        rewrite(PART, "000001.jpg 0\n", ""),
        attributes("Blond_Hair", "Male"),
        r"000001\.jpg has no row in list_eval_partition",
    ),
    "an empty list of attributes": (
        txt,
        lambda s: (s / ATTR).write_text(""),
        attributes("Blond_Hair", "Male"),
        r"list_attr_celeba\.txt: no attribute 'Blond_Hair'",
    ),
    "an empty table of attributes": (
        kaggle,
        lambda s: (s / "list_attr_celeba.csv").write_text(""),
        attributes("Blond_Hair", "Male"),
        r"list_attr_celeba\.csv: no attribute 'Blond_Hair'",
    ),
    "an imdb.mat of other fields": (
        crop,
        lambda s: savemat(s / "imdb.mat", {"imdb": {"dob": np.zeros((1, 3))}}),
        lambda s: imdb_faces_maker.make(s, None, "eb1"),
        r"imdb\.mat: not the metadata of IMDB-WIKI \(.+\); unpack imdb_crop\.tar again",
    ),
    "labels that are a list": (
        lists,
        lambda s: np.save(s / "imdb_age_gender.npy", np.array(["a", "b"])),
        listed,
        r"imdb_age_gender\.npy: not one of the authors' lists \(it has no dict\); fetch it again",
    ),
    "a number for a list": (
        lists,
        lambda s: save_object(s / "imdb_split.npy", {"test_list": 3}),
        listed,
        r"imdb_split\.npy: not one of the authors' lists \(it has no list of names\); fetch it again",
    ),
    "no imdb.mat": (
        crop,
        lambda s: (s / "imdb.mat").unlink(),
        lambda s: imdb_faces_maker.make(s, None, "eb1"),
        r"no imdb\.mat in it",
    ),
    "a foreign imdb.mat": (
        crop,
        lambda s: (s / "imdb.mat").write_text("no metadata, only some words of text, more than a header has: " * 9),
        lambda s: imdb_faces_maker.make(s, None, "eb1"),
        r"imdb\.mat: not the metadata of IMDB-WIKI \(.+\); unpack imdb_crop\.tar again",
    ),
    "a list that runs code": (
        lists,
        lambda s: save_object(s / "imdb_split.npy", Runs()),
        listed,
        r"imdb_split\.npy: not one of the authors' lists \(it contains .*, which is not an array\)",
    ),
    "no test list": (
        lists,
        lambda s: save_object(s / "imdb_split.npy", {"train_list": []}),
        listed,
        r"imdb_split\.npy: no test_list in it",
    ),
    "a face without labels": (
        lists,
        lambda s: np.save(s / "eb1_img_list.npy", np.array(["07/nm1_rm2_1970-1-1_2000.jpg"])),
        listed,
        r"imdb_age_gender\.npy: it has no age and gender of 07/nm1_rm2_1970-1-1_2000\.jpg",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_download_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.chdir(tmp_path)
    made, change, use, message = FAULTS[fault]
    source = made(tmp_path / "download")
    change(source)
    with pytest.raises(UserError) as caught:
        use(source)
    assert re.search(message, str(caught.value)), caught.value
    assert "\n" not in str(caught.value)
    assert not Path("ran").exists()


def test_a_table_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "made.csv").write_text("mine")
    with pytest.raises(UserError, match=r"made\.csv exists already; move it away first"):
        write(tmp_path / "made.csv", Made({"image": []}, "label", "bias", []))
    assert (tmp_path / "made.csv").read_text() == "mine"


MAKERS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], Made]]] = {
    "waterbirds": (waterbirds, waterbirds_maker.make),
    "celeba": (kaggle, lambda source: celeba_maker.make(source, ["Blond_Hair", "Male"])),
    "dogs_and_cats": (dogs_and_cats, lambda source: dogs_and_cats_maker.make(source, source, "tb1", 0.2)),
    "imdb_faces": (
        lambda folder: imdb_crop(folder, list(people())),
        lambda source: imdb_faces_maker.make(source, None, "eb1"),
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_wrong_folder_a_missing_image_or_an_empty_split_is_a_sentence(tmp_path: Path, name: str) -> None:
    download, make = MAKERS[name]
    with pytest.raises(UserError, match="none: there is no such folder; name the folder that you unpacked"):
        make(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: no .* in it.*; name the folder that you unpacked"):
        make(tmp_path / "empty")
    source = download(tmp_path / "download")
    made = make(source)
    for gone in made.columns["image"][:4]:
        (source / gone).unlink()
    with pytest.raises(UserError) as caught:
        check_images(source, made)
    assert str(caught.value) == (
        f"{source}: 4 of {len(made.columns['image'])} listed images are missing, the first {made.columns['image'][0]}; "
        "unpack lists and images of one version again, or name the right folder"
    )
    for split in ("train", "test"):
        kept = [k for k, part in enumerate(made.columns["split"]) if part != split]
        columns = {column: [values[k] for k in kept] for column, values in made.columns.items()}
        with pytest.raises(UserError, match=f"download: it has no image for {split}"):
            check_images(source, Made(columns, made.label, made.bias, made.notes))
