"""Which method fits the data, why, and the lines of YAML to write.

The rules follow docs/REPRODUCTION.md: LNTL on the bias product where the bias nearly determines the label or a cell is
empty, weighing groups only where every cell is populated, methods without bias labels where most of them are missing.
"""

from lntl.audit.findings import determining, skill, what_helps
from lntl.runs.formats import Association, CellCounts, Check, Recommendation

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
