"""The recommended first method for the data of an audit.

The rules follow docs/REPRODUCTION.md and docs/real_photographs.md. If the mean color of an image predicts the bias, the
method is plain training in random colors; if the contrast of the middle of the image predicts it, too, half of the
channels are inverted. If most bias labels are missing, it is a method without bias labels. If the bias nearly
determines the label and every group has rows, it is the bias product (docs/biased_mnist.md). If a group is empty
or small, it is LNTL on the bias product. A method with weighted groups is recommended only if every group has rows.
"""

from math import ceil

from lntl.audit.findings import DETERMINES_CLASS, blind_methods, find_determining_biases, has_or_have, skill
from lntl.evaluation.metrics import format_count, join_names
from lntl.runs.formats import Association, BiasCounts, CellCounts, Check, Recommendation

WEAK_SKILL = 0.05  # up to this skill, plain training has little to gain from the bias
WEAK_CRAMERS_V = 0.1  # below this, bias and label count as unrelated: "small" for two values, Cohen, 1988
NEAR_CERTAIN_SKILL = 0.9  # above this, the bias nearly determines the label
MAX_MISSING = 0.5  # above this share of missing bias labels, too few remain for methods that need them
COLOR_SKILL = 0.5  # above this skill of the mean color of an image, the bias counts as a color
NEAR_CERTAIN_COLOR_SKILL = 0.25  # the same if the bias nearly determines the label, so that its values help little
CONTRAST_SKILL = 0.15  # above this skill of the contrast of its middle, random colors do not hide the bias
MAX_DRO_GROUPS = 16  # up to this number of groups, a batch of 128 estimates the loss of each group for group_dro


MIN_STEPS = 350  # training has at least this number of steps; with few rows, it has more epochs

PHASES = {  # epochs, and other settings
    "erm": {"erm": (8, "")},
    "lff": {"lff": (10, "")},
    "group_dro": {"group_dro": (10, "")},
    "reweight": {"reweight": (10, "")},
    "bias_product": {"bias_product": (20, "")},
    "lntl": {
        "bias_product": (3, ""),
        "bias_head": (1, ""),
        "lntl": (6, ", task: bias_product, smoothing: 0.1, lam: 0.01, mu: 0.05, h_steps: 2"),
    },
}
_HOW_TO_CHECK = (
    "lntl probe measures how much of the bias is left in the features; if it is much, compare with LNTL on the bias "
    "product."
)
TITLES = {
    "erm": "Plain training",
    "lff": "Learning from Failure, which needs no bias label",
    "group_dro": "Group DRO",
    "reweight": "Reweighting",
    "bias_product": "The bias product",
    "lntl": "LNTL on the bias product",
}


def recommend(check: Check, batch_size: int, pooled: bool, random_colors: bool) -> Recommendation:
    """Return the recommended first method.

    Args:
        check: The audit.
        batch_size: Rows in a batch.
        pooled: Whether the model has the setting bias_head.
        random_colors: Whether the data could have random colors in training, which they do not have yet.
    """
    method, reasons = _choose_method(check)
    title = "Plain training, as a baseline" if method == "erm" and find_determining_biases(check) else TITLES[method]
    lines = []
    if random_colors and (colors := _find_colors(check)):
        lines, why = ["data:", "  random_colors: 1.0  # hides the color in training"], _why_random_colors(colors)
        if contrasts := [bias for bias in colors if _skill_of(bias.contrast_accuracy, bias) >= CONTRAST_SKILL]:
            lines.append("  random_invert: 0.5  # hides which of two colors is brighter")
            why += _why_inverted_channels(contrasts)
        if _find_predictive_biases(check) == colors:
            method, title = "erm", "Plain training in random colors"
            reasons = [*why, *(reasons if find_determining_biases(check) else [_HOW_TO_CHECK])]
        else:
            reasons += [*why, _HOW_TO_CHECK]
    if method == "lntl" and pooled:
        lines += ["model:", "  bias_head: pooled  # h gets the same pooled features as g"]
    lines += ["training:", "  phases:", *_format_phases(method, check.splits[0].n, batch_size)]
    if method == "lntl" and len(check.biases) > 1:
        reasons = [*reasons, f"h predicts each of the {len(check.biases) - 1} biases separately."]
    reasons = [*reasons, *_reasons_of_several_biases(check)]
    return Recommendation(method=method, title=title, reasons=reasons, yaml="\n".join(lines) + "\n")


def _format_phases(method: str, rows: int, batch_size: int) -> list[str]:
    """Return the phases as lines of YAML; with few rows, each phase has the same multiple of its epochs."""
    phases = PHASES[method]
    steps = sum(epochs for epochs, _ in phases.values()) * ceil(rows / batch_size)
    factor = ceil(MIN_STEPS / max(steps, 1))
    return [f"    - {{method: {name}, epochs: {factor * epochs}{rest}}}" for name, (epochs, rest) in phases.items()]


def _choose_method(check: Check) -> tuple[str, list[str]]:
    """Return the method and the reasons for it."""
    bias, cells = check.biases[-1], check.cells["train"]
    missing, association, groups = bias.missing["train"], bias.association["train"], check.splits[0].cells
    train_skill = skill(association)
    if missing > MAX_MISSING:
        return "lff", [
            f"{missing:.0%} of the training rows have no bias label; the other rows are too few for a method that "
            "learns from bias labels.",
            f"Methods that need no bias labels: {blind_methods()}. A phase of jtt needs a phase before it: "
            "{method: erm, epochs: 1}.",
        ]
    if biases := find_determining_biases(check):
        names = " and ".join(bias.name for bias in biases)
        reason = f"In training {names} determines {check.label}: from these labels, no method can distinguish the two."
        return "erm", [reason, f'What helps is in the problem "{DETERMINES_CLASS}".']
    is_unrelated = association.cramers_v is None or association.cramers_v < WEAK_CRAMERS_V
    if association.bias_only is None or (train_skill <= WEAK_SKILL and is_unrelated):
        return "erm", [
            "In training the bias hardly predicts the label, so there is nothing to unlearn.",
            "If the features themselves must not contain the bias, train with lntl and check them with lntl probe.",
        ]
    if train_skill >= NEAR_CERTAIN_SKILL and not cells.empty and not missing:
        return "bias_product", [
            f"The bias alone predicts the label of {association.bias_only:.1%} of the training rows, but every group "
            "has rows. The bias product trains g on the part of the label that the bias does not predict.",
            "It needs more epochs than plain training. Methods that repeat the rows of small groups learn faster, but "
            "may memorise these rows.",
        ]
    if cells.empty or cells.small or train_skill >= NEAR_CERTAIN_SKILL:
        return "lntl", _why_lntl(association, cells)
    reasons = ["Every group has training rows, so rare groups can get the same weight as frequent ones."]
    if not missing and groups <= MAX_DRO_GROUPS:
        return "group_dro", [*reasons, f"{groups} groups are few enough to estimate the loss of each."]
    obstacle = f"{missing:.1%} of the rows have no bias label" if missing else f"{groups} groups are many"
    return "reweight", [
        *reasons,
        f"{obstacle}; reweight estimates p(label given bias) from all rows, whereas group_dro needs rows of each "
        "group.",
    ]


def _find_predictive_biases(check: Check) -> list[BiasCounts]:
    """Return the biases that predict the label in training; if there are several, without their combination."""
    biases = check.biases[:-1] or check.biases
    return [bias for bias in biases if skill(bias.association["train"]) > WEAK_SKILL]


def _find_colors(check: Check) -> list[BiasCounts]:
    """Return the biases that predict the label and that the mean color of an image predicts."""
    colors = []
    for bias in _find_predictive_biases(check):
        is_near_certain = skill(bias.association["train"]) >= NEAR_CERTAIN_SKILL
        if _skill_of(bias.color_accuracy, bias) >= (NEAR_CERTAIN_COLOR_SKILL if is_near_certain else COLOR_SKILL):
            colors.append(bias)
    return colors


def _skill_of(accuracy: float | None, bias: BiasCounts) -> float:
    """Return the share of the distance from chance to 1 that a balanced accuracy reaches; 0 if it is unknown."""
    chance = 1 / len(bias.values)
    return 0.0 if accuracy is None else (accuracy - chance) / (1 - chance)


def _why_random_colors(colors: list[BiasCounts]) -> list[str]:
    return [
        *(
            f"The mean color of an image predicts {bias.name}, with a balanced accuracy of {bias.color_accuracy:.1%} "
            f"on val (chance: {1 / len(bias.values):.1%})."
            for bias in colors
        ),
        "Random colors in training hide a color, and need no bias label. Do not set random_colors if the classes "
        "themselves differ in color.",
    ]


def _why_inverted_channels(biases: list[BiasCounts]) -> list[str]:
    return [
        *(
            f"How much brighter the middle of an image is than the whole predicts {bias.name}, with a balanced "
            f"accuracy of {bias.contrast_accuracy:.1%} on val (chance: {1 / len(bias.values):.1%})."
            for bias in biases
        ),
        "Random colors alone keep what is brighter; inverting half of the channels hides it.",
    ]


def _why_lntl(association: Association, cells: CellCounts) -> list[str]:
    reasons = [
        "The bias product trains g on the part of the label that the bias does not predict, and works with empty "
        "groups; LNTL then removes the rest of the bias from the features."
    ]
    if skill(association) >= NEAR_CERTAIN_SKILL:
        reasons.append(f"The bias alone predicts the label of {association.bias_only:.1%} of the training rows.")
    if cells.empty:
        groups = f"{format_count(cells.empty, 'group')} {has_or_have(cells.empty)}"
        reasons.append(f"{groups} no training row, and weights cannot replace missing rows.")
    if cells.small:
        groups = f"{format_count(cells.small, 'group')} {has_or_have(cells.small)}"
        reasons.append(
            f"{groups} fewer than {cells.few} training rows: a method that repeats these rows may memorise them."
        )
    return reasons


def _reasons_of_several_biases(check: Check) -> list[str]:
    """Return the sentences about several biases: which groups they form, and which biases hardly matter."""
    biases = check.biases[:-1]
    if not biases:
        return []
    values = {bias.name: bias.association["train"].cramers_v for bias in biases}
    unrelated_biases = [name for name, value in values.items() if value is None or value < WEAK_CRAMERS_V]
    reasons = [f"Groups are formed with the {len(check.biases[-1].values)} combinations of biases that occur."]
    if unrelated_biases and len(unrelated_biases) < len(biases):
        reasons.append(
            f"Hardly related to the label in training: {join_names(unrelated_biases)}. Without these columns "
            "each group has more rows."
        )
    return reasons
