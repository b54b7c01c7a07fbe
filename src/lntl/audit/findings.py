"""Findings of an audit as sentences.

A problem makes results untrustworthy, a warning limits their meaning, and a note is only information.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from lntl.audit.association import POWER, SIGNIFICANCE
from lntl.evaluation.metrics import METRICS, format_count, join_names
from lntl.experiment.build import methods_without_bias
from lntl.runs.formats import (
    Association,
    BiasCounts,
    CellCount,
    Check,
    Finding,
    SplitCounts,
)

BIASED_SKILL = 0.2  # a split counts as biased if the skill of the bias is above this
SAME_BIAS = 0.8  # another split counts as biased like training if its skill is above this share of training's skill
DETERMINES_CLASS = "The bias determines the class"  # title of a finding
Sentence = tuple[Literal["problem", "warning", "note"], str, str]  # level, title, text
_LEVELS = ("problem", "warning", "note")


def findings(check: Check) -> list[Finding]:
    """Return the findings of an audit, problems first."""
    rules = (
        _row_findings,
        _duplicate_findings,
        _bias_findings,
        _train_findings,
        _val_findings,
        _test_findings,
        _biased_split_findings,
    )
    unsorted = [Finding(level=level, title=title, text=text) for rule in rules for level, title, text in rule(check)]
    return sorted(unsorted, key=lambda finding: _LEVELS.index(finding.level))


def skill(association: Association) -> float:
    """Return the skill of a classifier that sees only the bias: 0 at the accuracy of the majority class, 1 at 100 %."""
    accuracy, majority = association.bias_only, association.majority
    return 0.0 if accuracy is None or majority is None or majority == 1 else (accuracy - majority) / (1 - majority)


def find_determining_biases(check: Check) -> list[BiasCounts]:
    """Return the biases that determine the class: in training each of their values occurs with only one class."""
    rows = check.splits[0].n
    biases = [
        bias
        for bias in check.biases
        if skill(bias.association["train"]) == 1
        and 2 * len(bias.values) <= rows  # with more values, a value may have a single row, which proves nothing
    ]
    return biases[:-1] if len(biases) > 1 else biases  # the last of several biases is the combination of the others


def has_or_have(n: int) -> str:
    """Return the verb of a subject of n things."""
    return "has" if n == 1 else "have"


def _format_cells(cells: list[CellCount], n: int) -> str:
    names = [f"{cell.name}: {cell.n}" if cell.n else cell.name for cell in cells]
    return join_names(names + [""] * (n - len(names)))


def _find_split(check: Check, name: str) -> SplitCounts:
    return next(split for split in check.splits if split.name == name)


def _row_findings(check: Check) -> Iterator[Sentence]:
    """Yield findings about single rows."""
    if wrong_rows := check.wrong_rows:
        rows = f"{format_count(len(wrong_rows), 'wrong row')} ({join_names(wrong_rows)})"
        if check.on_error == "stop":
            remedy = "training stops at these rows: correct them, or leave them out with data.on_error: skip"
            yield "problem", "Wrong rows", f"{rows}; {remedy}."
        else:
            yield "warning", "Wrong rows are left out", f"{rows}: the audit and training leave them out."
    if unreadable := check.unreadable:
        text = (
            f"{format_count(len(unreadable), 'image')} cannot be read ({join_names(unreadable)}); training stops "
            "at them"
        )
        remedy = "replace them, or leave them out with data.check: read, on_error: skip"
        yield "problem", "Images that cannot be read", f"{text}: {remedy}."
    if not check.opened:
        yield "note", "Images not opened", "Equal, similar and unreadable images were not searched for."
    if check.leaking is not None:
        groups, column = check.leaking.groups, check.leaking.column
        values = f"{format_count(len(groups), 'value')} of {column} ({join_names(groups)})"
        text = f"{values} {has_or_have(len(groups))} rows in more than one split, so the splits are not independent"
        yield "problem", f"Values of {column} in two splits", f"{text}; keep all rows of a value in one split."


def _duplicate_findings(check: Check) -> Iterator[Sentence]:
    if check.duplicates is None:
        return
    examples, equal, similar = check.duplicates.of, check.duplicates.equal, check.duplicates.alike
    if equal.across:
        shared = ", ".join(f"{part.n} of {part.of} are also in {part.within}" for part in equal.shared if part.n)
        yield (
            "problem" if examples == "images" else "warning",  # short vectors can be equal by chance
            f"Equal {examples} in two splits",
            f"Of the {examples}, {shared} (equal in every value). Remove them from one split.",
        )
    if equal.disagree:
        text = (
            f"{format_count(equal.disagree, 'set')} of equal {examples} {has_or_have(equal.disagree)} different classes"
        )
        text = f"{text}: some labels are wrong."
        yield "warning", f"Equal {examples}, different classes", text
    if num_within := equal.sets - equal.across:
        text = (
            f"There {'is' if num_within == 1 else 'are'} {format_count(num_within, 'set')} of equal {examples} "
            "within a split"
        )
        text = f"{text}: these {examples} count more than once."
        yield "note", f"Equal {examples} within a split", text
    if similar is not None and similar.across:
        text = (
            f"{format_count(similar.across, 'pair')} of similar images {has_or_have(similar.across)} an image "
            "in each of two splits"
        )
        advice = "if they are copies, keep them in one split with data.group_id"
        yield "warning", "Similar images in two splits", f"{text}; {advice}."
    if similar is not None and similar.disagree:
        text = (
            f"{format_count(similar.disagree, 'pair')} of similar images {has_or_have(similar.disagree)} "
            "different classes"
        )
        yield "warning", "Similar images, different classes", f"{text}: check the labels."


def _bias_findings(check: Check) -> Iterator[Sentence]:
    """Yield findings about missing bias labels and about the number of bias values."""
    if not check.annotated:
        text = (
            "No row has a bias value: metrics by group, leakage and the association of bias and label are undefined. "
            f"Annotate at least val and test; {blind_methods()} need no bias label in training."
        )
        yield "warning", "No bias annotation", text
        return
    for bias in find_determining_biases(check):
        text = (
            f"In training every value of {bias.name} occurs with only one class: from these labels, no method can "
            "distinguish the bias from the class."
        )
        yield "problem", DETERMINES_CLASS, f"{text} {' '.join(_what_helps(check))}"
    joint, train = check.biases[-1], check.splits[0]
    num_rows, num_values = round(train.n * (1 - train.missing)), len(joint.values)
    if num_rows < check.cells["train"].few * num_values:
        text = (
            f"There are only {num_rows} training rows for {num_values} values of {joint.name}: a method may "
            "memorise the label of each value, and h has few rows per value; merge values, or use bins."
        )
        yield "warning", "Many bias values", text
    shares = {bias.name: bias.missing["train"] for bias in check.biases[:-1] or check.biases}
    if missing := [f"{name} {share:.1%}" for name, share in shares.items() if share]:
        text = (
            f"Share of training rows without a bias value: {join_names(missing)}. Metrics by group leave these rows out"
        )
        yield "note", "Missing bias values", f"{text}, and group_dro never draws them."


def _what_helps(check: Check) -> list[str]:
    """Return advice for data in which the bias determines the class in training."""
    source, overlap = "brightness", []
    if check.brightness_only is not None:
        center = check.center_brightness_only or 0
        source = "center_brightness" if center > check.brightness_only else "brightness"
        overlap = [
            f"Brightness in ten bins predicts the class of {check.brightness_only:.1%} of the training images; the "
            f"brightness of the middle of the image predicts {center:.1%}. The other images are the counterexamples."
        ]
    return [
        "What helps: a few counterexamples, which are rows in which class and bias disagree, and images in which "
        "nothing but the bias is changed or hidden: data.random_colors: 1.0 changes brightness and color at random, "
        "data.random_invert: 0.5 also what is brighter than the rest; data.grayscale: true hides the color.",
        "Another measure of the same nuisance may help, if its values overlap between the classes, for example "
        f"brightness computed from the image: data.bias: {{from: {source}, bins: 10}}.",
        *overlap,
        "This audit measures the overlap: values overlap if each rule from values to classes has errors in training. "
        "Finer bins of the same column do not help.",
    ]


def blind_methods() -> str:
    """Return the names of the methods that need no bias label, except plain training."""
    return ", ".join(name for name in methods_without_bias() if name != "erm")


def _train_findings(check: Check) -> Iterator[Sentence]:
    cells = check.cells["train"]
    if not check.annotated:
        return
    if cells.empty:
        names = _format_cells(cells.empty_cells, cells.empty)
        text = f"{format_count(cells.empty, 'group')} {has_or_have(cells.empty)} no training row ({names})"
        limit = "group_dro, resample and reweight cannot give them weight, and domain_independent cannot learn them"
        yield "warning", "Empty groups in training", f"{text}: {limit}."
    if cells.small:
        names = _format_cells(cells.small_cells, cells.small)
        text = (
            f"{format_count(cells.small, 'group')} {has_or_have(cells.small)} fewer than {cells.few} training "
            f"rows ({names})"
        )
        limit = "methods that repeat these rows or give them larger weights may memorise them"
        yield "warning", "Small groups in training", f"{text}: {limit}."


def _val_findings(check: Check) -> Iterator[Sentence]:
    """Yield findings about val, the split on which the epoch is chosen."""
    val, cells, metric = _find_split(check, "val"), check.cells["val"], check.best_model_metric
    absent_classes = [name for name, n in zip(check.class_names, val.classes, strict=True) if not n]
    if len(check.class_names) - len(absent_classes) < 2:
        only_class = next(name for name in check.class_names if name not in absent_classes)
        text = f"val, on which the epoch is chosen, has only rows of {check.label} {only_class}"
        yield "problem", "One class in val", f"{text}: the chosen epoch is the one that predicts this class most often."
    elif absent_classes:
        text = f"val, on which the epoch is chosen, has no row of {check.label} {join_names(absent_classes)}"
        yield "warning", "Classes without a val row", f"{text}: accuracy on such rows is not measured there."
    if cells.absent:
        names = _format_cells(cells.absent_cells, cells.absent)
        text = f"{format_count(cells.absent, 'group')} of other splits {has_or_have(cells.absent)} no val row ({names})"
        limit = "worst_group_accuracy on val leaves them out, and equalised_odds_gap is undefined"
        if METRICS[metric].over_groups:
            limit = f"{metric}, by which the epoch is chosen, leaves them out"
        yield "warning", "Groups without a val row", f"{text}: {limit}."


def _test_findings(check: Check) -> Iterator[Sentence]:
    """Yield findings about the limits of the test set."""
    cells, test = check.cells["test"], _find_split(check, "test")
    if cells.absent:
        names = _format_cells(cells.absent_cells, cells.absent)
        text = (
            f"{format_count(cells.absent, 'group')} of other splits {has_or_have(cells.absent)} no test row ({names})"
        )
        limit = "worst-group and unbiased accuracy leave them out, and the equalised-odds gap is undefined"
        yield "warning", "Groups without a test row", f"{text}: {limit}."
    if cells.small:
        names = _format_cells(cells.small_cells, cells.small)
        text = (
            f"{format_count(cells.small, 'group')} {has_or_have(cells.small)} fewer than {cells.few} test rows "
            f"({names})"
        )
        yield (
            "warning",
            "Small groups in the test set",
            f"{text}: worst-group accuracy is uncertain; collect more rows.",
        )
    if cells.smallest is not None and cells.difference is not None:
        text = (
            f"With {format_count(cells.smallest.n, 'test row')} in the smallest group ({cells.smallest.name}), a "
            "difference "
            f"of two runs in worst-group accuracy can be shown if it is at least {100 * cells.difference:.1f} points "
            f"(power {POWER:.0%}, significance level {SIGNIFICANCE:.0%})."
        )
        yield "note", "Smallest difference that the test set can show", text
    if absent_classes := [name for name, n in zip(check.class_names, test.classes, strict=True) if not n]:
        text = f"No test row has {check.label} {join_names(absent_classes)}: accuracy on such rows is not measured."
        yield "warning", "Classes without a test row", text
    joint = check.biases[-1]
    if joint.counts["train"]:  # empty if there are too many cells to list
        in_train, in_test = (np.sum(joint.counts[name], axis=0) for name in ("train", "test"))
        if new_values := [joint.values[value] for value in np.flatnonzero((in_test > 0) & (in_train == 0))]:
            text = (
                f"{join_names(new_values)}: these values occur in the test set, but not in training, so that no "
                "method can learn"
            )
            yield "warning", "Bias values that are not in training", f"{text} from such rows."


def _biased_split_findings(check: Check) -> Iterator[Sentence]:
    joint, metric = check.biases[-1].association, check.best_model_metric
    train_skill = skill(joint["train"])
    if train_skill < BIASED_SKILL:
        return
    if skill(joint["test"]) >= SAME_BIAS * train_skill:
        text = "The test set has the bias of training, so a network that uses the bias has a high accuracy"
        yield "warning", "A biased test set", f"{text}; look at worst-group and unbiased accuracy, too."
    if skill(joint["val"]) >= SAME_BIAS * train_skill and not METRICS[metric].over_groups:
        text = f"val has the bias of training, so {metric} on val may choose an epoch that uses the bias"
        remedy = "set evaluation.best_model_metric: worst_group_accuracy"
        yield "warning", "A biased choice of the epoch", f"{text}; {remedy}."
