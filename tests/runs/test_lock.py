"""The lock of a folder has one holder, whose process id is in the error message, and leaves no file behind."""

import multiprocessing
import multiprocessing.synchronize
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lntl.errors import UserError
from lntl.runs import lock
from lntl.runs.lock import hold_lock


def test_a_lock_has_one_holder_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "MAX_WAIT", 0.0)
    with hold_lock(tmp_path / "new"), pytest.raises(UserError, match=rf"in use by another process \({os.getpid()}\)"):  # noqa: SIM117
        with hold_lock(tmp_path / "new"):
            pass
    with hold_lock(tmp_path / "new"):
        pass  # the lock can be taken again


def test_a_lock_leaves_no_file_behind(tmp_path: Path) -> None:
    with hold_lock(tmp_path / "new" / "run"):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError), hold_lock(tmp_path / "new" / "run"):
        raise UserError("the training cannot begin")
    assert list(tmp_path.iterdir()) == []
    with hold_lock(tmp_path / "new" / "run"):
        (tmp_path / "new" / "notes").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "notes"]


def test_a_waiting_process_locks_a_new_file_if_the_holder_removes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder removes the file while another process has it open and waits for the lock."""
    original_function, first_lock = lock.lock_descriptor, hold_lock(tmp_path)
    first_lock.__enter__()

    def release_and_lock(descriptor: int, blocking: bool) -> bool:
        monkeypatch.undo()
        first_lock.__exit__(None, None, None)
        return original_function(descriptor, blocking=blocking)

    monkeypatch.setattr(lock, "lock_descriptor", release_and_lock)
    with hold_lock(tmp_path):
        assert (tmp_path / ".lock").exists()


def _hold_lock(folder: Path, is_locked: "multiprocessing.synchronize.Event") -> None:
    with hold_lock(folder):
        is_locked.set()
        while True:
            pass


def test_a_killed_holder_releases_the_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    is_locked = context.Event()
    process = context.Process(target=_hold_lock, args=(tmp_path, is_locked), daemon=True)
    process.start()
    assert is_locked.wait(60)
    process.kill()
    with hold_lock(tmp_path):
        pass
    process.join()


def test_a_process_that_inherits_the_lock_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "MAX_WAIT", 0.0)
    with hold_lock(tmp_path) as descriptor:
        worker = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(descriptor,), close_fds=True
        )
        (tmp_path / ".lock").rename(tmp_path / "copy")  # the file of a killed holder is not removed
    (tmp_path / "copy").rename(tmp_path / ".lock")
    with pytest.raises(UserError, match="in use by another process"), hold_lock(tmp_path):
        pass
    worker.communicate(b"\n", timeout=60)
    with hold_lock(tmp_path):
        pass


def test_a_process_waits_some_time_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lock.MAX_WAIT == 10.0
    monkeypatch.setattr(lock, "MAX_WAIT", 0.3)
    start = time.monotonic()
    with hold_lock(tmp_path), pytest.raises(UserError, match="in use"):  # noqa: SIM117
        with hold_lock(tmp_path):
            pass
    assert time.monotonic() - start > 0.3


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="cannot lock the folder"), hold_lock(tmp_path / "run"):
        pass
    assert (tmp_path / "mine").read_text() == "mine"
