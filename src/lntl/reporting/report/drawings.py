"""The figures of a run's page, each with the words that tell those who cannot see it what it shows."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lntl import figures
from lntl.reporting.report.facts import LAYERS, Facts
from lntl.reporting.report.reading import Arrays, RunFiles
from lntl.reporting.report.svg import Drawing, draw
from lntl.reporting.report.verdict import percent
from lntl.runs.formats import ProbeRow

RUN, ERM = "this run", "plain training (ERM)"
MOST_CLASSES = 12  # whose example images are shown
NO_LOSSES = ("train/mu", "train/h_accuracy", "train/h_chance", "train/h_entropy", "train/gradient_ratio")
Made = tuple[str, Callable[[], Figure], str]


def drawings(files: RunFiles, facts: Facts, prefix: str) -> dict[str, Drawing]:
    """Return the figures by name; one whose file is missing or does not fit the others is left out."""
    parts = (_samples, _curves, _confusion, _groups, _each_bias, _probes, _strip, _embedding)
    made = (figure for part in parts for figure in part(files, facts))
    return {name: draw(make, f"{prefix}-{name}", alt) for name, make, alt in made}


def _samples(files: RunFiles, facts: Facts) -> Iterator[Made]:
    if files.samples is None:
        return
    names = [str(name) for name in files.samples["class_names"]][:MOST_CLASSES]
    for split in ("train", "test"):
        pictures = files.samples[split][: len(names)]
        if pictures.shape[:1] != (len(names),) or pictures.shape[2] not in (1, 3):
            continue
        flat = np.broadcast_to(pictures, (*pictures.shape[:2], 3, *pictures.shape[3:])).reshape(
            -1, 3, *pictures.shape[3:]
        )
        yield (
            f"samples-{split}",
            partial(figures.sample_grid, flat, pictures.shape[1], row_names=names),
            f"Images of the {split} set, a row for each class: {', '.join(names)}.",
        )


def _curves(files: RunFiles, facts: Facts) -> Iterator[Made]:
    if not files.records:
        return
    nan = [{k: float("nan") if v is None else v for k, v in record.items()} for record in facts["epochs"]]
    told = list(dict.fromkeys(name for record in nan for name in record))
    names = [n for n in told if n.startswith("train/") and "/lr_" not in n and n not in NO_LOSSES][:6]
    names += [n for n in told if n.startswith("val/")][:6]
    if not names:
        return
    last = nan[-1]
    ends = ", ".join(
        f"{name} {last[name]:.3g}" for name in names if isinstance(last.get(name), float) and last[name] == last[name]
    )
    methods = ", ".join(dict.fromkeys(str(record["method"]) for record in nan))
    yield (
        "curves",
        lambda: figures.learning_curves(nan, names),
        f"Losses and validation metrics over {len(nan)} epochs, in phases {methods}. At the end: {ends}.",
    )


def _confusion(files: RunFiles, facts: Facts) -> Iterator[Made]:
    if not facts["confusion"]:
        return
    erm_first = {ERM: facts["confusion"].get("erm"), RUN: facts["confusion"]["run"]}
    counts = {
        name: matrix for name, matrix in erm_first.items() if _fits(matrix, facts["class_names"], facts["class_names"])
    }
    if RUN not in counts:
        return
    ends = "; ".join(f"{name}: {_worst(matrix, facts['class_names'])}" for name, matrix in counts.items())
    yield (
        "confusion",
        lambda: figures.confusion_matrices(counts, facts["class_names"]),
        f"Confusion matrices, true class against predicted class. Most frequent confusion of {ends}.",
    )


def _worst(matrix: list[list[int]], names: list[str]) -> str:
    """Return the most frequent confusion in words."""
    table = np.array(matrix)
    np.fill_diagonal(table, 0)
    true, said = np.unravel_index(table.argmax(), table.shape)
    return f"{names[true]} taken for {names[said]}, {table.max()} times"


def _fits(table: Any, rows: list[str], columns: list[str]) -> bool:
    return bool(table) and len(table) == len(rows) and all(len(row) == len(columns) for row in table)


def _groups(files: RunFiles, facts: Facts) -> Iterator[Made]:
    if not facts["groups"]:
        return
    names = facts["class_names"], facts["bias_value_names"]
    tables = {ERM: facts["groups"].get("erm"), RUN: facts["groups"]["run"]}
    accuracy = {name: t["accuracy"] for name, t in tables.items() if t and _fits(t["accuracy"], *names)}
    count = facts["groups"]["run"]["count"]
    if RUN not in accuracy or not _fits(count, *names):
        return
    known = [value for row in accuracy[RUN] for value in row if value is not None]
    span = f"from {percent(min(known))} to {percent(max(known))}" if known else "undefined"
    as_numbers = {name: np.array(table, dtype=np.float64) for name, table in accuracy.items()}
    yield (
        "groups",
        lambda: figures.group_accuracies(as_numbers, *names, bias_label=facts["bias"], counts=count),
        f"Accuracy by class and {facts['bias']}; of this run {span}. In brackets the number of images.",
    )


def _each_bias(files: RunFiles, facts: Facts) -> Iterator[Made]:
    for number, one in enumerate(facts["per_bias"], 1):
        names = facts["class_names"], one["bias_value_names"]
        groups = {label: one["groups"][who] for who, label in (("erm", ERM), ("run", RUN)) if who in one["groups"]}
        if RUN not in groups or not all(
            _fits(t[key], *names) for t in groups.values() for key in ("accuracy", "count")
        ):
            continue
        accuracy = {label: np.array(table["accuracy"], dtype=np.float64) for label, table in groups.items()}
        yield (
            f"groups-{number}",
            partial(figures.group_accuracies, accuracy, *names, one["name"], groups[RUN]["count"]),
            f"Accuracy by class and {one['name']} alone. In brackets the number of images.",
        )


def _probes(files: RunFiles, facts: Facts) -> Iterator[Made]:
    if files.probe is None:
        return
    probe = files.probe
    told = {RUN: probe.probes, ERM: probe.reference.erm or [], "raw pixels": probe.reference.pixels}
    if files.method == "erm":
        told = {"this run (plain training)": probe.probes, "": [], "raw pixels": probe.reference.pixels}
    series = {name: [_named(row) for row in rows] for name, rows in told.items() if rows}
    chance = {"most frequent value": probe.chance.majority, "permuted labels": probe.chance.permutation}
    ends = "; ".join(f"{name} at most {percent(max(row['mean'] for row in rows))}" for name, rows in series.items())
    if not series:
        return
    yield (
        "probes",
        lambda: figures.probe_bars(series, chance),
        f"Accuracy of fresh probes for the {facts['bias']}: {ends}; chance {percent(max(chance.values()))}.",
    )


def _named(row: ProbeRow) -> dict[str, Any]:
    return row.model_dump() | {"layer": LAYERS.get(row.layer, row.layer)}


def _strip(files: RunFiles, facts: Facts) -> Iterator[Made]:
    if files.strip is None or files.recoloring is None or not facts["class_names"]:
        return
    x, predicted, y = (files.strip[name] for name in ("x", "predicted", "y"))
    colors, classes = files.recoloring.colors, facts["class_names"]
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


def _embedding(files: RunFiles, facts: Facts) -> Iterator[Made]:
    arrays: Arrays | None = files.embedding
    if arrays is None or not facts["class_names"]:
        return
    xy, y, bias = arrays["xy"], arrays["y"], arrays["bias"]
    if xy.shape != (len(y), 2) or len(bias) != len(y) or not np.isfinite(xy).all():
        return
    if not _indices(y, len(facts["class_names"])) or not _indices(bias, len(facts["bias_value_names"])):
        return
    own, names = None, facts["bias_value_names"]
    if files.strip and files.recoloring and files.recoloring.colors == names:
        shown = files.strip["x"].max(axis=(0, 3, 4)) / 255  # the colours themselves, (bias values, 3)
        own = shown if shown.shape == (len(names), 3) else None
    yield (
        "embedding",
        lambda: figures.embedding(xy, y, bias, facts["class_names"], facts["bias_value_names"], facts["bias"], own),
        f"The features of {len(y)} test images on a plane, coloured by class, and by {facts['bias']}.",
    )


def _indices(values: Any, below: int) -> bool:
    return bool(np.issubdtype(values.dtype, np.integer) and values.min() >= 0 and values.max() < below)
