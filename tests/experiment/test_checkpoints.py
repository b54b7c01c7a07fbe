"""Data that have changed since a checkpoint learned from them are refused if the numbers would be wrong."""

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


def write(path: Path, rows: Table) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(params=["drawn", "given"])
def split(request: pytest.FixtureRequest) -> str:
    """Whether splits are drawn or a column gives them."""
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
    if split == "given":
        rows = [row | {"split": ("train", "train", "val", "test")[k // 4 % 4]} for k, row in enumerate(rows)]
    write(tmp_path / "pets.csv", rows)
    return rows


@pytest.fixture
def run(tmp_path: Path, table: Table, split: str, raw_config: Callable[..., dict[str, Any]]) -> Run:
    """A run on the table, trained to the end."""
    data = {"name": "table", "path": str(tmp_path / "pets.csv"), "bias": "sky", "size": 4}
    raw = raw_config() | {
        "data": data | ({"split": "split"} if split == "given" else {}),
        "model": {"name": "tiny_networks.TinyNetworks"},
    }
    made = experiment.start(configuration.validate(raw, "test"))
    for _ in made.train():
        pass
    return made


def refused(action: Callable[[], Any]) -> str:
    """Return the message if the data are refused, "" if they are accepted."""
    try:
        action()
    except UserError as error:
        return str(error)
    return ""


def one_less(table: Table) -> Table:
    """Leave out the first test row: k = 12."""
    return table[:12] + table[13:]


def sorted_by_label(table: Table) -> Table:
    return sorted(table, key=lambda row: row["label"])


def renamed(table: Table) -> Table:
    """Rename a class so that the order of the two changes."""
    return [row | {"label": row["label"].replace("cat", "kitten")} for row in table]


def relabelled(table: Table) -> Table:
    return [table[0] | {"label": "dog"}, *table[1:]]


def bias_renamed(table: Table) -> Table:
    return [row | {"sky": row["sky"].replace("day", "zenith")} for row in table]


ROWS, ORDER, ALWAYS = (
    "train has other rows, or other labels",
    "the rows of val or test, or the order",
    "put them back as they were",
)
MESSAGES: dict[str, tuple[Change, dict[str, tuple[str, str]]]] = {
    "untouched": (lambda table: table, {"drawn": ("", ""), "given": ("", "")}),
    "one less": (one_less, {"drawn": (ROWS, ROWS), "given": ("", ORDER)}),
    "sorted": (sorted_by_label, {"drawn": (ROWS, ROWS), "given": ("", ORDER)}),
    "class renamed": (renamed, dict.fromkeys(("drawn", "given"), ("classes are now without cat and with kitten",) * 2)),
    "bias renamed": (bias_renamed, dict.fromkeys(("drawn", "given"), ("bias values are now without day",) * 2)),
    "relabelled": (relabelled, dict.fromkeys(("drawn", "given"), (ROWS,) * 2)),
}


@pytest.mark.parametrize("change", MESSAGES)
def test_data_that_have_changed_are_reported(tmp_path: Path, run: Run, table: Table, split: str, change: str) -> None:
    """Where splits are given, a test row less or another order of the rows leaves training rows out of the test set."""
    apply, messages = MESSAGES[change]
    write(tmp_path / "pets.csv", apply(table))
    actions = (
        lambda: evaluate_checkpoint(run.folder.last),
        lambda: experiment.resume(run.experiment.config, run.folder.last),
    )
    for action, sentence in zip(actions, messages[split], strict=True):
        found = refused(action)
        assert sentence in found
        assert bool(found) == bool(sentence)
        assert not found or (found.startswith(f"{run.folder.last}: its data have changed") and ALWAYS in found)


def test_the_number_of_rows_is_reported(tmp_path: Path, run: Run, table: Table) -> None:
    write(tmp_path / "pets.csv", table[1:])
    assert "since it was trained (60 rows then, 59 now)" in refused(lambda: evaluate_checkpoint(run.folder.last))


@pytest.mark.parametrize("command", [["eval"], ["probe", "--seeds", "1"]], ids=lambda command: command[0])
@pytest.mark.parametrize("split", ["drawn"], indirect=True)
def test_commands_tell(
    tmp_path: Path, run: Run, table: Table, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "pets.csv", sorted_by_label(table))
    assert lntl(*command, str(run.folder.path)) == 2
    assert "its data have changed since it was trained" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("split", ["drawn"], indirect=True)
def test_a_checkpoint_without_digests_is_read(tmp_path: Path, run: Run, table: Table, kept: bool) -> None:
    """Older versions kept the spec alone, or nothing."""
    saved = checkpoint.load(run.folder.last)
    assert saved.data is not None
    older = saved.data.model_copy(update={"rows": None}) if kept else None
    checkpoint.save(run.folder.last, replace(saved, data=older))
    write(tmp_path / "pets.csv", sorted_by_label(table))
    evaluate_checkpoint(run.folder.last)


def test_digits_are_the_same_again(raw_config: Callable[..., dict[str, Any]]) -> None:
    made = experiment.start(configuration.validate(raw_config(), "test"))
    for _ in made.train():
        pass
    evaluate_checkpoint(made.folder.last)
