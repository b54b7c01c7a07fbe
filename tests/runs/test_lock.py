"""The lock of a folder: one holder, whose process id the message names, and no file left afterwards."""

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
from lntl.runs.lock import locked


def test_one_holder_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.0)
    with locked(tmp_path / "new"), pytest.raises(UserError, match=rf"in use by another process \({os.getpid()}\)"):  # noqa: SIM117
        with locked(tmp_path / "new"):
            pass
    with locked(tmp_path / "new"):
        pass  # free again


def test_a_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    with locked(tmp_path / "new" / "run"):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError), locked(tmp_path / "new" / "run"):
        raise UserError("the training cannot begin")
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "new" / "run"):
        (tmp_path / "new" / "notes").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "notes"]


def test_a_lock_that_was_removed_by_its_holder_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that waits with the file open, which the holder removes, locks a new file."""
    original, held = lock.lock_descriptor, locked(tmp_path)
    held.__enter__()

    def late(descriptor: int, blocking: bool) -> bool:
        monkeypatch.undo()
        held.__exit__(None, None, None)
        return original(descriptor, blocking=blocking)

    monkeypatch.setattr(lock, "lock_descriptor", late)
    with locked(tmp_path):
        assert (tmp_path / ".lock").exists()


def _hold(folder: Path, locked_once: "multiprocessing.synchronize.Event") -> None:
    with locked(folder):
        locked_once.set()
        while True:
            pass


def test_a_killed_holder_holds_no_longer(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    locked_once = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, locked_once), daemon=True)
    process.start()
    assert locked_once.wait(60)
    process.kill()
    with locked(tmp_path):
        pass
    process.join()


def test_the_lock_lives_as_long_as_a_process_that_inherited_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.0)
    with locked(tmp_path) as descriptor:
        worker = subprocess.Popen(
            [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(descriptor,), close_fds=True
        )
        (tmp_path / ".lock").rename(tmp_path / "copy")  # as if the holder had been killed: its file stays
    (tmp_path / "copy").rename(tmp_path / ".lock")
    with pytest.raises(UserError, match="in use by another process"), locked(tmp_path):
        pass
    worker.communicate(b"\n", timeout=60)
    with locked(tmp_path):
        pass


def test_a_waiting_process_waits_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lock.PATIENCE == 10.0
    monkeypatch.setattr(lock, "PATIENCE", 0.3)
    began = time.monotonic()
    with locked(tmp_path), pytest.raises(UserError, match="in use"):  # noqa: SIM117
        with locked(tmp_path):
            pass
    assert time.monotonic() - began > 0.3


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match="cannot lock the folder"), locked(tmp_path / "run"):
        pass
    assert (tmp_path / "mine").read_text() == "mine"
