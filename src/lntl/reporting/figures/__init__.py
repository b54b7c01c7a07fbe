"""Figures: pure functions of arrays and records, each returns a matplotlib Figure of its own (no pyplot state)."""

from lntl.reporting.figures.base import HEAT, MARKERS, PALETTE, PlainFigure
from lntl.reporting.figures.curves import bias_predictiveness, learning_curves
from lntl.reporting.figures.heat import class_by_bias, confusion_matrices, group_accuracies
from lntl.reporting.figures.leakage import embedding, pareto, probe_bars
from lntl.reporting.figures.pictures import GAP, TITLE, bias_map, color_clouds, recoloring_strip, sample_grid

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
