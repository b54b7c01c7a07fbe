"""The figures of a report as SVG, each with a description for those who cannot see it."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lntl import figures
from lntl.reporting.run_files import RunFiles
from lntl.reporting.run_report import layer_label
from lntl.reporting.svg import Drawing, draw
from lntl.reporting.verdict import percent
from lntl.runs.formats import ComparedRun, Groups, ProbeRow, RunReport

RUN, ERM = "this run", "plain training (ERM)"
MOST_CLASSES = 12  # whose example images are shown
NO_LOSSES = ("train/mu", "train/h_accuracy", "train/h_chance", "train/h_entropy", "train/gradient_ratio")
Part = tuple[str, Callable[[], Figure], str]  # name, function that makes the figure, description


def drawings(files: RunFiles, report: RunReport, prefix: str) -> dict[str, Drawing]:
    """Return the figures by name; one whose file is missing or does not fit the others is left out."""
    sections = (_samples, _curves, _confusion, _groups, _groups_per_bias, _probes, _strip, _embedding)
    parts = (part for section in sections for part in section(files, report))
    return {name: draw(make, f"{prefix}-{name}", alt) for name, make, alt in parts}


def _samples(files: RunFiles, report: RunReport) -> Iterator[Part]:
    if files.samples is None:
        return
    names = [str(name) for name in files.samples["class_names"]][:MOST_CLASSES]
    for split in ("train", "test"):
        images = files.samples[split][: len(names)]
        if images.shape[:1] != (len(names),) or images.shape[2] not in (1, 3):
            continue
        height, width = images.shape[3:]
        flat = np.broadcast_to(images, (*images.shape[:2], 3, height, width)).reshape(-1, 3, height, width)
        yield (
            f"samples-{split}",
            partial(figures.sample_grid, flat, images.shape[1], row_names=names),
            f"Images of the {split} set, a row for each class: {', '.join(names)}.",
        )


def _curves(files: RunFiles, report: RunReport) -> Iterator[Part]:
    # None is a value that was not a finite number
    epochs = [{k: np.nan if v is None else v for k, v in epoch.model_dump().items()} for epoch in report.epochs]
    columns = list(dict.fromkeys(name for epoch in epochs for name in epoch))
    names = [n for n in columns if n.startswith("train/") and "/lr_" not in n and n not in NO_LOSSES][:6]
    names += [n for n in columns if n.startswith("val/")][:6]
    if not names:
        return
    last = epochs[-1]
    ends = ", ".join(f"{n} {last[n]:.3g}" for n in names if isinstance(last.get(n), float) and np.isfinite(last[n]))
    methods = ", ".join(dict.fromkeys(epoch.method for epoch in report.epochs))
    yield (
        "curves",
        lambda: figures.learning_curves(epochs, names),
        f"Losses and validation metrics over {len(epochs)} epochs, in phases {methods}. At the end: {ends}.",
    )


def _confusion(files: RunFiles, report: RunReport) -> Iterator[Part]:
    names = report.class_names
    both = {ERM: report.confusion.erm, RUN: report.confusion.run}
    counts = {name: matrix for name, matrix in both.items() if matrix and _fits(matrix, names, names)}
    if RUN not in counts:
        return
    ends = "; ".join(f"{name}: {_most_confused(matrix, names)}" for name, matrix in counts.items())
    yield (
        "confusion",
        lambda: figures.confusion_matrices(counts, names),
        f"Confusion matrices, true class against predicted class. Most frequent confusion of {ends}.",
    )


def _most_confused(matrix: list[list[int]], names: list[str]) -> str:
    """Return the most frequent confusion in words."""
    table = np.array(matrix)
    np.fill_diagonal(table, 0)
    true, predicted = np.unravel_index(table.argmax(), table.shape)
    return f"{names[true]} taken for {names[predicted]}, {table.max()} times"


def _fits(table: Sequence[Sequence[object]], rows: list[str], columns: list[str]) -> bool:
    return len(table) == len(rows) > 0 and all(len(row) == len(columns) > 0 for row in table)


def _groups(files: RunFiles, report: RunReport) -> Iterator[Part]:
    names = report.class_names, report.bias_value_names
    tables = _group_tables(report.groups.run, report.groups.erm, *names)
    if tables is None:
        return
    accuracy, count = tables
    known = accuracy[RUN][np.isfinite(accuracy[RUN])]
    span = f"from {percent(known.min())} to {percent(known.max())}" if known.size else "undefined"
    yield (
        "groups",
        lambda: figures.group_accuracies(accuracy, *names, bias_label=report.bias, counts=count),
        f"Accuracy by class and {report.bias}; of this run {span}. In brackets the number of images.",
    )


def _groups_per_bias(files: RunFiles, report: RunReport) -> Iterator[Part]:
    for number, bias in enumerate(report.per_bias, 1):
        names = report.class_names, bias.bias_value_names or []
        tables = _group_tables(bias.groups.run, bias.groups.erm, *names)
        if tables is not None:
            yield (
                f"groups-{number}",
                partial(figures.group_accuracies, tables[0], *names, bias.name, tables[1]),
                f"Accuracy by class and {bias.name} alone. In brackets the number of images.",
            )


def _group_tables(
    run: Groups | None, erm: Groups | None, class_names: list[str], bias_value_names: list[str]
) -> tuple[dict[str, NDArray[np.float64]], list[list[int]]] | None:
    """Return the accuracies of ERM, if any, and of the run, and the run's counts; None where they do not fit."""
    if run is None or not _fits(run.count, class_names, bias_value_names):
        return None
    tables = {
        name: np.array(groups.accuracy, dtype=np.float64)
        for name, groups in ((ERM, erm), (RUN, run))
        if groups is not None and _fits(groups.accuracy, class_names, bias_value_names)
    }
    return (tables, run.count) if RUN in tables else None


def _probes(files: RunFiles, report: RunReport) -> Iterator[Part]:
    if files.probe is None:
        return
    reference = files.probe.reference
    rows = {RUN: files.probe.probes, ERM: reference.erm or [], "raw pixels": reference.pixels}
    if files.method == "erm":
        rows = {"this run (plain training)": files.probe.probes, "": [], "raw pixels": reference.pixels}
    series = {name: [_with_label(row) for row in rows] for name, rows in rows.items() if rows}
    chance = {"most frequent value": files.probe.chance.majority, "permuted labels": files.probe.chance.permutation}
    ends = "; ".join(f"{name} at most {percent(max(row['mean'] for row in rows))}" for name, rows in series.items())
    if not series:
        return
    yield (
        "probes",
        lambda: figures.probe_bars(series, chance),
        f"Accuracy of fresh probes for the {report.bias}: {ends}; chance {percent(max(chance.values()))}.",
    )


def _with_label(row: ProbeRow) -> dict[str, Any]:
    return row.model_dump() | {"layer": layer_label(row.layer)}


def _strip(files: RunFiles, report: RunReport) -> Iterator[Part]:
    if files.strip is None or files.recoloring is None:
        return
    x, predicted, y = (files.strip[name] for name in ("x", "predicted", "y"))
    colors, classes = files.recoloring.colors, report.class_names
    if x.shape[:2] != predicted.shape or predicted.shape != (len(y), len(colors)) or x.shape[2] != 3:
        return
    if not _indices(predicted, len(classes)) or not _indices(y, len(classes)):
        return
    wrong = int((predicted != y[:, None]).sum())
    yield (
        "strip",
        lambda: figures.recoloring_strip(x, predicted, y, colors, classes),
        f"{len(y)} test images, each in {len(colors)} colours, with the answers; {wrong} of {predicted.size} wrong.",
    )


def _embedding(files: RunFiles, report: RunReport) -> Iterator[Part]:
    if files.embedding is None:
        return
    xy, y, bias = (files.embedding[name] for name in ("xy", "y", "bias"))
    names = report.class_names, report.bias_value_names
    if xy.shape != (len(y), 2) or len(bias) != len(y) or not np.isfinite(xy).all():
        return
    if not _indices(y, len(names[0])) or not _indices(bias, len(names[1])):
        return
    colors = None
    if files.strip and files.recoloring and files.recoloring.colors == names[1]:
        shown = files.strip["x"].max(axis=(0, 3, 4)) / 255  # the colours themselves, (bias values, 3)
        colors = shown if shown.shape == (len(names[1]), 3) else None
    yield (
        "embedding",
        lambda: figures.embedding(xy, y, bias, *names, report.bias, colors),
        f"The features of {len(y)} test images on a plane, coloured by class, and by {report.bias}.",
    )


def _indices(values: NDArray[Any], below: int) -> bool:
    """Return whether all values are integers from 0 to below - 1."""
    return bool(np.issubdtype(values.dtype, np.integer) and values.min() >= 0 and values.max() < below)


def pareto(rows: Sequence[ComparedRun]) -> Drawing | None:
    """Return unbiased accuracy against leakage of the runs for which both are known, None where there is none."""
    accuracy, leakage = dict[str, float](), dict[str, float]()
    for row in rows:
        x, y = (None if e is None else e.value for e in (row.leakage, row.unbiased_accuracy))
        if x is not None and y is not None:
            leakage[row.name], accuracy[row.name] = x, y
    if not accuracy:
        return None
    chance = min((row.chance for row in rows if row.chance is not None), default=None)
    points = "; ".join(f"{name} {percent(accuracy[name])} and {percent(leakage[name])}" for name in accuracy)
    return draw(
        lambda: figures.pareto(accuracy, leakage, chance),
        "pareto",
        f"Unbiased accuracy against leakage of the runs: {points}.",
    )
