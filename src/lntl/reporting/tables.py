"""Tables for the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from lntl import paper
from lntl.evaluation.metrics import HEADLINES, METRICS
from lntl.runs.formats import Metric, Probe, ProbeRow, Result, Row

SMALL = "*"  # marks an accuracy that rests on few images


def result_table(result: Result, color_var: float | None) -> Table:
    """Return the test metrics of a finished run beside ERM and, on Colored MNIST, the paper's figures."""
    metrics = list(result.last.test)[:HEADLINES]
    table = _table(f"{result.project}: {result.experiment} on the test set", collapse_padding=True)
    table.add_column("", no_wrap=True)
    table.add_column("epochs", justify="right")
    for name in metrics:
        table.add_column(METRICS[name].column if name in METRICS else name, justify="right")
    if result.erm is not None:
        scores = {name: _number(value) for name, value in result.erm.last.test.items()}
        scores["bias_accuracy"] = ""  # plain training has no bias head
        epochs = str(result.erm.last.epoch)
        table.add_row("plain training (ERM)", epochs, *(scores[name] for name in metrics))
    for checkpoint, label in ((result.last, "last"), (result.best, "best on val")):
        values = [_number(checkpoint.test[name]) for name in metrics]
        table.add_row(f"{result.method}, {label}", str(checkpoint.epoch), *values)
    if color_var in paper.LNTL:
        table.add_section()
        for name, published in (("baseline", paper.BASELINE), ("LNTL", paper.LNTL)):
            values = [_number(published[color_var]) if metric == "accuracy" else "" for metric in metrics]
            table.add_row(f"paper: {name}", str(paper.EPOCHS), *values)
    return table


def metric_table(title: str, rows: Mapping[str, Metric]) -> Table:
    """Return metrics, one a row: value, interval and n, or why the metric is undefined."""
    table = _evaluation_table(title, "metric")
    for name, row in rows.items():
        cells = "" if row.cells is None else f" in {row.cells} of {row.all_cells} cells"
        _add_evaluation(table, name.replace("_", " "), row, cells)
    return table


def accuracy_table(title: str, rows: Sequence[Row]) -> Table:
    """Return accuracies by class or bias value; those of few images are marked."""
    table = _evaluation_table(title, "")
    for row in rows:
        _add_evaluation(table, row.name, row, SMALL if row.small else "")
    if any(row.small for row in rows):
        table.caption = f"{SMALL} few images: uncertain"
    return table


def _table(title: str, **settings: Any) -> Table:
    return Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, **settings)


def _evaluation_table(title: str, first_column: str) -> Table:
    table = _table(title, caption_justify="left")
    table.add_column(first_column, no_wrap=first_column == "metric")  # their names have known lengths
    table.add_column("value", justify="right")
    table.add_column("95 % interval")
    table.add_column("images", justify="right")
    return table


def _add_evaluation(table: Table, name: str, row: Metric | Row, mark: str = "") -> None:
    interval = row.undefined or ""
    if row.value is not None and row.low is not None and row.high is not None:
        interval = f"{row.low:.4f} to {row.high:.4f}"
    table.add_row(escape(name), _number(row.value), escape(interval), f"{row.n}{mark}")


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def probe_tables(probe: Probe) -> Iterator[Table]:
    """Yield the table of what probes read of all biases together and, where there are several, of each alone.

    A row is a layer and a probe: accuracy on unseen images, mean ± std over seeds, beside ERM (if any) and pixels.
    """
    yield _probe_table(probe)
    for name, leaks in probe.per_bias.items():
        alone = {"bias": name, "h_accuracy": None, "h_chance": None}
        yield _probe_table(probe.model_copy(update=dict(leaks) | alone))


def _probe_table(probe: Probe) -> Table:
    seeds = f"{len(probe.seeds)} seed{'s' if len(probe.seeds) > 1 else ''}"
    table = _table(f"{probe.bias}: accuracy of fresh probes on {probe.n_test} unseen test images ({seeds})")
    for name in ("layer", "probe"):
        table.add_column(name, no_wrap=True)
    erm = {(row.layer, row.probe): row for row in probe.reference.erm or []}
    pixels = {row.probe: row for row in probe.reference.pixels}
    for name in ("accuracy", *(["ERM"] if erm else []), "pixels"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in probe.probes:
        beside = [erm.get((row.layer, row.probe))] if erm else []
        table.add_row(row.layer, row.probe, *map(_accuracy, (row, *beside, pixels.get(row.probe))))
    table.add_section()
    table.add_row("chance", "most frequent", f"{probe.chance.majority:.3f}")
    table.add_row("chance", "permuted", f"{probe.chance.permutation:.3f}")
    if probe.h_accuracy is not None:
        table.add_section()
        table.add_row("f", "h, own labels", f"{probe.h_accuracy:.3f}")
        table.add_row("chance", "most frequent", f"{probe.h_chance:.3f}")
    return table


def _accuracy(row: ProbeRow | None) -> str:
    """Return mean ± std over seeds, the mean alone of one seed."""
    if row is None:
        return ""
    return f"{row.mean:.3f}" if row.std is None else f"{row.mean:.3f} ± {row.std:.3f}"
