"""Heat maps: confusion matrices, and accuracies and counts by class and bias value."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from lntl.figures.base import HEAT, empty_figure

LONG = 14  # characters of a name from which on it stands at a row, where it is read without turning the head
ACROSS = 36  # characters of all names from which on those of columns are turned
MOST_NOTES = 20  # rows or columns of a heat map whose cells still carry their number


def confusion_matrices(counts: Mapping[str, ArrayLike], class_names: Sequence[str]) -> Figure:
    """Return confusion matrices (true class, predicted class) side by side, in per cent of each true class."""
    shares = {}
    for name, matrix in counts.items():
        table = np.asarray(matrix, dtype=np.float64)
        shares[name] = 100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    return _heat_maps(shares, class_names, class_names, "predicted", "true", "% of the true class")


def group_accuracies(
    accuracy: Mapping[str, ArrayLike],
    class_names: Sequence[str],
    bias_value_names: Sequence[str],
    bias_label: str = "colour",
    counts: ArrayLike | None = None,
) -> Figure:
    """Return accuracies (class, bias value) in [0, 1] side by side, in per cent; an empty group (NaN) stays blank.

    counts (class, bias value), the images of each group, are written below its accuracy.
    """
    tables = {name: 100 * np.asarray(table, dtype=np.float64) for name, table in accuracy.items()}
    below = None if counts is None else dict.fromkeys(tables, np.asarray(counts))
    return _by_bias(tables, class_names, bias_value_names, "true", bias_label, "% right", below)


def class_by_bias(
    counts: Mapping[str, ArrayLike], class_names: Sequence[str], bias_value_names: Sequence[str], bias_label: str
) -> Figure:
    """Return of each table of counts (class, bias value) how often each value has the class, in per cent of the value.

    A value without an image stays blank; the counts are written below.
    """
    tables = {name: np.asarray(table) for name, table in counts.items()}
    shares = {}
    for name, table in tables.items():
        total = table.sum(axis=0, keepdims=True)
        shares[name] = np.divide(100 * table, total, out=np.full(table.shape, np.nan), where=total > 0)
    return _by_bias(shares, class_names, bias_value_names, "class", bias_label, "% of the bias value", tables)


def _by_bias(
    tables: dict[str, NDArray[np.float64]],
    class_names: Sequence[str],
    bias_value_names: Sequence[str],
    class_label: str,
    bias_label: str,
    unit: str,
    counts: dict[str, NDArray[Any]] | None,
) -> Figure:
    """Return heat maps of tables (class, bias value); bias values are the columns, the rows where names are long."""
    if max(map(len, bias_value_names)) < LONG:
        return _heat_maps(tables, class_names, bias_value_names, bias_label, class_label, unit, counts)
    turned = {name: table.T for name, table in tables.items()}
    below = None if counts is None else {name: table.T for name, table in counts.items()}
    return _heat_maps(turned, bias_value_names, class_names, class_label, bias_label, unit, below)


def _heat_maps(
    tables: Mapping[str, NDArray[np.float64]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    x_label: str,
    y_label: str,
    unit: str,
    counts: Mapping[str, NDArray[Any]] | None = None,
) -> Figure:
    """Return one annotated heat map a table, from 0 to 100, with one colour bar for all; counts: of each table."""
    long = max(len(name) for name in column_names) * len(column_names) > ACROSS
    room = 1 if counts is None else 1.12
    wide, high = (min(2.0, max(1.0, len(names) / 10)) * room for names in (column_names, row_names))
    beside = 0.08 * max(0, max(map(len, row_names)) - 8)  # inches for names at the rows
    figure = empty_figure(4.3 * wide * len(tables) + 0.8 + beside, (5.2 if long else 4.6) * high)
    panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        image = axes.imshow(table, cmap=HEAT, vmin=0, vmax=100, interpolation="none", aspect="auto")
        if max(table.shape) <= MOST_NOTES:
            _note(axes, table, None if counts is None else counts[name])
        axes.set_title(name)
        axes.set_xticks(range(len(column_names)), column_names, rotation=90 if long else 0)
        axes.set_yticks(range(len(row_names)), row_names)
        axes.set_xlabel(x_label)
    panels[0].set_ylabel(y_label)
    figure.colorbar(image, ax=panels, label=unit)
    return figure


def _note(axes: Axes, table: NDArray[np.float64], counts: NDArray[Any] | None) -> None:
    """Write the number of each cell into it, and its count below."""
    for (row, column), value in np.ndenumerate(table):
        if not math.isnan(value):
            text = f"{value:.0f}" if counts is None else f"{value:.0f}\n({counts[row, column]})"
            color = "k" if value > 55 else "w"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color, linespacing=1.1)
