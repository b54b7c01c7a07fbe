"""Sentences about a run: whether it uses the bias, whether its features contain it, and what unlearning cost.

Also the sentences that sum up an audit of data and the results of probes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

from lntl.evaluation.metrics import format_count
from lntl.runs.formats import (
    Answer,
    Check,
    Estimate,
    ImageShift,
    LeakageResult,
    Probe,
    ProbeRow,
    Recoloring,
    ShiftCurve,
    Verdict,
)

MIN_DIFFERENCE = 0.10  # a probe's skill counts as lower than with plain training if it is lower by at least this
# The bias counts as used if more than this share of the predictions flips, or if the accuracy on conflicting images is
# lower than on aligned images by more than this.
MIN_BIAS_USE = 0.10
MAX_LISTED_BIASES = 8  # number of biases that are listed one by one
_NO_SKILL = 0.05  # largest skill of a probe that counts as no bias
_AMOUNTS = ((0.25, "little"), (0.6, "part"), (1.0, "most"))  # largest skill for each word about how much bias is left
_NOT_MEASURED = "This was not measured yet."
_NO_INTERVALS = "The comparison needs the confidence intervals of this run and of plain training."


@dataclass(frozen=True)
class Measurements:
    """The numbers behind the verdict, None if not measured; `erm_*` belong to plain training."""

    bias: str
    is_plain: bool  # whether the run is plain training
    unbiased: Estimate | None = None  # accuracy averaged over groups, so that using the bias does not raise it
    erm_unbiased: Estimate | None = None
    aligned: Estimate | None = None
    erm_aligned: Estimate | None = None
    conflicting: Estimate | None = None
    flips: Estimate | None = None
    erm_flips: Estimate | None = None
    shifts: tuple[str, ...] = ()  # sentences about images with another brightness or color
    leakage: float | None = None
    erm_leakage: float | None = None
    chance: float | None = None
    n_test: int | None = None  # images on which the probes and h were tested
    h_accuracy: float | None = None
    h_chance: float | None = None
    seconds: float | None = None  # training time
    erm_seconds: float | None = None


def percent(value: float) -> str:
    """Return a share as a percentage, such as 71.0 %."""
    return f"{100 * value:.1f}\u202f%"


def duration(seconds: float) -> str:
    """Return a time as text, such as 45 s, 5.3 min or 2.1 h."""
    if seconds < 90:
        return f"{seconds:.0f}\u202fs"
    return f"{seconds / 60:.1f}\u202fmin" if seconds < 5400 else f"{seconds / 3600:.1f}\u202fh"


def is_at_chance(accuracy: float, chance: float, n: int) -> bool:
    """Return whether an accuracy on n images is at chance: its skill is tiny, or within three standard errors of 0."""
    margin = 3 * sqrt(chance * (1 - chance) / n)  # three standard errors of an accuracy at chance
    return skill(accuracy, chance) <= _NO_SKILL or accuracy <= chance + margin


def skill(accuracy: float, chance: float) -> float:
    """Return the skill (accuracy - chance) / (1 - chance): 0 at chance, 1 for an accuracy of 100 %."""
    return (accuracy - chance) / max(1 - chance, 1e-12)


# --- a report ---


def answers(m: Measurements) -> list[Answer]:
    """Return the answers about use of the bias, leakage and cost; plain training has no answer about cost."""
    return (
        [bias_use_answer(m), leakage_answer(m)]
        if m.is_plain
        else [bias_use_answer(m), leakage_answer(m), cost_answer(m)]
    )


def verdict(m: Measurements) -> Verdict:
    """Return whether the run unlearned the bias: one word, and a sentence that explains it."""
    used_less, removed = bias_use_answer(m).short, leakage_answer(m).short  # "is it used less?", "is it gone?"
    if m.is_plain:
        return Verdict(
            word={"Yes": "Biased", "Hardly": "Not biased"}.get(used_less, "Plain"),
            text="This run is plain training, which does not unlearn a bias; compare other runs with it.",
        )
    if used_less == removed == "Not measured":
        return Verdict(word="Open", text="Neither accuracy nor leakage was measured yet.")
    if "Not measured" in (used_less, removed) and "Yes" in (used_less, removed):
        word = "Open"
    elif used_less == removed == "Yes":
        word = "Yes"
    elif "Yes" in (used_less, removed) or removed == "Partly":
        word = "Partly"
    else:
        word = "No" if removed == "No" else "Open"
    return Verdict(
        word=word,
        text=_describe_predictions(m.bias, used_less) + _describe_features(m.bias, removed, used_less == "Yes"),
    )


def _describe_predictions(bias: str, used_less: str) -> str:
    if used_less == "Not measured":
        return f"It was not measured whether predictions depend less on the {bias} than with plain training"
    if used_less == "Unclear":
        return (
            f"It is unclear whether predictions depend less on the {bias} than with plain training, because the "
            "measurements contradict each other"
        )
    return f"Predictions {'' if used_less == 'Yes' else 'do not '}depend less on the {bias} than with plain training"


def _describe_features(bias: str, removed: str, is_used_less: bool) -> str:
    if removed == "Yes":
        return f", {'and' if is_used_less else 'but'} the {bias} can no longer be predicted from the features."
    if removed == "Partly":
        return f", and the {bias} is harder to predict from the features, but can still be predicted well above chance."
    if removed == "No":
        return f", {'but' if is_used_less else 'and'} the {bias} can still be predicted from the features."
    return f"; it was not measured whether the {bias} is gone from the features."


def _compare_intervals(value: Estimate | None, other: Estimate | None) -> int | None:
    """Return 1 if the interval is above the other, -1 if below, 0 if they overlap, None if one is unknown."""
    if value is None or other is None:
        return None
    if value.low is None or value.high is None or other.low is None or other.high is None:
        return None
    return (value.low > other.high) - (value.high < other.low)


def bias_use_answer(m: Measurements) -> Answer:
    """Return whether predictions depend less on the bias than with plain training.

    For plain training itself, return whether its predictions depend on the bias.
    """
    texts = []
    if m.unbiased is not None and m.unbiased.value is not None:
        groups = f"with equal weight for each group of class and {m.bias}"
        texts.append(f"The test accuracy {groups} is {percent(m.unbiased.value)}{_describe_erm(m.erm_unbiased)}.")
    if m.flips is not None and m.flips.value is not None:
        texts.append(
            f"For {percent(m.flips.value)} of the images the prediction changes if only the {m.bias} is changed"
            f"{_describe_erm(m.erm_flips)}."
        )
    texts += m.shifts
    if m.is_plain:
        text = " ".join(texts) or _NOT_MEASURED
        return Answer(question=f"Does the network use the {m.bias}?", short=_describe_bias_use_of_erm(m), text=text)
    unbiased, flips = _compare_intervals(m.unbiased, m.erm_unbiased), _compare_intervals(m.flips, m.erm_flips)
    signs = [sign for sign in (unbiased, None if flips is None else -flips) if sign is not None]
    if not signs:
        short = "Not measured"
        texts.append(_NO_INTERVALS if texts else _NOT_MEASURED)
    elif 1 in signs:
        short = "Unclear" if -1 in signs else "Yes"
    else:
        short = "No"
    return Answer(question=f"Is the {m.bias} used less?", short=short, text=" ".join(texts))


def _describe_erm(erm: Estimate | None) -> str:
    return "" if erm is None or erm.value is None else f" (plain training: {percent(erm.value)})"


def _describe_bias_use_of_erm(m: Measurements) -> str:
    if m.flips is not None and m.flips.value is not None:
        return "Yes" if m.flips.value > MIN_BIAS_USE else "Hardly"
    if m.conflicting is not None and m.aligned is not None and None not in (m.conflicting.value, m.aligned.value):
        return "Yes" if (m.aligned.value or 0) - (m.conflicting.value or 0) > MIN_BIAS_USE else "Hardly"
    return "Not measured"


def leakage_answer(m: Measurements) -> Answer:
    """Return whether fresh probes predict the bias from the features no better than chance."""
    question = f"Is the {m.bias} gone from the features?"
    if m.leakage is None or m.chance is None or m.n_test is None:
        return Answer(question=question, short="Not measured", text="No probe was trained yet.")
    scale = f"chance {percent(m.chance)}"
    if m.erm_leakage is not None:
        scale += f", plain training {percent(m.erm_leakage)}"
    texts = [
        f"From the features, a fresh probe predicts the {m.bias} for {percent(m.leakage)} of unseen images ({scale})."
    ]
    erm_skill = None if m.erm_leakage is None else skill(m.erm_leakage, m.chance)
    if is_at_chance(m.leakage, m.chance, m.n_test):
        short = "Yes"
    elif erm_skill is not None and erm_skill - skill(m.leakage, m.chance) >= MIN_DIFFERENCE:
        short = "Partly"
        texts.append(f"This is less than with plain training, but the features still contain the {m.bias}.")
    else:
        short = "No"
        if erm_skill is not None:
            texts.append("This is not clearly less than with plain training.")
    if not m.is_plain and m.h_accuracy is not None and m.h_chance is not None:
        text = f"The accuracy of the bias head h is {percent(m.h_accuracy)} (chance for h: {percent(m.h_chance)})"
        fooled = short != "Yes" and is_at_chance(m.h_accuracy, m.h_chance, m.n_test)
        texts.append(f"{text}{': h was fooled, the fresh probe was not' if fooled else ''}.")
    return Answer(question=question, short=short, text=" ".join(texts))


def cost_answer(m: Measurements) -> Answer:
    """Return what unlearning cost: accuracy on aligned images, and time."""
    texts, short = [], "Not measured"
    sign = _compare_intervals(m.aligned, m.erm_aligned)
    if sign is not None and m.aligned is not None and m.erm_aligned is not None:
        points = 100 * ((m.aligned.value or 0) - (m.erm_aligned.value or 0))
        short = "No accuracy" if sign >= 0 else f"{-points:.1f} points"
        texts.append(
            f"The accuracy on images whose {m.bias} indicates their class is {percent(m.aligned.value or 0)}"
            f"{_describe_erm(m.erm_aligned)}."
        )
    if m.seconds and m.erm_seconds:
        ratio = f"{m.seconds / m.erm_seconds:.1f} times as long as plain training"
        texts.append(f"Training took {duration(m.seconds)}, {ratio}.")
    elif m.seconds:
        texts.append(f"Training took {duration(m.seconds)}.")
    return Answer(question="What did unlearning cost?", short=short, text=" ".join(texts) or _NOT_MEASURED)


# --- an audit of data ---


def check_verdict(check: Check) -> tuple[str, str]:
    """Return whether results on these data can be trusted, in a few words, and a sentence with the reason."""
    levels = [finding.level for finding in check.findings]
    problems, warnings = levels.count("problem"), levels.count("warning")
    if problems:
        return (
            "Not yet",
            f"{format_count(problems, 'problem')} must be solved before results on these data mean anything.",
        )
    if warnings:
        limits = "a warning limits" if warnings == 1 else f"{warnings} warnings limit"
        return "With care", f"there is no problem, but {limits} what results can show."
    return "Yes", "there is neither a problem nor a warning."


# --- a probe, in the terminal ---


def probe_sentences(
    probe: Probe, recoloring: Recoloring | None, image_shift: ImageShift | None = None
) -> Iterator[str]:
    """Yield sentences about the remaining bias and the effect of changed images, then the warnings."""
    erm = max((row.mean for row in probe.reference.erm or []), default=None)
    erm_note = "" if erm is None else f"; plain training: {erm:.1%}"
    amount, best, chance = _describe_amount_left(probe, probe.n_test)
    yield (
        f"{amount}: the best fresh probe ({best.probe} at {best.layer}) predicts the {probe.bias} for {best.mean:.1%} "
        f"of unseen images (chance {chance:.1%}{erm_note}){_describe_h(probe, chance)}."
    )
    for name, result in list(probe.per_bias.items())[:MAX_LISTED_BIASES]:
        amount, best, chance = _describe_amount_left(result, probe.n_test)
        yield (
            f"{name} alone: {amount.lower()}; the best fresh probe ({best.probe} at {best.layer}) predicts it for "
            f"{best.mean:.1%} of unseen images (chance {chance:.1%})."
        )
    if (more := len(probe.per_bias) - MAX_LISTED_BIASES) > 0:
        yield f"There are {more} more biases; probe.json lists all."
    if recoloring is not None:
        yield _describe_recoloring(recoloring)
    yield from shift_sentences(image_shift)
    yield from (f"Note: {warning}." for warning in probe.warnings)


SENTENCE_SHIFT = 0.1  # the step of a curve that is described in sentences


def shift_sentences(image_shift: ImageShift | None) -> Iterator[str]:
    """Yield a sentence for each property of the images that was changed."""
    if image_shift is not None:
        yield from (shift_sentence(curve, image_shift.n) for curve in image_shift.curves)


def shift_sentence(curve: ShiftCurve, n: int) -> str:
    """Return how many predictions for n images change if the property is lowered and raised by SENTENCE_SHIFT."""
    parts = list[str]()
    for step in curve.steps:
        rate, erm = step.flip_rate, step.erm_flip_rate
        if abs(step.shift) == SENTENCE_SHIFT and rate.value is not None:
            plain = "" if erm is None or erm.value is None else f"; plain training: {percent(erm.value)}"
            interval = f"95\u202f% interval {percent(rate.low or 0)} to {percent(rate.high or 0)}"
            verb = "lowered" if step.shift < 0 else "raised"
            share = f"{percent(rate.value)}{'' if parts else ' of the predictions'} change"
            parts.append(f"{verb} by {SENTENCE_SHIFT:g}, {share} ({interval}{plain})")
    scale = f"Black is 0 and white is 1; the standard deviation of the {curve.name} over images is {curve.spread:.2f}"
    return f"If the {curve.name} of {n} test images is {'; if it is '.join(parts)}. {scale}."


def _describe_amount_left(result: LeakageResult, n: int) -> tuple[str, ProbeRow, float]:
    """Return a phrase for how much bias is left, the best probe, and its accuracy at chance."""
    chance = max(result.chance.majority, result.chance.permutation)
    best = max(result.probes, key=lambda row: row.mean)
    if is_at_chance(best.mean, chance, n):
        return "No bias was found", best, chance
    value = skill(best.mean, chance)
    word = next((word for limit, word in _AMOUNTS if value <= limit), "most")
    return f"{word.capitalize()} of the bias is left", best, chance


def _describe_h(probe: Probe, chance: float) -> str:
    """Return a clause about h; h was fooled if it is at chance although a fresh probe predicts the bias."""
    if probe.h_accuracy is None or probe.h_chance is None:
        return "; no phase trained a bias head h"
    text = f"; the accuracy of h is {probe.h_accuracy:.1%} (chance for h: {probe.h_chance:.1%})"
    if not is_at_chance(probe.h_accuracy, probe.h_chance, probe.n_test):
        return f"{text}, so h was not fooled"
    if is_at_chance(probe.leakage, chance, probe.n_test):
        return f"{text}, so both are at chance"
    return f"{text}, so h was fooled: it is at chance, the fresh probe is not"


def _describe_recoloring(recoloring: Recoloring) -> str:
    flip, change, erm = recoloring.flip_rate, recoloring.mean_change, recoloring.erm
    if flip.value is None or change.value is None:
        return f"The effect of recoloring is undefined: {flip.undefined or change.undefined or 'no reason recorded'}."
    erm_flip = f"; plain training: {erm.flip_rate.value:.1%}" if erm and erm.flip_rate.value is not None else ""
    erm_change = f"; plain training: {erm.mean_change.value:.3f}" if erm and erm.mean_change.value is not None else ""
    return (
        f"The prediction changes for {flip.value:.1%} of {recoloring.n} test images if they are shown in all "
        f"{len(recoloring.colors)} colors (95 % interval {flip.low:.1%} to {flip.high:.1%}{erm_flip}); the mean "
        f"change of the probabilities is {change.value:.3f} ({change.low:.3f} to {change.high:.3f}{erm_change})."
    )
