"""Figures: pure functions of arrays and records, each returns a matplotlib Figure of its own (no pyplot state)."""

from lntl.figures.base import HEAT, MARKERS, PALETTE, PlainFigure
from lntl.figures.curves import bias_predictiveness, learning_curves
from lntl.figures.heat import class_by_bias, confusion_matrices, group_accuracies
from lntl.figures.leakage import embedding, pareto, probe_bars
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
