"""The page of an audit of data, and check.json beside it."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lntl import figures
from lntl.reporting.pages import environment, make_folder, raw_file
from lntl.reporting.svg import Drawing, draw
from lntl.reporting.verdict import percent
from lntl.runs.files import write_text

Facts = dict[str, Any]

MOST = 40  # classes or bias values of a table that is drawn


def write_check(facts: Facts, pictures: NDArray[np.uint8] | None, out: Path) -> list[Path]:
    """Write index.html and check.json into `out`; return both."""
    make_folder(out)
    page, content = out / "index.html", out / "check.json"
    write_text(page, render_check(facts, pictures))
    write_text(content, json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return [page, content]


def render_check(facts: Facts, pictures: NDArray[np.uint8] | None) -> str:
    """Return the page: one HTML document that needs nothing else."""
    templates = environment()
    return templates.get_template("check.html").render(
        facts=facts,
        figures=dict(_drawings(facts, pictures)),
        key_numbers=_key_numbers(facts),
        verdict=verdict(facts),
        style=raw_file(templates, "style.css"),
        script=raw_file(templates, "script.js"),
    )


def verdict(facts: Facts) -> tuple[str, str]:
    """Return whether results on these data can be trusted, in a few words, and the sentence that says why."""
    levels = [each["level"] for each in facts["findings"]]
    problems, warnings = levels.count("problem"), levels.count("warning")
    if problems:
        return "Not yet", f"{_some(problems, 'thing')} must be mended before any result on these data means something."
    if warnings:
        return "With care", f"nothing stands against training, but {_some(warnings, 'thing')} limit what it can show."
    return "Yes", "nothing was found that stands against training, or against trusting what comes of it."


def _some(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _key_numbers(facts: Facts) -> list[Facts]:
    """Return label, value, what stands beside it and what it means; share and chance where it has a scale."""
    told, test = facts["biases"][-1]["association"]["train"], facts["cells"]["test"]
    sizes = ", ".join(f"{each['name']} {each['n']}" for each in facts["splits"])
    values = _some(len(facts["biases"][-1]["values"]), "bias value")
    bias_only, v, least = told["bias_only"], told["cramers_v"], test["smallest"]
    return [
        {
            "label": "Rows",
            "value": str(facts["n"]),
            "beside": sizes,
            "meaning": f"{len(facts['class_names'])} classes, {values}",
        },
        {
            "label": "Label told by the bias",
            "value": None if bias_only is None else percent(bias_only),
            "beside": None if told["majority"] is None else f"most frequent class {percent(told['majority'])}",
            "share": bias_only,
            "chance": told["majority"],
            "meaning": "training rows on which the best rule from bias value to class is right",
        },
        {
            "label": "Cramér's V",
            "value": None if v is None else f"{v:.2f}",
            "beside": told["undefined"],
            "share": v,
            "chance": None,
            "meaning": "of label and bias in training: 0 independent, 1 determined",
        },
        {
            "label": "Smallest test group",
            "value": None if least is None else str(least["n"]),
            "beside": None if least is None else f"{least['class']} with {least['value']}",
            "meaning": ""
            if least is None
            else f"so that worst-group accuracy tells {100 * test['difference']:.0f} points apart, and no less",
        },
    ]


def _drawings(facts: Facts, pictures: NDArray[np.uint8] | None) -> Iterator[tuple[str, Drawing]]:
    """Yield the table of each bias, where it is not too large, and the pairs of alike images."""
    classes = facts["class_names"]
    for number, bias in enumerate(facts["biases"]):
        if max(len(classes), len(bias["values"])) > MOST:
            continue
        make = partial(figures.class_by_bias, bias["counts"], classes, bias["values"], bias["name"])
        told = bias["association"]["train"]["bias_only"]
        ends = "" if told is None else f" In training {bias['name']} alone tells the class of {percent(told)}."
        yield f"bias{number}", draw(make, f"bias{number}", f"Class by {bias['name']} in each split.{ends}")
    if pictures is not None:
        flat = pictures.swapaxes(0, 1).reshape(-1, *pictures.shape[2:])
        titles = [*map(str, range(1, len(pictures) + 1)), *[""] * len(pictures)]
        grid = partial(figures.sample_grid, flat, len(pictures), titles=titles, row_names=["one", "other"])
        yield "alike", draw(grid, "alike", f"{len(pictures)} pairs of images that look alike, one above the other.")
