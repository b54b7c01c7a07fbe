"""Tables for the terminal."""

from typing import Any

from rich import box
from rich.table import Table

from lntl.reporting import paper

_SHORT = {
    "unbiased_accuracy": "unbiased",
    "worst_group_accuracy": "worst group",
    "f1_score_macro": "macro F1",
    "bias_accuracy": "bias (h)",
}


def result_table(result: dict[str, Any], color_var: float | None) -> Table:
    """Return the test metrics of a finished run beside ERM and, on Colored MNIST, the paper's figures."""
    metrics = list(result["last"]["test"])
    table = Table(
        title=f"{result['project']}: {result['experiment']} on the test set",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("", no_wrap=True)
    table.add_column("epochs", justify="right")
    for name in metrics:
        table.add_column(_SHORT.get(name, name), justify="right")
    if result["erm"] is not None:
        without_h = result["erm"]["last"]["test"] | {"bias_accuracy": None}  # plain training has no bias head
        _row(table, "plain training (ERM)", result["erm"]["last"]["epoch"], [without_h[m] for m in metrics])
    for kind, told in (("last", "last"), ("best", "best on val")):
        _row(table, f"{result['method']}, {told}", result[kind]["epoch"], list(result[kind]["test"].values()))
    if color_var in paper.LNTL:
        table.add_section()
        for name, published in (("baseline", paper.BASELINE), ("LNTL", paper.LNTL)):
            values = [published[color_var] if metric == "accuracy" else None for metric in metrics]
            _row(table, f"paper: {name}", paper.EPOCHS, values)
    return table


def metric_table(title: str, values: dict[str, float]) -> Table:
    """Return metrics, one a row."""
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in values.items():
        table.add_row(name.replace("_", " "), f"{value:.4f}")
    return table


def _row(table: Table, name: str, epochs: int, values: list[float | None]) -> None:
    table.add_row(name, str(epochs), *("" if value is None else f"{value:.4f}" for value in values))
