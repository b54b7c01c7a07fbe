"""The lines of a benchmark's results, and the lock beside them."""

import json
from pathlib import Path

import pytest

from lntl.benchmark import results
from lntl.errors import UserError

LINE = {"name": "a", "config_hash": "1", "overrides": {}, "seed": 1, "metrics": {"accuracy": 0.5}}
FAILED = {"name": "a", "config_hash": "1", "overrides": {}, "seed": 2, "error": "why", "exit_code": 2}


def test_lines_come_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    assert results.read(path) == []
    for line in (LINE, FAILED):
        results.add(path, line)
    assert results.read(path) == [LINE, FAILED]
    assert [json.loads(text) for text in path.read_text().splitlines()] == [LINE, FAILED]


def test_a_line_takes_the_place_of_the_same_run_s_failure(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    for line in (FAILED, LINE, FAILED | {"error": "again"}, FAILED | {"seed": 3}):
        results.add(path, line)
    assert [line.get("error") for line in results.read(path)] == [None, "again", "why"]


def test_a_file_without_its_last_newline_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(LINE))
    results.add(path, FAILED)
    assert results.read(path) == [LINE, FAILED]


def test_nan_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.add(tmp_path / "results.jsonl", LINE | {"metrics": {"accuracy": float("nan")}})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: not the line of a run"),
        (json.dumps({k: v for k, v in LINE.items() if k != "seed"}), "line 2: not the line of a run"),
        (json.dumps({k: v for k, v in LINE.items() if k != "metrics"}), "line 2: has neither metrics nor an error"),
    ],
)
def test_what_is_no_line_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(f"{json.dumps(LINE)}\n{text}\n")
    with pytest.raises(UserError, match=told):
        results.read(path)
