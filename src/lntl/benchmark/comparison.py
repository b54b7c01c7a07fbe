"""Compare the methods of a benchmark: rows of means over seeds, a column a value of the grid, published rows below."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lntl import paper
from lntl.benchmark.results import BenchmarkRun, ResultLine, RunKey
from lntl.errors import UserError
from lntl.evaluation.metrics import lower_is_better
from lntl.plugins import did_you_mean

COLOR_VAR = "data.color_var"
MEANINGS = {COLOR_VAR: "colour variance σ²"}
SPLITS = {"test": "test set", "val": "validation set"}
UNRANKED = ("bias_accuracy",)  # neither high nor low is better


@dataclass(frozen=True)
class SeedScores:
    """The scores of a method at one value of the grid, one for each seed, and the seeds that failed."""

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
class MethodRow:
    """The scores of a method by value of the grid; `source` is where a published row was read, empty for ours."""

    name: str
    scores: dict[Any, SeedScores]
    source: str = ""
    confirmed: bool = True


@dataclass(frozen=True)
class Comparison:
    """A table of one metric: ours in the plan's order, then the published rows."""

    metric: str
    split: str  # that scored the runs: test or val
    by: str | None  # key of the grid; None where the table has one column
    columns: list[Any]
    ours: list[MethodRow]
    published: list[MethodRow]
    notes: list[str]

    @property
    def rows(self) -> list[MethodRow]:
        """Ours, then the published ones."""
        return [*self.ours, *self.published]

    @property
    def usual_n(self) -> int:
        """The number of seeds behind most of our means, 0 where there are none."""
        return _usual_n(self.ours)

    @property
    def meaning(self) -> str:
        """What the columns are."""
        return "" if self.by is None else MEANINGS.get(self.by, self.by)

    def best(self, column: Any) -> float | None:
        """Return the best mean of a column, of ours and the published ones; None where no order is meant."""
        means = [row.scores[column].mean for row in self.rows if column in row.scores and row.scores[column].values]
        best = min if lower_is_better(self.metric) else max
        return best(means) if means and self.metric not in UNRANKED else None


def compare(
    lines: Sequence[ResultLine],
    planned: Sequence[BenchmarkRun] | None = None,
    metric: str = "accuracy",
    by: str | None = None,
) -> Comparison:
    """Return the table of a metric for the planned runs.

    Without a plan, the runs are those of the lines; of several configurations of one name and values, the last counts.
    """
    runs = _latest(lines) if planned is None else list(planned)
    if not runs:
        raise UserError("there are no runs to compare yet; make them with: lntl benchmark PLAN.yaml")
    results = {line.key: line for line in lines}
    by = _column_key([run.overrides for run in runs], by)
    columns = _sorted({_column(run, by): None for run in runs})
    rows: dict[str, dict[Any, SeedScores]] = {}
    for run in runs:
        scores, column = rows.setdefault(_row_name(run, by), {}), _column(run, by)
        scores[column] = _added(scores.get(column, SeedScores()), results.get(run.key), metric)
    ours = [MethodRow(name, scores) for name, scores in rows.items()]
    split = _split([results[run.key] for run in runs if run.key in results])
    published = _published(columns) if split == "test" and metric == "accuracy" and by == COLOR_VAR else []
    return Comparison(metric, split, by, columns, ours, published, _notes(ours, published, runs, results, split))


def _split(lines: list[ResultLine]) -> str:
    """Return the split that scored the runs."""
    splits = {line.split for line in lines if not line.failed}
    if len(splits) > 1:
        raise UserError("some of these runs were scored on test, some on val; give each plan a file of results")
    return splits.pop() if splits else "test"


def _latest(lines: Iterable[ResultLine]) -> list[BenchmarkRun]:
    """Return the runs of the lines, in the order of their first appearance."""
    current = {(line.name, repr(line.overrides)): line.config_hash for line in lines}
    runs = [
        BenchmarkRun(line.name, line.name, line.overrides, line.config_hash, line.seed)
        for line in lines
        if current[line.name, repr(line.overrides)] == line.config_hash
    ]
    return list({run.key: run for run in runs}.values())


def _column_key(overrides: list[dict[str, Any]], by: str | None) -> str | None:
    """Return the key whose values are the columns."""
    keys = list(dict.fromkeys(key for values in overrides for key in values))
    if by is not None and by not in keys:
        raise UserError(f"--by {by}: no run sets it{did_you_mean(by, keys) if keys else ''}")
    if by is None and len(keys) > 1 and COLOR_VAR not in keys:
        raise UserError(f"the runs differ in {', '.join(keys)}: choose the columns with --by")
    return by or (COLOR_VAR if COLOR_VAR in keys else keys[0] if keys else None)


def _column(run: BenchmarkRun, by: str | None) -> Any:
    """Return the value of the columns' key, a list or mapping as text; None where the run does not set it."""
    value = None if by is None else run.overrides.get(by)
    return json.dumps(value) if isinstance(value, list | dict) else value


def _sorted(values: Iterable[Any]) -> list[Any]:
    """Return numbers by size; where there are others, in the given order."""
    columns = list(values)
    return sorted(columns) if all_numbers(columns) else columns


def all_numbers(values: Iterable[Any]) -> bool:
    """Return whether all values are numbers."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _row_name(run: BenchmarkRun, by: str | None) -> str:
    """Return the label and the other overrides, by the last part of their key: lr for training.optimizer_fg.lr."""
    own = {key: value for key, value in run.overrides.items() if key != by}
    ends = [key.rpartition(".")[2] for key in own]
    names = (end if ends.count(end) == 1 else key for end, key in zip(ends, own, strict=True))
    return ", ".join((run.label, *(f"{name}={value}" for name, value in zip(names, own.values(), strict=True))))


def _added(scores: SeedScores, line: ResultLine | None, metric: str) -> SeedScores:
    """Return the scores with the one of a line."""
    if line is None:
        return scores
    if line.metrics is None:
        return SeedScores(scores.values, (*scores.failed, line.seed))
    if metric not in line.metrics:
        raise UserError(f"--metric {metric}: {line.name} has no such{did_you_mean(metric, list(line.metrics))}")
    value = line.metrics[metric]
    return scores if value is None else SeedScores((*scores.values, value), scores.failed)


def _published(columns: list[Any]) -> list[MethodRow]:
    """Return the published rows that have a value at one of the columns."""
    rows = [
        MethodRow(p.name, {c: SeedScores((p.accuracy[c],)) for c in columns if c in p.accuracy}, p.source, p.confirmed)
        for p in paper.PUBLISHED
    ]
    return [row for row in rows if row.scores]


def _usual_n(rows: list[MethodRow]) -> int:
    counts = [len(scores.values) for row in rows for scores in row.scores.values() if scores.values]
    return max(counts, key=lambda n: (counts.count(n), n), default=0)


def _notes(
    ours: list[MethodRow],
    published: list[MethodRow],
    runs: list[BenchmarkRun],
    results: Mapping[RunKey, ResultLine],
    split: str,
) -> list[str]:
    """Return the notes below the table."""
    notes = []
    if n := _usual_n(ours):
        text = "last checkpoint of each run; mean ± sample standard deviation over seeds"
        notes.append(f"{SPLITS[split].capitalize()}, {text}, n = {n} where no other is given.")
    sources: dict[str, list[str]] = {}
    for row in published:
        sources.setdefault(row.source, []).append(row.name)
    if sources:
        read = "; ".join(f"{source} ({', '.join(names)})" for source, names in sources.items())
        notes.append(f"Published figures, not measured here: {read}.")
    missing = sum(run.key not in results for run in runs)
    if missing:
        notes.append(f"{missing} of {len(runs)} runs are not made yet.")
    for run in runs:
        line = results.get(run.key)
        if line is not None and line.failed:
            values = "".join(f", {key}={value}" for key, value in run.overrides.items())
            notes.append(f"Failed: {run.label}{values}, seed {run.seed}: {line.error.partition(';')[0]}.")
    if outdated := len(results.keys() - {run.key for run in runs}):
        notes.append(f"{outdated} lines are of other configurations or seeds: outdated, not counted.")
    return notes
