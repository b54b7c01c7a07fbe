"""The lines of a benchmark's results, and the lock beside them."""

import json
import multiprocessing
from pathlib import Path

import pytest

from lntl.benchmark import results
from lntl.errors import UserError
from lntl.runs import lock
from lntl.runs.lock import locked

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


def test_one_holder_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.0)
    with locked(tmp_path / "new"), pytest.raises(UserError, match=r"in use by another process \(\d+\)"):  # noqa: SIM117
        with locked(tmp_path / "new"):
            pass
    with locked(tmp_path / "new"):
        pass  # free again


def test_a_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    with locked(tmp_path / "new" / "run"):
        pass
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "new" / "run"):
        (tmp_path / "new" / "notes").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["new", "notes"]


def test_a_lock_that_was_removed_by_its_holder_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One waits with the file open that the holder removes; what it then locks is in nobody's way."""
    flock, held = lock.fcntl.flock, locked(tmp_path)
    held.__enter__()

    def late(descriptor: int, operation: int) -> None:
        monkeypatch.undo()
        held.__exit__(None, None, None)
        flock(descriptor, operation)

    monkeypatch.setattr(lock.fcntl, "flock", late)
    with locked(tmp_path):
        assert (tmp_path / ".lock").exists()


def _hold(folder: Path, taken: "multiprocessing.synchronize.Event") -> None:
    with locked(folder):
        taken.set()
        while True:
            pass


def test_a_killed_holder_holds_no_longer(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    taken = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, taken), daemon=True)
    process.start()
    assert taken.wait(60)
    process.kill()
    with locked(tmp_path):
        pass
    process.join()
