"""The answer in plain words: is the bias used less, is it gone from the features, and what did that cost."""

from dataclasses import dataclass

from lntl.reporting.leakage import at_chance, share
from lntl.runs.formats import Estimate

APART = 0.10  # of what can be read above chance: how much less than plain training's counts as told apart from it
FLIPS = 0.10  # a share of flipped predictions, or a loss of accuracy, above which plain training is said to use a bias


@dataclass(frozen=True)
class Measured:
    """What the answers rest on, None where it was not measured; `erm` is plain training, seconds are of training."""

    bias: str
    unlearns: bool  # whether the run is more than plain training
    unbiased: Estimate | None = None  # the mean over groups, so that the bias is no help where the test set has it too
    erm_unbiased: Estimate | None = None
    aligned: Estimate | None = None
    erm_aligned: Estimate | None = None
    conflicting: Estimate | None = None
    flips: Estimate | None = None
    erm_flips: Estimate | None = None
    leakage: float | None = None
    erm_leakage: float | None = None
    chance: float | None = None
    n_test: int | None = None  # images on which probes and h were judged
    h_accuracy: float | None = None
    h_chance: float | None = None
    seconds: float | None = None
    erm_seconds: float | None = None


@dataclass(frozen=True)
class Answer:
    """A question, its answer in a word or two, and the evidence in a few sentences."""

    question: str
    short: str
    text: str


def percent(value: float) -> str:
    """Return a share in per cent, e.g. 71.0 %."""
    return f"{100 * value:.1f}\u202f%"


def answers(m: Measured) -> list[Answer]:
    """Return the three answers, two for plain training, which unlearns nothing."""
    return [used(m), gone(m), cost(m)] if m.unlearns else [used(m), gone(m)]


def verdict(m: Measured) -> tuple[str, str]:
    """Return the answer to "did it unlearn?" in a word, and the sentence that says what the word means."""
    if not m.unlearns:
        word = {"Yes": "Biased", "Hardly": "Not biased"}.get(used(m).short, "Plain")
        return word, "This run is plain training: it was not asked to unlearn anything, and serves to compare with."
    less, rid = used(m).short, gone(m).short
    if less == rid == "Not measured":
        return "Open", "Neither accuracy nor leakage was measured yet."
    if "Not measured" in (less, rid) and "Yes" in (less, rid):
        word = "Open"
    elif less == rid == "Yes":
        word = "Yes"
    elif "Yes" in (less, rid) or rid == "Partly":
        word = "Partly"
    else:
        word = "No" if rid == "No" else "Open"
    return word, f"{_behaviour(m.bias, less)}{_features(m.bias, rid, less == 'Yes')}"


def _behaviour(bias: str, less: str) -> str:
    if less in ("Not measured", "Unclear"):
        told = (
            "was not measured" if less == "Not measured" else "is unclear, for the measurements contradict each other"
        )
        return f"Whether its answers depend on the {bias} less than those of plain training {told}"
    return f"Its answers depend on the {bias} {'' if less == 'Yes' else 'no '}less than those of plain training"


def _features(bias: str, rid: str, less: bool) -> str:
    if rid == "Yes":
        return f", {'and' if less else 'but'} its features no longer tell the {bias}."
    if rid == "Partly":
        return f", and its features tell the {bias} less, though well above chance."
    if rid == "No":
        return f", {'but' if less else 'and'} the {bias} can still be read from its features."
    return f"; whether the {bias} is gone from its features was not measured."


def _sign(value: Estimate | None, other: Estimate | None) -> int | None:
    """Return 1 where the interval lies above the other, -1 below, 0 where they overlap, None where one is unknown."""
    if value is None or other is None:
        return None
    if value.low is None or value.high is None or other.low is None or other.high is None:
        return None
    return (value.low > other.high) - (value.high < other.low)


def used(m: Measured) -> Answer:
    """Return whether the answers depend on the bias less than plain training's; of plain training, whether they do."""
    texts = []
    if m.unbiased is not None and m.unbiased.value is not None:
        against = _beside(m.erm_unbiased)
        groups = f"of the test images, each group of class and {m.bias} counted alike"
        texts.append(f"It is right on {percent(m.unbiased.value)} {groups}{against}.")
    if m.flips is not None and m.flips.value is not None:
        against = _beside(m.erm_flips)
        texts.append(f"Shown in every {m.bias}, {percent(m.flips.value)} of the images change their answer{against}.")
    if not m.unlearns:
        return Answer(f"Does it use the {m.bias}?", _plain_use(m), " ".join(texts) or _TO_MEASURE)
    unbiased, flips = _sign(m.unbiased, m.erm_unbiased), _sign(m.flips, m.erm_flips)
    signs = [sign for sign in (unbiased, None if flips is None else -flips) if sign is not None]
    if not signs:
        short = "Not measured"
        texts.append(_NO_INTERVALS if texts else _TO_MEASURE)
    elif 1 in signs:
        short = "Unclear" if -1 in signs else "Yes"
    else:
        short = "No"
    return Answer(f"Is the {m.bias} used less?", short, " ".join(texts))


_TO_MEASURE = "Nothing was measured yet."
_NO_INTERVALS = "To judge a difference it takes the intervals of this run and of plain training."


def _beside(erm: Estimate | None) -> str:
    return "" if erm is None or erm.value is None else f" (plain training: {percent(erm.value)})"


def _plain_use(m: Measured) -> str:
    if m.flips is not None and m.flips.value is not None:
        return "Yes" if m.flips.value > FLIPS else "Hardly"
    if m.conflicting is not None and m.aligned is not None and None not in (m.conflicting.value, m.aligned.value):
        return "Yes" if (m.aligned.value or 0) - (m.conflicting.value or 0) > FLIPS else "Hardly"
    return "Not measured"


def gone(m: Measured) -> Answer:
    """Return whether fresh probes find the bias in the features no better than chance."""
    question = f"Is the {m.bias} gone from the features?"
    if m.leakage is None or m.chance is None or m.n_test is None:
        return Answer(question, "Not measured", "No probe was trained yet.")
    scale = f"guessing gives {percent(m.chance)}"
    if m.erm_leakage is not None:
        scale += f", plain training's features {percent(m.erm_leakage)}"
    texts = [f"A fresh probe reads the {m.bias} from them in {percent(m.leakage)} of unseen images; {scale}."]
    if at_chance(m.leakage, m.chance, m.n_test):
        short = "Yes"
    elif m.erm_leakage is not None and share(m.erm_leakage, m.chance) - share(m.leakage, m.chance) >= APART:
        short = "Partly"
        texts.append(f"That is less than with plain training, but the {m.bias} is still there.")
    else:
        short = "No"
        if m.erm_leakage is not None:
            texts.append("The probe does not tell this run and plain training apart by a wide margin.")
    if m.unlearns and m.h_accuracy is not None and m.h_chance is not None:
        fooled = short != "Yes" and at_chance(m.h_accuracy, m.h_chance, m.n_test)
        texts.append(_of_h(m.h_accuracy, m.h_chance, fooled))
    return Answer(question, short, " ".join(texts))


def _of_h(accuracy: float, chance: float, fooled: bool) -> str:
    """Say how the run's own bias head does, and that it is no proof where fresh probes do better."""
    told = f"The run's own bias head h is right in {percent(accuracy)} of its labels (chance {percent(chance)})"
    if fooled:
        return f"{told}: it was fooled, the fresh probe was not."
    return f"{told}."


def cost(m: Measured) -> Answer:
    """Return what unlearning cost: accuracy where the bias helps, and time."""
    texts, short = [], "Not measured"
    sign = _sign(m.aligned, m.erm_aligned)
    if sign is not None and m.aligned is not None and m.erm_aligned is not None:
        points = 100 * ((m.aligned.value or 0) - (m.erm_aligned.value or 0))
        short = "No accuracy" if sign >= 0 else f"{-points:.1f} points"
        texts.append(
            f"Where the {m.bias} fits the class, as in training, it is right on {percent(m.aligned.value or 0)}"
            f"{_beside(m.erm_aligned)}."
        )
    if m.seconds and m.erm_seconds:
        texts.append(
            f"Training took {duration(m.seconds)}, {m.seconds / m.erm_seconds:.1f} times as long as plain training."
        )
    elif m.seconds:
        texts.append(f"Training took {duration(m.seconds)}.")
    return Answer("What did it cost?", short, " ".join(texts) or _TO_MEASURE)


def duration(seconds: float) -> str:
    """Return a time for people: 45 s, 5.3 min, 2.1 h."""
    if seconds < 90:
        return f"{seconds:.0f}\u202fs"
    return f"{seconds / 60:.1f}\u202fmin" if seconds < 5400 else f"{seconds / 3600:.1f}\u202fh"
