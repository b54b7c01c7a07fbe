"""Figures: pure functions of arrays and records, each returns a matplotlib Figure of its own (no pyplot state)."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

# Colours that stay apart for the colour-blind. Source: Okabe and Ito, "Color Universal Design", 2008.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "os^Dv<X"  # lines differ by marker as well
HEAT = "cividis"  # made for the colour-blind; lighter is more
GAP, TITLE = 2, 8  # pixels between two images of a grid, and for a title above each


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), dpi=100, layout="compressed")


def sample_grid(
    pixels: ArrayLike, columns: int, titles: Sequence[str] | None = None, row_names: Sequence[str] | None = None
) -> Figure:
    """Return the images, uint8 (N, 3, H, W), in rows of `columns`, with a title above each or names of the rows."""
    images = np.moveaxis(np.asarray(pixels), 1, -1)
    n, height, width = images.shape[:3]
    rows, top = -(-n // columns), GAP if titles is None else TITLE
    canvas = np.full((rows * (height + top), columns * (width + GAP) - GAP, 3), 255, dtype=np.uint8)
    corners = [(i // columns * (height + top) + top, i % columns * (width + GAP)) for i in range(n)]
    for image, (y, x) in zip(images, corners, strict=True):
        canvas[y : y + height, x : x + width] = image
    inches = 0.62
    figure = _figure(columns * inches + (0.8 if row_names else 0.1), rows * inches * (height + top) / height + 0.1)
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="nearest")
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.set_xticks([])
    axes.set_yticks([r * (height + top) + top + height / 2 for r in range(len(row_names or ()))], row_names)
    for title, (y, x) in zip(titles or (), corners, strict=titles is not None):
        axes.text(x + width / 2, y - 1, title, ha="center", va="bottom", fontsize=8)
    return figure


def color_clouds(color: ArrayLike, y: ArrayLike, class_names: Sequence[str], title: str = "") -> Figure:
    """Return red, green and blue of the images, color (N, 3) uint8, by class y (N,); each point wears its colour."""
    values, labels = np.asarray(color), np.asarray(y)
    spread = np.random.default_rng(0).uniform(-0.38, 0.38, len(labels))  # beside each other within the class
    figure = _figure(10, 3.4)
    for axes, channel in zip(figure.subplots(1, 3, sharey=True), range(3), strict=True):
        axes.scatter(labels + spread, values[:, channel], s=5, c=values / 255, linewidths=0)
        axes.set_facecolor("0.25")
        axes.set_title(("red", "green", "blue")[channel])
        axes.set_xticks(range(len(class_names)), class_names)
        axes.set_xlabel("class")
        axes.set_ylim(-3, 258)
        axes.set_yticks((0, 64, 128, 192, 255))
    figure.axes[0].set_ylabel("value of the image's colour")
    figure.suptitle(title)
    return figure


def learning_curves(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figure:
    """Return the named metrics of metrics.jsonl against epochs, losses above, accuracies below, phases shaded."""
    groups = {
        "loss (nats)": [name for name in names if name.startswith("train/")],
        "on validation images": [name for name in names if not name.startswith("train/")],
    }
    shown = {label: group for label, group in groups.items() if group}
    figure = _figure(9, 0.6 + 2.6 * len(shown))
    panels = list(figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0])
    for axes, (label, group) in zip(panels, shown.items(), strict=True):
        for name, color, marker in zip(group, PALETTE, MARKERS, strict=False):
            points = [(record["total_epoch"], record.get(name, math.nan)) for record in records]
            every = 1 + len(points) // 30  # markers that do not run into each other
            axes.plot(*zip(*points, strict=True), color=color, marker=marker, ms=4, markevery=every, label=name)
        axes.set_ylabel(label)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        axes.grid(axis="y", alpha=0.4)
    if "on validation images" in shown:
        panels[-1].set_ylim(-0.02, 1.02)
    _mark_phases(panels, records)
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure


def _mark_phases(panels: Sequence[Axes], records: Sequence[Mapping[str, Any]]) -> None:
    phases = [list(group) for _, group in groupby(records, key=lambda record: record["phase"])]
    narrow = [len(phase) < 0.12 * len(records) for phase in phases]
    for number, phase in enumerate(phases):
        left, right = phase[0]["total_epoch"] - 0.5, phase[-1]["total_epoch"] + 0.5
        for axes in panels:
            axes.axvspan(left, right, color="0.97" if number % 2 else "0.91", lw=0, zorder=0)
            axes.set_xlim(records[0]["total_epoch"] - 0.5, right)
        panels[0].annotate(
            phase[0]["method"],
            (left if narrow[number] else (left + right) / 2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3 + 13 * sum(narrow[number:])),  # the names of narrow phases stand in lines of their own
            textcoords="offset points",
            ha="left" if narrow[number] else "center",
        )


def confusion_matrices(counts: Mapping[str, ArrayLike], class_names: Sequence[str]) -> Figure:
    """Return confusion matrices (true class, predicted class) side by side, in per cent of each true class."""
    shares = {}
    for name, matrix in counts.items():
        table = np.asarray(matrix, dtype=np.float64)
        shares[name] = 100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    return _heat_maps(shares, class_names, class_names, "predicted", "true", "% of the true class")


def group_accuracies(
    accuracy: Mapping[str, ArrayLike], class_names: Sequence[str], bias_names: Sequence[str], bias_label: str = "colour"
) -> Figure:
    """Return accuracies (class, bias value) in [0, 1] side by side, in per cent; an empty group (NaN) stays blank."""
    tables = {name: 100 * np.asarray(table, dtype=np.float64) for name, table in accuracy.items()}
    return _heat_maps(tables, class_names, bias_names, bias_label, "true", "% right")


def _heat_maps(
    tables: Mapping[str, NDArray[np.float64]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    x_label: str,
    y_label: str,
    unit: str,
) -> Figure:
    """Return one annotated heat map a table, from 0 to 100, with one colour bar for all."""
    long = max(len(name) for name in column_names) > 2
    figure = _figure(4.3 * len(tables) + 0.8, 5.2 if long else 4.6)
    panels = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        image = axes.imshow(table, cmap=HEAT, vmin=0, vmax=100)
        for (row, column), value in np.ndenumerate(table):
            if not math.isnan(value):
                axes.text(
                    column, row, f"{value:.0f}", ha="center", va="center", fontsize=8, color="k" if value > 55 else "w"
                )
        axes.set_title(name)
        axes.set_xticks(range(len(column_names)), column_names, rotation=90 if long else 0)
        axes.set_yticks(range(len(row_names)), row_names)
        axes.set_xlabel(x_label)
    panels[0].set_ylabel(y_label)
    figure.colorbar(image, ax=panels, label=unit)
    return figure


def bias_predictiveness(
    variances: Sequence[float], values: Mapping[str, Sequence[float]], chance: float | None = None
) -> Figure:
    """Return one line a name: the accuracy that the bias alone reaches, against the variance of its jitter."""
    figure = _figure(7, 3.8)
    axes = figure.subplots()
    for (name, line), color, marker in zip(values.items(), PALETTE, MARKERS, strict=False):
        axes.plot(variances, line, color=color, marker=marker, label=name)
    if chance is not None:
        axes.axhline(chance, color="0.4", ls="--", lw=1, label="chance")
    axes.set_xticks(variances)
    axes.set_ylim(0, 1)
    axes.set_xlabel("variance σ² of the colour jitter")
    axes.set_ylabel("accuracy from the colour alone")
    axes.grid(axis="y", alpha=0.4)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def bias_map(pixels: ArrayLike, bias: ArrayLike, bins: int) -> Figure:
    """Return an image, uint8 (3, H, W), and its map of bias labels (3, H', W'); unknown places stay blank."""
    figure = _figure(10, 2.5)
    panels = figure.subplots(1, 4)
    panels[0].imshow(np.moveaxis(np.asarray(pixels), 0, -1))
    panels[0].set_title("image")
    for axes, channel, name in zip(panels[1:], np.asarray(bias), ("red", "green", "blue"), strict=True):
        image = axes.imshow(np.ma.masked_less(channel, 0), cmap=HEAT, vmin=-0.5, vmax=bins - 0.5)
        axes.set_title(f"label: {name}")
    for axes in panels:
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(image, ax=panels, label="bin", ticks=range(bins))
    return figure
