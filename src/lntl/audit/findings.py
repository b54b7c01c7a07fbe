"""What an audit found, in sentences: problems make results untrustworthy, warnings limit them, notes inform.

And the method to begin with. The rules follow docs/REPRODUCTION.md: LNTL on the bias product where the bias nearly
determines the label or a cell is empty, weights of groups only where every cell is populated, methods without bias
labels where most of them are missing.
"""

from collections.abc import Iterator
from typing import Literal

from lntl.audit.association import POWER, SIGNIFICANCE
from lntl.evaluation.metrics import METRICS, counted, listed
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

STRONG = 0.2  # skill of the bias from which on it is said that it rules a split
AS_STRONG = 0.8  # share of its skill in training from which on a split is as biased as training

HARDLY = 0.05  # skill of the bias (see findings) up to which plain training has little to gain from it
LOOSE = 0.1  # Cramér's V below which a bias hardly goes with the label: "small" for two values, Cohen, 1988
NEARLY = 0.9  # skill above which the bias nearly determines the label
MOSTLY = 0.5  # share of missing bias labels above which methods that need them have too few
FEW_GROUPS = 16  # that group_dro keeps a weight for, and whose losses a batch of 128 can tell

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

_LEVELS = ("problem", "warning", "note")


def findings(check: Check) -> list[Finding]:
    """Return the findings of an audit, problems first."""
    rules = (
        _wrong_rows,
        _leaking_groups,
        _equal,
        _alike,
        _no_annotation,
        _bias_is_class,
        _train_cells,
        _val,
        _test_cells,
        _many_values,
        _missing_bias,
        _unseen_values,
        _same_bias,
        _not_opened,
    )
    return sorted((each for rule in rules for each in rule(check)), key=lambda each: _LEVELS.index(each.level))


def _finding(level: Literal["problem", "warning", "note"], title: str, text: str) -> Finding:
    return Finding(level=level, title=title, text=text)


def skill(association: Association) -> float:
    """Return how far the bias alone takes a classifier from the majority's accuracy (0) to always right (1)."""
    right, most = association.bias_only, association.majority
    return 0.0 if right is None or most is None or most == 1 else (right - most) / (1 - most)


def determining(check: Check) -> list[BiasCounts]:
    """Return the biases of which every value has one class alone in training, so that no row conflicts."""
    rows = check.splits[0].n
    biases = [
        bias
        for bias in check.biases
        if skill(bias.association["train"]) == 1 and 2 * len(bias.values) <= rows  # else each value has a row or so
    ]
    return biases[:-1] if len(biases) > 1 else biases  # of several biases these, not their combination


def _listed(cells: list[CellCount], n: int) -> str:
    names = [f"{cell.name}: {cell.n}" if cell.n else cell.name for cell in cells]
    return listed(names + [""] * (n - len(names)))


def _split(check: Check, name: str) -> SplitCounts:
    return next(split for split in check.splits if split.name == name)


def _wrong_rows(check: Check) -> Iterator[Finding]:
    if wrong := check.wrong_rows:
        if check.on_error == "stop":
            remedy = "training will stop there: mend them, or leave them out with data.on_error: skip"
            text = f"{counted(len(wrong), 'wrong row')} ({listed(wrong)}); {remedy}."
            yield _finding("problem", "Rows that are wrong", text)
        else:
            text = f"{counted(len(wrong), 'wrong row')}, left out here and in training ({listed(wrong)})."
            yield _finding("warning", "Rows that are left out", text)
    if unreadable := check.unreadable:
        text = f"{counted(len(unreadable), 'image')} cannot be read ({listed(unreadable)}); "
        remedy = "training will stop at them: mend them, or have them left out with data.check: read, on_error: skip."
        yield _finding("problem", "Images that cannot be read", text + remedy)


def _leaking_groups(check: Check) -> Iterator[Finding]:
    if check.leaking is not None:
        groups, column = check.leaking.groups, check.leaking.column
        text = f"{counted(len(groups), 'value')} of {column} with rows in more than one split ({listed(groups)})"
        remedy = "so that the test rows are not new; give each one split."
        yield _finding("problem", "Groups in two splits", f"{text}, {remedy}")


def _equal(check: Check) -> Iterator[Finding]:
    if check.duplicates is None:
        return
    examples, equal = check.duplicates.of, check.duplicates.equal
    if equal.across:
        shared = [f"{each.n} of {each.of} are in {each.within}" for each in equal.shared if each.n]
        text = f"Of the {examples}, {', '.join(shared)} as well, equal in every value"
        yield _finding(
            "problem" if examples == "images" else "warning",  # vectors of few values may well be equal by chance
            f"Equal {examples} in two splits",
            f"{text}: the test asks for what was learned by heart; take them out.",
        )
    if equal.disagree:
        text = f"{counted(equal.disagree, 'set')} of equal {examples} with different classes: some labels are wrong."
        yield _finding("warning", f"Equal {examples}, different classes", text)
    if inside := equal.sets - equal.across:
        text = f"{counted(inside, 'set')} of equal {examples} within a split: they count more than once."
        yield _finding("note", f"Equal {examples} within a split", text)


def _alike(check: Check) -> Iterator[Finding]:
    if check.duplicates is None or check.duplicates.alike is None:
        return
    across, differ = check.duplicates.alike.across, check.duplicates.alike.disagree
    if across:
        text = f"{counted(across, 'pair')} of images that look alike, in two splits: are they the same thing twice?"
        yield _finding("warning", "Alike images in two splits", f"{text} Then keep them together, with data.group_id.")
    if differ:
        text = f"{counted(differ, 'pair')} of images that look alike, with different classes: look at their labels."
        yield _finding("warning", "Alike images, different classes", text)


def _no_annotation(check: Check) -> Iterator[Finding]:
    if not check.annotated:
        text = (
            "No row has a bias value: metrics by group and leakage are undefined, and this audit cannot say how much "
            "the bias says about the label. Annotate val and test at least; lff and jtt need no bias label in training"
        )
        yield _finding("warning", "No bias annotation", f"{text}.")


def _bias_is_class(check: Check) -> Iterator[Finding]:
    for bias in determining(check):
        text = (
            f"In training every value of {bias.name} has rows of one class alone: bias and class are one thing there, "
            "and no method can tell the two apart by this label."
        )
        yield _finding("problem", "Bias and class are one thing", f"{text} {' '.join(what_helps(check))}")


def what_helps(check: Check) -> list[str]:
    """Return what helps where bias and class are one thing in training."""
    overlap, best = "", "brightness"
    if check.brightness_only is not None:
        center = check.center_brightness_only or 0
        best = "center_brightness" if center > check.brightness_only else "brightness"
        overlap = (
            f": brightness in ten bins gives the class of {check.brightness_only:.1%} of the training images, that of "
            f"the middle of {center:.1%}; of the one that gives more, the others are the counterexamples"
        )
    return [
        "What helps: a few counterexamples, rows in which class and bias disagree;",
        "or another measure of the same nuisance whose values overlap between the classes, such as brightness computed "
        f"from the image, data.bias: {{from: {best}, bins: 10}}{overlap}.",
        "This audit measures the overlap: the rule from its values to the class must be wrong on some training rows. "
        "Finer bins of the same column do not help.",
    ]


def _train_cells(check: Check) -> Iterator[Finding]:
    cells = check.cells["train"]
    if not check.annotated:
        return
    if cells.empty:
        limit = (
            "group_dro, resample and reweight cannot weigh what is not there, and domain_independent cannot learn it"
        )
        text = f"{counted(cells.empty, 'cell')} without a training row ({_listed(cells.empty_cells, cells.empty)})"
        yield _finding("warning", "Empty cells in training", f"{text}: {limit}.")
    if cells.small:
        names = _listed(cells.small_cells, cells.small)
        text = f"{counted(cells.small, 'cell')} with fewer than {cells.few} training rows ({names})"
        limit = "methods that weigh or draw them more often learn them by heart"
        yield _finding("warning", "Tiny cells in training", f"{text}: {limit}.")


def _val(check: Check) -> Iterator[Finding]:
    """Yield what is wrong with the split that chooses the epoch."""
    val, cells, metric = _split(check, "val"), check.cells["val"], check.best_model_metric
    absent = [name for name, n in zip(check.class_names, val.classes, strict=True) if not n]
    if len(check.class_names) - len(absent) < 2:
        only = next(name for name in check.class_names if name not in absent)
        text = f"val, which chooses the epoch, has rows of {check.label} {only} alone"
        yield _finding("problem", "One class in val", f"{text}: the best epoch is then the one that answers it most.")
    elif absent:
        text = f"val, which chooses the epoch, has no row of {check.label} {listed(absent)}"
        yield _finding(
            "warning", "Classes without a val row", f"{text}: what is learned of them is not measured there."
        )
    if cells.absent:
        names = _listed(cells.absent_cells, cells.absent)
        text = f"{counted(cells.absent, 'cell')} that other splits have, without a val row ({names})"
        needed = METRICS[metric].over_groups
        limit = (
            f"{metric} chooses the epoch without them"
            if needed
            else "worst_group_accuracy on val says nothing of them, and the gaps are undefined"
        )
        yield _finding("warning", "Cells without a val row", f"{text}: {limit}.")


def _test_cells(check: Check) -> Iterator[Finding]:
    cells = check.cells["test"]
    if cells.absent:
        text = f"{counted(cells.absent, 'cell')} that other splits have, without a test row"
        limit = "worst-group and unbiased accuracy say nothing of them, and the gaps are undefined"
        names = _listed(cells.absent_cells, cells.absent)
        yield _finding("warning", "Empty cells in the test set", f"{text} ({names}): {limit}.")
    if cells.small:
        names = _listed(cells.small_cells, cells.small)
        text = f"{counted(cells.small, 'cell')} with fewer than {cells.few} test rows ({names})"
        advice = "worst-group accuracy cannot be trusted; collect more of them"
        yield _finding("warning", "Tiny cells in the test set", f"{text}: {advice}.")
    if cells.smallest is not None and cells.difference is not None:
        text = (
            f"Two runs must differ by {100 * cells.difference:.1f} points in worst-group accuracy to be distinguished"
        )
        n = f"by the {counted(cells.smallest.n, 'test row')} of the smallest group, {cells.smallest.name}"
        text = f"{text} {n} ({POWER:.0%} power at {SIGNIFICANCE:.0%})."
        yield _finding("note", "What the test set can show", text)


def _many_values(check: Check) -> Iterator[Finding]:
    joint, train = check.biases[-1], check.splits[0]
    rows, values = round(train.n * (1 - train.missing)), len(joint.values)
    if check.annotated and rows < check.cells["train"].few * values:
        text = f"{values} values of {joint.name} share {rows} training rows: what the bias says about the label"
        remedy = "may be learned by heart, and h has little to learn from; join values, or put numbers into bins"
        yield _finding("warning", "Many bias values", f"{text} {remedy}.")


def _missing_bias(check: Check) -> Iterator[Finding]:
    if not check.annotated:
        return
    shares = {bias.name: bias.missing["train"] for bias in check.biases[:-1] or check.biases}
    if missing := [f"{share:.1%} of {name}" for name, share in shares.items() if share]:
        text = f"In training is missing: {', '.join(missing)}. What is said of groups leaves these rows out"
        yield _finding("note", "Bias that is missing", f"{text}, and group_dro never draws them.")


def _unseen_values(check: Check) -> Iterator[Finding]:
    test = _split(check, "test")
    if absent := [name for name, n in zip(check.class_names, test.classes, strict=True) if not n]:
        text = f"No test row has {check.label} {listed(absent)}: nothing is measured there."
        yield _finding("warning", "Classes without a test row", text)
    joint = check.biases[-1]
    if not joint.counts["train"]:  # too many cells to list
        return
    seen, asked = ([sum(column) for column in zip(*joint.counts[name], strict=True)] for name in ("train", "test"))
    if new := [name for name, before, n in zip(joint.values, seen, asked, strict=True) if n and not before]:
        text = f"{listed(new)}: in the test set, never in training; no method can have learned about it."
        yield _finding("warning", "Bias values that training never shows", text)


def _same_bias(check: Check) -> Iterator[Finding]:
    joint, metric = check.biases[-1].association, check.best_model_metric
    learned = skill(joint["train"])
    if learned < STRONG:
        return
    if skill(joint["test"]) >= AS_STRONG * learned:
        text = "The test set has the bias of training: its accuracy rewards whoever uses the bias"
        advice = "read worst-group and unbiased accuracy, never accuracy alone"
        yield _finding("warning", "A biased test set", f"{text}; {advice}.")
    if skill(joint["val"]) >= AS_STRONG * learned and not METRICS[metric].over_groups:
        text = f"val has the bias of training, and {metric} on it chooses the epoch"
        advice = "set evaluation.best_model_metric: worst_group_accuracy"
        yield _finding("warning", "A biased choice", f"{text}; {advice}.")


def _not_opened(check: Check) -> Iterator[Finding]:
    if not check.opened:
        text = "Nothing was opened: equal, alike and unreadable images were not looked for."
        yield _finding("note", "Images not opened", text)


# --- the method to begin with ---


def recommend(check: Check, pooled: bool) -> Recommendation:
    """Return the method to begin with; pooled: whether the model has the setting bias_head."""
    method, title, reasons = _method(check)
    lines = ["training:", "  phases:", *(f"    - {phase}" for phase in PHASES[method])]
    if method == "lntl" and pooled:
        lines = ["model:", "  bias_head: pooled  # h sees what g sees", *lines]
    return Recommendation(
        method=method, title=title, reasons=[*reasons, *_of_several(check)], yaml="\n".join(lines) + "\n"
    )


def _method(check: Check) -> tuple[str, str, list[str]]:
    """Return method, title and reasons."""
    bias, cells = check.biases[-1], check.cells["train"]
    missing, association = bias.missing["train"], bias.association["train"]
    if missing > MOSTLY:
        return (
            "lff",
            TITLES["lff"],
            [
                f"{missing:.0%} of the training rows have no bias label: too few for a method that learns from them.",
                "The other method without bias labels is jtt: {method: erm, epochs: 1}, then {method: jtt, epochs: 9}.",
            ],
        )
    if same := determining(check):
        names = " and ".join(bias.name for bias in same)
        return (
            "erm",
            "Plain training, to compare with",
            [
                f"In training {check.label} and {names} are one thing: no method can tell them apart by this label.",
                *what_helps(check),
            ],
        )
    skilled = skill(association)
    if association.bias_only is None or (
        skilled <= HARDLY and (association.cramers_v is None or association.cramers_v < LOOSE)
    ):
        return (
            "erm",
            TITLES["erm"],
            [
                "In training the bias hardly predicts the label, so that there is nothing to unlearn.",
                "If the features themselves must not tell the bias, train with lntl, and look at them with lntl probe.",
            ],
        )
    if cells.empty or cells.small or skilled >= NEARLY:
        return "lntl", TITLES["lntl"], _why_lntl(association, cells)
    method, reasons = _weighing(check.splits[0].cells, missing)
    return method, TITLES[method], reasons


def _why_lntl(association: Association, cells: CellCounts) -> list[str]:
    reasons = [
        "The bias product asks g for what the bias does not already tell, and needs no row of a cell that is empty; "
        "LNTL then clears the features of what is left of the bias."
    ]
    if skill(association) >= NEARLY:
        reasons.append(
            f"The bias alone is right on {association.bias_only:.1%} of the training rows: the few others cannot teach "
            "the task by being weighed."
        )
    if cells.empty:
        reasons.append(f"{cells.empty} training cells are empty, and no weight makes up for them.")
    if cells.small:
        reasons.append(f"{cells.small} training cells have fewer than {cells.few} rows, too few to be repeated.")
    return reasons


def _weighing(groups: int, missing: float) -> tuple[str, list[str]]:
    """Return the method for cells that are all populated."""
    reasons = ["Every cell has training rows, so that the rare ones can count as much as the frequent ones."]
    if not missing and groups <= FEW_GROUPS:
        return "group_dro", [*reasons, f"{groups} groups are few enough to follow the loss of each."]
    why = f"{missing:.1%} of the rows have no bias label" if missing else f"{groups} groups are many"
    return "reweight", [*reasons, f"{why}: reweight fits p(label given bias) to all rows, group_dro counts groups."]


def _of_several(check: Check) -> list[str]:
    """Return what is to be said of several biases: which of them hardly matter."""
    biases = check.biases[:-1]
    if not biases:
        return []
    values = {bias.name: bias.association["train"].cramers_v for bias in biases}
    loose = [name for name, value in values.items() if value is None or value < LOOSE]
    reasons = [
        f"Of the {len(biases)} biases h reads each by itself; groups are the {len(check.biases[-1].values)} "
        "combinations that occur."
    ]
    if loose and len(loose) < len(biases):
        reasons.append(f"{', '.join(loose)} hardly goes with the label in training: without it the cells are fuller.")
    return reasons
