"""Answers in plain words: is the bias used less, is it gone from the features, and how much accuracy did that cost."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt

from lntl.evaluation.metrics import counted
from lntl.runs.formats import Answer, Check, Estimate, Leaks, Probe, ProbeRow, Recoloring, Verdict

# "Skill" below is (accuracy - chance) / (1 - chance) of a probe.
MIN_DIFFERENCE = 0.10  # the skill of a run's probe is lower than ERM's if the difference is at least this
FLIPS = 0.10  # plain training uses a bias if this share of predictions flips, or this much accuracy is lost
# Largest skill that counts as no bias, and the largest skill for each word about how much bias is left.
_NONE, _WORDS = 0.05, ((0.25, "little"), (0.6, "part"), (1.0, "most"))
MOST_BIASES = 8  # maximum number of biases that are listed one by one
_NOTHING = "Nothing was measured yet."
_NO_INTERVALS = "To compare them, the intervals of this run and of plain training are needed."


@dataclass(frozen=True)
class Measurements:
    """The numbers behind the verdict, None if not measured; `erm_*` belong to plain training."""

    bias: str
    unlearns: bool  # whether the run uses another method than plain training
    unbiased: Estimate | None = None  # mean over groups: the bias is no help, even on a biased test set
    erm_unbiased: Estimate | None = None
    aligned: Estimate | None = None
    erm_aligned: Estimate | None = None
    conflicting: Estimate | None = None
    flips: Estimate | None = None
    erm_flips: Estimate | None = None
    leakage: float | None = None
    erm_leakage: float | None = None
    chance: float | None = None
    n_test: int | None = None  # images on which the probes and h were tested
    h_accuracy: float | None = None
    h_chance: float | None = None
    seconds: float | None = None  # training time
    erm_seconds: float | None = None


def percent(value: float) -> str:
    """Return a share in per cent, e.g. 71.0 %."""
    return f"{100 * value:.1f}\u202f%"


def duration(seconds: float) -> str:
    """Return a time as text, such as 45 s, 5.3 min or 2.1 h."""
    if seconds < 90:
        return f"{seconds:.0f}\u202fs"
    return f"{seconds / 60:.1f}\u202fmin" if seconds < 5400 else f"{seconds / 3600:.1f}\u202fh"


def at_chance(accuracy: float, chance: float, n: int) -> bool:
    """Return whether an accuracy on n images counts as guessing: its skill is tiny, or within the noise of chance."""
    margin = 3 * sqrt(chance * (1 - chance) / n)  # three standard errors of an accuracy at chance
    return share_above_chance(accuracy, chance) <= _NONE or accuracy <= chance + margin


def share_above_chance(accuracy: float, chance: float) -> float:
    """Return the skill of an accuracy: 0 at chance, 1 for an accuracy of 100 %."""
    return (accuracy - chance) / max(1 - chance, 1e-12)


# --- of a report ---


def answers(m: Measurements) -> list[Answer]:
    """Return the three answers; two for plain training, which unlearns nothing."""
    return (
        [bias_use_answer(m), leakage_answer(m), cost_answer(m)]
        if m.unlearns
        else [bias_use_answer(m), leakage_answer(m)]
    )


def verdict(m: Measurements) -> Verdict:
    """Return the answer to "did it unlearn?" in a word, and the sentence that says what the word means."""
    less, removed = bias_use_answer(m).short, leakage_answer(m).short
    if not m.unlearns:
        return Verdict(
            word={"Yes": "Biased", "Hardly": "Not biased"}.get(less, "Plain"),
            text="This run is plain training: it does not try to unlearn anything; compare other runs with it.",
        )
    if less == removed == "Not measured":
        return Verdict(word="Open", text="Neither accuracy nor leakage was measured yet.")
    if "Not measured" in (less, removed) and "Yes" in (less, removed):
        word = "Open"
    elif less == removed == "Yes":
        word = "Yes"
    elif "Yes" in (less, removed) or removed == "Partly":
        word = "Partly"
    else:
        word = "No" if removed == "No" else "Open"
    return Verdict(word=word, text=f"{_predictions(m.bias, less)}{_features(m.bias, removed, less == 'Yes')}")


def _predictions(bias: str, less: str) -> str:
    if less == "Not measured":
        return f"Whether its predictions depend on the {bias} less than those of plain training was not measured"
    if less == "Unclear":
        return (
            f"Whether its predictions depend on the {bias} less than those of plain training is unclear, because the "
            "measurements contradict each other"
        )
    return f"Its predictions depend on the {bias} {'' if less == 'Yes' else 'no '}less than those of plain training"


def _features(bias: str, removed: str, less: bool) -> str:
    if removed == "Yes":
        return f", {'and' if less else 'but'} the {bias} can no longer be read from its features."
    if removed == "Partly":
        return f", and the {bias} is harder to read from its features, though well above chance."
    if removed == "No":
        return f", {'but' if less else 'and'} the {bias} can still be read from its features."
    return f"; whether the {bias} is gone from its features was not measured."


def _sign(value: Estimate | None, other: Estimate | None) -> int | None:
    """Return 1 if the interval is above the other, -1 if below, 0 if they overlap, None if one is unknown."""
    if value is None or other is None:
        return None
    if value.low is None or value.high is None or other.low is None or other.high is None:
        return None
    return (value.low > other.high) - (value.high < other.low)


def bias_use_answer(m: Measurements) -> Answer:
    """Return whether predictions depend on the bias less than plain training's; of plain training, whether they do."""
    texts = []
    if m.unbiased is not None and m.unbiased.value is not None:
        groups = f"of the test images, each group of class and {m.bias} weighted equally"
        texts.append(f"It is right on {percent(m.unbiased.value)} {groups}{_beside(m.erm_unbiased)}.")
    if m.flips is not None and m.flips.value is not None:
        texts.append(
            f"Shown in every {m.bias}, {percent(m.flips.value)} of the images change their prediction"
            f"{_beside(m.erm_flips)}."
        )
    if not m.unlearns:
        text = " ".join(texts) or _NOTHING
        return Answer(question=f"Does it use the {m.bias}?", short=_plain_use(m), text=text)
    unbiased, flips = _sign(m.unbiased, m.erm_unbiased), _sign(m.flips, m.erm_flips)
    signs = [sign for sign in (unbiased, None if flips is None else -flips) if sign is not None]
    if not signs:
        short = "Not measured"
        texts.append(_NO_INTERVALS if texts else _NOTHING)
    elif 1 in signs:
        short = "Unclear" if -1 in signs else "Yes"
    else:
        short = "No"
    return Answer(question=f"Is the {m.bias} used less?", short=short, text=" ".join(texts))


def _beside(erm: Estimate | None) -> str:
    return "" if erm is None or erm.value is None else f" (plain training: {percent(erm.value)})"


def _plain_use(m: Measurements) -> str:
    if m.flips is not None and m.flips.value is not None:
        return "Yes" if m.flips.value > FLIPS else "Hardly"
    if m.conflicting is not None and m.aligned is not None and None not in (m.conflicting.value, m.aligned.value):
        return "Yes" if (m.aligned.value or 0) - (m.conflicting.value or 0) > FLIPS else "Hardly"
    return "Not measured"


def leakage_answer(m: Measurements) -> Answer:
    """Return whether fresh probes find the bias in the features no better than chance."""
    question = f"Is the {m.bias} gone from the features?"
    if m.leakage is None or m.chance is None or m.n_test is None:
        return Answer(question=question, short="Not measured", text="No probe was trained yet.")
    scale = f"guessing gives {percent(m.chance)}"
    if m.erm_leakage is not None:
        scale += f", plain training's features {percent(m.erm_leakage)}"
    texts = [f"A fresh probe reads the {m.bias} from them in {percent(m.leakage)} of unseen images; {scale}."]
    erm_share = None if m.erm_leakage is None else share_above_chance(m.erm_leakage, m.chance)
    if at_chance(m.leakage, m.chance, m.n_test):
        short = "Yes"
    elif erm_share is not None and erm_share - share_above_chance(m.leakage, m.chance) >= MIN_DIFFERENCE:
        short = "Partly"
        texts.append(f"That is less than with plain training, but the {m.bias} is still there.")
    else:
        short = "No"
        if erm_share is not None:
            texts.append("That is not clearly less than with plain training.")
    if m.unlearns and m.h_accuracy is not None and m.h_chance is not None:
        text = f"The run's own bias head h is right in {percent(m.h_accuracy)} of its labels"
        fooled = short != "Yes" and at_chance(m.h_accuracy, m.h_chance, m.n_test)
        texts.append(
            f"{text} (chance {percent(m.h_chance)}){': it was fooled, the fresh probe was not' if fooled else ''}."
        )
    return Answer(question=question, short=short, text=" ".join(texts))


def cost_answer(m: Measurements) -> Answer:
    """Return what unlearning cost: accuracy where the bias helps, and time."""
    texts, short = [], "Not measured"
    sign = _sign(m.aligned, m.erm_aligned)
    if sign is not None and m.aligned is not None and m.erm_aligned is not None:
        points = 100 * ((m.aligned.value or 0) - (m.erm_aligned.value or 0))
        short = "No accuracy" if sign >= 0 else f"{-points:.1f} points"
        texts.append(
            f"On images whose {m.bias} indicates their class, it is right on {percent(m.aligned.value or 0)}"
            f"{_beside(m.erm_aligned)}."
        )
    if m.seconds and m.erm_seconds:
        ratio = f"{m.seconds / m.erm_seconds:.1f} times as long as plain training"
        texts.append(f"Training took {duration(m.seconds)}, {ratio}.")
    elif m.seconds:
        texts.append(f"Training took {duration(m.seconds)}.")
    return Answer(question="What did it cost?", short=short, text=" ".join(texts) or _NOTHING)


# --- of an audit of data ---


def check_verdict(check: Check) -> tuple[str, str]:
    """Return whether results on these data can be trusted, in a few words, and a sentence with the reason."""
    levels = [finding.level for finding in check.findings]
    problems, warnings = levels.count("problem"), levels.count("warning")
    if problems:
        return "Not yet", f"{counted(problems, 'problem')} must be solved before results on these data mean anything."
    if warnings:
        limits = "a warning limits" if warnings == 1 else f"{warnings} warnings limit"
        return "With care", f"there is no problem, but {limits} what results can show."
    return "Yes", "there is neither a problem nor a warning."


# --- of a probe, for the terminal ---


def probe_sentences(probe: Probe, recoloring: Recoloring | None) -> Iterator[str]:
    """Yield in plain sentences how much bias is left, what recolouring changed, and the warnings."""
    erm = max((row.mean for row in probe.reference.erm or []), default=None)
    beside = "" if erm is None else f"; plain training: {erm:.1%}"
    left, best, chance = _left(probe, probe.n_test)
    yield (
        f"{left}: the best fresh probe ({best.probe} at {best.layer}) reads the {probe.bias} of {best.mean:.1%} of "
        f"unseen images (chance {chance:.1%}{beside}){_head(probe, chance)}."
    )
    for name, leaks in list(probe.per_bias.items())[:MOST_BIASES]:
        left, best, chance = _left(leaks, probe.n_test)
        yield (
            f"{name} alone: {left.lower()}; the best fresh probe ({best.probe} at {best.layer}) reads it of "
            f"{best.mean:.1%} of unseen images (chance {chance:.1%})."
        )
    if (more := len(probe.per_bias) - MOST_BIASES) > 0:
        yield f"And {more} more biases; probe.json has all."
    if recoloring is not None:
        yield _recolored(recoloring)
    yield from (f"Note: {warning}." for warning in probe.warnings)


def _left(leaks: Leaks, n: int) -> tuple[str, ProbeRow, float]:
    """Return a phrase for how much bias is left, the best probe, and the accuracy of chance."""
    chance = max(leaks.chance.majority, leaks.chance.permutation)
    best = max(leaks.probes, key=lambda row: row.mean)
    if at_chance(best.mean, chance, n):
        return "No bias was found to be left", best, chance
    share = share_above_chance(best.mean, chance)
    word = next((word for limit, word in _WORDS if share <= limit), "most")
    return f"{word.capitalize()} of the bias is left", best, chance


def _head(probe: Probe, chance: float) -> str:
    """Return a clause about h; h was fooled if it is at chance although a fresh probe reads the bias."""
    if probe.h_accuracy is None or probe.h_chance is None:
        return "; no phase trained a bias head h"
    text = f"; h reads {probe.h_accuracy:.1%} of its own bias labels (chance {probe.h_chance:.1%})"
    if not at_chance(probe.h_accuracy, probe.h_chance, probe.n_test):
        return f"{text}, so h was not fooled"
    if at_chance(probe.leakage, chance, probe.n_test):
        return f"{text}, which agrees"
    return f"{text}, so h was fooled: it is at chance although the bias can be read"


def _recolored(recoloring: Recoloring) -> str:
    flip, change, erm = recoloring.flip_rate, recoloring.mean_change, recoloring.erm
    if flip.value is None or change.value is None:
        return f"The effect of recolouring is undefined: {flip.undefined or change.undefined or 'no reason recorded'}."
    erm_flip = f"; plain training: {erm.flip_rate.value:.1%}" if erm and erm.flip_rate.value is not None else ""
    erm_change = f"; plain training: {erm.mean_change.value:.3f}" if erm and erm.mean_change.value is not None else ""
    return (
        f"Shown in all {len(recoloring.colors)} colours, {flip.value:.1%} of {recoloring.n} test images do not keep "
        f"their prediction (95 % interval {flip.low:.1%} to {flip.high:.1%}{erm_flip}); the probabilities move "
        f"by {change.value:.3f} on average, where 0 is none ({change.low:.3f} to {change.high:.3f}{erm_change})."
    )
