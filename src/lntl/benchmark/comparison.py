"""Compare the methods of a benchmark: rows of means over seeds, a column a value of the grid, published rows below.

The table is shown in the terminal and written as Markdown, CSV and LaTeX; the figure has a line for each method.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.markup import escape
from rich.table import Table

from lntl import paper
from lntl.benchmark.results import BenchmarkRun, ResultLine, RunKey
from lntl.errors import UserError
from lntl.evaluation.metrics import lower_is_better
from lntl.figures import MARKERS, PALETTE, PlainFigure, short
from lntl.plugins import did_you_mean
from lntl.runs.files import write_atomic, write_text
from lntl.text import markdown as markdown_text
from lntl.text import one_line, without_formula

COLOR_VAR = "data.color_var"
MEANINGS = {COLOR_VAR: "colour variance σ²"}
SPLITS = {"test": "test set", "val": "validation set"}
UNRANKED = ("bias_accuracy",)  # neither high nor low is better
_LATEX = {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
_LATEX |= {"²": "$^2$", "±": r"$\pm$"} | {c: rf"\{c}" for c in "&%$#_{}"}
_STYLES = ("-", "--", ":")  # the palette starts again with the next style
_MARKS = "x+s*P1"  # of published rows, in grey


Column = str | int | float | bool | None  # a value of the grid


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
    scores: dict[Column, SeedScores]
    source: str = ""
    confirmed: bool = True


@dataclass(frozen=True)
class Comparison:
    """A table of one metric: ours in the plan's order, then the published rows."""

    metric: str
    split: str  # that scored the runs: test or val
    by: str | None  # key of the grid; None where the table has one column
    columns: list[Column]
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
        return "" if self.by is None else MEANINGS.get(self.by, one_line(self.by))

    def best(self, column: Column) -> float | None:
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
    columns = list(dict.fromkeys(_column(run, by) for run in runs))
    if (numbers := _numbers(columns)) is not None:
        columns = [column for _, column in sorted(zip(numbers, columns, strict=True), key=lambda pair: pair[0])]
    rows: dict[str, dict[Column, SeedScores]] = {}
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


def _column(run: BenchmarkRun, by: str | None) -> Column:
    """Return the value of the columns' key, a list or mapping as text; None where the run does not set it."""
    value: Column | list[object] | dict[str, object] = None if by is None else run.overrides.get(by)
    return json.dumps(value) if isinstance(value, list | dict) else value


def _numbers(columns: Sequence[Column]) -> list[float] | None:
    """Return the columns as numbers, None where one is no number."""
    values = [c for c in columns if isinstance(c, int | float) and not isinstance(c, bool)]
    return [float(value) for value in values] if len(values) == len(columns) else None


def _row_name(run: BenchmarkRun, by: str | None) -> str:
    """Return the label and the other overrides, by the last part of their key: lr for training.optimizer_fg.lr."""
    own = {key: value for key, value in run.overrides.items() if key != by}
    ends = [key.rpartition(".")[2] for key in own]
    names = (end if ends.count(end) == 1 else key for end, key in zip(ends, own, strict=True))
    return one_line(", ".join((run.label, *(f"{n}={value}" for n, value in zip(names, own.values(), strict=True)))))


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


def _published(columns: list[Column]) -> list[MethodRow]:
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
            reason = line.error.partition(";")[0]
            notes.append(one_line(f"Failed: {run.label}{values}, seed {run.seed}: {reason}."))
    if outdated := len(results.keys() - {run.key for run in runs}):
        notes.append(f"{outdated} lines are of other configurations or seeds: outdated, not counted.")
    return notes


# --- tables ---


def number(value: float) -> str:
    """Return .9137 for 0.9137, as tables of accuracies have it."""
    text = f"{value:.4f}"
    return text.removeprefix("0") if 0 <= value < 1 else text


def heads(columns: list[Column]) -> list[str]:
    """Return the columns' values as text, numbers with as many decimals as the longest of them."""
    floats = [value for value in columns if isinstance(value, float)]
    decimals = max((len(f"{value:.10f}".rstrip("0").partition(".")[2]) for value in floats), default=0)
    texts = [f"{value:.{decimals}f}" if isinstance(value, float) else one_line(value) for value in columns]
    return ["as configured" if value is None else text for value, text in zip(columns, texts, strict=True)]


def score_text(scores: SeedScores | None, usual_n: int) -> str:
    """Return mean ± std, with n where it is not the usual; empty for what was not run."""
    if scores is None or not (scores.values or scores.failed):
        return ""
    if not scores.values:
        return "failed"
    spread = "" if scores.std is None else f" ± {number(scores.std)}"
    n = len(scores.values)
    return f"{number(scores.mean)}{spread}" + ("" if n == usual_n else f" (n={n})")


def _grid(
    comparison: Comparison, bold: Callable[[str], str], plain: Callable[[str], str]
) -> list[tuple[MethodRow, list[str]]]:
    """Return each row with its name and the text of its scores, the best of each column made bold."""
    table = []
    for row in comparison.rows:
        texts = [plain(row.name)]
        for column in comparison.columns:
            scores = row.scores.get(column)
            text = plain(score_text(scores, 1 if row.source else comparison.usual_n))
            is_best = scores is not None and bool(scores.values) and scores.mean == comparison.best(column)
            texts.append(bold(text) if is_best else text)
        table.append((row, texts))
    return table


def to_markdown(comparison: Comparison) -> str:
    """Return the table in Markdown, with its notes."""

    def line(cells: list[str]) -> str:
        return f"| {' | '.join(cells)} |"

    rows = _grid(comparison, lambda text: f"**{text}**", markdown_text)
    top = line([markdown_text(_title(comparison)), *map(markdown_text, heads(comparison.columns))])
    lines = [top, line(["---", *["---:"] * len(comparison.columns)])]
    lines += [line(texts) for _, texts in rows]
    return "\n".join([*lines, "", *(f"{markdown_text(note)}  " for note in comparison.notes)]).rstrip() + "\n"


def _title(comparison: Comparison) -> str:
    metric = one_line(comparison.metric)
    return f"{metric.replace('_', ' ')} by {comparison.meaning}" if comparison.by else metric


def to_csv(comparison: Comparison, escape_formulas: bool = False) -> str:
    """Return one line for each method and value of the grid, with all digits.

    escape_formulas: whether to put an apostrophe before texts that a spreadsheet would run as formulas.
    """
    text = without_formula if escape_formulas else str
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", "source", text(comparison.by or ""), "metric", "n", "mean", "std", "failed_seeds"])
    for row in comparison.rows:
        for column in comparison.columns:
            scores = row.scores.get(column)
            if scores is None or not (scores.values or scores.failed):
                continue
            mean = repr(scores.mean) if scores.values else ""
            std = "" if scores.std is None else repr(scores.std)
            failed = " ".join(map(str, scores.failed))
            n = len(scores.values)
            head = (row.name, row.source or "ours", column, comparison.metric)
            cells = [text(cell) if isinstance(cell, str) else cell for cell in head]
            writer.writerow([*cells, n, mean, std, failed])
    return file.getvalue()


def to_latex(comparison: Comparison) -> str:
    """Return a tabular for the package booktabs; the notes are comments above it."""
    columns = len(comparison.columns)
    rows = _grid(comparison, lambda text: rf"\textbf{{{text}}}", _latex_text)
    lines = [f"% {note}" for note in comparison.notes] + [rf"\begin{{tabular}}{{l{'r' * columns}}}", r"\toprule"]
    lines.append(rf" & \multicolumn{{{columns}}}{{c}}{{{_latex_text(_title(comparison))}}} \\")
    lines.append(" & ".join(["Method", *map(_latex_text, heads(comparison.columns))]) + r" \\")
    before = None
    for row, texts in rows:
        if bool(row.source) is not before:
            lines.append(r"\midrule")
        before = bool(row.source)
        lines.append(" & ".join(texts) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_text(text: str) -> str:
    return r"$\sigma^2$".join("".join(_LATEX.get(c, c) for c in part) for part in text.split("σ²"))


def to_table(comparison: Comparison) -> Table:
    """Return the table for the terminal; the notes stand below it."""
    title, notes = escape(_title(comparison)), escape("\n".join(comparison.notes))
    table = Table(title=title, caption=notes, box=box.SIMPLE_HEAD, pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    table.add_column("method", max_width=34)
    for head in heads(comparison.columns):
        table.add_column(escape(head), justify="right")
    for position, (_, texts) in enumerate(_grid(comparison, lambda text: f"[bold]{text}[/bold]", escape)):
        if position == len(comparison.ours):
            table.add_section()
        table.add_row(*texts)
    return table


def write(comparison: Comparison, folder: Path, prefix: str, escape_formulas: bool = False) -> list[Path]:
    """Write table.md, .csv, .tex and figure.png, .svg, each name after `prefix`; return their paths."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot make the folder: {error.strerror}; choose another with --out") from error
    texts = {
        "table.md": to_markdown(comparison),
        "table.csv": to_csv(comparison, escape_formulas),
        "table.tex": to_latex(comparison),
    }
    for name, text in texts.items():
        write_text(folder / f"{prefix}{name}", text)
    figure = comparison_figure(comparison)
    dates = {"figure.png": "Software", "figure.svg": "Date"}
    with rc_context({"svg.hashsalt": "lntl"}):  # with no date, the same file for the same results
        for name, date in dates.items():
            save = partial(figure.savefig, format=Path(name).suffix[1:], dpi=150, metadata={date: None})
            write_atomic(folder / f"{prefix}{name}", save)
    return [folder / f"{prefix}{name}" for name in (*texts, *dates)]


# --- figure ---


def comparison_figure(comparison: Comparison) -> Figure:
    """Return the metric against the grid's values; a table of one column gives one point a method."""
    if len(comparison.columns) == 1:
        return _points(comparison)
    rows = [row for row in comparison.ours if any(scores.values for scores in row.scores.values())]
    published = [row for row in comparison.published if row.confirmed]
    names = short([row.name for row in (*rows, *published)])
    width = 6.6 + 0.075 * max(map(len, names), default=0)
    figure, axes = _axes(width, max(4.8, 0.6 + 0.21 * len(names)))
    x = _numbers(comparison.columns) or [float(k) for k in range(len(comparison.columns))]
    positions = dict(zip(comparison.columns, x, strict=True))
    for number, (row, name) in enumerate(zip(rows, names, strict=False)):
        points = sorted((positions[c], s.mean, s.std or 0.0) for c, s in row.scores.items() if s.values)
        place, mean, std = (np.array(column) for column in zip(*points, strict=True))
        color, style = PALETTE[number % len(PALETTE)], _STYLES[number // len(PALETTE) % len(_STYLES)]
        axes.plot(place, mean, color=color, ls=style, marker=MARKERS[number % len(MARKERS)], ms=4.5, lw=1.6, label=name)
        axes.fill_between(place, mean - std, mean + std, color=color, alpha=0.18, lw=0)
    for row, name, mark in zip(published, names[len(rows) :], _MARKS, strict=False):
        at, means = zip(*((positions[column], scores.mean) for column, scores in row.scores.items()), strict=True)
        axes.plot(at, means, ls="", label=name, zorder=3, marker=mark, mfc="none", color="0.3", ms=6.5)
    axes.set_xticks(list(positions.values()), heads(comparison.columns))
    axes.set_xlabel(comparison.meaning)
    axes.set_ylabel(f"{one_line(comparison.metric).replace('_', ' ')} on the {SPLITS[comparison.split]}")
    axes.grid(alpha=0.3)
    # methods in the order of their last points, published rows below
    lines = sorted(axes.lines[: len(rows)], key=lambda line: -float(np.asarray(line.get_ydata())[-1]))
    if names:
        figure.legend(handles=[*lines, *axes.lines[len(rows) :]], loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _points(comparison: Comparison) -> Figure:
    """Return one point a method, the best above, for a table of one column."""
    (column,) = comparison.columns
    rows = [row for row in comparison.rows if row.confirmed and column in row.scores and row.scores[column].values]
    rows.sort(key=lambda row: row.scores[column].mean, reverse=lower_is_better(comparison.metric))
    figure, axes = _axes(6.4, 1.1 + 0.3 * len(rows))
    for y, row in enumerate(rows):
        scores, color = row.scores[column], "0.35" if row.source else PALETTE[0]
        axes.errorbar(scores.mean, y, xerr=scores.std, fmt="x" if row.source else "o", color=color, capsize=3)
    axes.set_yticks(range(len(rows)), short([row.name for row in rows]))
    axes.set_xlabel(one_line(comparison.metric).replace("_", " "))
    axes.grid(axis="x", alpha=0.4)
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = PlainFigure(figsize=(width, height), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
