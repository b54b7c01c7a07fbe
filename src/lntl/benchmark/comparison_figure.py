"""The figure of a comparison: one line a method, its band the standard deviation, published values as marks."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lntl.benchmark.comparison import SPLITS, Comparison, Row
from lntl.benchmark.comparison_tables import heads
from lntl.evaluation.metrics import lower_is_better
from lntl.figures import MARKERS, PALETTE, PlainFigure

_STYLES = ("-", "--", ":")  # the palette starts anew with the next style
_DOTS = (0, (1, 2.5))  # of no style above: a line that ends early must not seem to go on to its name
_MARKS = "x+s*P1"  # of published rows, in grey
_INCHES = 4.1  # least height of the axes
_LABEL = 11.5 / 72  # inches between two names at the right
_WIDTHS = (0.8, 5.2, 0.4)  # inches: left of the axes, the axes, lines from the axes to the names
_LETTER = 0.075  # inches, about, of a letter of a name
_BELOW, _ABOVE = 0.55, 0.15  # inches


def comparison_figure(comparison: Comparison) -> Figure:
    """Return the metric against the grid's values with the methods' names at their lines; one column gives points."""
    if len(comparison.columns) == 1:
        return _points(comparison)
    shown = [row for row in comparison.ours if any(cell.values for cell in row.cells.values())]
    height = max(_INCHES, _LABEL * len(shown))
    figure, axes = _axes(height, 0.1 + _LETTER * max((len(row.name) for row in shown), default=0))
    places = dict(zip(comparison.columns, _places(comparison.columns), strict=True))
    ends = [_line(axes, row, places, number) for number, row in enumerate(shown)]
    for row, mark in zip((row for row in comparison.published if row.confirmed), _MARKS, strict=False):
        points = [(places[column], cell.mean) for column, cell in row.cells.items()]
        look: dict[str, Any] = {"marker": mark, "markerfacecolor": "none", "color": "0.3", "ms": 6.5}
        axes.plot(*zip(*points, strict=True), ls="", label=row.name, zorder=3, **look)
    axes.set_xticks(list(places.values()), heads(comparison.columns))
    axes.set_xlabel(comparison.meaning)
    axes.set_ylabel(f"{comparison.metric.replace('_', ' ')} on the {SPLITS[comparison.split]}")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    if any(row.confirmed for row in comparison.published):
        axes.legend(loc="lower right", frameon=False, fontsize=9)
    _name_lines(axes, [row.name for row in shown], ends, _LABEL / height)
    return figure


def _axes(height: float, names: float) -> tuple[Figure, Axes]:
    """Return a figure, with `names` inches at the right, and its axes of that height in inches."""
    left, width, gap = _WIDTHS
    size = (left + width + gap + names, _BELOW + height + _ABOVE)
    figure = PlainFigure(figsize=size, dpi=100)
    return figure, figure.add_axes((left / size[0], _BELOW / size[1], width / size[0], height / size[1]))


def _places(columns: list[Any]) -> list[float]:
    """Return where the columns lie: numbers at their value, others at 0, 1, 2 ..."""
    numbers = all(isinstance(c, int | float) and not isinstance(c, bool) for c in columns)
    return [float(c) for c in columns] if numbers else [float(i) for i in range(len(columns))]


def _look(number: int) -> dict[str, Any]:
    color = PALETTE[number % len(PALETTE)]
    style = _STYLES[number // len(PALETTE) % len(_STYLES)]
    return {"color": color, "ls": style, "marker": MARKERS[number % len(MARKERS)]}


def _line(axes: Axes, row: Row, places: dict[Any, float], number: int) -> tuple[float, float]:
    """Draw a method's line and band; return its right end."""
    points = sorted((places[c], cell.mean, cell.std or 0.0) for c, cell in row.cells.items() if cell.values)
    x, mean, std = (np.array(column) for column in zip(*points, strict=True))
    axes.plot(x, mean, ms=4.5, lw=1.6, **_look(number))
    axes.fill_between(x, mean - std, mean + std, color=_look(number)["color"], alpha=0.18, lw=0)
    return float(x[-1]), float(mean[-1])


def _name_lines(axes: Axes, names: list[str], ends: list[tuple[float, float]], apart: float) -> None:
    """Write each name to the right of the axes at the height of its line's end, moved where two would touch.

    Heights are shares of the axes' height; dots in the method's colour lead from its end to the name.
    """
    low, high = axes.get_ylim()
    heights = [(y - low) / (high - low) for _, y in ends]
    for number, height in zip(np.argsort(heights, kind="stable"), _spread(sorted(heights), apart), strict=True):
        right = 1 + _WIDTHS[2] / _WIDTHS[1]
        axes.annotate(
            names[number],
            ends[number],
            xytext=(right, height),
            textcoords="axes fraction",
            va="center",
            fontsize=9,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": _look(int(number))["color"],
                "ls": _DOTS,
                "lw": 0.9,
                "relpos": (0, 0.5),
            },
        )


def _spread(heights: list[float], apart: float) -> list[float]:
    """Return the ascending heights at least `apart` from each other: pushed up, and down again from the top (1)."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + apart) if moved else height)
    limit = 1.0
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - apart
    return moved


def _points(comparison: Comparison) -> Figure:
    """Return one point a method, the best above, for a table of one column."""
    (column,) = comparison.columns
    rows = [row for row in comparison.rows if row.confirmed and column in row.cells and row.cells[column].values]
    rows.sort(key=lambda row: row.cells[column].mean, reverse=lower_is_better(comparison.metric))
    figure = PlainFigure(figsize=(6.4, 1.1 + 0.3 * len(rows)), dpi=100, layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        cell, color = row.cells[column], "0.35" if row.source else PALETTE[0]
        axes.errorbar(cell.mean, place, xerr=cell.std, fmt="x" if row.source else "o", color=color, capsize=3)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    axes.set_xlabel(comparison.metric.replace("_", " "))
    axes.grid(axis="x", alpha=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
