"""Commands refuse data that changed after training if their results would be wrong."""

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


@pytest.fixture(params=["random", "column"])
def split(request: pytest.FixtureRequest) -> str:
    """Whether splits are drawn at random or come from a column."""
    return str(request.param)


@pytest.fixture
def table(tmp_path: Path, split: str) -> Table:
    """The rows of pets.csv, which is written to the test folder together with its images."""
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
    """A finished run on pets.csv."""
    data = {"name": "table", "path": str(tmp_path / "pets.csv"), "bias": "sky", "size": 4}
    raw = raw_config() | {
        "data": data | ({"split": "split"} if split == "column" else {}),
        "model": {"name": "tiny_networks.TinyNetworks"},
    }
    new_run = experiment.start(configuration.validate(raw, "test"))
    for _ in new_run.train():
        pass
    return new_run


def get_error_message(action: Callable[[], Any]) -> str:
    """Return the message of the UserError that `action` raises, or "" if it raises none."""
    try:
        action()
    except UserError as error:
        return str(error)
    return ""


def remove_a_row(table: Table) -> Table:
    """Return the table without row 12, the first test row."""
    return table[:12] + table[13:]


def sort_by_label(table: Table) -> Table:
    return sorted(table, key=lambda row: row["label"])


def rename_class(table: Table) -> Table:
    """Return the table with a class renamed so that the order of the two classes changes."""
    return [row | {"label": row["label"].replace("cat", "kitten")} for row in table]


def change_a_label(table: Table) -> Table:
    return [table[0] | {"label": "dog"}, *table[1:]]


def rename_bias_value(table: Table) -> Table:
    return [row | {"sky": row["sky"].replace("day", "zenith")} for row in table]


ROWS_MESSAGE, ORDER_MESSAGE, REMEDY = (
    "train has other rows, labels or bias values",
    "the rows of val or test, or the order",
    "restore the old data",
)
CHANGES: dict[str, tuple[Change, dict[str, tuple[str, str]]]] = {
    "no change": (lambda table: table, {"random": ("", ""), "column": ("", "")}),
    "removed row": (remove_a_row, {"random": (ROWS_MESSAGE, ROWS_MESSAGE), "column": ("", ORDER_MESSAGE)}),
    "other order": (sort_by_label, {"random": (ROWS_MESSAGE, ROWS_MESSAGE), "column": ("", ORDER_MESSAGE)}),
    "renamed class": (
        rename_class,
        dict.fromkeys(("random", "column"), ("classes are now without cat and with kitten",) * 2),
    ),
    "renamed bias value": (
        rename_bias_value,
        dict.fromkeys(("random", "column"), ("bias values are now without day",) * 2),
    ),
    "changed label": (change_a_label, dict.fromkeys(("random", "column"), (ROWS_MESSAGE,) * 2)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_data_are_refused(tmp_path: Path, run: Run, table: Table, split: str, change: str) -> None:
    """Splits from a column stay the same if rows are removed or sorted; random splits change."""
    change_table, messages = CHANGES[change]
    write_table(tmp_path / "pets.csv", change_table(table))
    actions = (
        lambda: evaluate_checkpoint(run.folder.last),
        lambda: experiment.resume(run.experiment.config, run.folder.last),
    )
    for action, message in zip(actions, messages[split], strict=True):
        error_text = get_error_message(action)
        assert message in error_text
        assert bool(error_text) == bool(message)
        assert not error_text or (
            error_text.startswith(f"{run.folder.last}: its data have changed") and REMEDY in error_text
        )


def test_the_error_gives_the_old_and_the_new_number_of_rows(tmp_path: Path, run: Run, table: Table) -> None:
    write_table(tmp_path / "pets.csv", table[1:])
    assert "since it was trained (60 rows then, 59 now)" in get_error_message(
        lambda: evaluate_checkpoint(run.folder.last)
    )


@pytest.mark.parametrize("command", [["eval"], ["probe", "--seeds", "1"]], ids=lambda command: command[0])
@pytest.mark.parametrize("split", ["random"], indirect=True)
def test_commands_report_changed_data(
    tmp_path: Path, run: Run, table: Table, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(tmp_path / "pets.csv", sort_by_label(table))
    assert lntl(*command, str(run.folder.path)) == 2
    assert "its data have changed since it was trained" in capsys.readouterr().err


@pytest.mark.parametrize("has_spec", [False, True])
@pytest.mark.parametrize("split", ["random"], indirect=True)
def test_a_checkpoint_without_digests_is_read(tmp_path: Path, run: Run, table: Table, has_spec: bool) -> None:
    """Older versions stored only the spec of the data, or no description of the data."""
    content = checkpoint.load(run.folder.last)
    assert content.data is not None
    older_description = content.data.model_copy(update={"rows": None}) if has_spec else None
    checkpoint.save(run.folder.last, replace(content, data=older_description))
    write_table(tmp_path / "pets.csv", sort_by_label(table))
    evaluate_checkpoint(run.folder.last)


def test_generated_digits_count_as_unchanged_data(raw_config: Callable[..., dict[str, Any]]) -> None:
    run = experiment.start(configuration.validate(raw_config(), "test"))
    for _ in run.train():
        pass
    evaluate_checkpoint(run.folder.last)
