"""scripts/fuzz.py finds what it looks for: tracebacks, answers without a sentence, hangs and code that ran."""

import random
import runpy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import ROOT, write_config

FUZZ = runpy.run_path(str(ROOT / "scripts/fuzz.py"), run_name="fuzz")


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
def test_each_outcome(
    case: Callable[..., list[str]], outcome: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "templates").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(FUZZ["CASES"], "data", case)
    run_case: Any = FUZZ["run_case"]
    monkeypatch.setitem(run_case.__globals__, "WAITING", 1 if case is hang else 60)
    found, why, _ = run_case("data-0", 0, tmp_path / "templates")
    assert found == outcome
    assert reason in why
    assert bool(why) == bool(reason)


def test_a_training_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(tmp_path, training={"phases": [{"method": "erm", "epochs": 1_000_000}]})
    (tmp_path / "templates").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(FUZZ["CASES"], "data", lambda *_: ["train", str(tmp_path / "tiny.yaml")])
    run_case: Any = FUZZ["run_case"]
    monkeypatch.setitem(run_case.__globals__, "TRAINING", 1)
    assert run_case("data-0", 0, tmp_path / "templates")[:2] == ("stopped", "")


@pytest.mark.parametrize(
    ("code", "text"),
    [(3, ""), (2, "something"), (0, "Traceback (most recent call last):"), (2, f"Error: {'x' * 2000}")],
)
def test_a_wrong_answer(code: int, text: str) -> None:
    assert FUZZ["wrong"](code, text)


def test_a_case_is_a_function_of_seed_and_name() -> None:
    tree = {"a": [1, 2.5, "text"], "b": {"c": None, "d": [True]}}
    for seed in range(50):
        one, other = (repr(FUZZ["mutate_tree"](tree, random.Random(seed))) for _ in range(2))
        assert one == other
    assert tree == {"a": [1, 2.5, "text"], "b": {"c": None, "d": [True]}}  # and leaves what it was given alone
