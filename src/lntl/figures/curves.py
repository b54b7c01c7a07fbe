"""Lines: over the epochs, over the strength of the bias."""

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lntl.figures.base import MARKERS, PALETTE, QUIET, empty_figure


def learning_curves(records: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figure:
    """Return the named metrics of metrics.jsonl against epochs, losses above, accuracies below, phases shaded."""
    groups = {
        "loss (nats)": [name for name in names if name.startswith("train/")],
        "on validation images": [name for name in names if not name.startswith("train/")],
    }
    shown = {label: group for label, group in groups.items() if group}
    figure = empty_figure(9, 0.6 + 2.6 * len(shown))
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


def bias_predictiveness(
    variances: Sequence[float], values: Mapping[str, Sequence[float]], chance: float | None = None
) -> Figure:
    """Return one line a name: the accuracy that the bias alone reaches, against the variance of its jitter."""
    figure = empty_figure(7, 3.8)
    axes = figure.subplots()
    for (name, line), color, marker in zip(values.items(), PALETTE, MARKERS, strict=False):
        axes.plot(variances, line, color=color, marker=marker, label=name)
    if chance is not None:
        axes.axhline(chance, color=QUIET, ls="--", lw=1, label="chance")
    axes.set_xticks(variances)
    axes.set_ylim(0, 1)
    axes.set_xlabel("variance σ² of the colour jitter")
    axes.set_ylabel("accuracy from the colour alone")
    axes.grid(axis="y", alpha=0.4)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure
