"""Tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from lntl import paper
from lntl.evaluation.metrics import HEADLINES, METRICS
from lntl.runs.formats import Result

SMALL = "*"  # marks an accuracy that rests on few images


def result_table(result: Result, color_var: float | None) -> Table:
    """Return the test metrics of a finished run beside ERM and, on Colored MNIST, the paper's figures."""
    metrics = list(result.last.test)[:HEADLINES]
    table = Table(
        title=escape(f"{result.project}: {result.experiment} on the test set"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("", no_wrap=True)
    table.add_column("epochs", justify="right")
    for name in metrics:
        table.add_column(METRICS[name].column if name in METRICS else name, justify="right")
    if result.erm is not None:
        scores = {name: _told(value) for name, value in result.erm.last.test.items()}
        scores["bias_accuracy"] = ""  # plain training has no bias head
        _row(table, "plain training (ERM)", result.erm.last.epoch, [scores[name] for name in metrics])
    for reached, label in ((result.last, "last"), (result.best, "best on val")):
        values = [_told(reached.test[name]) for name in metrics]
        _row(table, f"{result.method}, {label}", reached.epoch, values)
    if color_var in paper.LNTL:
        table.add_section()
        for name, published in (("baseline", paper.BASELINE), ("LNTL", paper.LNTL)):
            values = [_told(published[color_var]) if metric == "accuracy" else "" for metric in metrics]
            _row(table, f"paper: {name}", paper.EPOCHS, values)
    return table


def metric_table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return metrics as test.json holds them, one a row: value, interval and n, or why there is none."""
    table = _evaluation_table(title, "metric")
    for name, row in rows.items():
        _evaluation_row(table, name.replace("_", " "), row)
    return table


def accuracy_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return accuracies by class or bias value as test.json holds them; few images are marked."""
    table = _evaluation_table(title, "")
    for row in rows:
        _evaluation_row(table, row["name"], row, SMALL if row["small"] else "")
    if any(row["small"] for row in rows):
        table.caption = f"{SMALL} few images: uncertain"
    return table


def _evaluation_table(title: str, what: str) -> Table:
    table = Table(
        title=escape(title), title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.add_column(what)
    table.add_column("value", justify="right")
    table.add_column("95 % interval")
    table.add_column("images", justify="right")
    return table


def _evaluation_row(table: Table, name: str, row: Mapping[str, Any], mark: str = "") -> None:
    told = row["undefined"] if row["value"] is None else f"{row['low']:.4f} to {row['high']:.4f}"
    table.add_row(escape(name), _told(row["value"]), escape(told), f"{row['n']}{mark}")


def _told(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _row(table: Table, name: str, epochs: int, values: list[str]) -> None:
    table.add_row(name, str(epochs), *values)
