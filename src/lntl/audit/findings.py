"""What an audit found, in sentences: problems that make results untrustworthy, warnings, and notes."""

from collections.abc import Iterator
from typing import Any

from lntl.audit.association import LEVEL, POWER

Facts = dict[str, Any]

FEW_NAMES = 5
STRONG = 0.2  # skill of the bias from which on it is said that it rules a split
AS_STRONG = 0.8  # share of its skill in training from which on a split is as biased as training


def findings(facts: Facts) -> list[Facts]:
    """Return what is to be said of an audit's facts, problems first: level, a few words, and the sentence."""
    told = (
        _wrong_rows,
        _leaks,
        _equal,
        _alike,
        _train_cells,
        _test_cells,
        _many_values,
        _missing,
        _unseen,
        _same_bias,
        _not_opened,
    )
    found = [dict(zip(("level", "title", "text"), each, strict=True)) for part in told for each in part(facts)]
    return sorted(found, key=lambda each: ("problem", "warning", "note").index(each["level"]))


Finding = tuple[str, str, str]


def skill(association: Facts) -> float:
    """Return how far the bias alone takes a classifier from the majority's accuracy (0) to always right (1)."""
    right, most = association["bias_only"], association["majority"]
    return 0.0 if right is None or most is None or most == 1 else (right - most) / (1 - most)


def cell(each: Facts) -> str:
    """Return the name of a cell."""
    return f"{each['class']} with {each['value']}"


def _some(names: list[str], n: int) -> str:
    return "; ".join(names[:FEW_NAMES]) + (f"; and {n - FEW_NAMES} more" if n > FEW_NAMES else "")


def _cells(cells: list[Facts], n: int) -> str:
    return _some([cell(each) + (f": {each['n']}" if each["n"] else "") for each in cells], n)


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _wrong_rows(facts: Facts) -> Iterator[Finding]:
    if wrong := facts["wrong_rows"]:
        n, shown = len(wrong), _some(wrong, len(wrong))
        if facts["on_error"] == "stop":
            remedy = "training will stop there: mend them, or leave them out with data.on_error: skip"
            yield "problem", "Rows that are wrong", f"{_counted(n, 'wrong row')} ({shown}); {remedy}."
        else:
            text = f"{_counted(n, 'wrong row')}, left out here and in training ({shown})."
            yield "warning", "Rows that are left out", text
    if unreadable := facts["unreadable"]:
        text = f"{_counted(len(unreadable), 'image')} cannot be read ({_some(unreadable, len(unreadable))}); "
        remedy = "training will stop at them: mend them, or have them left out with data.check: read, on_error: skip."
        yield "problem", "Images that cannot be read", text + remedy


def _leaks(facts: Facts) -> Iterator[Finding]:
    if (leaking := facts["leaking"]) is not None:
        groups, column = leaking["groups"], leaking["column"]
        names = _some(groups, len(groups))
        text = f"{_counted(len(groups), 'value')} of {column} with rows in more than one split ({names})"
        yield "problem", "Groups in two splits", f"{text}, so that the test rows are not new; give each one split."


def _equal(facts: Facts) -> Iterator[Finding]:
    if facts["duplicates"] is None:
        return
    what, equal = facts["duplicates"]["of"], facts["duplicates"]["equal"]
    differ, inside = equal["disagree"], equal["sets"] - equal["across"]
    if equal["across"]:
        shared = [f"{each['n']} of {each['of']} are in {each['in']}" for each in equal["shared"] if each["n"]]
        level = "problem" if what == "images" else "warning"  # vectors of few values may well be equal by chance
        text = f"Of the {what}, {', '.join(shared)} as well, equal in every value"
        yield (
            level,
            f"Equal {what} in two splits",
            f"{text}: the test asks for what was learned by heart; take them out.",
        )
    if differ:
        text = f"{_counted(differ, 'set')} of equal {what} with different classes: some of the labels are wrong."
        yield "warning", f"Equal {what}, different classes", text
    if inside:
        text = f"{_counted(inside, 'set')} of equal {what} within a split: they count more than once."
        yield "note", f"Equal {what} within a split", text


def _alike(facts: Facts) -> Iterator[Finding]:
    if facts["duplicates"] is None or facts["duplicates"]["alike"] is None:
        return
    across, differ = (facts["duplicates"]["alike"][key] for key in ("across", "disagree"))
    if across:
        text = f"{_counted(across, 'pair')} of images that look alike, in two splits: are they the same thing twice?"
        yield "warning", "Alike images in two splits", f"{text} Then keep them together, with data.group_id."
    if differ:
        text = f"{_counted(differ, 'pair')} of images that look alike, with different classes: look at their labels."
        yield "warning", "Alike images, different classes", text


def _train_cells(facts: Facts) -> Iterator[Finding]:
    cells = facts["cells"]["train"]
    if cells["empty"]:
        names = _cells(cells["empty_cells"], cells["empty"])
        forbids = (
            "group_dro, resample and reweight cannot weigh what is not there, and domain_independent cannot learn it"
        )
        yield (
            "warning",
            "Empty cells in training",
            f"{_counted(cells['empty'], 'cell')} without a training row ({names}): {forbids}.",
        )
    if cells["small"]:
        names = _cells(cells["small_cells"], cells["small"])
        text = f"{_counted(cells['small'], 'cell')} with fewer than {cells['few']} training rows ({names})"
        forbids = "methods that weigh or draw them more often learn them by heart"
        yield "warning", "Tiny cells in training", f"{text}: {forbids}."


def _test_cells(facts: Facts) -> Iterator[Finding]:
    cells = facts["cells"]["test"]
    if cells["empty"]:
        names = _cells(cells["empty_cells"], cells["empty"])
        text = f"{_counted(cells['empty'], 'cell')} without a test row ({names})"
        yield "warning", "Empty cells in the test set", f"{text}: worst-group accuracy says nothing of them."
    if cells["small"]:
        names = _cells(cells["small_cells"], cells["small"])
        text = f"{_counted(cells['small'], 'cell')} with fewer than {cells['few']} test rows ({names})"
        advice = "worst-group accuracy cannot be trusted; collect more of them"
        yield "warning", "Tiny cells in the test set", f"{text}: {advice}."
    if (least := cells["smallest"]) is not None:
        text = (
            f"Two runs must differ by {100 * cells['difference']:.1f} points in worst-group accuracy to be told apart"
        )
        n = f"by the {_counted(least['n'], 'test row')} of the smallest group, {cell(least)}"
        yield "note", "What the test set can show", f"{text} {n} ({POWER:.0%} power at {LEVEL:.0%})."


def _many_values(facts: Facts) -> Iterator[Finding]:
    joint = facts["biases"][-1]
    rows, values = sum(map(sum, joint["counts"]["train"])), len(joint["values"])
    if rows < facts["cells"]["train"]["few"] * values:
        text = (
            f"{values} values of {joint['name']} share {rows} training rows: what the bias is said to tell of the label"
        )
        remedy = "may be learned by heart, and h has little to learn from; join values, or put numbers into bins"
        yield "warning", "Many bias values", f"{text} {remedy}."


def _missing(facts: Facts) -> Iterator[Finding]:
    per_bias = facts["biases"][:-1] or facts["biases"]
    shares = {each["name"]: each["missing"]["train"] for each in per_bias}
    if told := [f"{share:.1%} of {name}" for name, share in shares.items() if share]:
        text = f"In training is missing: {', '.join(told)}. What is said of groups leaves these rows out"
        yield "note", "Bias that is missing", f"{text}, and group_dro never draws them."


def _unseen(facts: Facts) -> Iterator[Finding]:
    train, test = facts["splits"][0], facts["splits"][-1]
    if absent := [name for name, n in zip(facts["class_names"], test["classes"], strict=True) if not n]:
        text = f"No test row has the class {_some(absent, len(absent))}: nothing is measured there."
        yield "warning", "Classes without a test row", text
    joint = facts["biases"][-1]
    seen, asked = (
        [sum(column) for column in zip(*joint["counts"][each["name"]], strict=True)] for each in (train, test)
    )
    if new := [name for name, before, n in zip(joint["values"], seen, asked, strict=True) if n and not before]:
        text = f"{_some(new, len(new))}: in the test set, never in training; no method can have learned about it."
        yield "warning", "Bias values that training never shows", text


def _same_bias(facts: Facts) -> Iterator[Finding]:
    joint = facts["biases"][-1]["association"]
    learned = skill(joint["train"])
    if learned < STRONG:
        return
    if skill(joint["test"]) >= AS_STRONG * learned:
        text = "The test set has the bias of training: its accuracy rewards whoever uses the bias"
        yield "warning", "A biased test set", f"{text}; read worst-group and unbiased accuracy, never accuracy alone."
    metric = facts["best_model_metric"]
    if skill(joint["val"]) >= AS_STRONG * learned and metric not in ("worst_group_accuracy", "unbiased_accuracy"):
        text = f"val has the bias of training, and {metric} on it chooses the epoch"
        yield "warning", "A biased choice", f"{text}; set evaluation.best_model_metric: worst_group_accuracy."


def _not_opened(facts: Facts) -> Iterator[Finding]:
    if not facts["opened"]:
        yield (
            "note",
            "Images not looked at",
            "Nothing was opened: equal, alike and unreadable images were not looked for.",
        )
