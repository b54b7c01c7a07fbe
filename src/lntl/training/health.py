"""Diagnose the adversary from the metrics of an epoch: dead, blind, winning or overpowering, and what to change.

The metrics are those of an EpochRecord: train/h_accuracy (share of bias labels that h gets right on the training data),
train/h_entropy (mean entropy of h's prediction, nats), train/gradient_ratio (norm of the adversary's gradient at z over
that of the task's) and train/task (task loss, nats). Metrics that are missing are skipped.
"""

from collections.abc import Mapping

# h's skill is its accuracy on a scale from chance (0) to always right (1). The accuracy in training is a mean over a
# whole epoch, in which h and f change: differences below a few points mean nothing.
AT_CHANCE = 0.05  # largest skill that counts as chance
FAR_ABOVE_CHANCE = 0.25  # smallest skill that counts as reading the bias; in between nothing is said
FALLING = 0.01  # by how much the accuracy falls in an epoch, at least, where f does unlearn
FULL = 0.99  # share of the largest entropy from which on a prediction carries no information
NEGLIGIBLE = 0.01  # ratio of gradients under which the step of f is the task's to two digits
OVERPOWERING = 3.0  # ratio from which on the sum of two orthogonal gradients is within 20 degrees of the larger
RISING = 0.05  # share by which the task loss rises in an epoch, above the noise between two epochs
LEAST_RISE = 0.005  # nats; a task that is learned wavers by less

_PREFIX = "train/"


def diagnose(
    metrics: Mapping[str, float | None],
    chance: float,
    mi_max: float | None = None,
    before: Mapping[str, float | None] | None = None,
    class_chance: float = 0.0,
) -> list[str]:
    """Return one sentence for each problem of the adversary in an epoch.

    Args:
        metrics: Metrics of the epoch.
        chance: Accuracy of always predicting the most frequent bias value, in [0, 1).
        mi_max: Largest entropy of h's prediction, nats: the log of the number of bias values, its mean over the biases.
        before: Metrics of the epoch before in the same phase; without them nothing that rises or falls is reported.
        class_chance: Accuracy of predicting the most frequent bias value of the image's class, which h may reach as
            long as z predicts the class.
    """
    now, then = _terms(metrics), _terms(before or {})
    findings = (
        _at_chance(now, chance, mi_max),
        _winning(now, then, max(chance, class_chance)),
        _overpowering(now, then),
    )
    return [sentence for sentence in findings if sentence is not None]


def _terms(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {k.removeprefix(_PREFIX): v for k, v in metrics.items() if k.startswith(_PREFIX) and v is not None}


def _skill(terms: Mapping[str, float], chance: float) -> float | None:
    """Return h's accuracy on a scale from chance (0) to always right (1)."""
    return (terms["h_accuracy"] - chance) / (1 - chance) if "h_accuracy" in terms and chance < 1 else None


def _at_chance(now: Mapping[str, float], chance: float, mi_max: float | None) -> str | None:
    """Report an h at chance: dead where it does not move f either, else perhaps blind."""
    skill = _skill(now, chance)
    if skill is None or not skill <= AT_CHANCE:
        return None
    where = f"h is at chance on the training data ({now['h_accuracy']:.1%}, chance {chance:.1%})"
    signs = []
    if now.get("gradient_ratio", NEGLIGIBLE) < NEGLIGIBLE:
        signs.append(f"its gradient at z is {now['gradient_ratio']:.2g} of the task's")
    if mi_max is not None and now.get("h_entropy", 0.0) >= FULL * mi_max:
        signs.append(f"its prediction is as good as uniform (entropy {now['h_entropy']:.2f} of {mi_max:.2f} nats)")
    if not signs:
        return (
            f"the adversary may be blind: {where}, which does not distinguish features without bias from a head "
            "that cannot read them; train fresh probes: lntl probe RUN"
        )
    return (
        f"the adversary is dead: {where} and {' and '.join(signs)}, so it no longer moves f; if lntl probe RUN still "
        "finds the bias, raise optimizer_h.lr or h_steps, lower mu (alpha of blind_eye), or train h first in a phase "
        "of bias_head"
    )


def _winning(now: Mapping[str, float], then: Mapping[str, float], chance: float) -> str | None:
    """Report an h that predicts the bias better than the class does and does not get worse: f does not unlearn."""
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
    """Report a gradient of the adversary that exceeds the task's by far while the task loss rises."""
    if "task" not in now or "task" not in then or not now.get("gradient_ratio", 0.0) >= OVERPOWERING:
        return None
    if not now["task"] > max((1 + RISING) * then["task"], then["task"] + LEAST_RISE):
        return None
    return (
        f"the adversary is overpowering the task: its gradient at z is {now['gradient_ratio']:.2g} times the task's, "
        f"and the task loss rose from {then['task']:.3g} to {now['task']:.3g}; "
        "lower mu, or set or lower max_gradient_ratio"
    )
