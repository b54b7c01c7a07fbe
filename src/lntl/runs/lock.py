"""A lock on a folder, held as long as the process that took it, or one that inherited its descriptor, is alive."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import lock_descriptor

from lntl.errors import UserError

MAX_WAIT = 10.0  # seconds to wait for worker processes of a killed process, which stop by themselves
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # do not follow a link to another file


@contextmanager
def hold_lock(folder: Path) -> Iterator[int]:
    """Hold the lock of a folder, and yield its descriptor, which other processes can inherit.

    The folder is created if it does not exist. At the end, the lock file and empty new folders are removed. Raises
    UserError if another process holds the lock for longer than MAX_WAIT.
    """
    path, new_folders = folder / ".lock", [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        with _acquire(path) as file:
            file.truncate(0)
            file.write(b" %d" % os.getpid())  # after the first byte, which other processes cannot read on Windows
            try:
                yield file.fileno()
            finally:
                with suppress(OSError):  # Windows does not remove open files
                    path.unlink()  # before the lock is released: a later file of that name belongs to another process
    finally:
        with suppress(OSError):
            if sys.platform == "win32":
                path.unlink()
            for parent in new_folders:
                parent.rmdir()


def _acquire(path: Path) -> BinaryIO:
    """Open and lock the lock file; return it."""
    end = time.monotonic() + MAX_WAIT
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINK)
        except OSError as error:
            raise UserError(
                f"{path.parent}: cannot lock the folder: {error.strerror}; choose a writable folder"
            ) from error
        file = os.fdopen(descriptor, "r+b", buffering=0)
        if _try_lock(file, path):
            return file
        with file:
            if time.monotonic() > end:
                file.seek(1)
                raise UserError(
                    f"{path.parent}: in use by another process ({file.read().decode() or 'unknown'}); wait for its "
                    "end, or stop it"
                )
        time.sleep(0.1)


def _try_lock(file: BinaryIO, path: Path) -> bool:
    """Lock an open file; return False if another process holds the lock, or has just removed the file."""
    try:
        return lock_descriptor(file.fileno(), blocking=False) and os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
