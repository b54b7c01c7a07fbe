"""Compare the methods of a benchmark: rows of means over seeds, a column a value of the grid, published rows below."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lntl import paper
from lntl.benchmark import results
from lntl.benchmark.results import Line
from lntl.errors import UserError
from lntl.evaluation.metrics import lower_is_better
from lntl.plugins import did_you_mean

COLOR_VAR = "data.color_var"
MEANINGS = {COLOR_VAR: "colour variance σ²"}
SPLITS = {"test": "test set", "val": "validation set"}
UNRANKED = ("bias_accuracy",)  # neither high nor low is better


@dataclass(frozen=True)
class Cell:
    """The values of one method at one value of the grid, a seed each, and the seeds that failed."""

    values: tuple[float, ...] = ()
    failed: tuple[int, ...] = ()

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.values))

    @property
    def std(self) -> float | None:
        """Sample standard deviation over the seeds (n - 1 in the denominator); None for fewer than two."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Row:
    """One method: its cells by value of the grid; `source` is where a published row was read, empty for ours."""

    name: str
    cells: dict[Any, Cell]
    source: str = ""
    confirmed: bool = True


@dataclass(frozen=True)
class Planned:
    """A run that the plan asks for."""

    label: str  # of its row
    key: tuple[str, str, int]  # of its line
    overrides: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """A table of one metric: ours in the plan's order, then the published rows."""

    metric: str
    split: str  # that scored the runs: test or val
    by: str | None  # key of the grid; None where the table has one column
    columns: list[Any]
    ours: list[Row]
    published: list[Row]
    notes: list[str]

    @property
    def rows(self) -> list[Row]:
        """Ours, then the published ones."""
        return [*self.ours, *self.published]

    @property
    def usual_n(self) -> int:
        """The number of seeds behind most of our means, 0 where there are none."""
        return _usual(self.ours)

    @property
    def meaning(self) -> str:
        """What the columns are."""
        return "" if self.by is None else MEANINGS.get(self.by, self.by)

    def best(self, column: Any) -> float | None:
        """Return the best mean of a column, of ours and the published ones; None where no order is meant."""
        cells = [row.cells[column] for row in self.rows if column in row.cells]
        means = [cell.mean for cell in cells if cell.values]
        best = min if lower_is_better(self.metric) else max
        return best(means) if means and self.metric not in UNRANKED else None


def compare(
    lines: Sequence[Line], planned: Sequence[Planned] | None = None, metric: str = "accuracy", by: str | None = None
) -> Comparison:
    """Return the table of a metric. Without a plan, the last configuration of each name and cell is what counts."""
    wanted = _latest(lines) if planned is None else list(planned)
    if not wanted:
        raise UserError("there are no runs to compare yet; make them with: lntl benchmark PLAN.yaml")
    found = {results.key(line): line for line in lines}
    by = _chosen([run.overrides for run in wanted], by)
    columns = _ordered({_column(run, by): None for run in wanted})
    ours: dict[str, dict[Any, Cell]] = {}
    for run in wanted:
        cells = ours.setdefault(_row_name(run, by), {})
        column = _column(run, by)
        cells[column] = _with(cells.get(column, Cell()), found.get(run.key), metric)
    rows = [Row(name, cells) for name, cells in ours.items()]
    split = _split([found[run.key] for run in wanted if run.key in found])
    published = _published(columns) if split == "test" and metric == "accuracy" and by == COLOR_VAR else []
    outdated = sum(key not in {run.key for run in wanted} for key in found)
    return Comparison(
        metric, split, by, columns, rows, published, _notes(rows, published, wanted, found, outdated, split)
    )


def _split(lines: list[Line]) -> str:
    """Return the split that scored the runs, as their lines say."""
    splits = {line.get("split", "test") for line in lines if not results.failed(line)}
    if len(splits) > 1:
        raise UserError("some of these runs were scored on test, some on val; give each plan a file of results")
    return splits.pop() if splits else "test"


def _latest(lines: Iterable[Line]) -> list[Planned]:
    """Return what the lines themselves say was run, in the order of its first appearance."""
    current = {(line["name"], repr(line["overrides"])): line["config_hash"] for line in lines}
    kept = [line for line in lines if current[line["name"], repr(line["overrides"])] == line["config_hash"]]
    return list({results.key(x): Planned(x["name"], results.key(x), x["overrides"]) for x in kept}.values())


def _chosen(cells: list[dict[str, Any]], by: str | None) -> str | None:
    """Return the key whose values are the columns."""
    keys = list(dict.fromkeys(key for cell in cells for key in cell))
    if by is not None and by not in keys:
        raise UserError(f"--by {by}: no run sets it{did_you_mean(by, keys) if keys else ''}")
    if by is None and len(keys) > 1 and COLOR_VAR not in keys:
        raise UserError(f"the runs differ in {', '.join(keys)}: choose the columns with --by")
    return by or (COLOR_VAR if COLOR_VAR in keys else keys[0] if keys else None)


def _column(run: Planned, by: str | None) -> Any:
    """Return the value of the columns' key, a list or mapping as text; None where the run does not set it."""
    value = None if by is None else run.overrides.get(by)
    return json.dumps(value) if isinstance(value, list | dict) else value


def _ordered(values: Iterable[Any]) -> list[Any]:
    """Return numbers by size; where there are others, the order in which they came."""
    found = list(values)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in found)
    return sorted(found) if numbers else found


def _row_name(run: Planned, by: str | None) -> str:
    """Return the label and what sets the row apart, by the last part of its key: lr for training.optimizer_fg.lr."""
    own = {key: value for key, value in run.overrides.items() if key != by}
    ends = [key.rpartition(".")[2] for key in own]
    named = (end if ends.count(end) == 1 else key for end, key in zip(ends, own, strict=True))
    return ", ".join((run.label, *(f"{name}={value}" for name, value in zip(named, own.values(), strict=True))))


def _with(cell: Cell, line: Line | None, metric: str) -> Cell:
    """Return the cell with what a run's line says."""
    if line is None:
        return cell
    if results.failed(line):
        return Cell(cell.values, (*cell.failed, line["seed"]))
    if metric not in line["metrics"]:
        raise UserError(f"--metric {metric}: {line['name']} has no such{did_you_mean(metric, list(line['metrics']))}")
    value = line["metrics"][metric]
    return cell if value is None else Cell((*cell.values, value), cell.failed)


def _published(columns: list[Any]) -> list[Row]:
    """Return the published rows that have a value at one of the columns."""
    rows = [
        Row(p.name, {c: Cell((p.accuracy[c],)) for c in columns if c in p.accuracy}, p.source, p.confirmed)
        for p in paper.PUBLISHED
    ]
    return [row for row in rows if row.cells]


def _usual(rows: list[Row]) -> int:
    counts = [len(cell.values) for row in rows for cell in row.cells.values() if cell.values]
    return max(counts, key=lambda n: (counts.count(n), n), default=0)


def _notes(
    ours: list[Row],
    published: list[Row],
    wanted: list[Planned],
    found: dict[tuple[str, str, int], Line],
    outdated: int,
    split: str,
) -> list[str]:
    """Return what has to be said below the table."""
    notes = []
    if n := _usual(ours):
        told = "last checkpoint of each run; mean ± sample standard deviation over seeds"
        notes.append(f"{SPLITS[split].capitalize()}, {told}, n = {n} where no other is given.")
    sources: dict[str, list[str]] = {}
    for row in published:
        sources.setdefault(row.source, []).append(row.name)
    if sources:
        read = "; ".join(f"{source} ({', '.join(names)})" for source, names in sources.items())
        notes.append(f"Published figures, not measured here: {read}.")
    missing = sum(run.key not in found for run in wanted)
    if missing:
        notes.append(f"{missing} of {len(wanted)} runs are not made yet.")
    for run in wanted:
        line = found.get(run.key)
        if line is not None and results.failed(line):
            cell = "".join(f", {key}={value}" for key, value in run.overrides.items())
            notes.append(f"Failed: {run.label}{cell}, seed {run.key[2]}: {line['error'].partition(';')[0]}.")
    if outdated:
        notes.append(f"{outdated} lines are of other configurations or seeds: outdated, not counted.")
    return notes
