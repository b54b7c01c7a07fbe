"""The data set `huggingface`: saved data sets, Parquet shards and folders of images, which the tests write."""

import csv
import io
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny_runs import lntl

from lntl.data import load
from lntl.data.huggingface import HuggingFace
from lntl.errors import UserError
from lntl.types import IGNORE

datasets = pytest.importorskip("datasets")

CLASSES, SKIES = ("cat", "dog"), ("day", "night")
SIZES = {"train": 24, "validation": 8, "test": 8}


@pytest.fixture(autouse=True)
def refuse_connections(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Fail on any connection; put the cache of the library into the folder of the test."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection to the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def encode_image(number: int, side: int = 12) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def make_columns(n: int, first_image: int = 0) -> dict[str, list[Any]]:
    return {
        "image": [{"bytes": encode_image(first_image + i), "path": None} for i in range(n)],
        "label": [i % 2 for i in range(n)],
        "sky": [SKIES[i // 2 % 2] for i in range(n)],
        "age": [20 + i for i in range(n)],
    }


FEATURES = {
    "image": datasets.Image(),
    "label": datasets.ClassLabel(names=CLASSES),
    "sky": datasets.Value("string"),
    "age": datasets.Value("int64"),
}


def make_dataset() -> Any:
    splits = {
        name: datasets.Dataset.from_dict(make_columns(n, 100 * k), features=datasets.Features(FEATURES))
        for k, (name, n) in enumerate(SIZES.items())
    }
    return datasets.DatasetDict(splits)


def save_to_disk(folder: Path) -> Path:
    make_dataset().save_to_disk(str(folder), num_shards=dict.fromkeys(SIZES, 2))
    return folder


def write_shards(folder: Path) -> Path:
    folder.mkdir()
    for name, split in make_dataset().items():
        for number in range(2):
            split.shard(2, number, contiguous=True).to_parquet(folder / f"{name}-{number:05d}-of-00002.parquet")
    return folder


def write_image_folders(folder: Path) -> Path:
    for k, (name, n) in enumerate(SIZES.items()):
        (folder / name).mkdir(parents=True)
        with (folder / name / "metadata.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file_name", "label", "sky", "age"])
            for i, (label, sky, age) in enumerate(zip(*[*make_columns(n).values()][1:], strict=True)):
                (folder / name / f"{i}.png").write_bytes(encode_image(100 * k + i))
                writer.writerow([f"{i}.png", CLASSES[label], sky, age])
    return folder


def open_dataset(path: Path, **settings: Any) -> HuggingFace:
    settings = {"bias": "sky", "size": 12, "check": "read"} | settings
    return HuggingFace(HuggingFace.Config(path=str(path), **settings))


# The library leaves the files of its metadata open.
@pytest.mark.filterwarnings(r"ignore:.*metadata\.csv:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings(r"ignore:.*metadata\.csv:ResourceWarning")
@pytest.mark.parametrize("make", [save_to_disk, write_shards, write_image_folders])
def test_saved_sets_shards_and_image_folders_give_the_same_rows(make: Callable[[Path], Path], tmp_path: Path) -> None:
    data = open_dataset(make(tmp_path / "set"))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 24, "val": 8, "test": 8}
    assert data.spec.class_names == CLASSES
    assert data.spec.bias_value_names == SKIES
    for k, split in enumerate(data.splits.values()):
        names = [data.row_name(row) for row in split.row.tolist()]  # "row 7 of train" or /folder/6.png
        image_numbers = [int(Path(n).stem) if n.endswith(".png") else int(n.split()[1]) - 1 for n in names]
        expected = [Image.open(io.BytesIO(encode_image(100 * k + i))) for i in image_numbers]
        pixels = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in expected])
        assert torch.equal(split.pixels(torch.arange(len(split))), pixels)
        assert split.y.tolist() == [i % 2 for i in image_numbers]
    if make is not write_image_folders:
        assert data.row_name(0) == "row 1 of train"


def test_splits_are_drawn_or_read_from_a_column(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_dict(make_columns(40) | {"part": ["train"] * 20 + ["val"] * 8 + ["test"] * 12})
    dataset.save_to_disk(str(tmp_path / "set"))
    data = open_dataset(tmp_path / "set", bias=[{"column": "age", "bins": 2}])
    assert sum(map(len, data.splits.values())) == 40
    assert "drawn at random" in data.val_note
    assert data.spec.class_names == ("0", "1")
    assert data.row_name(0) == "row 1"
    data = open_dataset(tmp_path / "set", split="part")
    assert [len(split) for split in data.splits.values()] == [20, 8, 12]


def test_wrong_rows_are_listed_and_can_be_skipped(tmp_path: Path) -> None:
    content = make_columns(40)
    content["image"][3] = None
    content["image"][5] = {"bytes": b"no image", "path": None}
    content["label"][9] = -1  # -1 is an unknown label of a ClassLabel
    datasets.Dataset.from_dict(content, features=datasets.Features(FEATURES)).save_to_disk(str(tmp_path / "set"))
    with pytest.raises(UserError, match="3 of 40 rows are wrong") as error:
        open_dataset(tmp_path / "set")
    for row, fault in ((4, "image is empty"), (6, "unreadable image"), (10, "label is empty")):
        assert f"row {row}: {fault}" in str(error.value)
    data = open_dataset(tmp_path / "set", on_error="skip")
    assert sum(map(len, data.splits.values())) == 37
    assert len(data.skipped_rows) == 3
    for split in data.splits.values():
        for position, row in enumerate(split.row.tolist()):
            number = int(data.row_name(row).split()[1]) - 1
            expected = np.array(Image.open(io.BytesIO(encode_image(number))))
            assert np.array_equal(split.pixels(torch.tensor([position]))[0].permute(1, 2, 0).numpy(), expected)


def test_a_missing_bias_is_ignored(tmp_path: Path) -> None:
    content = make_columns(40)
    content["sky"][::5] = [None] * 8
    datasets.Dataset.from_dict(content, features=datasets.Features(FEATURES)).save_to_disk(str(tmp_path / "set"))
    data = open_dataset(tmp_path / "set")
    assert sum(int((split.group == IGNORE).sum()) for split in data.splits.values()) == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": "lable"}, "no column 'lable'"),
        ({"bias": "image"}, "image holds struct"),
        ({"image": "age"}, "age holds int64; it must hold images, their contents, or names of files"),
    ],
)
def test_an_unsuitable_column_gives_one_sentence(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        open_dataset(save_to_disk(tmp_path / "set"), **settings)


def test_a_folder_that_is_no_data_set_gives_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no such data set; set data\.path"):
        open_dataset(tmp_path / "nothing")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.parquet").write_bytes(b"no parquet")
    with pytest.raises(
        UserError, match=r"broken: not a data set that the library datasets can read: .*data.path"
    ) as error:
        open_dataset(tmp_path / "broken")
    assert "\n" not in str(error.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: not a data set that the library datasets can read"):
        open_dataset(tmp_path / "empty")


def test_without_the_library_the_error_names_the_command_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    settings = HuggingFace.Config(path=str(tmp_path), bias="sky")
    with pytest.raises(UserError, match=r"huggingface needs the library datasets .*pip install 'lntl\[huggingface\]'"):
        load("huggingface", settings)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    raw = {
        "project": {"experiment_name": "tiny"},
        "data": {
            "name": "huggingface", "path": str(write_shards(tmp_path / "set")), "bias": "sky", "size": 12,
            "arrow_dir": str(tmp_path / "arrow"),
        },
        "model": {"name": "lenet"},
        "training": {"device": "cpu", "batch_size": 12, "phases": [{"method": "lntl", "epochs": 1}]},
        "logging": {"trackers": []},
    }  # fmt: skip
    Path("tiny.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    return "tiny.yaml"


@pytest.mark.full
def test_check_train_eval_and_predict_read_the_data_set(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert lntl("data", "check", config) in (0, 1)  # 1 because the check finds problems in random labels
    assert lntl("train", config) == 0
    assert lntl("eval", "results/tiny") == 0
    assert lntl("predict", "results/tiny", "set", "--out", "all.csv") == 0
    with Path("all.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == 40
    assert rows[0]["path"] == "set: row 1 of train"
    assert lntl("predict", "results/tiny", "set/test-00000-of-00002.parquet", "--out", "shard.csv") == 0
    with Path("shard.csv").open(newline="") as file:
        shard_rows = [*csv.DictReader(file)]
    assert len(shard_rows) == 4
    predictions = {row["path"]: row["prediction"] for row in rows}
    assert [row["prediction"] for row in shard_rows] == [predictions[f"set: row {k} of test"] for k in (1, 2, 3, 4)]
    assert json.loads(Path("results/tiny/result.json").read_text())["sizes"] == {"train": 24, "val": 8, "test": 8}
    assert list(Path("arrow").rglob("*.arrow"))  # the images are memory-mapped from this folder


def test_the_numbers_of_a_class_label_have_the_names_of_their_split(tmp_path: Path) -> None:
    data_set = make_dataset()
    columns = make_columns(8, 200) | {"label": [1 - label for label in make_columns(8)["label"]]}
    features = datasets.Features(FEATURES | {"label": datasets.ClassLabel(names=CLASSES[::-1])})
    data_set["test"] = datasets.Dataset.from_dict(columns, features=features)
    data_set.save_to_disk(tmp_path / "saved")
    data = open_dataset(tmp_path / "saved")
    assert data.spec.class_names == CLASSES
    for split in data.splits.values():
        assert split.y.tolist() == [i % 2 for i in range(len(split))]


def test_files_that_the_library_ignores_are_named_and_a_missing_shard_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for name, split in make_dataset().items():
        split.to_parquet(folder / f"{name}-00000-of-00001.parquet")
    assert "ignores" not in open_dataset(folder).source
    make_dataset()["test"].to_parquet(folder / "more.parquet")
    assert "the library datasets ignores 1 of 4 files: more.parquet" in open_dataset(folder).source
    (folder / "train-00000-of-00001.parquet").rename(folder / "train-00001-of-00003.parquet")
    with pytest.raises(
        UserError,
        match=r"shards/train-00000-of-00003\.parquet: missing, with 2 of the 3 files of train; copy them there",
    ):
        open_dataset(folder)


def test_images_that_the_library_ignores_are_named(tmp_path: Path) -> None:
    for name in ("train/cat/a.png", "train/dog/b.jfif", "test/cat/c.png", "test/dog/d.png", "extra/cat/e.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        image_format = "PNG" if name.endswith("png") else "JPEG"
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name, image_format)
    for k in range(20):
        Image.new("RGB", (8, 8)).save(tmp_path / f"images/train/cat/{k}.png")
    (tmp_path / "images/test/dog/notes.txt").touch()
    source = open_dataset(tmp_path / "images", bias=[]).source
    assert "the library datasets ignores 2 of 26 files: extra/cat/e.png, test/dog/notes.txt" in source
