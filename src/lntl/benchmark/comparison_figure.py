"""The figure of a comparison (a line and a band of one standard deviation a method), and the files of a comparison."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lntl.benchmark.comparison import SPLITS, Comparison, MethodRow, all_numbers
from lntl.benchmark.comparison_tables import heads, latex, markdown, to_csv
from lntl.errors import UserError
from lntl.evaluation.metrics import lower_is_better
from lntl.figures import MARKERS, PALETTE, PlainFigure
from lntl.runs.files import write_atomic, write_text

_STYLES = ("-", "--", ":")  # the palette starts again with the next style
_MARKS = "x+s*P1"  # of published rows, in grey


def write(comparison: Comparison, folder: Path, prefix: str) -> list[Path]:
    """Write table.md, .csv, .tex and figure.png, .svg, each name after `prefix`; return their paths."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot make the folder: {error.strerror}; choose another with --out") from error
    texts = {"table.md": markdown(comparison), "table.csv": to_csv(comparison), "table.tex": latex(comparison)}
    for name, text in texts.items():
        write_text(folder / f"{prefix}{name}", text)
    figure = comparison_figure(comparison)
    dates = {"figure.png": "Software", "figure.svg": "Date"}
    with rc_context({"svg.hashsalt": "lntl"}):  # with no date, the same file for the same results
        for name, date in dates.items():
            save = partial(figure.savefig, format=Path(name).suffix[1:], dpi=150, metadata={date: None})
            write_atomic(folder / f"{prefix}{name}", save)
    return [folder / f"{prefix}{name}" for name in (*texts, *dates)]


def comparison_figure(comparison: Comparison) -> Figure:
    """Return the metric against the grid's values; a table of one column gives one point a method."""
    if len(comparison.columns) == 1:
        return _points(comparison)
    rows = [row for row in comparison.ours if any(scores.values for scores in row.scores.values())]
    published = [row for row in comparison.published if row.confirmed]
    names = [row.name for row in (*rows, *published)]
    figure = PlainFigure(
        figsize=(6.6 + 0.075 * max(map(len, names), default=0), max(4.8, 0.6 + 0.21 * len(names))),
        dpi=100,
        layout="constrained",
    )
    axes = figure.subplots()
    x = list(comparison.columns) if all_numbers(comparison.columns) else list(range(len(comparison.columns)))
    positions = dict(zip(comparison.columns, map(float, x), strict=True))
    for number, row in enumerate(rows):
        _line(axes, row, positions, number)
    for row, mark in zip(published, _MARKS, strict=False):
        points = [(positions[column], scores.mean) for column, scores in row.scores.items()]
        look: dict[str, Any] = {"marker": mark, "markerfacecolor": "none", "color": "0.3", "ms": 6.5}
        axes.plot(*zip(*points, strict=True), ls="", label=row.name, zorder=3, **look)
    axes.set_xticks(list(positions.values()), heads(comparison.columns))
    axes.set_xlabel(comparison.meaning)
    axes.set_ylabel(f"{comparison.metric.replace('_', ' ')} on the {SPLITS[comparison.split]}")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    # methods in the order of their last points, published rows below
    lines = sorted(axes.lines[: len(rows)], key=lambda line: -float(np.asarray(line.get_ydata())[-1]))
    if names:
        figure.legend(handles=[*lines, *axes.lines[len(rows) :]], loc="outside right upper", frameon=False, fontsize=9)
    return figure


def _line(axes: Axes, row: MethodRow, positions: dict[Any, float], number: int) -> None:
    """Draw a method's line and band."""
    points = sorted((positions[c], s.mean, s.std or 0.0) for c, s in row.scores.items() if s.values)
    x, mean, std = (np.array(column) for column in zip(*points, strict=True))
    color = PALETTE[number % len(PALETTE)]
    style = _STYLES[number // len(PALETTE) % len(_STYLES)]
    axes.plot(x, mean, color=color, ls=style, marker=MARKERS[number % len(MARKERS)], ms=4.5, lw=1.6, label=row.name)
    axes.fill_between(x, mean - std, mean + std, color=color, alpha=0.18, lw=0)


def _points(comparison: Comparison) -> Figure:
    """Return one point a method, the best above, for a table of one column."""
    (column,) = comparison.columns
    rows = [row for row in comparison.rows if row.confirmed and column in row.scores and row.scores[column].values]
    rows.sort(key=lambda row: row.scores[column].mean, reverse=lower_is_better(comparison.metric))
    figure = PlainFigure(figsize=(6.4, 1.1 + 0.3 * len(rows)), dpi=100, layout="constrained")
    axes = figure.subplots()
    for y, row in enumerate(rows):
        scores, color = row.scores[column], "0.35" if row.source else PALETTE[0]
        axes.errorbar(scores.mean, y, xerr=scores.std, fmt="x" if row.source else "o", color=color, capsize=3)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_xlabel(comparison.metric.replace("_", " "))
    axes.grid(axis="x", alpha=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
