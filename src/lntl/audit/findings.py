"""Findings of an audit as sentences, and the recommended first method.

A problem makes results untrustworthy, a warning limits what they show, a note informs. The recommendation follows
docs/REPRODUCTION.md: LNTL on the bias product if the bias nearly determines the label or a cell is empty; weighted
groups only if every cell has rows; a method without bias labels if most labels are missing.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from lntl.audit.association import POWER, SIGNIFICANCE
from lntl.evaluation.metrics import METRICS, counted, listed
from lntl.experiment.build import methods_without_bias
from lntl.runs.formats import (
    Association,
    BiasCounts,
    CellCount,
    CellCounts,
    Check,
    Finding,
    Recommendation,
    SplitCounts,
)

BIASED_SKILL = 0.2  # a split counts as biased if the skill of the bias is above this
SAME_BIAS = 0.8  # another split counts as biased like training if its skill is above this share of training's skill
WEAK_SKILL = 0.05  # up to this skill, plain training has little to gain from the bias
WEAK_CRAMERS_V = 0.1  # below this, bias and label count as unrelated: "small" for two values, Cohen, 1988
NEAR_CERTAIN_SKILL = 0.9  # above this, the bias nearly determines the label
MAX_MISSING = 0.5  # above this share of missing bias labels, methods that need them have too few
MAX_DRO_GROUPS = 16  # up to this number of groups, a batch of 128 estimates the loss of each group for group_dro

PHASES = {
    "erm": ("{method: erm, epochs: 10}",),
    "lff": ("{method: lff, epochs: 10}",),
    "group_dro": ("{method: group_dro, epochs: 10}",),
    "reweight": ("{method: reweight, epochs: 10}",),
    "lntl": (
        "{method: bias_product, epochs: 3}",
        "{method: bias_head, epochs: 1}",
        "{method: lntl, epochs: 6, task: bias_product, smoothing: 0.1, lam: 0.01, mu: 0.05, h_steps: 2}",
    ),
}
TITLES = {
    "erm": "Plain training",
    "lff": "Learning from Failure, which needs no bias label",
    "group_dro": "Group DRO",
    "reweight": "Reweighting",
    "lntl": "LNTL on the bias product",
}

Sentence = tuple[Literal["problem", "warning", "note"], str, str]  # level, title, text
_LEVELS = ("problem", "warning", "note")


def findings(check: Check) -> list[Finding]:
    """Return the findings of an audit, problems first."""
    rules = (_rows, _duplicates, _bias, _train_cells, _val, _test, _biased_splits)
    found = [Finding(level=level, title=title, text=text) for rule in rules for level, title, text in rule(check)]
    return sorted(found, key=lambda finding: _LEVELS.index(finding.level))


def skill(association: Association) -> float:
    """Return the skill of a classifier that sees only the bias: 0 at the accuracy of the majority class, 1 at 100 %."""
    right, most = association.bias_only, association.majority
    return 0.0 if right is None or most is None or most == 1 else (right - most) / (1 - most)


def determining(check: Check) -> list[BiasCounts]:
    """Return the biases that determine the class in training: each of their values occurs with one class only."""
    rows = check.splits[0].n
    biases = [
        bias
        for bias in check.biases
        if skill(bias.association["train"]) == 1
        and 2 * len(bias.values) <= rows  # with more values, each has only about one row
    ]
    return biases[:-1] if len(biases) > 1 else biases  # the last one is the combination of the others


def _listed(cells: list[CellCount], n: int) -> str:
    names = [f"{cell.name}: {cell.n}" if cell.n else cell.name for cell in cells]
    return listed(names + [""] * (n - len(names)))


def _split(check: Check, name: str) -> SplitCounts:
    return next(split for split in check.splits if split.name == name)


def _rows(check: Check) -> Iterator[Sentence]:
    """Yield findings about single rows."""
    if wrong := check.wrong_rows:
        rows = f"{counted(len(wrong), 'wrong row')} ({listed(wrong)})"
        if check.on_error == "stop":
            remedy = "training stops at them: correct them, or leave them out with data.on_error: skip"
            yield "problem", "Wrong rows", f"{rows}; {remedy}."
        else:
            yield "warning", "Wrong rows are left out", f"{rows}, left out here and in training."
    if unreadable := check.unreadable:
        text = f"{counted(len(unreadable), 'image')} cannot be read ({listed(unreadable)}); training stops at them"
        remedy = "replace them, or leave them out with data.check: read, on_error: skip"
        yield "problem", "Images that cannot be read", f"{text}: {remedy}."
    if not check.opened:
        yield "note", "Images not opened", "Equal, similar and unreadable images were not searched for."
    if check.leaking is not None:
        groups, column = check.leaking.groups, check.leaking.column
        text = f"{counted(len(groups), 'value')} of {column} with rows in more than one split ({listed(groups)})"
        yield (
            "problem",
            "Groups in two splits",
            f"{text}, so test rows are not independent of training; keep each value in one split.",
        )


def _duplicates(check: Check) -> Iterator[Sentence]:
    if check.duplicates is None:
        return
    examples, equal, alike = check.duplicates.of, check.duplicates.equal, check.duplicates.alike
    if equal.across:
        shared = ", ".join(f"{part.n} of {part.of} are in {part.within}" for part in equal.shared if part.n)
        yield (
            "problem" if examples == "images" else "warning",  # short vectors can be equal by chance
            f"Equal {examples} in two splits",
            f"Equal in every value: of the {examples}, {shared} as well. Remove them from one split.",
        )
    if equal.disagree:
        text = f"{counted(equal.disagree, 'set')} of equal {examples} with different classes: some labels are wrong."
        yield "warning", f"Equal {examples}, different classes", text
    if inside := equal.sets - equal.across:
        text = f"{counted(inside, 'set')} of equal {examples} within a split: they count more than once."
        yield "note", f"Equal {examples} within a split", text
    if alike is not None and alike.across:
        text = f"{counted(alike.across, 'pair')} of similar images in two splits: are they copies?"
        yield "warning", "Similar images in two splits", f"{text} If so, keep them in one split with data.group_id."
    if alike is not None and alike.disagree:
        text = f"{counted(alike.disagree, 'pair')} of similar images with different classes: check the labels."
        yield "warning", "Similar images, different classes", text


def _bias(check: Check) -> Iterator[Sentence]:
    """Yield findings about missing bias labels and about the number of bias values."""
    if not check.annotated:
        text = (
            "No row has a bias value: metrics by group, leakage and the association of bias and label are undefined. "
            f"Annotate at least val and test; {_blind_methods()} need no bias label in training."
        )
        yield "warning", "No bias annotation", text
        return
    for bias in determining(check):
        text = (
            f"In training every value of {bias.name} has rows of only one class: no method can distinguish bias and "
            "class by this label."
        )
        yield "problem", "The bias determines the class", f"{text} {' '.join(what_helps(check))}"
    joint, train = check.biases[-1], check.splits[0]
    rows, values = round(train.n * (1 - train.missing)), len(joint.values)
    if rows < check.cells["train"].few * values:
        text = f"{values} values of {joint.name} share {rows} training rows: a method may memorise the label of"
        yield (
            "warning",
            "Many bias values",
            f"{text} each value, and h has few rows per value; merge values, or use bins.",
        )
    shares = {bias.name: bias.missing["train"] for bias in check.biases[:-1] or check.biases}
    if missing := [f"{name} {share:.1%}" for name, share in shares.items() if share]:
        text = f"Share of training rows without a bias value: {listed(missing)}. Numbers by group leave these rows out"
        yield "note", "Missing bias values", f"{text}, and group_dro never draws them."


def what_helps(check: Check) -> list[str]:
    """Return advice for data in which the bias determines the class in training."""
    overlap, best = "", "brightness"
    if check.brightness_only is not None:
        center = check.center_brightness_only or 0
        best = "center_brightness" if center > check.brightness_only else "brightness"
        overlap = (
            f": brightness in ten bins gives the class of {check.brightness_only:.1%} of the training images, the "
            f"brightness of the middle that of {center:.1%}; the remaining images are the counterexamples"
        )
    return [
        "What helps: a few counterexamples, rows in which class and bias disagree;",
        "or another measure of the same nuisance whose values overlap between the classes, such as brightness computed "
        f"from the image, data.bias: {{from: {best}, bins: 10}}{overlap}.",
        "This audit measures the overlap: the best rule from values to classes must be wrong on some training rows. "
        "Finer bins of the same column do not help.",
    ]


def _blind_methods() -> str:
    return ", ".join(name for name in methods_without_bias() if name != "erm")


def _train_cells(check: Check) -> Iterator[Sentence]:
    cells = check.cells["train"]
    if not check.annotated:
        return
    if cells.empty:
        text = f"{counted(cells.empty, 'cell')} without a training row ({_listed(cells.empty_cells, cells.empty)})"
        limit = "group_dro, resample and reweight cannot give them weight, and domain_independent cannot learn them"
        yield "warning", "Empty cells in training", f"{text}: {limit}."
    if cells.small:
        names = _listed(cells.small_cells, cells.small)
        text = f"{counted(cells.small, 'cell')} with fewer than {cells.few} training rows ({names})"
        yield (
            "warning",
            "Tiny cells in training",
            f"{text}: methods that repeat these rows or give them larger weights memorise them.",
        )


def _val(check: Check) -> Iterator[Sentence]:
    """Yield findings about val, the split that chooses the epoch."""
    val, cells, metric = _split(check, "val"), check.cells["val"], check.best_model_metric
    absent = [name for name, n in zip(check.class_names, val.classes, strict=True) if not n]
    if len(check.class_names) - len(absent) < 2:
        only = next(name for name in check.class_names if name not in absent)
        text = f"val, which chooses the epoch, has only rows of {check.label} {only}"
        yield "problem", "One class in val", f"{text}: it chooses the epoch that predicts this class most often."
    elif absent:
        text = f"val, which chooses the epoch, has no row of {check.label} {listed(absent)}"
        yield "warning", "Classes without a val row", f"{text}: their accuracy is not measured there."
    if cells.absent:
        names = _listed(cells.absent_cells, cells.absent)
        text = f"{counted(cells.absent, 'cell')} that other splits have, without a val row ({names})"
        limit = "worst_group_accuracy on val leaves them out, and the gaps are undefined"
        if METRICS[metric].over_groups:
            limit = f"{metric} chooses the epoch without them"
        yield "warning", "Cells without a val row", f"{text}: {limit}."


def _test(check: Check) -> Iterator[Sentence]:
    """Yield findings about what the test set cannot show."""
    cells, test = check.cells["test"], _split(check, "test")
    if cells.absent:
        names = _listed(cells.absent_cells, cells.absent)
        text = f"{counted(cells.absent, 'cell')} that other splits have, without a test row ({names})"
        limit = "worst-group and unbiased accuracy leave them out, and the gaps are undefined"
        yield "warning", "Empty cells in the test set", f"{text}: {limit}."
    if cells.small:
        names = _listed(cells.small_cells, cells.small)
        text = f"{counted(cells.small, 'cell')} with fewer than {cells.few} test rows ({names})"
        yield "warning", "Tiny cells in the test set", f"{text}: worst-group accuracy is uncertain; collect more rows."
    if cells.smallest is not None and cells.difference is not None:
        text = (
            f"The {counted(cells.smallest.n, 'test row')} of the smallest group, {cells.smallest.name}, distinguish "
            f"runs that differ by at least {100 * cells.difference:.1f} points in worst-group accuracy "
            f"({POWER:.0%} power at {SIGNIFICANCE:.0%})."
        )
        yield "note", "Smallest difference that the test set can show", text
    if absent := [name for name, n in zip(check.class_names, test.classes, strict=True) if not n]:
        text = f"No test row has {check.label} {listed(absent)}: nothing is measured there."
        yield "warning", "Classes without a test row", text
    joint = check.biases[-1]
    if joint.counts["train"]:  # empty if there are too many cells to list
        in_train, in_test = (np.sum(joint.counts[name], axis=0) for name in ("train", "test"))
        if new := [joint.values[value] for value in np.flatnonzero((in_test > 0) & (in_train == 0))]:
            text = f"{listed(new)}: in the test set, but not in training, so no method can learn from it."
            yield "warning", "Bias values that are not in training", text


def _biased_splits(check: Check) -> Iterator[Sentence]:
    joint, metric = check.biases[-1].association, check.best_model_metric
    learned = skill(joint["train"])
    if learned < BIASED_SKILL:
        return
    if skill(joint["test"]) >= SAME_BIAS * learned:
        text = "The test set has the bias of training, so a network that uses the bias has a high accuracy"
        yield "warning", "A biased test set", f"{text}; look at worst-group and unbiased accuracy, too."
    if skill(joint["val"]) >= SAME_BIAS * learned and not METRICS[metric].over_groups:
        text = f"val has the bias of training, and {metric} on it chooses the epoch"
        yield (
            "warning",
            "A biased choice of the epoch",
            f"{text}; set evaluation.best_model_metric: worst_group_accuracy.",
        )


# --- the recommended first method ---


def recommend(check: Check, pooled: bool) -> Recommendation:
    """Return the recommended first method; pooled: whether the model has the setting bias_head."""
    method, reasons = _method(check)
    title = "Plain training, as a baseline" if method == "erm" and determining(check) else TITLES[method]
    lines = ["training:", "  phases:", *(f"    - {phase}" for phase in PHASES[method])]
    if method == "lntl" and pooled:
        lines = ["model:", "  bias_head: pooled  # h gets the same pooled features as g", *lines]
    reasons = [*reasons, *_reasons_of_several_biases(check)]
    return Recommendation(method=method, title=title, reasons=reasons, yaml="\n".join(lines) + "\n")


def _method(check: Check) -> tuple[str, list[str]]:
    """Return the method and the reasons for it."""
    bias, cells = check.biases[-1], check.cells["train"]
    missing, association, groups = bias.missing["train"], bias.association["train"], check.splits[0].cells
    skilled = skill(association)
    if missing > MAX_MISSING:
        return "lff", [
            f"{missing:.0%} of the training rows have no bias label: too few for a method that learns from them.",
            f"Methods without bias labels: {_blind_methods()}. Before jtt: {{method: erm, epochs: 1}}.",
        ]
    if biases := determining(check):
        names = " and ".join(bias.name for bias in biases)
        reason = f"In training {names} determines {check.label}: no method can distinguish the two by this label."
        return "erm", [reason, *what_helps(check)]
    unrelated = association.cramers_v is None or association.cramers_v < WEAK_CRAMERS_V
    if association.bias_only is None or (skilled <= WEAK_SKILL and unrelated):
        return "erm", [
            "In training the bias hardly predicts the label, so there is nothing to unlearn.",
            "If the features themselves must not contain the bias, train with lntl and check them with lntl probe.",
        ]
    if cells.empty or cells.small or skilled >= NEAR_CERTAIN_SKILL:
        return "lntl", _why_lntl(association, cells)
    reasons = ["Every cell has training rows, so rare cells can get the same weight as frequent ones."]
    if not missing and groups <= MAX_DRO_GROUPS:
        return "group_dro", [*reasons, f"{groups} groups are few enough to estimate the loss of each."]
    why = f"{missing:.1%} of the rows have no bias label" if missing else f"{groups} groups are many"
    return "reweight", [
        *reasons,
        f"{why}: reweight estimates p(label given bias) from all rows, group_dro needs rows of each group.",
    ]


def _why_lntl(association: Association, cells: CellCounts) -> list[str]:
    reasons = [
        "The bias product trains g on the part of the label that the bias does not predict, and works with empty "
        "cells; LNTL then removes the rest of the bias from the features."
    ]
    if skill(association) >= NEAR_CERTAIN_SKILL:
        reasons.append(
            f"The bias alone is right on {association.bias_only:.1%} of the training rows: the other rows are too few "
            "for larger weights to help."
        )
    if cells.empty:
        reasons.append(f"{cells.empty} training cells are empty, and weights cannot replace missing rows.")
    if cells.small:
        reasons.append(
            f"{cells.small} training cells have fewer than {cells.few} rows, too few to repeat without memorising."
        )
    return reasons


def _reasons_of_several_biases(check: Check) -> list[str]:
    """Return the sentences about several biases: how groups are formed, and which biases hardly matter."""
    biases = check.biases[:-1]
    if not biases:
        return []
    values = {bias.name: bias.association["train"].cramers_v for bias in biases}
    unrelated = [name for name, value in values.items() if value is None or value < WEAK_CRAMERS_V]
    reasons = [
        f"h reads each of the {len(biases)} biases by itself; groups are the {len(check.biases[-1].values)} "
        "combinations that occur."
    ]
    if unrelated and len(unrelated) < len(biases):
        reasons.append(
            f"{listed(unrelated)}: hardly related to the label in training; without it each cell has more rows."
        )
    return reasons
