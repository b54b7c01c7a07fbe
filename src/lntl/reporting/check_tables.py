"""What an audit of data tells in the terminal."""

from collections.abc import Iterator
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

Facts = dict[str, Any]

MOST_ROWS, MOST_COLUMNS = 30, 10  # of a table that fits into a terminal
_STYLES = {"problem": "bold red", "warning": "yellow", "note": "dim"}


def check_tables(facts: Facts) -> Iterator[Table | str]:
    """Yield the tables of an audit, and lines of markup between them."""
    yield _splits(facts)
    yield _association(facts)
    for bias in facts["biases"]:
        yield _counts(bias, facts["splits"][0]["name"], facts["class_names"])
    if facts["duplicates"] is not None:
        yield _twins(facts["duplicates"])
    for each in facts["findings"]:
        style = _STYLES[each["level"]]
        yield f"[{style}]{each['level']}: {escape(each['title'])}.[/{style}] {escape(each['text'])}"
    found = facts["recommendation"]
    yield f"\n[bold]Begin with: {escape(found['title'])}.[/bold] {escape(' '.join(found['reasons']))}"
    yield escape(found["yaml"])


def _table(title: str, *columns: str, texts: int = 1) -> Table:
    """Return an empty table whose first `texts` columns are texts, the others numbers."""
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(escape(name), justify="left" if number < texts else "right")
    return table


def _splits(facts: Facts) -> Table:
    table = _table(facts["experiment"], "split", "rows", "cells with rows", "smallest cell", "bias missing")
    for split in facts["splits"]:
        least = facts["cells"][split["name"]]["smallest"]
        smallest = f"{least['class']} with {least['value']}: {least['n']}" if least else "none"
        filled = f"{split['filled']} of {split['cells']}"
        table.add_row(split["name"], str(split["n"]), filled, escape(smallest), f"{split['missing']:.1%}")
    return table


def _association(facts: Facts) -> Table:
    columns = ("bias", "split", "Cramér's V", "mutual information", "told by the bias", "most frequent class")
    table = _table("How much the bias tells of the label", *columns, texts=2)
    for bias in facts["biases"]:
        for split, told in bias["association"].items():
            decimals = (_told(told[name], ".3f") for name in ("cramers_v", "mutual_information"))
            shares = (_told(told[name], ".1%") for name in ("bias_only", "majority"))
            table.add_row(escape(bias["name"]), split, *decimals, *shares)
    return table


def _told(value: float | None, form: str) -> str:
    return "undefined" if value is None else format(value, form)


def _counts(bias: Facts, split: str, class_names: list[str]) -> Table | str:
    """Return the rows of each class and bias value, the longer of both downwards."""
    counts, down, across = bias["counts"][split], class_names, bias["values"]
    if len(across) > len(down):
        counts, down, across = list(zip(*counts, strict=True)), across, down
    title = f"{split}: class by {bias['name']}"
    if len(down) > MOST_ROWS or len(across) > MOST_COLUMNS:
        return escape(f"{title}: {len(class_names)} x {len(bias['values'])} cells, see the page")
    table = _table(title, "", *across)
    for name, row in zip(down, counts, strict=True):
        table.add_row(escape(name), *map(str, row))
    return table


def _twins(found: Facts) -> Table:
    table = _table(f"The same twice, of {found['n']} {found['of']}", "", "found", "in two splits", "different classes")
    equal, alike = found["equal"], found["alike"]
    table.add_row("sets of equal ones", str(equal["sets"]), str(equal["across"]), str(equal["disagree"]))
    if alike is not None:
        table.add_row("pairs that look alike", str(alike["pairs"]), str(alike["across"]), str(alike["disagree"]))
    return table
