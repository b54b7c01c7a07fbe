"""Figures: pure functions of arrays and plain values; each returns a matplotlib Figure without pyplot's state."""

from lntl.figures.base import HEAT, MARKERS, PALETTE, PlainFigure, short
from lntl.figures.charts import Bar, bias_predictiveness, embedding, learning_curves, pareto, probe_bars
from lntl.figures.grids import (
    GAP,
    TITLE,
    bias_map,
    class_by_bias,
    color_clouds,
    confusion_matrices,
    group_accuracies,
    recoloring_strip,
    sample_grid,
)

__all__ = [
    "GAP",
    "HEAT",
    "MARKERS",
    "PALETTE",
    "TITLE",
    "Bar",
    "PlainFigure",
    "bias_map",
    "bias_predictiveness",
    "class_by_bias",
    "color_clouds",
    "confusion_matrices",
    "embedding",
    "group_accuracies",
    "learning_curves",
    "pareto",
    "probe_bars",
    "recoloring_strip",
    "sample_grid",
    "short",
]
