"""Images are decoded once, and again only if the file or its decoding settings have changed."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import folder_of
from PIL import Image

from lntl.data import cache
from lntl.data.decoding import UnreadableImageError, decode
from lntl.data.image_settings import ImageSettings
from lntl.errors import UserError

Settings = Callable[..., ImageSettings]


def store_of(paths: Sequence[Path], settings: ImageSettings) -> cache.Uncached:
    return cache.CACHES[settings.cache](paths, settings)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return lambda kind, **others: ImageSettings(size=8, cache=kind, cache_dir=str(tmp_path / "cache"), **others)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were decoded, in order."""
    names: list[str] = []

    def counted(path: Path, *arguments: Any) -> Any:
        names.append(path.name)
        return decode(path, *arguments)

    monkeypatch.setattr(cache, "decode", counted)
    return names


@pytest.mark.parametrize("kind", ["none", "memory", "disk"])
def test_every_cache_returns_the_decoded_images(tmp_path: Path, settings: Settings, kind: str) -> None:
    paths = folder_of(tmp_path / "images", 5)
    store = store_of(paths, settings(kind, fit="stretch"))
    for _ in range(2):
        for place in (3, 0, 4, 1, 2, 3):
            assert np.array_equal(store(place), decode(paths[place], 8, "stretch"))


@pytest.mark.parametrize(("kind", "times"), [("none", 2), ("memory", 1), ("disk", 1)])
def test_cached_images_are_decoded_once(
    tmp_path: Path, settings: Settings, decoded: list[str], kind: str, times: int
) -> None:
    store = store_of(folder_of(tmp_path / "images", 3), settings(kind))
    for _ in range(2):
        for place in range(3):
            store(place)
    assert decoded == ["0.png", "1.png", "2.png"] * times


def test_another_process_uses_the_disk_cache(tmp_path: Path, settings: Settings, decoded: list[str]) -> None:
    paths = folder_of(tmp_path / "images", 3)
    store_of(paths, settings("disk"))(1)
    assert np.array_equal(store_of(paths[1:], settings("disk"))(0), decode(paths[1], 8, "crop"))
    assert decoded == ["1.png"]


def test_a_changed_file_is_decoded_again(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "a.bmp"  # a format whose files are of one size, whatever they show
    store = store_of([path], settings("disk"))
    for step, color in enumerate([(0, 0, 255), (255, 0, 0)]):
        Image.new("RGB", (20, 20), color).save(path)
        os.utime(path, ns=(10**18, 10**18 + step))
        assert (store(0) == color).all()


def test_another_size_fit_or_path_is_another_entry(tmp_path: Path, settings: Settings) -> None:
    paths = folder_of(tmp_path / "images", 2)
    entries = {
        cache.OnDisk(paths, each).entry(place)
        for each in (settings("disk"), settings("disk", fit="pad"), settings("disk", crop="shift"))
        for place in range(2)
    }
    assert len(entries) == 6


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "longer"])
def test_a_damaged_entry_is_decoded_again_and_replaced(
    tmp_path: Path, settings: Settings, decoded: list[str], damage: str
) -> None:
    paths = folder_of(tmp_path / "images", 1)
    store = store_of(paths, settings("disk"))
    right = store(0).copy()
    (entry,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    whole = entry.read_bytes()
    flipped = bytes([*whole[:50], whole[50] ^ 1, *whole[51:]])
    entry.write_bytes({"cut": whole[:-1], "flipped": flipped, "empty": b"", "longer": whole + b"x"}[damage])
    assert np.array_equal(store(0), right)
    assert entry.read_bytes() == whole
    assert len(decoded) == 2


def test_threads_that_share_a_cache_leave_whole_entries_and_nothing_else(tmp_path: Path, settings: Settings) -> None:
    paths = folder_of(tmp_path / "images", 4)
    stores = [store_of(paths, settings("disk")) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda store: [store(place) for place in range(4)], stores))
    for images in found:
        for place, image in enumerate(images):
            assert np.array_equal(image, decode(paths[place], 8, "crop"))
    files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(files) == 4
    assert {path.stat().st_size for path in files} == {8 * 8 * 3 + cache.CHECKSUM}


def test_two_writers_of_the_same_entry_do_not_interfere(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_have_written, replace = threading.Barrier(2, timeout=20), Path.replace

    def met(path: Path, target: Path) -> Path:
        both_have_written.wait()
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", met)
    stores = [store_of(folder_of(tmp_path / "images", 1), settings("disk")) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda store: store(0), stores)
    assert np.array_equal(one, other)


def test_a_removed_file_is_an_error_even_if_cached(tmp_path: Path, settings: Settings) -> None:
    (path,) = folder_of(tmp_path / "images", 1)
    store = store_of([path], settings("disk"))
    store(0)
    path.unlink()
    with pytest.raises(UnreadableImageError, match=r"0\.png: no such file or directory"):
        store(0)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "cache").write_text("in the way")
    store = store_of(folder_of(tmp_path / "images", 1), settings("disk"))
    with pytest.raises(UserError, match=r"cannot write the image cache: .*; name another folder with data\.cache_dir"):
        store(0)


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    store = store_of([tmp_path / "a.png"], settings("disk"))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="No space left on device"):
        store(0)
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_more_than_the_machines_memory_is_refused_at_once(settings: Settings) -> None:
    many = [Path("a.png")] * 10**6
    with pytest.raises(UserError, match=r"1000000 images of 4682 x 4682 pixels need 61\d+\.\d GiB of memory"):
        store_of(many, ImageSettings(size=4096, crop="resized", cache="memory"))


# --- clearing it ---


def kept(folder: Path) -> set[str]:
    """Return the files below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_clearing_removes_all_entries_and_images_are_decoded_again(tmp_path: Path) -> None:
    paths = folder_of(tmp_path / "images", 5)
    settings = ImageSettings(size=8, cache="disk", cache_dir=str(tmp_path / "cache"))
    store = store_of(paths, settings)
    before = [store(k).copy() for k in range(5)]
    size = sum((tmp_path / "cache" / name).stat().st_size for name in kept(tmp_path / "cache"))
    assert cache.clear(tmp_path / "cache") == (5, size)
    assert not (tmp_path / "cache").exists()
    assert all(np.array_equal(store(k), image) for k, image in enumerate(before))
    assert len(kept(tmp_path / "cache")) == 5


def test_clearing_also_removes_unfinished_files_but_no_files_of_others(tmp_path: Path) -> None:
    store = store_of(folder_of(tmp_path / "images", 2), ImageSettings(size=8, cache="disk", cache_dir=str(tmp_path)))
    store(0)
    (entry,) = (path for path in tmp_path.rglob("*") if len(path.name) == 32)
    half = entry.with_name(f"{entry.name}.{'0' * 32}.part")
    half.write_bytes(b"half")
    mine = [entry.with_name("notes.txt"), tmp_path / "ab.txt", tmp_path / "abc" / ("0" * 32), tmp_path / ("0" * 32)]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert cache.clear(tmp_path)[0] == 2
    assert kept(tmp_path) == {"images/0.png", "images/1.png", *(str(path.relative_to(tmp_path)) for path in mine)}


def test_a_run_continues_if_the_cache_is_cleared_while_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = folder_of(tmp_path / "images", 1)
    store = store_of([path], ImageSettings(size=8, cache="disk", cache_dir=str(tmp_path / "cache")))
    replace = Path.replace

    def cleared(self: Path, target: Path) -> Path:
        cache.clear(tmp_path / "cache")
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", cleared)
        image = store(0)
    assert np.array_equal(image, decode(path, 8, "crop"))
    assert kept(tmp_path / "cache") == set()
    store(0)
    assert len(kept(tmp_path / "cache")) == 1
