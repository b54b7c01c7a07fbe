"""Images are decoded once, and again only if the file or its decoding settings have changed."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import write_images
from PIL import Image

from lntl.data import cache
from lntl.data.decoding import UnreadableImageError, decode
from lntl.data.image_settings import ImageSettings
from lntl.errors import UserError

MakeSettings = Callable[..., ImageSettings]


def open_cache(paths: Sequence[Path], settings: ImageSettings) -> cache.NoCache:
    return cache.CACHES[settings.cache](paths, settings)


@pytest.fixture
def make_settings(tmp_path: Path) -> MakeSettings:
    return lambda kind, **options: ImageSettings(size=8, cache=kind, cache_dir=str(tmp_path / "cache"), **options)


@pytest.fixture
def decoded_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The list to which the name of each decoded file is added."""
    names: list[str] = []

    def decode_and_record(path: Path, *arguments: Any) -> Any:
        names.append(path.name)
        return decode(path, *arguments)

    monkeypatch.setattr(cache, "decode", decode_and_record)
    return names


@pytest.mark.parametrize("kind", ["none", "memory", "disk"])
def test_every_cache_returns_the_decoded_images(tmp_path: Path, make_settings: MakeSettings, kind: str) -> None:
    paths = write_images(tmp_path / "images", 5)
    image_cache = open_cache(paths, make_settings(kind, fit="stretch"))
    for _ in range(2):
        for index in (3, 0, 4, 1, 2, 3):
            assert np.array_equal(image_cache(index), decode(paths[index], 8, "stretch"))


@pytest.mark.parametrize(("kind", "times"), [("none", 2), ("memory", 1), ("disk", 1)])
def test_cached_images_are_decoded_once(
    tmp_path: Path, make_settings: MakeSettings, decoded_names: list[str], kind: str, times: int
) -> None:
    image_cache = open_cache(write_images(tmp_path / "images", 3), make_settings(kind))
    for _ in range(2):
        for index in range(3):
            image_cache(index)
    assert decoded_names == ["0.png", "1.png", "2.png"] * times


def test_another_process_uses_the_disk_cache(
    tmp_path: Path, make_settings: MakeSettings, decoded_names: list[str]
) -> None:
    paths = write_images(tmp_path / "images", 3)
    open_cache(paths, make_settings("disk"))(1)
    assert np.array_equal(open_cache(paths[1:], make_settings("disk"))(0), decode(paths[1], 8, "crop"))
    assert decoded_names == ["1.png"]


def test_a_changed_file_is_decoded_again(tmp_path: Path, make_settings: MakeSettings) -> None:
    path = tmp_path / "a.bmp"  # BMP files have the same size for all contents
    image_cache = open_cache([path], make_settings("disk"))
    for step, color in enumerate([(0, 0, 255), (255, 0, 0)]):
        Image.new("RGB", (20, 20), color).save(path)
        os.utime(path, ns=(10**18, 10**18 + step))
        assert (image_cache(0) == color).all()


def test_another_size_fit_or_path_is_another_entry(tmp_path: Path, make_settings: MakeSettings) -> None:
    paths = write_images(tmp_path / "images", 2)
    entries = {
        cache.DiskCache(paths, settings).entry(index)
        for settings in (make_settings("disk"), make_settings("disk", fit="pad"), make_settings("disk", crop="shift"))
        for index in range(2)
    }
    assert len(entries) == 6


@pytest.mark.parametrize("damage", ["truncated", "flipped bit", "empty", "longer"])
def test_a_damaged_entry_is_decoded_again_and_replaced(
    tmp_path: Path, make_settings: MakeSettings, decoded_names: list[str], damage: str
) -> None:
    paths = write_images(tmp_path / "images", 1)
    image_cache = open_cache(paths, make_settings("disk"))
    image = image_cache(0).copy()
    (entry,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    content = entry.read_bytes()
    flipped_content = bytes([*content[:50], content[50] ^ 1, *content[51:]])
    entry.write_bytes(
        {"truncated": content[:-1], "flipped bit": flipped_content, "empty": b"", "longer": content + b"x"}[damage]
    )
    assert np.array_equal(image_cache(0), image)
    assert entry.read_bytes() == content
    assert len(decoded_names) == 2


def test_threads_that_share_a_cache_write_only_complete_entries(tmp_path: Path, make_settings: MakeSettings) -> None:
    paths = write_images(tmp_path / "images", 4)
    image_caches = [open_cache(paths, make_settings("disk")) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda image_cache: [image_cache(index) for index in range(4)], image_caches))
    for images in results:
        for index, image in enumerate(images):
            assert np.array_equal(image, decode(paths[index], 8, "crop"))
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(files) == 4
    assert {path.stat().st_size for path in files} == {8 * 8 * 3 + cache.CHECKSUM_BYTES}


def test_two_writers_of_the_same_entry_do_not_interfere(
    tmp_path: Path, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_have_written, original_replace = threading.Barrier(2, timeout=20), Path.replace

    def replace_together(path: Path, target: Path) -> Path:
        both_have_written.wait()
        return original_replace(path, target)

    monkeypatch.setattr(Path, "replace", replace_together)
    image_caches = [open_cache(write_images(tmp_path / "images", 1), make_settings("disk")) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        first_image, second_image = pool.map(lambda image_cache: image_cache(0), image_caches)
    assert np.array_equal(first_image, second_image)


def test_a_removed_file_is_an_error_even_if_cached(tmp_path: Path, make_settings: MakeSettings) -> None:
    (path,) = write_images(tmp_path / "images", 1)
    image_cache = open_cache([path], make_settings("disk"))
    image_cache(0)
    path.unlink()
    with pytest.raises(UnreadableImageError, match=r"0\.png: no such file or directory"):
        image_cache(0)


def test_a_cache_folder_that_cannot_be_written_is_an_error(tmp_path: Path, make_settings: MakeSettings) -> None:
    (tmp_path / "cache").write_text("in the way")
    image_cache = open_cache(write_images(tmp_path / "images", 1), make_settings("disk"))
    with pytest.raises(UserError, match=r"cannot write the image cache: .*; name another folder with data\.cache_dir"):
        image_cache(0)


def test_a_full_disk_leaves_no_file_behind(
    tmp_path: Path, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raise_no_space(path: Path, content: bytes) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", raise_no_space)
    image_cache = open_cache([tmp_path / "a.png"], make_settings("disk"))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="No space left on device"):
        image_cache(0)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_memory_cache_larger_than_the_memory_is_refused_at_once(make_settings: MakeSettings) -> None:
    paths = [Path("a.png")] * 10**6
    with pytest.raises(UserError, match=r"1000000 images of 4682 x 4682 pixels need 61\d+\.\d GiB of memory"):
        open_cache(paths, ImageSettings(size=4096, crop="resized", cache="memory"))


# --- clearing the cache ---


def list_files(folder: Path) -> set[str]:
    """Return the files below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_clearing_removes_all_entries_and_images_are_decoded_again(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "images", 5)
    settings = ImageSettings(size=8, cache="disk", cache_dir=str(tmp_path / "cache"))
    image_cache = open_cache(paths, settings)
    images = [image_cache(k).copy() for k in range(5)]
    size = sum((tmp_path / "cache" / name).stat().st_size for name in list_files(tmp_path / "cache"))
    assert cache.clear(tmp_path / "cache") == (5, size)
    assert not (tmp_path / "cache").exists()
    assert all(np.array_equal(image_cache(k), image) for k, image in enumerate(images))
    assert len(list_files(tmp_path / "cache")) == 5


def test_clearing_also_removes_unfinished_files_but_no_files_of_others(tmp_path: Path) -> None:
    image_cache = open_cache(
        write_images(tmp_path / "images", 2), ImageSettings(size=8, cache="disk", cache_dir=str(tmp_path))
    )
    image_cache(0)
    (entry,) = (path for path in tmp_path.rglob("*") if len(path.name) == 32)
    unfinished_file = entry.with_name(f"{entry.name}.{'0' * 32}.part")
    unfinished_file.write_bytes(b"unfinished")
    other_files = [
        entry.with_name("notes.txt"),
        tmp_path / "ab.txt",
        tmp_path / "abc" / ("0" * 32),
        tmp_path / ("0" * 32),
    ]
    for path in other_files:
        path.parent.mkdir(exist_ok=True)
        path.write_text("other")
    assert cache.clear(tmp_path)[0] == 2
    assert list_files(tmp_path) == {
        "images/0.png",
        "images/1.png",
        *(str(path.relative_to(tmp_path)) for path in other_files),
    }


def test_a_run_continues_if_the_cache_is_cleared_while_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = write_images(tmp_path / "images", 1)
    image_cache = open_cache([path], ImageSettings(size=8, cache="disk", cache_dir=str(tmp_path / "cache")))
    original_replace = Path.replace

    def clear_and_replace(self: Path, target: Path) -> Path:
        cache.clear(tmp_path / "cache")
        return original_replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", clear_and_replace)
        image = image_cache(0)
    assert np.array_equal(image, decode(path, 8, "crop"))
    assert list_files(tmp_path / "cache") == set()
    image_cache(0)
    assert len(list_files(tmp_path / "cache")) == 1
