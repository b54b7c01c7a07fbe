"""The data set `folders`: images in folders whose names are the split, the label and the bias."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from lntl.data.folders import Folders, image_files
from lntl.errors import UserError

CELLS = [(s, y, b) for s in ("train", "val", "test") for y in ("cat", "dog") for b in ("day", "night")]


def write_image(path: Path, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), (shade, shade, shade)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images of each cell, and files that are no images."""
    for index, cell in enumerate(CELLS):
        for k in range(2):
            write_image(tmp_path.joinpath("data", *cell, f"{k}.PNG"), 10 * (2 * index + k))
    (tmp_path / "data/train/cat/day/notes.txt").write_text("")
    write_image(tmp_path / "data/train/cat/day/.hidden.png", 0)
    write_image(tmp_path / "data/.thumbnails/a.png", 0)
    return tmp_path / "data"


def build_data(root: Path, **settings: Any) -> Folders:
    return Folders(Folders.Config.model_validate({"root": str(root), "size": 4} | settings))


def test_folder_names_give_split_label_and_bias(root: Path) -> None:
    data = build_data(root)
    assert (data.spec.class_names, data.spec.bias_value_names) == (("cat", "dog"), ("day", "night"))
    assert data.spec.num_rows == 24
    for name, split in data.splits.items():
        shades = split.pixels(torch.arange(len(split)))[:, 0, 0, 0] // 10
        expected = [CELLS[shade // 2] for shade in shades.tolist()]
        biases = split.group - split.y * 2
        actual = [
            (name, data.spec.class_names[y], data.spec.bias_value_names[b])
            for y, b in zip(split.y, biases, strict=True)
        ]
        assert actual == expected
        assert len(split) == 8


def test_levels_can_be_set_and_biases_computed(root: Path) -> None:
    data = build_data(root / "train", levels=["label", "bias"], val_fraction=0.25)
    assert sum(len(split) for split in data.splits.values()) == 8
    data_with_computed_bias = build_data(root, levels=["split", "label"], bias={"from": "brightness", "bins": 2})
    assert data_with_computed_bias.spec.bias_value_names[0].startswith("brightness below")


def test_wrong_files_are_listed_by_their_paths(root: Path) -> None:
    write_image(root / "tests/cat/day/9.png", 0)
    write_image(root / "train/cat/loose.png", 0)
    (root / "val/dog/day/0.PNG").write_bytes(b"none")
    with pytest.raises(UserError, match="3 of 26 rows are wrong") as error:
        build_data(root)
    lines = [line.strip() for line in str(error.value).splitlines()[1:]]
    assert [line.partition(":")[0] for line in lines] == [
        "file tests/cat/day/9.png",
        "file train/cat/loose.png",
        "file val/dog/day/0.PNG",
    ]
    assert "unknown split 'tests'" in lines[0]
    assert "does not lie in split/label/bias/" in lines[1]
    assert "unreadable image" in lines[2]
    assert len(build_data(root, on_error="skip").skipped_rows) == 3


def test_all_image_formats_are_read_and_other_files_are_counted(root: Path) -> None:
    for suffix in ("jfif", "jpe", "jpeg", "ppm", "pgm", "tiff", "bmp", "webp", "gif", "jp2"):
        write_image(root / f"train/cat/day/more.{suffix}", 9)
    (root / "train/cat/day/page.PDF").write_text("")
    (root / "train/cat/day/README").write_text("")
    data = build_data(root)
    assert data.spec.num_rows == 24 + 10
    note = "4 files are ignored, because they are hidden or not images: 1 .pdf, 1 .txt, 1 hidden, 1 without suffix"
    assert note in data.notes
    assert note in data.source


@pytest.mark.parametrize("check", ["read", "header"])
def test_files_with_several_frames_or_pages_are_named(root: Path, check: str) -> None:
    frames = [Image.new("L", (8, 8), value) for value in (10, 200)]
    names = [root / f"train/cat/day/stack.{suffix}" for suffix in ("gif", "tif", "webp")]
    for name in names:
        frames[0].save(name, save_all=True, append_images=frames[1:])
    write_image(root / "train/cat/day/single.gif", 9)
    note = "3 files have several frames or pages, of which only the first is used: "
    data = build_data(root, check=check)
    assert [text for text in data.notes if "frames" in text] == [note + ", ".join(map(str, names))]
    rows = [row for row in data.splits["train"].row.tolist() if "stack" in data.row_name(row)]
    index = torch.tensor([data.splits["train"].row.tolist().index(row) for row in rows])
    assert len(rows) == 3
    assert int(data.splits["train"].pixels(index).max()) < 20


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no image file \(.apng"):
        build_data(tmp_path)
    with pytest.raises(UserError, match=r"none: there is no such folder; set data\.root"):
        build_data(tmp_path / "none")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": ["split", "bias"]}, "levels must contain label"),
        ({"levels": ["label", "bias", "bias"]}, "name each level once"),
        ({"bias": {"from": "brightness", "bins": 2}}, "levels and bias both name a bias"),
        ({"levels": ["label"], "bias": "sky"}, "folders have no columns"),
    ],
)
def test_invalid_levels_and_biases_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Folders.Config.model_validate({"root": "."} | settings)


def test_links_to_folders_are_followed_except_to_a_parent(root: Path, tmp_path: Path) -> None:
    (root / "train/cat").rename(tmp_path / "cats")
    (root / "train/cat").symlink_to(tmp_path / "cats")
    files = image_files(root)
    (tmp_path / "cats/day/parent_link").symlink_to(tmp_path / "cats")
    (root / "train/dog/night/parent_link").symlink_to(root / "train")
    assert image_files(root) == files
    assert "train/cat/day/0.PNG" in files.names
    (root / "train/eel").symlink_to(root / "train/cat")
    assert build_data(root).spec.class_names == ("cat", "dog", "eel")


def test_broken_links_and_unreadable_folders_are_reported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "train/eel").symlink_to(root / "nowhere")
    with pytest.raises(
        UserError, match=r"train/eel: cannot read this file or folder: No such file or directory; repair"
    ):
        build_data(root)
    (root / "train/eel").unlink()
    (root / "train/cat/day/2.png").symlink_to(root / "nowhere.png")
    with pytest.raises(UserError, match=r"train/cat/day/2\.png: missing file"):
        build_data(root)

    def raise_permission_error(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("lntl.data.folders.os.scandir", raise_permission_error)
    with pytest.raises(UserError, match=r"data: cannot read this file or folder: Permission denied"):
        build_data(root)
