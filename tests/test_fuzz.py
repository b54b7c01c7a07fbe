"""scripts/fuzz.py detects tracebacks, errors without a message, hangs and executed code."""

import random
import runpy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import ROOT, write_config

FUZZ_SCRIPT = runpy.run_path(str(ROOT / "scripts/fuzz.py"), run_name="fuzz")


def raise_bug(*_: object) -> list[str]:
    raise ZeroDivisionError("a bug")


def run_code(_: object, canary: Path) -> list[str]:
    canary.write_text("ran")
    return ["--version"]


def hang(*_: object) -> list[str]:
    time.sleep(50)
    return []


@pytest.mark.parametrize(
    ("case", "outcome", "reason"),
    [
        (lambda *_: ["--version"], "worked", ""),
        (lambda *_: ["train", "missing.yaml"], "refused", ""),
        (raise_bug, "traceback", "ZeroDivisionError: a bug"),
        (run_code, "code ran", "the canary says: ran"),
        (hang, "hang", "longer than"),
    ],
)
def test_run_case_detects_each_outcome(
    case: Callable[..., list[str]], outcome: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "templates").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(FUZZ_SCRIPT["CASES"], "data", case)
    run_case: Any = FUZZ_SCRIPT["run_case"]
    monkeypatch.setitem(run_case.__globals__, "MAX_SECONDS", 1 if case is hang else 60)
    result, message, _ = run_case("data-0", 0, tmp_path / "templates")
    assert result == outcome
    assert reason in message
    assert bool(message) == bool(reason)


def test_a_very_long_training_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(tmp_path, training={"phases": [{"method": "erm", "epochs": 1_000_000}]})
    (tmp_path / "templates").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(FUZZ_SCRIPT["CASES"], "data", lambda *_: ["train", str(tmp_path / "tiny.yaml")])
    run_case: Any = FUZZ_SCRIPT["run_case"]
    monkeypatch.setitem(run_case.__globals__, "TRAINING_SECONDS", 1)
    assert run_case("data-0", 0, tmp_path / "templates")[:2] == ("stopped", "")


@pytest.mark.parametrize(
    ("code", "text"),
    [(3, ""), (2, "something"), (0, "Traceback (most recent call last):"), (2, f"Error: {'x' * 2000}")],
)
def test_a_wrong_exit_code_or_message_is_detected(code: int, text: str) -> None:
    assert FUZZ_SCRIPT["find_fault"](code, text)


def test_mutations_depend_only_on_the_seed() -> None:
    tree = {"a": [1, 2.5, "text"], "b": {"c": None, "d": [True]}}
    for seed in range(50):
        first_text, second_text = (repr(FUZZ_SCRIPT["mutate_tree"](tree, random.Random(seed))) for _ in range(2))
        assert first_text == second_text
    assert tree == {"a": [1, 2.5, "text"], "b": {"c": None, "d": [True]}}  # not changed in place
