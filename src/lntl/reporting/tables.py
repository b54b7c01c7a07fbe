"""Tables for the terminal; long tables are cut after the first rows."""

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from lntl import paper
from lntl.evaluation.metrics import METRICS, NUM_HEADLINES
from lntl.reporting.verdict import MAX_LISTED_BIASES
from lntl.runs.formats import BiasCounts, Check, Metric, Probe, ProbeRow, Result, Row
from lntl.text import one_line

FEW_MARK = "*"  # marks an accuracy from few images
MAX_ROWS, MAX_COLUMNS = 20, 10  # largest numbers of rows and columns in a table
_STYLES = {"problem": "bold red", "warning": "yellow", "note": "dim"}


def _make_table(title: str, *columns: str, text_columns: int = 1) -> Table:
    """Return an empty table; the first `text_columns` columns are for texts, the others for numbers."""
    table = Table(
        title=_escape(title), title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    table.min_width = min(len(one_line(title)), 80)  # keeps a title on one line
    for number, name in enumerate(columns):
        table.add_column(_escape(name), justify="left" if number < text_columns else "right")
    return table


def _escape(text: object) -> str:
    """Return a text on one line, with brackets escaped so that they are not markup."""
    return escape(one_line(text))


def _format_number(value: float | None, format_spec: str = ".4f") -> str:
    return "undefined" if value is None else format(value, format_spec)


def result_table(result: Result, color_var: float | None) -> Table:
    """Return the test metrics of a finished run and of ERM, and the results of the paper on Colored MNIST."""
    metrics = list(result.last.test)[:NUM_HEADLINES]
    if "bias_accuracy" in metrics and result.last.test["bias_accuracy"] is None:
        metrics.remove("bias_accuracy")  # h was not trained, or no bias label is known
    columns = (METRICS[name].column if name in METRICS else name for name in metrics)
    table = _make_table(f"{result.project}: {result.experiment} on the test set", "", "epochs", *columns)
    table.collapse_padding = table.columns[0].no_wrap = True
    if result.erm is not None:
        scores = {name: _format_number(value) for name, value in result.erm.last.test.items()}
        scores["bias_accuracy"] = ""  # plain training has no bias head
        epochs = str(result.erm.last.epoch)
        table.add_row("plain training (ERM)", epochs, *(scores[name] for name in metrics))
    name = "this run" if result.method == "erm" else result.method
    for checkpoint, label in ((result.last, "last"), (result.best, "best on val")):
        values = [_format_number(checkpoint.test[name]) for name in metrics]
        table.add_row(f"{name}, {label}", str(checkpoint.epoch), *values)
    if color_var in paper.LNTL:
        table.add_section()
        for name, published in (("baseline", paper.BASELINE), ("LNTL", paper.LNTL)):
            values = [_format_number(published[color_var]) if metric == "accuracy" else "" for metric in metrics]
            table.add_row(f"paper: {name}", str(paper.EPOCHS), *values)
    return table


def metric_table(title: str, rows: Mapping[str, Metric]) -> Table:
    """Return a table with one metric per row: value, interval and n, or the reason why it is undefined."""
    table = _make_evaluation_table(title, "metric")
    table.columns[0].no_wrap = True  # the names have known lengths
    for name, row in rows.items():
        groups = "" if not row.all_cells else f" in {row.cells} of {row.all_cells} groups"
        _add_evaluation(table, name.replace("_", " "), row, groups)
    return table


def accuracy_table(title: str, rows: Sequence[Row]) -> Table:
    """Return a table of accuracies by class or bias value; accuracies from few images are marked."""
    table, first_rows = _make_evaluation_table(title, ""), rows[:MAX_ROWS]
    for row in first_rows:
        _add_evaluation(table, row.name, row, FEW_MARK if row.small else "")
    notes = [f"{FEW_MARK} few images: uncertain"] if any(row.small for row in first_rows) else []
    notes += [f"and {len(rows) - MAX_ROWS} more"] if len(rows) > MAX_ROWS else []
    table.caption = "; ".join(notes) or None
    return table


def _make_evaluation_table(title: str, first_column: str) -> Table:
    table = _make_table(title, first_column, "value", "95 % interval", "images")
    table.columns[2].justify = "left"
    return table


def _add_evaluation(table: Table, name: str, row: Metric | Row, mark: str = "") -> None:
    interval = row.undefined or ""
    if row.value is not None and row.low is not None and row.high is not None:
        interval = f"{row.low:.4f} to {row.high:.4f}"
    table.add_row(_escape(name), _format_number(row.value), _escape(interval), f"{row.n}{mark}")


def probe_tables(probe: Probe) -> Iterator[Table]:
    """Yield a table of the probes for all biases together and, if there are several biases, one for each.

    A row has the accuracy of one probe on one layer (mean ± std over seeds), then the same for ERM (if any) and pixels.
    """
    yield _make_probe_table(probe)
    for name, result in list(probe.per_bias.items())[:MAX_LISTED_BIASES]:
        without_h = {"bias": name, "h_accuracy": None, "h_chance": None}
        yield _make_probe_table(probe.model_copy(update=dict(result) | without_h))


def _make_probe_table(probe: Probe) -> Table:
    seeds = f"{len(probe.seeds)} seed{'s' if len(probe.seeds) > 1 else ''}"
    erm = {(row.layer, row.probe): row for row in probe.reference.erm or []}
    pixels = {row.probe: row for row in probe.reference.pixels}
    title = f"{probe.bias}: accuracy of fresh probes on {probe.n_test} unseen test images ({seeds})"
    table = _make_table(title, "layer", "probe", "accuracy", *(["ERM"] if erm else []), "pixels", text_columns=2)
    for column in table.columns:
        column.no_wrap = True
    for row in probe.probes:
        erm_row = [erm.get((row.layer, row.probe))] if erm else []
        table.add_row(row.layer, row.probe, *map(_format_mean, (row, *erm_row, pixels.get(row.probe))))
    table.add_section()
    table.add_row("chance", "most frequent", f"{probe.chance.majority:.3f}")
    table.add_row("chance", "permuted", f"{probe.chance.permutation:.3f}")
    if probe.h_accuracy is not None:
        table.add_section()
        table.add_row("f", "h, on its labels", f"{probe.h_accuracy:.3f}")
        table.add_row("chance", "most frequent", f"{probe.h_chance:.3f}")
    return table


def _format_mean(row: ProbeRow | None) -> str:
    """Return the text mean ± std; for one seed, only the mean."""
    if row is None:
        return ""
    return f"{row.mean:.3f}" if row.std is None else f"{row.mean:.3f} ± {row.std:.3f}"


def check_tables(check: Check) -> Iterator[Table | str]:
    """Yield the tables of an audit, and lines of markup between them."""
    table = _make_table(check.experiment, "split", "rows", "groups with rows", "smallest group", "bias missing")
    for split in check.splits:
        smallest_group = check.cells[split.name].smallest
        smallest = f"{smallest_group.name}: {smallest_group.n}" if smallest_group else "none"
        groups = f"{split.filled} of {split.cells}"
        table.add_row(split.name, str(split.n), groups, _escape(smallest), f"{split.missing:.1%}")
    yield table
    if check.annotated:
        yield _make_association_table(check)
    for bias in check.biases[:MAX_LISTED_BIASES] if check.annotated else []:
        yield _count_table(bias, check.splits[0].name, check.class_names)
    if (duplicates := check.duplicates) is not None:
        title = f"Duplicates among {duplicates.n} {duplicates.of}"
        table = _make_table(title, "", "number", "in two splits", "different classes")
        equal, alike = duplicates.equal, duplicates.alike
        table.add_row(f"sets of equal {duplicates.of}", str(equal.sets), str(equal.across), str(equal.disagree))
        if alike is not None:
            table.add_row("pairs of similar images", str(alike.pairs), str(alike.across), str(alike.disagree))
        yield table
    for finding in check.findings:
        style = _STYLES[finding.level]
        yield f"[{style}]{finding.level}: {_escape(finding.title)}.[/{style}] {_escape(finding.text)}"
    if (advice := check.recommendation) is not None:
        yield f"\n[bold]Recommended first method: {_escape(advice.title)}.[/bold] {_escape(' '.join(advice.reasons))}"
        yield escape(advice.yaml)


def _make_association_table(check: Check) -> Table:
    columns = ("bias", "split", "Cramér's V", "mutual information", "predicted from bias", "most frequent class")
    table = _make_table("How well the bias predicts the label", *columns, text_columns=2)
    for bias in check.biases[:MAX_LISTED_BIASES]:
        for split, values in bias.association.items():
            decimals = (_format_number(value, ".3f") for value in (values.cramers_v, values.mutual_information))
            shares = (_format_number(value, ".1%") for value in (values.bias_only, values.majority))
            table.add_row(_escape(bias.name), split, *decimals, *shares)
    if len(check.biases) > MAX_LISTED_BIASES:
        table.caption = f"and {len(check.biases) - MAX_LISTED_BIASES} more; check.json lists all"
    return table


def _count_table(bias: BiasCounts, split: str, class_names: list[str]) -> Table | str:
    """Return a table of the number of examples by class and bias value; the longer list of names is at the left."""
    counts: Sequence[Sequence[int]] = bias.counts[split]
    row_names, column_names = class_names, bias.values
    if len(column_names) > len(row_names):
        counts, row_names, column_names = list(zip(*counts, strict=True)), column_names, row_names
    title = f"{split}: class by {bias.name}"
    if len(row_names) > MAX_ROWS or len(column_names) > MAX_COLUMNS:
        return _escape(f"{title}: {len(class_names)} x {len(bias.values)} groups are too many to show")
    table = _make_table(title, "", *column_names)
    for name, row in zip(row_names, counts, strict=True):
        table.add_row(_escape(name), *map(str, row))
    return table
