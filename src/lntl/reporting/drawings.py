"""Figures of pages as SVG: text stays text, colors follow the theme of the page, screen readers get a description."""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from io import BytesIO, StringIO
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lntl import figures
from lntl.reporting.run_files import RunFiles
from lntl.reporting.run_report import layer_label
from lntl.reporting.verdict import MAX_LISTED_BIASES, percent
from lntl.runs.formats import Check, ComparedRun, Estimate, Groups, RunReport, SaliencyExample, Study

RUN, ERM = "this run", "plain training (ERM)"
MAX_CLASSES = 12  # largest number of classes whose example images are drawn
MAX_TABLE_SIZE = 40  # largest number of classes, and of bias values, in a table that is drawn
# Values of training that are not losses, so that learning curves do not show them.
NOT_LOSSES = {f"train/{name}" for name in ("mu", "h_accuracy", "h_chance", "h_entropy", "gradient_ratio")} | {
    f"train/{name}"
    for name in ("q_max", "effective_share", "errors", "difficulty", "group")  # weights, shares of rows
}
Part = tuple[str, Callable[[], Figure], str]  # name, function that makes the figure, description

_TEXT_COLOR = "#010203"  # a color that no figure uses; replaced by the text color of the page
# Style of the figures; the font type `none` keeps text as text.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "image.composite_image": False,
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.8,
    "axes.titlepad": 8.0,
    "axes.titlesize": 11.0,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _TEXT_COLOR),
}
# Colors in the figures, and what replaces them in the page: the color of the text, or variables of style.css.
_COLORS = {_TEXT_COLOR: "currentColor", "#f7f7f7": "var(--band-1)", "#e8e8e8": "var(--band-2)"}
_COLORS |= {"#b0b0b0": "var(--grid)", "#666666": "var(--quiet)"}
_COLORS |= {color.lower(): f"var(--series-{number})" for number, color in enumerate(figures.PALETTE[:6], 1)}
RASTER_DPI = 140  # resolution of parts that are drawn as pixels, such as thousands of points
MAX_BASE64_LENGTH = 60_000  # the number of colors of longer images is reduced
PIXELS_PER_INCH = 100  # size of a figure on a screen, so that 10 pt are 14 px


@dataclass(frozen=True)
class Drawing:
    """A figure for the page: its SVG, its description for a screen reader, and its width on a screen."""

    svg: Markup
    alt: str
    width: int


def draw(make: Callable[[], Figure], name: str, alt: str) -> Drawing:
    """Draw the figure that `make` returns; its ids start with `name`, so that they are unique in the page."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = make()
        file = StringIO()
        figure.savefig(file, format="svg", transparent=True, dpi=RASTER_DPI, metadata={"Date": None})
    width = round(figure.get_figwidth() * PIXELS_PER_INCH)
    return Drawing(Markup(_inline(file.getvalue(), name, alt)), alt, width)


def _inline(svg: str, name: str, alt: str) -> str:
    """Return the svg element with unique ids, the colors of the page and a description; texts do not change."""
    body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    linked_ids = set(re.findall(r'(?:url\(#|href="#)([^")]+)', body))

    def rewrite_tag(match: re.Match[str]) -> str:
        text = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", match[0]).replace("xlink:href", "href")
        text = re.sub(r"\s*font-family: [^;\"]*;?", "", text)
        text = re.sub(r'\sid="([^"]*)"', lambda id_: f' id="{name}-{id_[1]}"' if id_[1] in linked_ids else "", text)
        text = re.sub(r'url\(#|href="#', lambda link: f"{link[0]}{name}-", text)
        text = re.sub(r"base64,\s*([^\"]*)", lambda png: f"base64,{_reduce_colors(png[1])}", text)
        return re.sub("|".join(_COLORS), lambda color: _COLORS[color[0]], text)

    body = re.sub(r"<[^>]+>", rewrite_tag, body)
    label = f'role="img" aria-label="{escape(alt)}"'
    body = re.sub(r'^<svg[^>]*?viewBox="([^"]*)"[^>]*>', lambda match: f'<svg viewBox="{match[1]}" {label}>', body)
    return re.sub(r"\n\s*", "\n", body).strip()


def _reduce_colors(png: str) -> str:
    """Return a PNG in base64, with 128 colors if it is large."""
    if len(png) < MAX_BASE64_LENGTH:
        return "".join(png.split())
    with Image.open(BytesIO(b64decode(png))) as image:
        image.quantize(128).save(file := BytesIO(), "PNG", optimize=True)
    return b64encode(file.getvalue()).decode()


def draw_run(files: RunFiles, report: RunReport, prefix: str) -> dict[str, Drawing]:
    """Draw the figures of a run, by name; a figure is left out if its file is missing or does not match the others."""
    sections = (
        _make_sample_parts,
        _make_curve_parts,
        _make_confusion_parts,
        _make_saliency_parts,
        _make_group_parts,
        _make_bias_group_parts,
        _make_probe_parts,
        _strip,
        _make_shift_parts,
        _make_embedding_parts,
    )
    parts = (part for section in sections for part in section(files, report))
    return {name: draw(make, f"{prefix}-{name}", alt) for name, make, alt in parts}


def _make_sample_parts(files: RunFiles, report: RunReport) -> Iterator[Part]:
    if files.samples is None:
        return
    names = [str(name) for name in files.samples["class_names"]][:MAX_CLASSES]
    for split in ("train", "test"):
        images = files.samples[split][: len(names)]
        if images.shape[:1] != (len(names),) or images.shape[2] not in (1, 3):
            continue
        height, width = images.shape[3:]
        rgb = np.broadcast_to(images, (*images.shape[:2], 3, height, width)).reshape(-1, 3, height, width)
        yield (
            f"samples-{split}",
            partial(figures.sample_grid, rgb, images.shape[1], row_names=names),
            f"Images of the {split} set, a row for each class: {', '.join(names)}.",
        )


def _make_curve_parts(files: RunFiles, report: RunReport) -> Iterator[Part]:
    # None stands for a value that was not finite.
    epochs = [{k: np.nan if v is None else v for k, v in epoch.model_dump().items()} for epoch in report.epochs]
    columns = list(dict.fromkeys(name for epoch in epochs for name in epoch))
    names = [n for n in columns if n.startswith("train/") and "/lr_" not in n and n not in NOT_LOSSES][:6]
    names += [n for n in columns if n.startswith("val/")][:6]
    if not names:
        return
    last = epochs[-1]
    values = ", ".join(f"{n} {last[n]:.3g}" for n in names if isinstance(last.get(n), float) and np.isfinite(last[n]))
    methods = ", ".join(dict.fromkeys(epoch.method for epoch in report.epochs))
    yield (
        "curves",
        lambda: figures.learning_curves(epochs, names),
        f"Losses and validation metrics over {len(epochs)} epochs, in phases {methods}. At the end: {values}.",
    )


def _make_confusion_parts(files: RunFiles, report: RunReport) -> Iterator[Part]:
    names = report.class_names
    matrices = {ERM: report.confusion.erm, RUN: report.confusion.run}
    counts = {name: matrix for name, matrix in matrices.items() if matrix and _has_shape(matrix, names, names)}
    if RUN not in counts:
        return
    confusions = "; ".join(f"{name}: {_find_most_confused(matrix, names)}" for name, matrix in counts.items())
    yield (
        "confusion",
        lambda: figures.confusion_matrices(counts, names),
        f"Confusion matrices, true class against predicted class. Most frequent confusion in {confusions}.",
    )


def _make_saliency_parts(files: RunFiles, report: RunReport) -> Iterator[Part]:
    if files.saliency is None or files.saliency_maps is None:
        return
    maps, examples = files.saliency_maps["maps"], files.saliency.examples
    names = [RUN, ERM][: len(maps)]
    if maps.shape[1] != len(examples) or len(names) != len(maps):
        return
    if files.saliency.kind == "vectors":
        mean = {name: np.abs(values).mean(axis=0) for name, values in zip(names, maps, strict=True)}
        yield (
            "saliency-features",
            lambda: figures.saliency_bars(mean, "mean absolute attribution, in units of the log-odds"),
            f"Mean attributions over {len(examples)} test examples; the largest is that of x[{mean[RUN].argmax()}].",
        )
        return
    images = files.saliency_maps["pictures"]
    if images.shape != (len(examples), 3, *maps.shape[2:]):
        return
    for name, mistake in (("saliency-mistakes", True), ("saliency-groups", False)):
        index = [i for i, example in enumerate(examples) if example.mistake == mistake]
        if index:
            selection, heat = [examples[i] for i in index], dict(zip(names, maps[:, index] / 255, strict=True))
            alt = "; ".join(f"{e.label} predicted as {e.predicted}" for e in selection)
            yield (
                name,
                partial(_draw_saliency_grid, images[index], heat, selection),
                f"Test images, and heat maps of their predictions: {alt}.",
            )


def _draw_saliency_grid(
    images: NDArray[np.uint8], heat: dict[str, NDArray[np.float64]], examples: list[SaliencyExample]
) -> Figure:
    """Return a figure: a row of images under their classes, then rows of heat maps under the predictions."""
    predicted = {RUN: [e.predicted for e in examples], ERM: [e.erm_predicted or "" for e in examples]}
    labels = [e.label for e in examples]
    titles = [labels, *(predicted[name] for name in heat)]
    wrong = [[title != label for title, label in zip(row, labels, strict=True)] for row in titles]
    return figures.saliency_grid(images, heat, titles, wrong)


def _find_most_confused(matrix: list[list[int]], names: list[str]) -> str:
    """Return a phrase for the most frequent confusion."""
    table = np.array(matrix)
    np.fill_diagonal(table, 0)
    true, predicted = np.unravel_index(table.argmax(), table.shape)
    return f"{names[true]} predicted as {names[predicted]}, {table.max()} times"


def _has_shape(table: Sequence[Sequence[object]], rows: list[str], columns: list[str]) -> bool:
    return len(table) == len(rows) > 0 and all(len(row) == len(columns) > 0 for row in table)


def _make_group_parts(files: RunFiles, report: RunReport) -> Iterator[Part]:
    names = report.class_names, report.bias_value_names
    tables = _group_tables(report.groups.run, report.groups.erm, *names)
    if tables is None:
        return
    accuracy, count = tables
    finite = accuracy[RUN][np.isfinite(accuracy[RUN])]
    span = f"from {percent(finite.min())} to {percent(finite.max())}" if finite.size else "undefined"
    yield (
        "groups",
        lambda: figures.group_accuracies(accuracy, *names, bias_label=report.bias, counts=count),
        f"Accuracy by class and {report.bias}; in this run {span}. Brackets show the number of images.",
    )


def _make_bias_group_parts(files: RunFiles, report: RunReport) -> Iterator[Part]:
    for number, bias in enumerate(report.per_bias[:MAX_LISTED_BIASES], 1):
        names = report.class_names, bias.bias_value_names or []
        tables = _group_tables(bias.groups.run, bias.groups.erm, *names)
        if tables is not None:
            yield (
                f"groups-{number}",
                partial(figures.group_accuracies, tables[0], *names, bias.name, tables[1]),
                f"Accuracy by class and {bias.name} alone. Brackets show the number of images.",
            )


def _group_tables(
    run: Groups | None, erm: Groups | None, class_names: list[str], bias_value_names: list[str]
) -> tuple[dict[str, NDArray[np.float64]], list[list[int]]] | None:
    """Return the accuracies of ERM (if any) and of the run, and the counts; None if the shapes are wrong."""
    if run is None or not _has_shape(run.count, class_names, bias_value_names):
        return None
    tables = {
        name: np.array(groups.accuracy, dtype=np.float64)
        for name, groups in ((ERM, erm), (RUN, run))
        if groups is not None and _has_shape(groups.accuracy, class_names, bias_value_names)
    }
    return (tables, run.count) if RUN in tables else None


def _make_probe_parts(files: RunFiles, report: RunReport) -> Iterator[Part]:
    if files.probe is None:
        return
    reference = files.probe.reference
    rows = {RUN: files.probe.probes, ERM: reference.erm or [], "raw pixels": reference.pixels}
    if files.is_plain:
        rows = {"this run (plain training)": files.probe.probes, "": [], "raw pixels": reference.pixels}
    series = {
        name: [figures.Bar(layer=layer_label(row.layer), probe=row.probe, mean=row.mean, std=row.std) for row in rows]
        for name, rows in rows.items()
        if rows
    }
    chance = {"most frequent value": files.probe.chance.majority, "permuted labels": files.probe.chance.permutation}
    maxima = "; ".join(f"{name} at most {percent(max(row['mean'] for row in rows))}" for name, rows in series.items())
    if not series:
        return
    yield (
        "probes",
        lambda: figures.probe_bars(series, chance),
        f"Accuracy of fresh probes for the {report.bias}: {maxima}; chance {percent(max(chance.values()))}.",
    )


def _strip(files: RunFiles, report: RunReport) -> Iterator[Part]:
    if files.strip is None or files.recoloring is None:
        return
    x, predicted, y = (files.strip[name] for name in ("x", "predicted", "y"))
    colors, classes = files.recoloring.colors, report.class_names
    if x.shape[:2] != predicted.shape or predicted.shape != (len(y), len(colors)) or x.shape[2] != 3:
        return
    if not _are_indices(predicted, len(classes)) or not _are_indices(y, len(classes)):
        return
    wrong = int((predicted != y[:, None]).sum())
    yield (
        "strip",
        lambda: figures.recoloring_strip(x, predicted, y, colors, classes),
        f"{len(y)} test images, each in {len(colors)} colors; {wrong} of {predicted.size} predictions are wrong.",
    )


def _make_shift_parts(files: RunFiles, report: RunReport) -> Iterator[Part]:
    if files.image_shift is None:
        return
    for number, curve in enumerate(files.image_shift.curves):
        run = [(0.0, Estimate(value=0, low=0, high=0)), *((step.shift, step.flip_rate) for step in curve.steps)]
        erm = [(step.shift, step.erm_flip_rate) for step in curve.steps if step.erm_flip_rate is not None]
        lines = {RUN: run} | ({ERM: [run[0], *erm]} if len(erm) == len(curve.steps) else {})
        points = {
            name: [(e.value or 0.0, e.low or 0.0, e.high or 0.0) for _, e in sorted(line, key=lambda point: point[0])]
            for name, line in lines.items()
        }
        shifts = sorted(shift for shift, _ in run)
        rates = ", ".join(f"{percent(step.flip_rate.value or 0)} at {step.shift:+g}" for step in curve.steps)
        yield (
            f"shift-{number}",
            partial(figures.shift_curves, shifts, points, f"change of the {curve.name} (black to white is 1)"),
            f"Predictions that change with the {curve.name}: {rates}.",
        )
    strip, classes = files.shift_strip, report.class_names
    if strip is None or strip["x"].shape[0] != len(files.image_shift.curves):
        return
    for number, (curve, x, predicted) in enumerate(
        zip(files.image_shift.curves, strip["x"], strip["predicted"], strict=True)
    ):
        shifts = sorted([0.0, *(step.shift for step in curve.steps)])
        if x.shape[:3] != (*predicted.shape, 3) or predicted.shape != (len(strip["y"]), len(shifts)):
            continue
        if not _are_indices(predicted, len(classes)) or not _are_indices(strip["y"], len(classes)):
            continue
        columns = [f"{shift:+g}" if shift else "0" for shift in shifts]
        yield (
            f"shift-strip-{number}",
            partial(figures.recoloring_strip, x, predicted, strip["y"], columns, classes),
            f"{len(x)} test images with changed {curve.name}, and the predictions.",
        )


def _make_embedding_parts(files: RunFiles, report: RunReport) -> Iterator[Part]:
    if files.embedding is None:
        return
    xy, y, bias = (files.embedding[name] for name in ("xy", "y", "bias"))
    names = report.class_names, report.bias_value_names
    if xy.shape != (len(y), 2) or len(bias) != len(y) or not np.isfinite(xy).all():
        return
    if not _are_indices(y, len(names[0])) or not _are_indices(bias, len(names[1])):
        return
    colors = None
    if files.strip and files.recoloring and files.recoloring.colors == names[1]:
        maxima = files.strip["x"].max(axis=(0, 3, 4)) / 255  # the color of each bias value, (bias values, 3)
        colors = maxima if maxima.shape == (len(names[1]), 3) else None
    yield (
        "embedding",
        lambda: figures.embedding(xy, y, bias, *names, report.bias, colors),
        f"The features of {len(y)} test images in two dimensions, colored by class, and by {report.bias}.",
    )


def _are_indices(values: NDArray[Any], length: int) -> bool:
    """Return whether all values are integers from 0 to length - 1."""
    return bool(np.issubdtype(values.dtype, np.integer) and values.min() >= 0 and values.max() < length)


def pareto(rows: Sequence[ComparedRun]) -> Drawing | None:
    """Draw unbiased accuracy against leakage; return None if no run has both."""
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


def draw_check(check: Check, image_pairs: NDArray[np.uint8] | None) -> dict[str, Drawing]:
    """Draw class-by-bias tables of the first biases, except very large tables, and the pairs of similar images."""
    parts, classes = dict[str, Drawing](), check.class_names
    for number, bias in enumerate(check.biases[:MAX_LISTED_BIASES] if check.annotated else []):
        if max(len(classes), len(bias.values)) <= MAX_TABLE_SIZE:
            make = partial(figures.class_by_bias, bias.counts, classes, bias.values, bias.name)
            share = bias.association["train"].bias_only
            rule = "" if share is None else f" In training, {bias.name} alone predicts the class of {percent(share)}."
            alt = f"Class by {bias.name} in each split.{rule}"
            parts[f"bias{number}"] = draw(make, f"bias{number}", alt)
    if image_pairs is not None:
        images = image_pairs.swapaxes(0, 1).reshape(-1, *image_pairs.shape[2:])
        titles = [*map(str, range(1, len(image_pairs) + 1)), *[""] * len(image_pairs)]
        grid = partial(figures.sample_grid, images, len(image_pairs), titles=titles, row_names=["first", "second"])
        alt = f"{len(image_pairs)} pairs of similar images, one image above the other."
        parts["alike"] = draw(grid, "alike", alt)
    return parts


def study_figures(study: Study) -> Iterator[Part]:
    """Yield the figures of a study: history and, if there are enough trials, importance."""
    points = {
        state: [(t.number, t.value) for t in study.trials if t.state == state and t.value is not None]
        for state in ("complete", "pruned")
    }
    label, lower = f"{study.label} on val", study.lower_is_better
    yield (
        "history",
        lambda: figures.tuning_history(points["complete"], points["pruned"], label, lower),
        f"{label} of each trial, and the best so far",
    )
    if study.importance:
        alt = "Share of the variance that each key explains: " + ", ".join(
            f"{key} {share:.2f}" for key, share in study.importance.items()
        )
        yield "importance", lambda: figures.importance_bars(study.importance), alt
