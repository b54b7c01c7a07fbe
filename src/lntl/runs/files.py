"""Write files so that a crash or a full disk never leaves half of one: temporary file, flush, rename."""

import json
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from lntl.errors import UserError


def write_atomic(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Call `write(file)` on a temporary file beside `path`, flush it to disk, and rename it to `path`.

    Raises UserError, with `path` as it was before, where the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # one's own: others may write `path` as well
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        raise UserError(f"{path}: cannot write it: {error}; is the disk full, or the folder read-only?") from error
    finally:
        with suppress(OSError):  # it is there only where `write` failed
            temporary.unlink()


def remove_halves(folder: Path) -> None:
    """Remove what writes that were killed have left in a folder and below, where nobody is writing."""
    for half in folder.rglob(".*.part"):
        half.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_atomic(path, lambda file: file.write(text.encode()))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
