"""Figures: pure functions of arrays and plain values; each returns a matplotlib Figure without pyplot's state."""

from lntl.figures.base import HEAT, MARKERS, PALETTE, PlainFigure
from lntl.figures.charts import bias_predictiveness, embedding, learning_curves, pareto, probe_bars
from lntl.figures.heat import class_by_bias, confusion_matrices, group_accuracies
from lntl.figures.pictures import GAP, TITLE, bias_map, color_clouds, recoloring_strip, sample_grid

__all__ = [
    "GAP",
    "HEAT",
    "MARKERS",
    "PALETTE",
    "TITLE",
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
]
