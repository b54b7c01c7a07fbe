"""A lock on a folder, held as long as the process that took it, or one that it gave the lock's file to, lives."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from lntl.errors import UserError

PATIENCE = 10.0  # seconds to wait for processes of a killed holder, which stop by themselves


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold the lock of a folder, made if need be; yields the descriptor to pass on. UserError where it is taken.

    In the end its file is removed, and what was made of the folder where nothing else came into it.
    """
    path, made = folder / ".lock", [each for each in (folder, *folder.parents) if not each.exists()]
    with _taken(path) as file:
        file.truncate(0)
        file.write(f"{os.getpid()}")
        file.flush()
        try:
            yield file.fileno()
        finally:
            with suppress(OSError):
                path.unlink()
                for each in made:
                    each.rmdir()


def _taken(path: Path) -> TextIO:
    """Return the lock's file, open and locked."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{path.parent}: cannot make the run folder: {error.strerror}; choose a place that can be written to"
            ) from error
        if _is_taken(file, path):
            return file
        with file:
            if time.monotonic() > end:
                file.seek(0)
                raise UserError(
                    f"{path.parent}: in use by another process ({file.read().strip() or 'unknown'}); wait for its "
                    "end, or stop it"
                )
        time.sleep(0.1)


def _is_taken(file: TextIO, path: Path) -> bool:
    """Take the lock of an open file; False where another process has it, or has just removed the file."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False
