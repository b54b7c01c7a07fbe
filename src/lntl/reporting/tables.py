"""Tables for the terminal."""

from typing import Any

from rich.table import Table

from lntl.reporting import paper


def result_table(result: dict[str, Any], color_var: float | None) -> Table:
    """Return the test metrics of a finished run beside ERM and, on Colored MNIST, the paper's figures."""
    metrics = list(result["last"]["test"])
    table = Table(title=f"{result['experiment']}: test set", title_justify="left")
    table.add_column("")
    for name in metrics:
        table.add_column(name.replace("_", " "), justify="right")
    if result["erm"] is not None:
        _row(table, f"plain training (ERM), epoch {result['erm']['last']['epoch']}", result["erm"]["last"]["test"])
    for kind in ("last", "best"):
        told = "last epoch" if kind == "last" else "best on val"
        _row(table, f"{result['method']}, {told} ({result[kind]['epoch']})", result[kind]["test"])
    if color_var in paper.LNTL:
        table.add_section()
        for name, published in (("baseline", paper.BASELINE), ("LNTL", paper.LNTL)):
            values = {metric: published[color_var] if metric == "accuracy" else None for metric in metrics}
            _row(table, f"paper, {name}, {paper.EPOCHS} epochs", values)
    return table


def metric_table(title: str, values: dict[str, float]) -> Table:
    """Return metrics, one a row."""
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in values.items():
        table.add_row(name.replace("_", " "), f"{value:.4f}")
    return table


def _row(table: Table, name: str, values: dict[str, float | None]) -> None:
    table.add_row(name, *("" if value is None else f"{value:.4f}" for value in values.values()))
