"""A lock on a folder, held as long as the process that took it, or one that it gave the lock's file to, lives."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lntl.errors import UserError

PATIENCE = 10.0  # seconds to wait for processes of a killed holder, which stop by themselves


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold the lock of a folder, made if need be; yields the descriptor to pass on. UserError where it is taken."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: cannot make a file there: {error.strerror}; is the folder read-only?") from error
    with file:
        end = time.monotonic() + PATIENCE
        while not _taken(file.fileno()):
            if time.monotonic() > end:
                file.seek(0)
                raise UserError(
                    f"{folder}: in use by another process ({file.read().strip() or 'unknown'}); wait for its end, or "
                    "stop it"
                )
            time.sleep(0.1)
        file.truncate(0)
        file.write(f"{os.getpid()}")
        file.flush()
        yield file.fileno()


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
