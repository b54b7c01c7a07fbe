"""Diagnose the adversary from the metrics of an epoch: dead, blind, winning or overpowering, and what to change.

The metrics are those of an EpochRecord: train/h_accuracy (accuracy of h on the training data), train/h_entropy (mean
entropy of the prediction of h, nats), train/gradient_ratio (norm of the adversary's gradient at z, divided by the norm
of the task's gradient) and train/task (task loss, nats). Missing metrics are skipped.
"""

from collections.abc import Mapping

# The skill of h is its accuracy on a scale from chance (0) to always correct (1). The accuracy in training is a mean
# over an epoch in which h and f change, so differences of a few percentage points mean nothing.
CHANCE_SKILL = 0.05  # a skill up to this counts as chance
CLEAR_SKILL = 0.25  # from this skill on, h predicts the bias; between both limits, nothing is reported
MIN_FALL = 0.01  # f counts as unlearning if the accuracy of h falls by at least this in an epoch
FULL_ENTROPY = 0.99  # from this share of the largest entropy on, a prediction carries no information
NEGLIGIBLE_RATIO = 0.01  # below this ratio of gradients, the adversary changes the step of f by less than 1 %
OVERPOWERING_RATIO = 3.0  # from this ratio on, the sum of orthogonal gradients is within 20 degrees of the larger one
MIN_RELATIVE_RISE = 0.05  # a smaller rise of the task loss, as a share of it, is noise between two epochs
MIN_RISE = 0.03  # nats; the loss of a learned task fluctuates by less: in the starter project by up to 0.02

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
        mi_max: Largest entropy of the prediction of h, nats: the log of the number of bias values; for several
            biases, the mean of these logs.
        before: Metrics of the previous epoch of the phase; without them, rises and falls are not reported.
        class_chance: Accuracy of predicting the most frequent bias value of the image's class; h may reach it as long
            as z predicts the class.
    """
    current, previous = _train_metrics(metrics), _train_metrics(before or {})
    findings = (
        _find_dead_or_blind(current, chance, mi_max),
        _find_winning(current, previous, max(chance, class_chance)),
        _find_overpowering(current, previous),
    )
    return [sentence for sentence in findings if sentence is not None]


def _train_metrics(metrics: Mapping[str, float | None]) -> dict[str, float]:
    return {k.removeprefix(_PREFIX): v for k, v in metrics.items() if k.startswith(_PREFIX) and v is not None}


def _compute_skill(terms: Mapping[str, float], chance: float) -> float | None:
    """Return the accuracy of h on a scale from chance (0) to always correct (1)."""
    return (terms["h_accuracy"] - chance) / (1 - chance) if "h_accuracy" in terms and chance < 1 else None


def _find_dead_or_blind(current: Mapping[str, float], chance: float, mi_max: float | None) -> str | None:
    """Report an h at chance: it is dead if it does not change f either, otherwise perhaps blind."""
    skill = _compute_skill(current, chance)
    if skill is None or not skill <= CHANCE_SKILL:
        return None
    finding = f"h is at chance on the training data ({current['h_accuracy']:.1%}, chance {chance:.1%})"
    evidence = []
    if current.get("gradient_ratio", NEGLIGIBLE_RATIO) < NEGLIGIBLE_RATIO:
        evidence.append(f"its gradient at z is {current['gradient_ratio']:.2g} of the task's")
    if mi_max is not None and current.get("h_entropy", 0.0) >= FULL_ENTROPY * mi_max:
        evidence.append(f"its prediction is almost uniform (entropy {current['h_entropy']:.2f} of {mi_max:.2f} nats)")
    if not evidence:
        return (
            f"the adversary may be blind: {finding}; either the features contain no bias, or h cannot read it; "
            "train fresh probes: lntl probe RUN"
        )
    reasons = " and ".join([finding, *evidence])
    return (
        f"the adversary is dead: {reasons}, so it no longer changes f; if lntl probe RUN still finds the bias, "
        "raise optimizer_h.lr or h_steps, lower mu (alpha of blind_eye), or train h first in a phase of bias_head"
    )


def _find_winning(current: Mapping[str, float], previous: Mapping[str, float], chance: float) -> str | None:
    """Report that f does not unlearn: h predicts the bias better than the class does, and does not get worse."""
    skill = _compute_skill(current, chance)
    if skill is None or "h_accuracy" not in previous or not skill >= CLEAR_SKILL:
        return None
    if not current["h_accuracy"] > previous["h_accuracy"] - MIN_FALL:
        return None
    return (
        f"the adversary is winning: h reads the bias from z ({current['h_accuracy']:.1%}; chance if the class is "
        f"known: {chance:.1%}) no worse than in the previous epoch ({previous['h_accuracy']:.1%}), so f does not "
        "unlearn it; raise mu (alpha of blind_eye), raise max_gradient_ratio if it is set, or train for more epochs"
    )


def _find_overpowering(current: Mapping[str, float], previous: Mapping[str, float]) -> str | None:
    """Report that the adversary's gradient is much larger than the task's while the task loss rises."""
    if "task" not in current or "task" not in previous or not current.get("gradient_ratio", 0.0) >= OVERPOWERING_RATIO:
        return None
    if not current["task"] > max((1 + MIN_RELATIVE_RISE) * previous["task"], previous["task"] + MIN_RISE):
        return None
    return (
        f"the adversary is overpowering the task: its gradient at z is {current['gradient_ratio']:.2g} times the "
        f"task's, and the task loss rose from {previous['task']:.3g} to {current['task']:.3g}; "
        "lower mu, or set or lower max_gradient_ratio"
    )
