"""What is left of the bias: probes, the features on a plane, and accuracy against leakage."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import is_color_like, to_rgba
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from lntl.figures.base import MARKERS, PALETTE, QUIET, empty_figure

MOST_NAMES = 20  # in a legend
LINE = 68  # characters that stand beside each other below a panel of the embedding, a mark counting five
DASHES = ("--", ":", "-.")


def probe_bars(series: Mapping[str, Sequence[Mapping[str, Any]]], chance: Mapping[str, float]) -> Figure:
    """Return probe accuracies as bars: a group a (layer, probe), a colour a name, with lines at the levels of chance.

    Each row of a series has `layer`, `probe`, `mean` in [0, 1] and `std` over seeds, None of one seed.
    """
    places = list(dict.fromkeys((row["layer"], row["probe"]) for rows in series.values() for row in rows))
    bars = sum(len(rows) for rows in series.values())
    figure = empty_figure(8.4, 1.1 + 0.27 * bars + 0.16 * len(places))
    axes = figure.subplots()
    drawn: set[str] = set()
    top, ticks = 0.0, []
    for place in places:
        begin = top
        for (name, rows), color in zip(series.items(), PALETTE, strict=False):
            for row in rows:
                if (row["layer"], row["probe"]) == place:
                    _bar(axes, top, row, color, "_" if name in drawn else name)
                    drawn.add(name)
                    top += 1
        ticks.append((begin + top - 1) / 2)
        top += 0.6
    for (name, level), dashes in zip(chance.items(), DASHES, strict=False):
        axes.axvline(100 * level, color=QUIET, ls=dashes, lw=1.4, label=f"chance: {name}")
    axes.set_yticks(ticks, [f"{layer}, {probe}" for layer, probe in places])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 112)
    axes.set_xticks(range(0, 101, 20))
    axes.set_xlabel("accuracy of a fresh probe for the bias, %")
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: labels[i].startswith("chance"))
    figure.legend(
        [handles[i] for i in order], [labels[i] for i in order], loc="outside upper left", ncols=3, frameon=False
    )
    return figure


def _bar(axes: Axes, place: float, row: Mapping[str, Any], color: str, label: str) -> None:
    mean, std = 100 * row["mean"], 100 * (row["std"] or 0)
    axes.barh(place, mean, height=0.84, color=color, label=label)
    if row["std"] is not None:
        axes.errorbar(mean, place, xerr=std, color=QUIET, lw=1.2, capsize=2.5)
    axes.text(mean + std + 1, place, f"{mean:.0f}", va="center", fontsize=9)


def embedding(
    xy: ArrayLike,
    y: ArrayLike,
    bias: ArrayLike,
    class_names: Sequence[str],
    bias_value_names: Sequence[str],
    bias_label: str = "colour",
    bias_colors: ArrayLike | None = None,
) -> Figure:
    """Return points xy (n, 2) twice: by class y (n,), and by bias value (n,).

    A bias value is drawn in its bias_colors (bias values, 3), in [0, 1], else in the colour that it is named after.
    """
    points = np.asarray(xy)
    legends = [names for names in (class_names, bias_value_names) if len(names) <= MOST_NAMES]
    rows = max((-(-len(names) // _columns(names)) for names in legends), default=0)
    figure = empty_figure(9.6, 5 + 0.2 * rows)
    left, right = figure.subplots(1, 2)
    _scatter(left, points, np.asarray(y), class_names, _colors(len(class_names)))
    named = [to_rgba(name) for name in bias_value_names if is_color_like(name)]
    own = named if bias_colors is None else [to_rgba(color) for color in np.asarray(bias_colors)]
    _scatter(
        right,
        points,
        np.asarray(bias),
        bias_value_names,
        own if len(own) == len(bias_value_names) else _colors(len(bias_value_names)),
    )
    left.set_title("by class")
    right.set_title(f"by {bias_label}")
    return figure


def _columns(names: Sequence[str]) -> int:
    """Return how many columns of a legend below one of the two panels have room for the names."""
    return max(1, min(5, LINE // (max(map(len, names)) + 5)))


def _colors(n: int) -> list[tuple[float, float, float, float]]:
    table = colormaps["tab10" if n <= 10 else "tab20"]
    return [table(i % table.N) for i in range(n)]


def _scatter(
    axes: Axes, points: NDArray[Any], labels: NDArray[Any], names: Sequence[str], colors: Sequence[Any]
) -> None:
    for value, (name, color) in enumerate(zip(names, colors, strict=True)):
        chosen = points[labels == value]
        marker = MARKERS[value % len(MARKERS)]
        axes.scatter(
            chosen[:, 0], chosen[:, 1], s=14, color=color, marker=marker, ec=QUIET, lw=0.25, label=name, rasterized=True
        )
    axes.set_xticks([])
    axes.set_yticks([])
    if len(names) <= MOST_NAMES:
        axes.legend(
            loc="upper center",
            bbox_to_anchor=(0.5, -0.01),
            ncols=_columns(names),
            frameon=False,
            fontsize=9,
            markerscale=1.6,
            handletextpad=0.1,
            columnspacing=1,
        )


def pareto(accuracy: Mapping[str, float], leakage: Mapping[str, float], chance: float | None = None) -> Figure:
    """Return accuracy against leakage, in [0, 1], a point a name; a line joins those that no other beats in both."""
    names = list(accuracy)
    figure = empty_figure(8.4, 4.6)
    axes = figure.subplots()
    best = front([(leakage[name], accuracy[name]) for name in names])
    if len(best) > 1:
        line = 100 * np.array(best).T
        axes.step(*line, where="post", color=QUIET, lw=1.2, zorder=1, label="no other is better in both")
    for number, name in enumerate(names):
        color, marker = PALETTE[number % 6], MARKERS[(number + number // 6) % len(MARKERS)]
        axes.scatter(100 * leakage[name], 100 * accuracy[name], s=70, color=color, marker=marker, label=name, zorder=2)
    if chance is not None:
        axes.axvline(100 * chance, color=QUIET, ls="--", lw=1.2, label="chance")
    axes.set_xlabel("leakage: how well a fresh probe reads the bias, %   (less is better)")
    axes.set_ylabel("unbiased accuracy, %   (more is better)")
    axes.grid(alpha=0.4)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=9)
    return figure


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (leakage, accuracy) that no other one beats: less leakage, or more accuracy; by leakage."""
    kept: list[tuple[float, float]] = []
    for leakage, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or accuracy > kept[-1][1]:
            kept.append((leakage, accuracy))
    return kept
