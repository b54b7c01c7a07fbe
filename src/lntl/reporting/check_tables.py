"""An audit of data in the terminal."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from lntl.runs.formats import BiasCounts, Check, Duplicates

MOST_ROWS, MOST_COLUMNS = 30, 10  # of a table that fits into a terminal
_STYLES = {"problem": "bold red", "warning": "yellow", "note": "dim"}


def check_tables(check: Check) -> Iterator[Table | str]:
    """Yield the tables of an audit, and lines of markup between them."""
    yield _splits(check)
    yield _association(check)
    for bias in check.biases:
        yield _counts(bias, check.splits[0].name, check.class_names)
    if check.duplicates is not None:
        yield _duplicates(check.duplicates)
    for finding in check.findings:
        style = _STYLES[finding.level]
        yield f"[{style}]{finding.level}: {escape(finding.title)}.[/{style}] {escape(finding.text)}"
    if (advice := check.recommendation) is not None:
        yield f"\n[bold]Begin with: {escape(advice.title)}.[/bold] {escape(' '.join(advice.reasons))}"
        yield escape(advice.yaml)


def _table(title: str, *columns: str, texts: int = 1) -> Table:
    """Return an empty table whose first `texts` columns are texts, the others numbers."""
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(escape(name), justify="left" if number < texts else "right")
    return table


def _splits(check: Check) -> Table:
    table = _table(check.experiment, "split", "rows", "cells with rows", "smallest cell", "bias missing")
    for split in check.splits:
        least = check.cells[split.name].smallest
        smallest = f"{least.name}: {least.n}" if least else "none"
        filled = f"{split.filled} of {split.cells}"
        table.add_row(split.name, str(split.n), filled, escape(smallest), f"{split.missing:.1%}")
    return table


def _association(check: Check) -> Table:
    columns = ("bias", "split", "Cramér's V", "mutual information", "label given by the bias", "most frequent class")
    table = _table("How much the bias says about the label", *columns, texts=2)
    for bias in check.biases:
        for split, of_split in bias.association.items():
            decimals = (_number(value, ".3f") for value in (of_split.cramers_v, of_split.mutual_information))
            shares = (_number(value, ".1%") for value in (of_split.bias_only, of_split.majority))
            table.add_row(escape(bias.name), split, *decimals, *shares)
    return table


def _number(value: float | None, form: str) -> str:
    return "undefined" if value is None else format(value, form)


def _counts(bias: BiasCounts, split: str, class_names: list[str]) -> Table | str:
    """Return the rows of each class and bias value, the longer of both downwards."""
    counts: Sequence[Sequence[int]] = bias.counts[split]
    down, across = class_names, bias.values
    if len(across) > len(down):
        counts, down, across = list(zip(*counts, strict=True)), across, down
    title = f"{split}: class by {bias.name}"
    if len(down) > MOST_ROWS or len(across) > MOST_COLUMNS:
        return escape(f"{title}: {len(class_names)} x {len(bias.values)} cells, see the page")
    table = _table(title, "", *across)
    for name, row in zip(down, counts, strict=True):
        table.add_row(escape(name), *map(str, row))
    return table


def _duplicates(found: Duplicates) -> Table:
    table = _table(f"The same twice, of {found.n} {found.of}", "", "found", "in two splits", "different classes")
    equal, alike = found.equal, found.alike
    table.add_row("sets of equal ones", str(equal.sets), str(equal.across), str(equal.disagree))
    if alike is not None:
        table.add_row("pairs that look alike", str(alike.pairs), str(alike.across), str(alike.disagree))
    return table
