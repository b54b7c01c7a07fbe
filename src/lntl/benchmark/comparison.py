"""Compare the methods of a benchmark: a row per method, a column per value of the grid, published rows below.

The table is shown in the terminal and written as Markdown, CSV and LaTeX; the figure has a line for each method.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
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
from lntl.paper import PublishedResult
from lntl.plugins import did_you_mean
from lntl.runs.files import write_atomic, write_text
from lntl.text import markdown as markdown_text
from lntl.text import one_line, without_formula

COLOR_VAR = "data.color_var"
MAX_NUMBER = 1e100  # largest number on an axis; larger ones, infinity and NaN are shown as texts
KEY_LABELS = {COLOR_VAR: "color variance σ²"}
SPLIT_LABELS = {"test": "test set", "val": "validation set"}
UNRANKED_METRICS = ("bias_accuracy",)  # neither high nor low values are better
_LATEX_ESCAPES = {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
_LATEX_ESCAPES |= {"²": "$^2$", "±": r"$\pm$"} | {c: rf"\{c}" for c in "&%$#_{}"}
_LINE_STYLES = ("-", "--", ":")  # when all colors of the palette are used, they repeat with the next style
_PUBLISHED_MARKERS = "x+s*P1dph"  # markers of published rows, in gray; repeated if there are more rows


Column = str | int | float | bool | None  # a value of the grid


@dataclass(frozen=True)
class SeedScores:
    """The scores of a method at one value of the grid, one for each seed.

    Attributes:
        values: The scores.
        failed_seeds: Seeds of runs that failed.
        undefined_seeds: Seeds of runs whose score is undefined.
    """

    values: tuple[float, ...] = ()
    failed_seeds: tuple[int, ...] = ()
    undefined_seeds: tuple[int, ...] = ()

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
    """The scores of a method by value of the grid; `source` is the source of a published row, empty for our rows."""

    name: str
    scores: dict[Column, SeedScores]
    source: str = ""
    confirmed: bool = True


@dataclass(frozen=True)
class Comparison:
    """A table of one metric: our rows in the order of the plan, then the published rows."""

    metric: str
    split: str  # split on which the runs were evaluated: test or val
    by: str | None  # key of the grid whose values are the columns; None if there is only one column
    columns: list[Column]
    our_rows: list[MethodRow]
    published_rows: list[MethodRow]
    notes: list[str]

    @property
    def rows(self) -> list[MethodRow]:
        """Our rows, then the published ones."""
        return [*self.our_rows, *self.published_rows]

    @property
    def usual_n(self) -> int:
        """The most frequent number of seeds of our means; 0 if there is no mean."""
        return _usual_n(self.our_rows)

    @property
    def meaning(self) -> str:
        """Label of the columns."""
        return "" if self.by is None else KEY_LABELS.get(self.by, one_line(self.by))

    def best(self, column: Column) -> float | None:
        """Return the best mean of a column over all rows; None if the metric has no better direction."""
        means = [row.scores[column].mean for row in self.rows if column in row.scores and row.scores[column].values]
        choose = min if lower_is_better(self.metric) else max
        return choose(means) if means and self.metric not in UNRANKED_METRICS else None


def compare(
    lines: Sequence[ResultLine],
    planned: Sequence[BenchmarkRun] | None = None,
    metric: str = "accuracy",
    by: str | None = None,
    published: Sequence[PublishedResult] = (),
) -> Comparison:
    """Return the table of a metric for the planned runs.

    planned: The runs; None: the runs of the lines. If such runs have the same name and overrides, but different
    configurations, only those with the last configuration are used.
    published: Results of others in this metric; those on the paper's Colored MNIST are added to them.
    """
    runs = _latest_runs(lines) if planned is None else list(planned)
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
        scores[column] = _add_score(scores.get(column, SeedScores()), results.get(run.key), metric)
    our_rows = [MethodRow(name, scores) for name, scores in rows.items()]
    split = _split([results[run.key] for run in runs if run.key in results])
    if metric == "accuracy" and by == COLOR_VAR:
        published = [*paper.PUBLISHED_RESULTS, *published]
    published_rows = _published_rows(columns, published) if split == "test" else []
    notes = _notes(our_rows, published_rows, runs, results, split)
    if num_undefined := sum(len(scores.undefined_seeds) for row in our_rows for scores in row.scores.values()):
        notes.append(
            f"{one_line(metric)} is undefined for {num_undefined} of {len(runs)} runs, which the means leave out."
        )
    if num_repeated := len(lines) - len(results):
        notes.append(f"{num_repeated} lines are followed by another line of the same run, which counts.")
    return Comparison(metric, split, by, columns, our_rows, published_rows, notes)


def _split(lines: list[ResultLine]) -> str:
    """Return the split on which the runs were evaluated."""
    splits = {line.split for line in lines if not line.failed}
    if len(splits) > 1:
        raise UserError(
            "some of these runs were evaluated on test, others on val; give each plan its own file of results"
        )
    return splits.pop() if splits else "test"


def _latest_runs(lines: Iterable[ResultLine]) -> list[BenchmarkRun]:
    """Return the runs of the lines, in the order of their first appearance."""
    current = {(line.name, repr(line.overrides)): line.config_hash for line in lines}
    runs = [
        BenchmarkRun(line.name, line.name, line.overrides, line.config_hash, line.seed)
        for line in lines
        if current[line.name, repr(line.overrides)] == line.config_hash
    ]
    return list({run.key: run for run in runs}.values())


def _column_key(overrides: list[dict[str, Any]], by: str | None) -> str | None:
    """Return the key whose values are the columns: `by`, the color variance, or the only key that all runs set."""
    keys = list(dict.fromkeys(key for values in overrides for key in values))
    if by is not None and by not in keys:
        raise UserError(f"--by {by}: no run sets it{did_you_mean(by, keys) if keys else ''}")
    if by is not None or not keys:
        return by
    common_keys = [key for key in keys if all(key in values for values in overrides)]
    candidates = [COLOR_VAR] if COLOR_VAR in keys else keys if len(keys) == 1 else common_keys
    if len(candidates) != 1:
        raise UserError(f"the runs differ in {', '.join(keys)}: choose the columns with --by")
    return candidates[0]


def _column(run: BenchmarkRun, by: str | None) -> Column:
    """Return the value of the key `by`, a list or mapping as text; None if the run does not set it."""
    value: Column | list[object] | dict[str, object] = None if by is None else run.overrides.get(by)
    return json.dumps(value) if isinstance(value, list | dict) else value


def _numbers(columns: Sequence[Column]) -> list[float] | None:
    """Return the columns as numbers; None if one is not a number."""
    values = [c for c in columns if isinstance(c, int | float) and not isinstance(c, bool) and abs(c) <= MAX_NUMBER]
    return [float(value) for value in values] if len(values) == len(columns) else None


def _row_name(run: BenchmarkRun, by: str | None) -> str:
    """Return the label and the overrides except `by`, with short keys: lr for training.optimizer_fg.lr."""
    overrides = {key: value for key, value in run.overrides.items() if key != by}
    short_keys = [key.rpartition(".")[2] for key in overrides]
    names = (last if short_keys.count(last) == 1 else key for last, key in zip(short_keys, overrides, strict=True))
    return one_line(
        ", ".join((run.label, *(f"{n}={value}" for n, value in zip(names, overrides.values(), strict=True))))
    )


def _add_score(scores: SeedScores, line: ResultLine | None, metric: str) -> SeedScores:
    """Return the scores together with the score of a line."""
    if line is None:
        return scores
    if line.metrics is None:
        return replace(scores, failed_seeds=(*scores.failed_seeds, line.seed))
    if metric not in line.metrics:
        raise UserError(f"--metric {metric}: {line.name} has no such metric{did_you_mean(metric, list(line.metrics))}")
    value = line.metrics[metric]
    if value is None:
        return replace(scores, undefined_seeds=(*scores.undefined_seeds, line.seed))
    return replace(scores, values=(*scores.values, value))


def _published_rows(columns: list[Column], published: Sequence[PublishedResult]) -> list[MethodRow]:
    """Return the published rows that have a value at one of the columns."""
    rows = [
        MethodRow(p.name, {c: SeedScores((p.scores[c],)) for c in columns if c in p.scores}, p.source, p.confirmed)
        for p in published
    ]
    return [row for row in rows if row.scores]


def _usual_n(rows: list[MethodRow]) -> int:
    counts = [len(scores.values) for row in rows for scores in row.scores.values() if scores.values]
    return max(counts, key=lambda n: (counts.count(n), n), default=0)


def _notes(
    our_rows: list[MethodRow],
    published_rows: list[MethodRow],
    runs: list[BenchmarkRun],
    results: Mapping[RunKey, ResultLine],
    split: str,
) -> list[str]:
    """Return the notes below the table."""
    notes = []
    if n := _usual_n(our_rows):
        text = "last checkpoint of each run; mean ± sample standard deviation over seeds"
        notes.append(f"{SPLIT_LABELS[split].capitalize()}, {text}, n = {n} unless the cell shows another n.")
    sources: dict[str, list[str]] = {}
    for row in published_rows:
        sources.setdefault(row.source, []).append(row.name)
    if sources:
        source_list = "; ".join(f"{source} ({', '.join(names)})" for source, names in sources.items())
        notes.append(f"Published results, not measured here: {source_list}.")
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
        notes.append(f"{outdated} lines belong to other configurations or seeds and are not used.")
    return notes


# --- tables ---


def format_number(value: float) -> str:
    """Return a value with four decimals; for values in [0, 1) without the leading zero, as .9137."""
    text = f"{value:.4f}"
    return text.removeprefix("0") if 0 <= value < 1 else text


def column_headings(columns: list[Column]) -> list[str]:
    """Return the values of the columns as text; all numbers get as many decimals as the longest of them."""
    floats = [value for value in columns if isinstance(value, float)]
    decimals = max((len(f"{value:.10f}".rstrip("0").partition(".")[2]) for value in floats), default=0)
    texts = [f"{value:.{decimals}f}" if isinstance(value, float) else one_line(value) for value in columns]
    return ["as configured" if value is None else text for value, text in zip(columns, texts, strict=True)]


def score_text(scores: SeedScores | None, usual_n: int) -> str:
    """Return mean ± std, with n if it is not the usual n; "" if nothing was run."""
    if scores is None or not (scores.values or scores.failed_seeds or scores.undefined_seeds):
        return ""
    if not scores.values:
        return "undefined" if scores.undefined_seeds else "failed"
    spread = "" if scores.std is None else f" ± {format_number(scores.std)}"
    n = len(scores.values)
    return f"{format_number(scores.mean)}{spread}" + ("" if n == usual_n else f" (n={n})")


def _table_texts(
    comparison: Comparison, bold: Callable[[str], str], plain: Callable[[str], str]
) -> list[tuple[MethodRow, list[str]]]:
    """Return each row with its texts: the name and the scores, with the best score of each column in bold."""
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

    rows = _table_texts(comparison, lambda text: f"**{text}**", markdown_text)
    heading = line([markdown_text(_title(comparison)), *map(markdown_text, column_headings(comparison.columns))])
    lines = [heading, line(["---", *["---:"] * len(comparison.columns)])]
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
            if scores is None or not (scores.values or scores.failed_seeds):
                continue
            mean = repr(scores.mean) if scores.values else ""
            std = "" if scores.std is None else repr(scores.std)
            failed = " ".join(map(str, scores.failed_seeds))
            n = len(scores.values)
            head = (row.name, row.source or "ours", column, comparison.metric)
            cells = [text(cell) if isinstance(cell, str) else cell for cell in head]
            writer.writerow([*cells, n, mean, std, failed])
    return file.getvalue()


def to_latex(comparison: Comparison) -> str:
    """Return a tabular for the package booktabs; the notes are comments above it."""
    columns = len(comparison.columns)
    rows = _table_texts(comparison, lambda text: rf"\textbf{{{text}}}", _latex_text)
    lines = [f"% {note}" for note in comparison.notes] + [rf"\begin{{tabular}}{{l{'r' * columns}}}", r"\toprule"]
    lines.append(rf" & \multicolumn{{{columns}}}{{c}}{{{_latex_text(_title(comparison))}}} \\")
    lines.append(" & ".join(["Method", *map(_latex_text, column_headings(comparison.columns))]) + r" \\")
    was_published = None
    for row, texts in rows:
        if bool(row.source) is not was_published:
            lines.append(r"\midrule")
        was_published = bool(row.source)
        lines.append(" & ".join(texts) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def _latex_text(text: str) -> str:
    return r"$\sigma^2$".join("".join(_LATEX_ESCAPES.get(c, c) for c in part) for part in text.split("σ²"))


def to_table(comparison: Comparison) -> Table:
    """Return the table for the terminal; the notes stand below it."""
    title, notes = escape(_title(comparison)), escape("\n".join(comparison.notes))
    table = Table(title=title, caption=notes, box=box.SIMPLE_HEAD, pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    table.add_column("method", max_width=34)
    for head in column_headings(comparison.columns):
        table.add_column(escape(head), justify="right")
    for position, (_, texts) in enumerate(_table_texts(comparison, lambda text: f"[bold]{text}[/bold]", escape)):
        if position == len(comparison.our_rows):
            table.add_section()
        table.add_row(*texts)
    return table


def write(comparison: Comparison, folder: Path, prefix: str, escape_formulas: bool = False) -> list[Path]:
    """Write table.md, .csv, .tex and figure.png, .svg, with `prefix` before each name; return their paths."""
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
    removed_metadata = {"figure.png": "Software", "figure.svg": "Date"}
    with rc_context({"svg.hashsalt": "lntl"}):  # equal results give equal files, without date or version
        for name, key in removed_metadata.items():
            save = partial(figure.savefig, format=Path(name).suffix[1:], dpi=150, metadata={key: None})
            write_atomic(folder / f"{prefix}{name}", save)
    return [folder / f"{prefix}{name}" for name in (*texts, *removed_metadata)]


# --- figure ---


def comparison_figure(comparison: Comparison) -> Figure:
    """Plot the metric against the values of the grid; for a table of one column, one point per method."""
    if len(comparison.columns) == 1:
        return _plot_points(comparison)
    rows = [row for row in comparison.our_rows if any(scores.values for scores in row.scores.values())]
    published_rows = [row for row in comparison.published_rows if row.confirmed]
    names = short([row.name for row in (*rows, *published_rows)])
    width = 6.6 + 0.075 * max(map(len, names), default=0)
    figure, axes = _make_axes(width, max(4.8, 0.6 + 0.21 * len(names)))
    x = _numbers(comparison.columns) or [float(k) for k in range(len(comparison.columns))]
    positions = dict(zip(comparison.columns, x, strict=True))
    for index, (row, name) in enumerate(zip(rows, names, strict=False)):
        points = sorted((positions[c], s.mean, s.std or 0.0) for c, s in row.scores.items() if s.values)
        x_values, mean, std = (np.array(column) for column in zip(*points, strict=True))
        color, style = PALETTE[index % len(PALETTE)], _LINE_STYLES[index // len(PALETTE) % len(_LINE_STYLES)]
        axes.plot(
            x_values, mean, color=color, ls=style, marker=MARKERS[index % len(MARKERS)], ms=4.5, lw=1.6, label=name
        )
        axes.fill_between(x_values, mean - std, mean + std, color=color, alpha=0.18, lw=0)
    for row, name, mark in zip(published_rows, names[len(rows) :], cycle(_PUBLISHED_MARKERS), strict=False):
        published_x, means = zip(
            *((positions[column], scores.mean) for column, scores in row.scores.items()), strict=True
        )
        axes.plot(published_x, means, ls="", label=name, zorder=3, marker=mark, mfc="none", color="0.3", ms=6.5)
    axes.set_xticks(list(positions.values()), column_headings(comparison.columns))
    axes.set_xlabel(comparison.meaning)
    axes.set_ylabel(f"{one_line(comparison.metric).replace('_', ' ')} on the {SPLIT_LABELS[comparison.split]}")
    axes.grid(alpha=0.3)
    # The legend lists the methods in the order of their last points, then the published rows.
    lines = sorted(axes.lines[: len(rows)], key=lambda line: -float(np.asarray(line.get_ydata())[-1]))
    if names:
        figure.legend(handles=[*lines, *axes.lines[len(rows) :]], loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _plot_points(comparison: Comparison) -> Figure:
    """Plot one point per method, the best at the top, for a table of one column."""
    (column,) = comparison.columns
    rows = [row for row in comparison.rows if row.confirmed and column in row.scores and row.scores[column].values]
    rows.sort(key=lambda row: row.scores[column].mean, reverse=lower_is_better(comparison.metric))
    figure, axes = _make_axes(6.4, 1.1 + 0.3 * len(rows))
    for y, row in enumerate(rows):
        scores, color = row.scores[column], "0.35" if row.source else PALETTE[0]
        axes.errorbar(scores.mean, y, xerr=scores.std, fmt="x" if row.source else "o", color=color, capsize=3)
    axes.set_yticks(range(len(rows)), short([row.name for row in rows]))
    axes.set_xlabel(one_line(comparison.metric).replace("_", " "))
    axes.grid(axis="x", alpha=0.4)
    return figure


def _make_axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = PlainFigure(figsize=(width, height), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes
