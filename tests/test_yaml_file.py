"""YAML as a configuration means it."""

from pathlib import Path
from typing import Any

import pytest

from lntl.errors import UserError
from lntl.yaml_file import parse, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        ("1_000e1", 10000.0),
        ("1e", "1e"),
        ("e5", "e5"),
        ("0x1f", 31),
    ],
)
def test_numbers(text: str, value: Any) -> None:
    parsed = parse(text, "test")
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "x: {a: 1, a: 1}", "- {b: 1, b: 2}"])
def test_a_key_given_twice_is_an_error_with_its_place(text: str) -> None:
    with pytest.raises(UserError, match=r"test.*: not valid YAML: key '[ab]' is given twice"):
        parse(text, "test")


def test_malformed_yaml_names_file_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("project:\n  seed: [1\n")
    with pytest.raises(UserError, match=r"bad\.yaml, line 3, column 1: not valid YAML"):
        read_yaml(path)


def test_yaml_runs_no_code() -> None:
    with pytest.raises(UserError, match="not valid YAML"):
        parse("!!python/object/apply:os.getcwd []", "test")


@pytest.mark.parametrize("content", [b"", b"- a\n", b"text", b"\xff\xfe\x00"])
def test_a_file_that_is_no_mapping_is_a_user_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"c\.yaml: "):
        read_yaml(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UserError, match=r"cannot read the configuration: .*lntl configs"):
            read_yaml(path)


def test_mappings_are_merged_and_what_stands_beside_comes_first() -> None:
    text = """
    x: &x {a: 1, b: 1}
    deep: {inner: &base {<<: *x, b: 2}}
    top: {<<: *base, c: 3, a: 4}
    several: {<<: [*x, *base], c: 3}
    """
    parsed = parse(text, "test")
    assert parsed["deep"]["inner"] == {"a": 1, "b": 2}
    assert parsed["top"] == {"a": 4, "b": 2, "c": 3}
    assert parsed["several"] == {"a": 1, "b": 1, "c": 3}


@pytest.mark.parametrize("value", ["2024-02-30", "2024-01-01 25:00:00"])
def test_a_date_that_there_is_not_is_an_error_with_its_place(value: str) -> None:
    with pytest.raises(UserError, match=r"test, line 2, column 4: not valid YAML: .* a text stands in quotes"):
        parse(f"a: 1\nb: {value}", "test")
