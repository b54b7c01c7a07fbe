"""What the adversary's numbers of an epoch say: whether it is dead, blind, winning or overpowering, and what to change.

The numbers are those of an epoch's record: train/h_accuracy (h's share of right answers on the training data),
train/h_entropy (mean entropy of h's belief, nats), train/gradient_ratio (norm of the adversary's gradient at z over the
task's) and train/task (task loss, nats). Of numbers that are not there nothing is said.
"""

from collections.abc import Mapping

# h's skill is the way from chance (0) to always right (1). Its accuracy in training is a mean over the labelled places
# of a whole epoch, in which h and f move: differences below a few points are no sign of anything.
AT_CHANCE = 0.05  # largest skill that counts as chance
FAR_ABOVE_CHANCE = 0.25  # smallest skill that counts as reading the bias; in between nothing is said
FALLING = 0.01  # by how much the accuracy falls in an epoch, at least, where f does unlearn
FULL = 0.99  # share of the largest entropy from which on a belief says nothing
NEGLIGIBLE = 0.01  # ratio of gradients under which the step of f is the task's to two digits
OVERPOWERING = 3.0  # ratio from which on the sum of two orthogonal gradients is within 20 degrees of the larger
RISING = 0.05  # share by which the task loss rises in an epoch, above the noise between two epochs
LEAST_RISE = 0.005  # nats; a task that is learned wavers by less

_PREFIX = "train/"


def diagnose(
    metrics: Mapping[str, float],
    chance: float,
    mi_max: float | None = None,
    before: Mapping[str, float] | None = None,
    class_chance: float = 0.0,
) -> list[str]:
    """Return a sentence for each thing that is wrong with the adversary in an epoch, none where nothing is.

    metrics: the epoch's record; chance: accuracy of always answering the most frequent bias value, in [0, 1); mi_max:
    the largest entropy that h's belief can have, in nats, log of the number of bias values (its mean over
    the biases); before: the record of the
    epoch before in the same phase, without which nothing is said about what rises or falls; class_chance: accuracy of
    always answering the most frequent bias value of the image's class, which h may know as long as z tells the class.
    """
    now, then = _told(metrics), _told(before or {})
    judgements = (
        _at_chance(now, chance, mi_max),
        _winning(now, then, max(chance, class_chance)),
        _overpowering(now, then),
    )
    return [sentence for sentence in judgements if sentence is not None]


def _told(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name.removeprefix(_PREFIX): value for name, value in metrics.items() if name.startswith(_PREFIX)}


def _skill(told: Mapping[str, float], chance: float) -> float | None:
    """Return h's way from chance (0) to always right (1)."""
    return (told["h_accuracy"] - chance) / (1 - chance) if "h_accuracy" in told and chance < 1 else None


def _at_chance(now: Mapping[str, float], chance: float, mi_max: float | None) -> str | None:
    """Tell where h knows no more than chance: dead where it does not push f either, else perhaps blind."""
    skill = _skill(now, chance)
    if skill is None or not skill <= AT_CHANCE:
        return None
    where = f"h is at chance on the training data ({now['h_accuracy']:.1%}, chance {chance:.1%})"
    signs = []
    if now.get("gradient_ratio", NEGLIGIBLE) < NEGLIGIBLE:
        signs.append(f"its gradient at z is {now['gradient_ratio']:.2g} of the task's")
    if mi_max is not None and now.get("h_entropy", 0.0) >= FULL * mi_max:
        signs.append(f"its belief is as good as uniform (entropy {now['h_entropy']:.2f} of {mi_max:.2f} nats)")
    if not signs:
        return (
            f"the adversary may be blind: {where}, which does not tell features without bias from a head that cannot "
            "read them; ask fresh probes: lntl probe RUN"
        )
    return (
        f"the adversary is dead: {where} and {' and '.join(signs)}, so it no longer moves f; if lntl probe RUN still "
        "finds the bias, raise optimizer_h.lr or h_steps, lower mu (alpha of blind_eye), or train h first in a phase "
        "of bias_head"
    )


def _winning(now: Mapping[str, float], then: Mapping[str, float], chance: float) -> str | None:
    """Tell where h reads more of the bias than the class tells, and does not get worse at it: f does not unlearn."""
    skill = _skill(now, chance)
    if skill is None or "h_accuracy" not in then or not skill >= FAR_ABOVE_CHANCE:
        return None
    if not now["h_accuracy"] > then["h_accuracy"] - FALLING:
        return None
    return (
        f"the adversary is winning: h reads the bias from z ({now['h_accuracy']:.1%}; knowing the class, {chance:.1%} "
        f"would be chance) no worse than an epoch before ({then['h_accuracy']:.1%}), so f does not unlearn it; raise "
        "mu (alpha of blind_eye), raise max_gradient_ratio where it is set, or train for more epochs"
    )


def _overpowering(now: Mapping[str, float], then: Mapping[str, float]) -> str | None:
    """Tell where the adversary's gradient drowns the task's, and the task suffers."""
    if "task" not in now or "task" not in then or not now.get("gradient_ratio", 0.0) >= OVERPOWERING:
        return None
    if not now["task"] > max((1 + RISING) * then["task"], then["task"] + LEAST_RISE):
        return None
    return (
        f"the adversary is overpowering the task: its gradient at z is {now['gradient_ratio']:.2g} times the task's, "
        f"and the task loss rose from {then['task']:.3g} to {now['task']:.3g}; "
        "lower mu, or set or lower max_gradient_ratio"
    )
