"""The result lines of a benchmark are written and read with one pydantic model, and no line is lost."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import ROOT

from lntl.benchmark import results
from lntl.benchmark.results import ResultLine
from lntl.errors import UserError

LINE: dict[str, Any] = {"name": "a", "config_hash": "1", "overrides": {}, "seed": 1, "metrics": {"accuracy": 0.5}}
FAILED_LINE: dict[str, Any] = {
    "name": "a",
    "config_hash": "1",
    "overrides": {},
    "seed": 2,
    "error": "why",
    "exit_code": 2,
}


def add(path: Path, *lines: dict[str, Any]) -> None:
    for line in lines:
        results.add(path, ResultLine.model_validate(line))


def test_lines_are_read_in_order_with_the_keys_that_were_written(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    assert results.read(path) == []
    add(path, LINE, FAILED_LINE)
    assert [(line.key, line.failed) for line in results.read(path)] == [(("a", "1", 1), False), (("a", "1", 2), True)]
    assert [json.loads(text) for text in path.read_text().splitlines()] == [LINE, FAILED_LINE]


def test_a_new_line_replaces_the_failed_line_of_the_same_run(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    add(path, FAILED_LINE, LINE, FAILED_LINE | {"error": "second"}, FAILED_LINE | {"seed": 3})
    assert [line.error for line in results.read(path)] == ["", "second", "why"]


@pytest.mark.parametrize("name", ["colored_mnist/results", "authors/results"])
def test_adding_a_line_does_not_change_the_other_lines(tmp_path: Path, name: str) -> None:
    path, original_bytes = tmp_path / "results.jsonl", (ROOT / f"benchmarks/{name}.jsonl").read_bytes()
    path.write_bytes(original_bytes)
    add(path, LINE)
    assert path.read_bytes() == original_bytes + json.dumps(LINE).encode() + b"\n"


def test_a_line_of_the_repository_is_written_as_it_was_read() -> None:
    text = (ROOT / "benchmarks/colored_mnist/results.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    content = ResultLine.model_validate_json(text).model_dump(mode="json", exclude_unset=True)
    assert json.dumps(content, ensure_ascii=False) == text


def test_a_missing_last_newline_is_added(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(LINE))
    add(path, FAILED_LINE)
    assert len(results.read(path)) == 2


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="finite number"):
        ResultLine.model_validate(LINE | {"metrics": {"accuracy": float("nan")}})


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "Invalid JSON"),
        ("[]", "Input should be an object"),
        ("[" * 10_000, "Invalid JSON"),
        (json.dumps({k: v for k, v in LINE.items() if k != "seed"}), "seed: Field required"),
        (json.dumps({k: v for k, v in LINE.items() if k != "metrics"}), "the line has neither metrics nor an error"),
        (json.dumps(LINE | {"seed": "1"}), "seed: Input should be a valid integer"),
        (json.dumps(LINE | {"overrides": [1]}), "overrides: Input should be"),
        (json.dumps(LINE | {"split": [1]}), "split: Input should be 'test' or 'val'"),
        (json.dumps(LINE | {"metrics": {"accuracy": [1]}}), "metrics.accuracy: Input should be a valid number"),
        (json.dumps(LINE | {"metrics": {"accuracy": "x"}}), "metrics.accuracy: Input should be a valid number"),
        (json.dumps(LINE).replace("0.5", "NaN"), "metrics.accuracy: Input should be a finite number"),
        (json.dumps(LINE | {"error": 3}), "error: Input should be a valid string"),
        (json.dumps(LINE | {"name": "n" * 10**6}), "name: String should have at most 200 characters"),
        (json.dumps(LINE | {"metrics": {"k" * 10**6: "x"}}), "Input should be a valid number"),
    ],
    ids=range(14),
)
def test_an_invalid_line_is_refused_with_its_number(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(f"{json.dumps(LINE)}\n{text}\n")
    with pytest.raises(UserError) as caught:
        results.read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line 2: not the result of a run (")
    assert fault in message
    assert message.endswith("restore the file, or delete this line to make the run again")
    assert len(message) < 500


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot read the results"):
        results.read(tmp_path / "results.jsonl")
