"""The results of a benchmark: one JSON line a run."""

import json
from pathlib import Path
from typing import Any

from lntl.errors import UserError
from lntl.runs.files import write_text

Line = dict[str, Any]
_KEYS = {"name": str, "config_hash": str, "overrides": dict, "seed": int}


def read(path: Path) -> list[Line]:
    """Return the lines, none where there is no file; raises UserError with the number of one that is not of a run."""
    try:
        texts = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read the results: {getattr(error, 'strerror', None) or error}") from None
    return [_parsed(text, f"{path}, line {number}") for number, text in enumerate(texts, 1) if text.strip()]


def _parsed(text: str, place: str) -> Line:
    try:
        line = json.loads(text)
    except ValueError as error:
        raise UserError(f"{place}: not JSON ({error}); restore the file, or delete this line to run it again") from None
    if not isinstance(line, dict) or not all(isinstance(line.get(key), kind) for key, kind in _KEYS.items()):
        raise UserError(f"{place}: not the line of a run, which has {', '.join(_KEYS)}; delete it to run it again")
    if not isinstance(line.get("metrics"), dict) and not isinstance(line.get("error"), str):
        raise UserError(f"{place}: has neither metrics nor an error; delete it to run it again")
    return line


def key(line: Line) -> tuple[str, str, int]:
    """Return what tells a run from all others."""
    return line["name"], line["config_hash"], line["seed"]


def split(line: Line) -> str | None:
    """Return the split that scored the run, None where it failed; older lines are of test and do not say so."""
    return None if failed(line) else line.get("split", "test")


def failed(line: Line) -> bool:
    """Return whether the run did not come to its end."""
    return "metrics" not in line


def add(path: Path, line: Line) -> None:
    """Append a line, in place of one that says that the same run failed; the file is whole at any time."""
    kept = [old for old in read(path) if not (failed(old) and key(old) == key(line))]
    texts = [json.dumps(each, ensure_ascii=False, allow_nan=False) + "\n" for each in (*kept, line)]
    write_text(path, "".join(texts))
