"""Write small folders with the layout, the names and the columns of the real downloads; the images are noise."""

import csv
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

DAY_1970 = 719529  # Matlab's day number of 1 January 1970


def write_noise_images(folder: Path, names: Iterable[str]) -> None:
    """Write an image of noise for each name."""
    rng = np.random.default_rng(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(folder / name)


def write_dogs_and_cats(folder: Path, count: int = 60) -> Path:
    """Write cat.0.jpg ... and dog.0.jpg ...; a third is listed as bright, a third as dark, the rest not at all."""
    names = [f"{animal}.{number}.jpg" for animal in ("cat", "dog") for number in range(count)]
    write_noise_images(folder / "train", names)
    for color, remainder in (("bright", 0), ("dark", 1)):
        listed_names = [name for name in names if int(name.split(".")[1]) % 3 == remainder]
        (folder / f"list_{color}.txt").write_text("\n".join(listed_names) + "\n")
    return folder


def write_waterbirds(folder: Path, count: int = 48) -> Path:
    """Write images and metadata.csv with every combination of bird, place and split."""
    table = [
        (k, f"{k % 4:03d}.Some_Bird/Some_Bird_{k:04d}.jpg", k % 2, k // 2 % 3, k // 6 % 2, "/o/ocean/0001.jpg")
        for k in range(count)
    ]
    write_noise_images(folder, [row[1] for row in table])
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("img_id", "img_filename", "y", "split", "place", "place_filename"), *table])
    return folder


CELEBA_ATTRIBUTES = ("5_o_Clock_Shadow", "Blond_Hair", "Male", "Young")


def write_celeba(folder: Path, kind: str, count: int = 48) -> Path:
    """Write attributes and partition as .txt (in Anno/ and Eval/, as published) or as .csv (the layout of Kaggle)."""
    names = [f"{k + 1:06d}.jpg" for k in range(count)]
    values = [[-1, 1 - 2 * (k % 2), 1 - 2 * (k // 6 % 2), 1] for k in range(count)]
    split_codes = [k // 2 % 3 for k in range(count)]
    if kind == "txt":
        write_noise_images(folder / "Img/img_align_celeba", names)
        (folder / "Anno").mkdir()
        (folder / "Eval").mkdir()
        lines = [f"{name}  {' '.join(f'{v:2d}' for v in row)}" for name, row in zip(names, values, strict=True)]
        (folder / "Anno/list_attr_celeba.txt").write_text(
            "\n".join([str(count), " ".join(CELEBA_ATTRIBUTES) + " ", *lines])
        )
        partition = [f"{name} {code}" for name, code in zip(names, split_codes, strict=True)]
        (folder / "Eval/list_eval_partition.txt").write_text("\n".join(partition) + "\n")
    else:
        write_noise_images(folder / "img_align_celeba/img_align_celeba", names)
        lines = [",".join([name, *map(str, row)]) for name, row in zip(names, values, strict=True)]
        (folder / "list_attr_celeba.csv").write_text("\n".join([f"image_id,{','.join(CELEBA_ATTRIBUTES)}", *lines]))
        partition = [f"{name},{code}" for name, code in zip(names, split_codes, strict=True)]
        (folder / "list_eval_partition.csv").write_text("\n".join(["image_id,partition", *partition]))
    return folder


def write_utkface(folder: Path, count: int = 80) -> Path:
    """Write men and women of 20, 35 and 50 years in turn, in two folders, and a file whose name has no race."""
    names = [f"part{k % 2}/{(20, 35, 50)[k // 2 % 3]}_{k % 2}_{k % 5}_{2017 + k}.jpg.chip.jpg" for k in range(count)]
    write_noise_images(folder, [*names, "part1/61_1_20170109150557335.jpg.chip.jpg"])
    return folder


ARTEFACTS = ("dark_corner", "hair", "gel_border", "gel_bubble", "ruler", "ink", "patches")


def write_isic(folder: Path, count: int = 60) -> Path:
    """Write the lists of trap set 2, in which train includes val; k % 2 is the diagnosis, k // 2 % 2 the ruler."""
    write_noise_images(folder / "images", [f"ISIC_{k:07d}.jpg" for k in range(count)])
    (folder / "trap-sets").mkdir()
    header = ["", "image", *ARTEFACTS, "vasc", "label", "label_string"]
    for split, split_codes in (("train", (0, 1)), ("val", (1,)), ("test", (2,))):
        with (folder / f"trap-sets/isic_annotated_{split}2.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for k in (k for k in range(count) if k // 4 % 3 in split_codes):
                artefacts = [int(name == "ruler" and k // 2 % 2) for name in ARTEFACTS]
                writer.writerow([k, f"ISIC_{k:07d}.png", *artefacts, 0, k % 2, ("benign", "malignant")[k % 2]])
    return folder


def write_bar(folder: Path) -> Path:
    """Write eight images of each action in train/ and two in test/."""
    actions = ("climbing", "diving", "fishing", "pole vaulting", "racing", "throwing")
    for split, count in (("train", 8), ("test", 2)):
        write_noise_images(folder / split, [f"{action}_{k}.jpg" for action in actions for k in range(count)])
    return folder


def make_face_rows(count: int = 80) -> Iterator[dict[str, Any]]:
    """Yield the rows of imdb.mat, one per person: women and men of 20, 35 and 50 years in turn."""
    for k in range(count):
        yield {
            "full_path": f"{k % 100:02d}/nm{k:07d}_rm{k}_1970-1-1_{1990 + 15 * (k // 2 % 3)}.jpg",
            "dob": float(DAY_1970),
            "photo_taken": 1990 + 15 * (k // 2 % 3),
            "gender": float(k % 2),
            "face_score": 3.5,
            "second_face_score": np.nan,
        }


def write_imdb_crop(folder: Path, faces: list[dict[str, Any]]) -> Path:
    """Write images and imdb.mat in the official format: a struct of rows, in which paths are cells of text."""
    write_noise_images(folder, [face["full_path"] for face in faces])
    fields: dict[str, Any] = {
        name: np.array([[face[name] for face in faces]])
        for name in ("dob", "photo_taken", "gender", "face_score", "second_face_score")
    }
    paths = np.empty((1, len(faces)), dtype=object)
    paths[0] = [face["full_path"] for face in faces]
    savemat(folder / "imdb.mat", {"imdb": fields | {"full_path": paths}})
    return folder


def write_imdb_lists(folder: Path, faces: list[dict[str, Any]]) -> Path:
    """Write the authors' files: pickled dicts with names in bytes, and lists of names; the last ten faces are test."""
    folder.mkdir()
    names, ages = [face["full_path"] for face in faces], [face["photo_taken"] - 1970 for face in faces]
    labels = {
        name.encode(): {"age": np.int64(age), "gender": face["gender"]}
        for name, age, face in zip(names, ages, faces, strict=True)
    }
    train_names = names[:-10]
    save_object(folder / "imdb_age_gender.npy", labels)
    save_object(folder / "imdb_split.npy", {"train_list": train_names, "test_list": names[-10:]})
    young_women = [n for n, a, f in zip(train_names, ages, faces, strict=False) if a < 30 and f["gender"] == 0]
    old_men = [n for n, a, f in zip(train_names, ages, faces, strict=False) if a >= 40 and f["gender"] == 1]
    np.save(folder / "eb1_img_list.npy", np.array(young_women + old_men))
    old_women = [n for n, a, f in zip(train_names, ages, faces, strict=False) if a >= 40 and f["gender"] == 0]
    young_men = [n for n, a, f in zip(train_names, ages, faces, strict=False) if a < 30 and f["gender"] == 1]
    np.save(folder / "eb2_img_list.npy", np.array(old_women + young_men, dtype=object), allow_pickle=True)
    return folder


def save_object(path: Path, content: Any) -> None:
    """Save an object as NumPy did when the authors made their files, with pickle protocol 2."""
    array = np.empty((), dtype=object)
    array[()] = content
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        pickle.dump(array, file, protocol=2)
