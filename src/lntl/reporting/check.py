"""The page of an audit of data, and check.json beside it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lntl import figures
from lntl.evaluation.metrics import counted
from lntl.reporting.pages import environment, make_folder, raw_file
from lntl.reporting.svg import Drawing, draw
from lntl.reporting.verdict import percent
from lntl.runs.files import write_json, write_text
from lntl.runs.formats import Check, Estimate

MOST = 40  # classes or bias values of a table that is drawn


@dataclass(frozen=True)
class Tile:
    """A number of the first screen: label, value, what stands beside it, its meaning, and a scale if it has one."""

    label: str
    value: str | None
    beside: str
    meaning: str
    run: Estimate | None = None  # the value on the scale of the report's pages
    erm: None = None
    chance: float | None = None


def write_check(check: Check, pictures: NDArray[np.uint8] | None, out: Path) -> list[Path]:
    """Write index.html and check.json into `out`; return both."""
    make_folder(out)
    page, content = out / "index.html", out / "check.json"
    write_text(page, render_check(check, pictures))
    write_json(content, check)
    return [page, content]


def render_check(check: Check, pictures: NDArray[np.uint8] | None) -> str:
    """Return the page: one HTML document that needs nothing else."""
    templates = environment()
    return templates.get_template("check.html").render(
        check=check,
        figures=dict(_drawings(check, pictures)),
        tiles=_tiles(check),
        verdict=verdict(check),
        style=raw_file(templates, "style.css"),
        script=raw_file(templates, "script.js"),
    )


def verdict(check: Check) -> tuple[str, str]:
    """Return whether results on these data can be trusted, in a few words, and the sentence that says why."""
    levels = [finding.level for finding in check.findings]
    problems, warnings = levels.count("problem"), levels.count("warning")
    if problems:
        return (
            "Not yet",
            f"{counted(problems, 'thing')} must be mended before any result on these data means something.",
        )
    if warnings:
        return "With care", f"nothing stands against training, but {counted(warnings, 'thing')} limit what it can show."
    return "Yes", "nothing was found that stands against training, or against trusting what comes of it."


def _tiles(check: Check) -> list[Tile]:
    association, test = check.biases[-1].association["train"], check.cells["test"]
    sizes = ", ".join(f"{split.name} {split.n}" for split in check.splits)
    values = counted(len(check.biases[-1].values), "bias value")
    bias_only, v, least, majority = association.bias_only, association.cramers_v, test.smallest, association.majority
    difference = "" if test.difference is None else f"{100 * test.difference:.0f}"
    return [
        Tile("Rows", str(check.n), sizes, f"{len(check.class_names)} classes, {values}"),
        Tile(
            "Label given by the bias",
            None if bias_only is None else percent(bias_only),
            "" if majority is None else f"most frequent class {percent(majority)}",
            "training rows on which the best rule from bias value to class is right",
            None if bias_only is None else Estimate(value=bias_only),
            chance=majority,
        ),
        Tile(
            "Cramér's V",
            None if v is None else f"{v:.2f}",
            association.undefined or "",
            "of label and bias in training: 0 independent, 1 determined",
            None if v is None else Estimate(value=v),
        ),
        Tile(
            "Smallest test group",
            None if least is None else str(least.n),
            "" if least is None else least.name,
            f"so that worst-group accuracy shows differences of {difference} points or more" if difference else "",
        ),
    ]


def _drawings(check: Check, pictures: NDArray[np.uint8] | None) -> Iterator[tuple[str, Drawing]]:
    """Yield the table of each bias, where it is not too large, and the pairs of alike images."""
    classes = check.class_names
    for number, bias in enumerate(check.biases):
        if max(len(classes), len(bias.values)) > MOST or not check.annotated:
            continue
        make = partial(figures.class_by_bias, bias.counts, classes, bias.values, bias.name)
        share = bias.association["train"].bias_only
        ends = "" if share is None else f" In training {bias.name} alone gives the class of {percent(share)}."
        yield f"bias{number}", draw(make, f"bias{number}", f"Class by {bias.name} in each split.{ends}")
    if pictures is not None:
        flat = pictures.swapaxes(0, 1).reshape(-1, *pictures.shape[2:])
        titles = [*map(str, range(1, len(pictures) + 1)), *[""] * len(pictures)]
        grid = partial(figures.sample_grid, flat, len(pictures), titles=titles, row_names=["one", "other"])
        yield "alike", draw(grid, "alike", f"{len(pictures)} pairs of images that look alike, one above the other.")
