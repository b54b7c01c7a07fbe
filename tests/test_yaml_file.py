"""Reading YAML files of configurations and plans."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from lntl.errors import UserError
from lntl.yaml_file import parse, read_yaml

ROOT = Path(__file__).parents[1]


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
def test_numbers_with_an_exponent_are_floats(text: str, value: Any) -> None:
    loaded_value = parse(text, "test")
    assert loaded_value == value
    assert type(loaded_value) is type(value)


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3", "x: {a: 1, a: 1}", "- {b: 1, b: 2}"])
def test_a_duplicate_key_is_an_error(text: str) -> None:
    with pytest.raises(UserError, match=r"test.*: not valid YAML: key '[ab]' is given twice"):
        parse(text, "test")


def test_the_error_for_malformed_yaml_has_file_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("project:\n  seed: [1\n")
    with pytest.raises(UserError, match=r"bad\.yaml, line 3, column 1: not valid YAML"):
        read_yaml(path)


def test_yaml_runs_no_code() -> None:
    with pytest.raises(UserError, match="not valid YAML"):
        parse("!!python/object/apply:os.getcwd []", "test")


@pytest.mark.parametrize("content", [b"", b"- a\n", b"text", b"\xff\xfe\x00"])
def test_a_file_that_is_not_a_mapping_is_a_user_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"c\.yaml: "):
        read_yaml(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(UserError, match=r"cannot read the configuration: .*lntl configs"):
            read_yaml(path)


def test_mappings_are_merged_and_explicit_keys_have_priority() -> None:
    text = """
    x: &x {a: 1, b: 1}
    deep: {inner: &base {<<: *x, b: 2}}
    top: {<<: *base, c: 3, a: 4}
    several: {<<: [*x, *base], c: 3}
    """
    loaded_value = parse(text, "test")
    assert loaded_value["deep"]["inner"] == {"a": 1, "b": 2}
    assert loaded_value["top"] == {"a": 4, "b": 2, "c": 3}
    assert loaded_value["several"] == {"a": 1, "b": 1, "c": 3}


@pytest.mark.parametrize("text", ["2024-01-01", "2024-02-30", "1:30", "yes", "on", "=", "!!timestamp x"])
def test_notations_of_yaml_1_1_are_texts(text: str) -> None:
    assert parse(text, "test") == text.removeprefix("!!timestamp ")
    assert parse("%YAML 1.1\n---\n" + text, "test") == text.removeprefix("!!timestamp ")


@pytest.mark.parametrize(("text", "number"), [("010", "10"), ("-08", "-8"), ("00", "0"), ("0_1", "1")])
def test_a_number_with_a_leading_zero_is_refused(text: str, number: str) -> None:
    with pytest.raises(UserError, match=rf"'{text}' begins with a zero; write {number} for the number, or put it in"):
        parse(f"a: {text}", "test")
    assert parse(f"a: '{text}'", "test") == {"a": text}


def test_an_alias_is_a_copy() -> None:
    first_item, second_item = parse("[&a {x: [1]}, *a]", "test")
    first_item["x"].append(2)
    assert second_item == {"x": [1]}


def make_nested_aliases(line: str) -> str:
    """Return a text with 9 anchors, each of which contains the previous one ten times."""
    return "a0: &a0 {x0: 1}\n" + "".join(
        f"a{i}: &a{i} " + line % ", ".join([f"*a{i - 1}"] * 10) + "\n" for i in range(1, 10)
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 2000 + "]" * 2000, "nested more than 50 levels deep"),
        ("- " * 2000, "nested more than 50 levels deep"),
        ("- &a0 [x]\n" + "".join(f"- &a{i} [*a{i - 1}]\n" for i in range(1, 200)), "nested more than 50 levels deep"),
        (make_nested_aliases("[%s]"), "more than 100,000 values after aliases are expanded"),
        (make_nested_aliases("{<<: [%s]}"), "more than 100,000 values after aliases are expanded"),
        ("a" * 1_000_001, "more than 1,000,000 characters"),
        ("&a [*a]", "an alias refers to the value that contains it"),
        ("&a {<<: *a}", "an alias refers to the value that contains it"),
        ("[a]: 1", "a key must be a string"),
        ("{a: 1, <<: {b: 2}, a: 3}", "key 'a' is given twice"),
        ("a\0b", "cannot contain the character U.0000"),
        ('"a\\0b"', "cannot contain the character U.0000"),
        ('"\\ud800"', "cannot contain the character U.D800"),
        ("!!bool maybe", "'maybe' is not a valid bool"),
        ("!!int ''", "'' is not a valid int"),
        ("!!set {a}", "unknown tag"),
        ("9" * 5000, "is too large for an integer|is not a valid int"),
        ("0x" + "f" * 5000, "is too large for an integer"),
        ("!" + "x" * 100_000, "unknown tag"),
        ('{"' + "x" * 100_000 + '": 1, "' + "x" * 100_000 + '": 1}', "is given twice|expected ','"),
    ],
    ids=range(20),
)
def test_a_malicious_text_is_refused_in_one_short_sentence(text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as error:
        parse(text, "test")
    assert len(str(error.value)) < 400


class OldLoader(yaml.SafeLoader):
    """The loader of lntl 0.2: YAML 1.1, with 1e-3 as a number."""


OldLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)
PROJECT_FILES = [path for folder in ("src", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.yaml")]


def test_the_yaml_files_of_the_project_have_the_same_values_in_yaml_1_1() -> None:
    assert len(PROJECT_FILES) >= 25
    for path in PROJECT_FILES:
        text = path.read_text(encoding="utf-8")
        assert repr(parse(text, str(path))) == repr(yaml.load(text, OldLoader)), path
