"""Data that changed after training are refused if the results would be wrong."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from tiny_runs import lntl

from lntl import config as configuration
from lntl import experiment
from lntl.errors import UserError
from lntl.experiment import Run, evaluate_checkpoint
from lntl.runs import checkpoint

N = 60
Table = list[dict[str, str]]
Change = Callable[[Table], Table]


def write_table(path: Path, rows: Table) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(params=["drawn", "column"])
def split(request: pytest.FixtureRequest) -> str:
    """Whether splits are drawn at random or come from a column."""
    return str(request.param)


@pytest.fixture
def table(tmp_path: Path, split: str) -> Table:
    """The rows of pets.csv, each with an image beside it."""
    (tmp_path / "pets").mkdir()
    for k in range(N):
        Image.new("RGB", (4, 4), (4 * k, 4 * k, 4 * k)).save(tmp_path / f"pets/{k:02d}.png")
    rows = [
        {"image": f"pets/{k:02d}.png", "label": ("cat", "dog")[k % 2], "sky": ("day", "night")[k // 2 % 2]}
        for k in range(N)
    ]
    if split == "column":
        rows = [row | {"split": ("train", "train", "val", "test")[k // 4 % 4]} for k, row in enumerate(rows)]
    write_table(tmp_path / "pets.csv", rows)
    return rows


@pytest.fixture
def run(tmp_path: Path, table: Table, split: str, raw_config: Callable[..., dict[str, Any]]) -> Run:
    """A finished run on the table."""
    data = {"name": "table", "path": str(tmp_path / "pets.csv"), "bias": "sky", "size": 4}
    raw = raw_config() | {
        "data": data | ({"split": "split"} if split == "column" else {}),
        "model": {"name": "tiny_networks.TinyNetworks"},
    }
    finished = experiment.start(configuration.validate(raw, "test"))
    for _ in finished.train():
        pass
    return finished


def refusal(action: Callable[[], Any]) -> str:
    """Return the message if the data are refused, "" if they are accepted."""
    try:
        action()
    except UserError as error:
        return str(error)
    return ""


def without_a_row(table: Table) -> Table:
    """Return the table without the first test row, k = 12."""
    return table[:12] + table[13:]


def sorted_by_label(table: Table) -> Table:
    return sorted(table, key=lambda row: row["label"])


def with_renamed_class(table: Table) -> Table:
    """Return the table with a class renamed so that the order of the two classes changes."""
    return [row | {"label": row["label"].replace("cat", "kitten")} for row in table]


def with_another_label(table: Table) -> Table:
    return [table[0] | {"label": "dog"}, *table[1:]]


def with_renamed_bias_value(table: Table) -> Table:
    return [row | {"sky": row["sky"].replace("day", "zenith")} for row in table]


ROWS, ORDER, REMEDY = (
    "train has other rows, labels or bias values",
    "the rows of val or test, or the order",
    "restore the old data",
)
MESSAGES: dict[str, tuple[Change, dict[str, tuple[str, str]]]] = {
    "untouched": (lambda table: table, {"drawn": ("", ""), "column": ("", "")}),
    "one row less": (without_a_row, {"drawn": (ROWS, ROWS), "column": ("", ORDER)}),
    "sorted": (sorted_by_label, {"drawn": (ROWS, ROWS), "column": ("", ORDER)}),
    "class renamed": (
        with_renamed_class,
        dict.fromkeys(("drawn", "column"), ("classes are now without cat and with kitten",) * 2),
    ),
    "bias renamed": (
        with_renamed_bias_value,
        dict.fromkeys(("drawn", "column"), ("bias values are now without day",) * 2),
    ),
    "relabelled": (with_another_label, dict.fromkeys(("drawn", "column"), (ROWS,) * 2)),
}


@pytest.mark.parametrize("change", MESSAGES)
def test_data_that_have_changed_are_reported(tmp_path: Path, run: Run, table: Table, split: str, change: str) -> None:
    """With a split column, removed test rows or another row order put no training row into the test set."""
    apply, messages = MESSAGES[change]
    write_table(tmp_path / "pets.csv", apply(table))
    actions = (
        lambda: evaluate_checkpoint(run.folder.last),
        lambda: experiment.resume(run.experiment.config, run.folder.last),
    )
    for action, message in zip(actions, messages[split], strict=True):
        error = refusal(action)
        assert message in error
        assert bool(error) == bool(message)
        assert not error or (error.startswith(f"{run.folder.last}: its data have changed") and REMEDY in error)


def test_the_number_of_rows_is_reported(tmp_path: Path, run: Run, table: Table) -> None:
    write_table(tmp_path / "pets.csv", table[1:])
    assert "since it was trained (60 rows then, 59 now)" in refusal(lambda: evaluate_checkpoint(run.folder.last))


@pytest.mark.parametrize("command", [["eval"], ["probe", "--seeds", "1"]], ids=lambda command: command[0])
@pytest.mark.parametrize("split", ["drawn"], indirect=True)
def test_commands_report_changed_data(
    tmp_path: Path, run: Run, table: Table, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(tmp_path / "pets.csv", sorted_by_label(table))
    assert lntl(*command, str(run.folder.path)) == 2
    assert "its data have changed since it was trained" in capsys.readouterr().err


@pytest.mark.parametrize("has_spec", [False, True])
@pytest.mark.parametrize("split", ["drawn"], indirect=True)
def test_a_checkpoint_without_digests_is_read(tmp_path: Path, run: Run, table: Table, has_spec: bool) -> None:
    """Older versions stored only the spec, or nothing, about the data."""
    saved = checkpoint.load(run.folder.last)
    assert saved.data is not None
    older = saved.data.model_copy(update={"rows": None}) if has_spec else None
    checkpoint.save(run.folder.last, replace(saved, data=older))
    write_table(tmp_path / "pets.csv", sorted_by_label(table))
    evaluate_checkpoint(run.folder.last)


def test_generated_digits_count_as_unchanged_data(raw_config: Callable[..., dict[str, Any]]) -> None:
    finished = experiment.start(configuration.validate(raw_config(), "test"))
    for _ in finished.train():
        pass
    evaluate_checkpoint(finished.folder.last)
