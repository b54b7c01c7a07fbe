"""A file is written completely or not at all."""

import errno
import json
import os
import resource
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from tiny_runs import RUN, read_tree, run, write_config

from lntl.errors import UserError
from lntl.runs import checkpoint, files
from lntl.runs.checkpoint import Checkpoint
from lntl.runs.files import read_arrays, read_json, remove_temporary_files, write_atomic, write_json, write_text

STATE: dict[str, Any] = {
    **dict.fromkeys(("phase", "epoch", "step"), 0),
    **{name: {} for name in ("networks", "method", "optimizers")},
    **{"average": None, "terms": [], "pending": [], "sums": None},
}


def make_failing_writer(error: Exception) -> Callable[[IO[bytes]], None]:
    def write(file: IO[bytes]) -> None:
        file.write(b"half of it")
        raise error

    return write


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("unexpected pos 64 vs 0")]
)
def test_a_failed_write_keeps_the_old_file(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UserError, match="is the disk full") as caught:
        write_atomic(path, make_failing_writer(error))
    assert str(path) in str(caught.value)
    assert read_tree(tmp_path) == {"file": b"old"}


def test_an_error_of_the_writer_is_raised_and_keeps_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    with pytest.raises(UserError, match=r"^image 3 is damaged$"):
        write_atomic(tmp_path / "file", make_failing_writer(UserError("image 3 is damaged")))
    assert read_tree(tmp_path) == {"file": b"old"}


def test_a_failed_first_write_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        write_atomic(tmp_path / "file", make_failing_writer(OSError(errno.ENOSPC, "No space left on device")))
    assert read_tree(tmp_path) == {}


def test_a_failed_rename_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(UserError):
        write_text(tmp_path / "file", "new")
    assert read_tree(tmp_path) == {"file": None}


def test_the_content_is_on_disk_before_the_file_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sync_calls = []
    monkeypatch.setattr(
        os, "fsync", lambda descriptor: sync_calls.append((os.fstat(descriptor).st_size, path.exists()))
    )
    path = tmp_path / "file"
    write_text(path, "new")
    assert sync_calls == [(3, False)]
    assert read_tree(tmp_path) == {"file": b"new"}


def test_two_writers_of_a_file_do_not_interfere(tmp_path: Path) -> None:
    def write(file: IO[bytes]) -> None:
        file.write(b"first ")
        write_text(tmp_path / "file", "second, longer")
        file.write(b"remains")

    write_atomic(tmp_path / "file", write)
    assert read_tree(tmp_path) == {"file": b"first remains"}


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("other")
    (tmp_path / "file").symlink_to(tmp_path / "elsewhere")
    write_text(tmp_path / "file", "new")
    assert not (tmp_path / "file").is_symlink()
    assert read_tree(tmp_path) == {"elsewhere": b"other", "file": b"new"}


def test_temporary_files_of_killed_writes_are_removed_and_no_others(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    (run / "checkpoints").mkdir(parents=True)
    elsewhere.mkdir()
    temporary_name = f".file.{32 * 'a'}.part"
    for path in (run / temporary_name, run / "checkpoints" / temporary_name, elsewhere / temporary_name):
        path.write_text("half of it")
    write_text(run / "file", "new")
    write_text(run / ".other.part", "other")
    (run / "link").symlink_to(elsewhere)
    remove_temporary_files(run)
    assert sorted(path.name for path in run.rglob("*")) == [".other.part", "checkpoints", "file", "link"]
    assert (elsewhere / temporary_name).exists()


def test_json_is_written_as_utf_8(tmp_path: Path) -> None:
    write_json(tmp_path / "file.json", {"σ²": [0.03, None]})
    assert json.loads((tmp_path / "file.json").read_text("utf-8")) == {"σ²": [0.03, None]}


class Numbers(BaseModel):
    numbers: list[int]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"numbers": [1, "x"]}', '{"numbers": ' + 5000 * "[", "\x00", "null"])
def test_damaged_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(
        UserError, match=r"file\.json: is damaged, or written by another version \(.*; remove it"
    ) as error:
        read_json(tmp_path / "file.json", Numbers)
    assert len(str(error.value)) < 500
    with pytest.raises(UserError, match=r"gone\.json: cannot read it: No such file"):
        read_json(tmp_path / "gone.json", Numbers)


def test_arrays_are_read_as_they_were_written(tmp_path: Path) -> None:
    path, x = tmp_path / "file.npz", np.arange(6.0).reshape(2, 3)
    for save in (np.savez, np.savez_compressed):
        save(path, x=x, names=np.array(["a", "b"]), more=x)
        arrays = read_arrays(path, {"x": 2, "names": 1})
        assert arrays.keys() == {"x", "names"}
        assert np.array_equal(arrays["x"], x)
        assert arrays["names"].tolist() == ["a", "b"]


class FileCreator:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def make_npy_with_header(shape: str) -> bytes:
    """Return an .npy file with eight bytes of data and a header with this shape."""
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(8)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (make_npy_with_header("(1000000000000,)"), "its header says"),
        (make_npy_with_header("(0,)"), "its header says"),
        (make_npy_with_header("(1, 1)"), "the array x has another shape"),
        (b"", "EOF"),
        (make_npy_with_header("(1,)")[:50], "EOF"),
    ],
)
def test_damaged_arrays_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    with zipfile.ZipFile(tmp_path / "file.npz", "w") as archive:
        archive.writestr("x.npy", content)
    with pytest.raises(UserError, match=rf"file\.npz: is damaged, .*{reason}"):
        read_arrays(tmp_path / "file.npz", {"x": 1})


def test_arrays_of_objects_are_refused_and_run_no_code(tmp_path: Path) -> None:
    np.savez(tmp_path / "file.npz", x=np.array([FileCreator(tmp_path / "ran")], dtype=object))
    with pytest.raises(UserError, match=r"file\.npz: is damaged, .*its header says \(1,\) of object"):
        read_arrays(tmp_path / "file.npz", {"x": 1})
    assert not (tmp_path / "ran").exists()


def test_arrays_larger_than_the_bound_are_refused_before_they_are_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "file.npz", x=np.zeros(1000), y=np.zeros(1000))
    size = sum(entry.file_size for entry in zipfile.ZipFile(tmp_path / "file.npz").infolist())
    assert files.MAX_BYTES == 512 * 2**20
    monkeypatch.setattr(files, "MAX_BYTES", size)
    assert len(read_arrays(tmp_path / "file.npz", {"x": 1, "y": 1})) == 2
    monkeypatch.setattr(files, "MAX_BYTES", size - 1)
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    with pytest.raises(UserError, match=r"file\.npz: is damaged, .*larger than"):
        read_arrays(tmp_path / "file.npz", {"x": 1, "y": 1})


def test_an_array_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "file.npz", x=np.arange(100.0))
    content = bytearray((tmp_path / "file.npz").read_bytes())
    content[len(content) // 2] ^= 4
    (tmp_path / "file.npz").write_bytes(content)
    with pytest.raises(UserError, match="Bad CRC-32"):
        read_arrays(tmp_path / "file.npz", {"x": 1})
    with pytest.raises(UserError, match="damaged"):
        read_arrays(tmp_path / "file.npz", {"gone": 1})


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("zip writer")])
def test_a_checkpoint_that_cannot_be_written_keeps_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    checkpoint.save(tmp_path / "last.pth", Checkpoint({}, STATE, []))
    save = torch.save

    def save_and_raise(content: Any, file: IO[bytes]) -> None:
        save(content, file)
        raise error

    monkeypatch.setattr(torch, "save", save_and_raise)
    with pytest.raises(UserError, match=r"last\.pth: cannot write it"):
        checkpoint.save(tmp_path / "last.pth", Checkpoint({}, STATE | {"epoch": 2}, []))
    assert [path.name for path in tmp_path.iterdir()] == ["last.pth"]
    assert checkpoint.load(tmp_path / "last.pth").trainer == STATE


def limit_file_size(size: int) -> Callable[[], None]:
    """Return a function that limits the size of files of its process to `size` bytes."""
    return partial(resource.setrlimit, resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.full
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    write_config(tmp_path)
    assert run("train", "tiny.yaml", folder=tmp_path) == 0
    files_before = read_tree(tmp_path / RUN / "checkpoints")
    command = ["train", "tiny.yaml", "--resume", "auto", "training.phases.2.epochs=3"]
    assert run(*command, folder=tmp_path, prepare=limit_file_size(500_000)) == 2
    stderr = (tmp_path / "stderr").read_text().splitlines()[-1]
    assert stderr.startswith(f"Error: {RUN}/checkpoints/last.pth: cannot write it")
    assert read_tree(tmp_path / RUN / "checkpoints") == files_before
    assert run(*command, folder=tmp_path) == 0
