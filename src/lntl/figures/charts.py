"""Line charts, bar charts and scatter plots: learning curves, probes, embedded features, accuracy against leakage."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, TypedDict

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import is_color_like, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from lntl.figures.base import MARKERS, PALETTE, REFERENCE_GRAY, empty_figure, short

MAX_NAMES = 20  # largest number of entries in a legend
LEGEND_CHARACTERS = 68  # characters in one line of a legend below a panel of the embedding; a marker counts as five
DASHES = ("--", ":", "-.")


def learning_curves(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figure:
    """Plot metrics of metrics.jsonl against epochs: losses above, accuracies below, with shaded phases."""
    groups = {
        "loss (nats)": [name for name in names if name.startswith("train/")],
        "on validation images": [name for name in names if not name.startswith("train/")],
    }
    groups = {label: group for label, group in groups.items() if group}
    figure = empty_figure(9, 0.6 + 2.6 * len(groups))
    panels = list(figure.subplots(len(groups), 1, sharex=True, squeeze=False)[:, 0])
    for axes, (label, group) in zip(panels, groups.items(), strict=True):
        for name, color, marker in zip(group, PALETTE, MARKERS, strict=False):
            points = [(record["total_epoch"], record.get(name, math.nan)) for record in records]
            interval = 1 + len(points) // 30  # epochs between two markers
            axes.plot(*zip(*points, strict=True), color=color, marker=marker, ms=4, markevery=interval, label=name)
        axes.set_ylabel(label)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        axes.grid(axis="y", alpha=0.4)
    if "on validation images" in groups:
        panels[-1].set_ylim(-0.02, 1.02)
    _mark_phases(panels, records)
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
    return figure


def _mark_phases(panels: Sequence[Axes], records: Sequence[Mapping[str, Any]]) -> None:
    phases = [list(group) for _, group in groupby(records, key=lambda record: record["phase"])]
    is_narrow = [len(phase) < 0.12 * len(records) for phase in phases]
    for number, phase in enumerate(phases):
        left, right = phase[0]["total_epoch"] - 0.5, phase[-1]["total_epoch"] + 0.5
        for axes in panels:
            axes.axvspan(left, right, color="0.97" if number % 2 else "0.91", lw=0, zorder=0)
            axes.set_xlim(records[0]["total_epoch"] - 0.5, right)
        panels[0].annotate(
            phase[0]["method"],
            (left if is_narrow[number] else (left + right) / 2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3 + 13 * sum(is_narrow[number:])),  # each name of a narrow phase gets its own line
            textcoords="offset points",
            ha="left" if is_narrow[number] else "center",
        )


def bias_predictiveness(
    variances: Sequence[float], values: Mapping[str, Sequence[float]], chance: float | None = None
) -> Figure:
    """Plot one line per name: the accuracy of predicting the label from the bias alone, against the jitter variance."""
    figure = empty_figure(7, 3.8)
    axes = figure.subplots()
    for (name, line), color, marker in zip(values.items(), PALETTE, MARKERS, strict=False):
        axes.plot(variances, line, color=color, marker=marker, label=name)
    if chance is not None:
        axes.axhline(chance, color=REFERENCE_GRAY, ls="--", lw=1, label="chance")
    axes.set_xticks(variances)
    axes.set_ylim(0, 1)
    axes.set_xlabel("variance σ² of the color jitter")
    axes.set_ylabel("accuracy with only the color")
    axes.grid(axis="y", alpha=0.4)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


class Bar(TypedDict):
    """The accuracy of a probe on a layer: mean over seeds, in [0, 1], and standard deviation, None for one seed."""

    layer: str
    probe: str
    mean: float
    std: float | None


def probe_bars(series: Mapping[str, Sequence[Bar]], chance: Mapping[str, float]) -> Figure:
    """Plot probe accuracies as bars, grouped by layer and probe, with one color per name and lines at chance."""
    groups = list(dict.fromkeys((row["layer"], row["probe"]) for rows in series.values() for row in rows))
    bars = sum(len(rows) for rows in series.values())
    figure = empty_figure(8.4, 1.1 + 0.27 * bars + 0.16 * len(groups))
    axes = figure.subplots()
    y, ticks = 0.0, []
    for layer, probe in groups:
        first = y
        for rows, color in zip(series.values(), PALETTE, strict=False):
            for row in rows:
                if (row["layer"], row["probe"]) == (layer, probe):
                    _draw_bar(axes, y, row, color)
                    y += 1
        ticks.append((first + y - 1) / 2)
        y += 0.6
    patches = [Patch(color=color, label=name) for name, color in zip(series, PALETTE, strict=False)]
    lines = [
        axes.axvline(100 * level, color=REFERENCE_GRAY, ls=dashes, lw=1.4, label=f"chance: {name}")
        for (name, level), dashes in zip(chance.items(), DASHES, strict=False)
    ]
    axes.set_yticks(ticks, [f"{layer}, {probe}" for layer, probe in groups])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("accuracy of a fresh probe for the bias, %")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(handles=[*patches, *lines], loc="outside upper left", ncols=3, frameon=False)
    return figure


def _draw_bar(axes: Axes, y: float, row: Bar, color: str) -> None:
    mean, std = 100 * row["mean"], 100 * (row["std"] or 0)
    axes.barh(y, mean, height=0.84, color=color)
    if row["std"] is not None:
        axes.errorbar(mean, y, xerr=std, color=REFERENCE_GRAY, lw=1.2, capsize=2.5)
    axes.text(mean + std + 1, y, f"{mean:.0f}", va="center", fontsize=9)


MAX_FEATURES = 16  # largest number of features in saliency_bars


def saliency_bars(values: Mapping[str, ArrayLike], label: str) -> Figure:
    """Plot attributions (D,) of a vector as bars, one color per name.

    Only the MAX_FEATURES features with the largest absolute attributions for the first name are shown.
    """
    table = {name: np.asarray(row, dtype=np.float64) for name, row in values.items()}
    order = np.argsort(-np.abs(next(iter(table.values()))), kind="stable")[:MAX_FEATURES]
    figure = empty_figure(8.4, 1.2 + (0.1 + 0.2 * len(table)) * len(order))
    axes = figure.subplots()
    height = 0.84 / len(table)
    for number, ((name, row), color) in enumerate(zip(table.items(), PALETTE, strict=False)):
        axes.barh(np.arange(len(order)) + (number + 0.5) * height - 0.42, row[order], height, color=color, label=name)
    axes.axvline(0, color=REFERENCE_GRAY, lw=0.8)
    axes.set_yticks(range(len(order)), [f"x[{index}]" for index in order])
    axes.tick_params(axis="y", length=0)
    axes.margins(y=0.02)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=3, frameon=False)
    return figure


def shift_curves(
    shifts: Sequence[float], flips: Mapping[str, Sequence[tuple[float, float, float]]], label: str
) -> Figure:
    """Plot the share of predictions that change, in per cent, against the shift: (value, low, high) per shift and name.

    The interval from low to high is shaded.
    """
    figure = empty_figure(8.4, 3.4)
    axes = figure.subplots()
    for (name, points), color, marker in zip(flips.items(), PALETTE, MARKERS, strict=False):
        value, low, high = 100 * np.array(points).T
        axes.fill_between(shifts, low, high, color=color, alpha=0.18, lw=0)
        axes.plot(shifts, value, color=color, marker=marker, ms=4, label=name)
    axes.set_xticks(shifts, [f"{shift:+g}" if shift else "0" for shift in shifts])
    axes.set_xlabel(label)
    axes.set_ylabel("predictions that change, %")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", alpha=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def embedding(
    xy: ArrayLike,
    y: ArrayLike,
    bias: ArrayLike,
    class_names: Sequence[str],
    bias_value_names: Sequence[str],
    bias_label: str = "color",
    bias_colors: ArrayLike | None = None,
) -> Figure:
    """Plot points xy (n, 2) twice: colored by class y (n,) and by bias value (n,).

    The colors of bias values are `bias_colors` (bias values, 3), in [0, 1]. Without them, a value whose name is a
    color, such as "crimson", has this color.
    """
    points = np.asarray(xy)
    colors_of_names = [to_rgba(name) for name in bias_value_names if is_color_like(name)]
    colors = colors_of_names if bias_colors is None else [to_rgba(color) for color in np.asarray(bias_colors)]
    names, bias_names = short(class_names), short(bias_value_names)
    legends = [labels for labels in (names, bias_names) if len(labels) <= MAX_NAMES]
    rows = max((-(-len(labels) // _count_legend_columns(labels)) for labels in legends), default=0)
    figure = empty_figure(9.6, 5 + 0.2 * rows)
    left, right = figure.subplots(1, 2)
    _draw_scatter(left, points, np.asarray(y), names, [])
    _draw_scatter(right, points, np.asarray(bias), bias_names, colors if len(colors) == len(bias_names) else [])
    left.set_title("by class")
    right.set_title(f"by {short([bias_label])[0]}")
    return figure


def _count_legend_columns(names: Sequence[str]) -> int:
    """Return the number of legend columns that fit below one of the two panels."""
    return max(1, min(5, LEGEND_CHARACTERS // (max(map(len, names)) + 5)))


def _draw_scatter(
    axes: Axes, points: NDArray[Any], labels: NDArray[Any], names: Sequence[str], colors: Sequence[Any]
) -> None:
    """Draw the points with a legend, or with a color map and no legend if there are more than MAX_NAMES names."""
    style: dict[str, Any] = {"s": 14, "ec": REFERENCE_GRAY, "lw": 0.25, "rasterized": True}
    axes.set_xticks([])
    axes.set_yticks([])
    if len(names) > MAX_NAMES:
        axes.scatter(points[:, 0], points[:, 1], c=labels, cmap="turbo", **style)
        return
    table = colormaps["tab10" if len(names) <= 10 else "tab20"]
    for value, name in enumerate(names):
        x, y = points[labels == value].T
        color = colors[value] if colors else table(value)
        axes.scatter(x, y, color=color, marker=MARKERS[value % len(MARKERS)], label=name, **style)
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.01),
        ncols=_count_legend_columns(names),
        frameon=False,
        fontsize=9,
        markerscale=1.6,
        handletextpad=0.1,
        columnspacing=1,
    )


def pareto(accuracy: Mapping[str, float], leakage: Mapping[str, float], chance: float | None = None) -> Figure:
    """Plot accuracy against leakage, both in [0, 1], one point per name; a line joins the Pareto front."""
    names = list(accuracy)
    figure = empty_figure(8.4, max(4.6, 0.5 + 0.21 * len(names)))
    axes = figure.subplots()
    front = _find_pareto_front([(leakage[name], accuracy[name]) for name in names])
    if len(front) > 1:
        line = 100 * np.array(front).T
        axes.step(*line, where="post", color=REFERENCE_GRAY, lw=1.2, zorder=1, label="Pareto front")
    for number, (name, label) in enumerate(zip(names, short(names), strict=True)):
        color, marker = PALETTE[number % 6], MARKERS[(number + number // 6) % len(MARKERS)]
        axes.scatter(100 * leakage[name], 100 * accuracy[name], s=70, color=color, marker=marker, label=label, zorder=2)
    if chance is not None:
        axes.axvline(100 * chance, color=REFERENCE_GRAY, ls="--", lw=1.2, label="chance")
    axes.set_xlabel("leakage: accuracy of a fresh probe for the bias, %   (less is better)")
    axes.set_ylabel("unbiased accuracy, %   (more is better)")
    axes.grid(alpha=0.4)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    return figure


def _find_pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (leakage, accuracy) for which no other point is better in both, sorted by leakage."""
    front: list[tuple[float, float]] = []
    for leakage, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or accuracy > front[-1][1]:
            front.append((leakage, accuracy))
    return front


def tuning_history(
    trials: Sequence[tuple[int, float]], pruned: Sequence[tuple[int, float]], label: str, lower_is_better: bool
) -> Figure:
    """Plot the value of each complete and each pruned trial against its number, and the best value so far.

    Args:
        trials: Number and value of each complete trial, in order.
        pruned: Number and value of each trial that was stopped early.
        label: Name of the values.
        lower_is_better: Whether lower values are better.
    """
    figure = empty_figure(7, 3.4)
    axes = figure.subplots()
    accumulate_best = np.minimum.accumulate if lower_is_better else np.maximum.accumulate
    if trials:
        number, value = zip(*trials, strict=True)
        axes.plot(number, accumulate_best(value), drawstyle="steps-post", color=PALETTE[0], label="best so far")
        axes.plot(number, value, MARKERS[0], color=PALETTE[0], ms=5, label="complete")
    if pruned:
        axes.plot(*zip(*pruned, strict=True), "x", color=PALETTE[1], ms=5, label="pruned")
    axes.set_xlabel("trial")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", alpha=0.4)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def importance_bars(importance: Mapping[str, float]) -> Figure:
    """Plot a bar for each key: the share of the variance of the objective that the key explains."""
    figure = empty_figure(7, 0.9 + 0.35 * len(importance))
    axes = figure.subplots()
    names = [*importance][::-1]
    bars = axes.barh(range(len(names)), [importance[name] for name in names], color=PALETTE[0])
    axes.bar_label(bars, fmt="{:.2f}", padding=3)
    axes.set_yticks(range(len(names)), short(names))
    axes.set_xlim(0, 1.1)
    axes.set_xlabel("share of the variance that the key explains")
    return figure
