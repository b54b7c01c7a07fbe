"""What is said about the adversary, sentence by sentence, and where nothing is said."""

import math
from typing import Any

import pytest

from lntl.training.health import (
    AT_CHANCE,
    FALLING,
    FAR_ABOVE_CHANCE,
    FULL,
    NEGLIGIBLE,
    OVERPOWERING,
    RISING,
    diagnose,
)

CHANCE, MI_MAX = 0.2, math.log(8)
SOUND = {"h_accuracy": 0.3, "h_entropy": 1.5, "gradient_ratio": 0.4, "task": 0.5}  # h a little above chance


def record(**changes: float) -> dict[str, float]:
    return {f"train/{name}": value for name, value in (SOUND | changes).items()} | {"val/accuracy": 0.9}


def said(now: dict[str, Any], before: dict[str, float] | None = None) -> list[str]:
    """Return the first words of each sentence: what is wrong."""
    return [sentence.split(":")[0] for sentence in diagnose(now, CHANCE, MI_MAX, before)]


def accuracy(skill: float) -> float:
    return CHANCE + skill * (1 - CHANCE)


def test_of_a_sound_adversary_nothing_is_said() -> None:
    assert diagnose(record(), CHANCE, MI_MAX, record(task=0.4, h_accuracy=0.35)) == []


@pytest.mark.parametrize("metrics", [{}, {"train/task": 0.5}, {"train/h_entropy": 2.0}, {"h_accuracy": 0.2}])
def test_of_numbers_that_are_not_there_nothing_is_said(metrics: dict[str, float]) -> None:
    assert diagnose(metrics, CHANCE, MI_MAX, metrics) == []


def test_dead_by_its_gradient() -> None:
    assert diagnose(record(h_accuracy=0.205, gradient_ratio=0.002), CHANCE, MI_MAX) == [
        "the adversary is dead: h is at chance on the training data (20.5%, chance 20.0%) and its gradient at z is "
        "0.002 of the task's, so it no longer moves f; if lntl probe RUN still finds the bias, raise optimizer_h.lr or "
        "h_steps, lower mu (alpha of blind_eye), or train h first in a phase of bias_head"
    ]


def test_dead_by_its_entropy() -> None:
    (sentence,) = diagnose(record(h_accuracy=0.19, h_entropy=2.075), CHANCE, MI_MAX)
    assert sentence.startswith(
        "the adversary is dead: h is at chance on the training data (19.0%, chance 20.0%) and its prediction is as "
        "good as uniform (entropy 2.08 of 2.08 nats), so it no longer moves f; "
    )


def test_dead_by_both() -> None:
    (sentence,) = diagnose(record(h_accuracy=0.2, h_entropy=2.079, gradient_ratio=0.0), CHANCE, MI_MAX)
    assert "its gradient at z is 0 of the task's and its prediction is as good as uniform" in sentence


def test_blind() -> None:
    assert diagnose(record(h_accuracy=0.21), CHANCE, MI_MAX) == [
        "the adversary may be blind: h is at chance on the training data (21.0%, chance 20.0%), which does not "
        "distinguish features without bias from a head that cannot read them; train fresh probes: lntl probe RUN"
    ]


def test_without_gradient_and_entropy_a_head_at_chance_may_be_blind() -> None:
    assert said({"train/h_accuracy": 0.2}) == ["the adversary may be blind"]
    assert diagnose(record(h_accuracy=0.2, h_entropy=2.079), CHANCE, None)[0].startswith("the adversary may be blind")


def test_winning() -> None:
    assert diagnose(record(h_accuracy=0.8), CHANCE, MI_MAX, record(h_accuracy=0.79)) == [
        "the adversary is winning: h reads the bias from z (80.0%; knowing the class, 20.0% would be chance) no worse "
        "than an epoch before (79.0%), so f does not unlearn it; raise mu (alpha of blind_eye), raise "
        "max_gradient_ratio where it is set, or train for more epochs"
    ]


def test_h_may_know_what_the_class_predicts() -> None:
    now, before = record(h_accuracy=0.61), record(h_accuracy=0.6)
    assert diagnose(now, CHANCE, MI_MAX, before)[0].startswith("the adversary is winning")
    assert diagnose(now, CHANCE, MI_MAX, before, class_chance=0.6) == []
    assert "knowing the class, 30.0% would be chance" in diagnose(now, CHANCE, MI_MAX, before, class_chance=0.3)[0]


def test_without_an_epoch_before_nothing_is_said_of_what_rises_or_falls() -> None:
    assert said(record(h_accuracy=0.8, gradient_ratio=50.0, task=9.0)) == []


def test_overpowering() -> None:
    assert diagnose(record(gradient_ratio=12.0, task=0.8), CHANCE, MI_MAX, record(task=0.5)) == [
        "the adversary is overpowering the task: its gradient at z is 12 times the task's, and the task loss rose from "
        "0.5 to 0.8; lower mu, or set or lower max_gradient_ratio"
    ]


def test_a_task_that_is_learned_may_waver() -> None:
    now = {"train/gradient_ratio": 70.0, "train/task": 0.0012}
    assert said(now, {"train/task": 0.0011}) == []
    assert said(now | {"train/task": 0.0062}, {"train/task": 0.0011}) == ["the adversary is overpowering the task"]


def test_two_things_can_be_wrong_at_once() -> None:
    now, before = record(h_accuracy=0.8, gradient_ratio=12.0, task=0.8), record(h_accuracy=0.8, task=0.5)
    assert said(now, before) == ["the adversary is winning", "the adversary is overpowering the task"]


EDGE = 1e-6


@pytest.mark.parametrize(
    ("inside", "outside", "what"),
    [
        ({"h_accuracy": accuracy(AT_CHANCE - EDGE)}, {"h_accuracy": accuracy(AT_CHANCE + EDGE)}, "may be blind"),
        (
            {"h_accuracy": CHANCE, "gradient_ratio": NEGLIGIBLE - EDGE},
            {"h_accuracy": CHANCE, "gradient_ratio": NEGLIGIBLE + EDGE},
            "is dead",
        ),
        (
            {"h_accuracy": CHANCE, "h_entropy": FULL * MI_MAX + EDGE},
            {"h_accuracy": CHANCE, "h_entropy": FULL * MI_MAX - EDGE},
            "is dead",
        ),
        (
            {"h_accuracy": accuracy(FAR_ABOVE_CHANCE + EDGE)},
            {"h_accuracy": accuracy(FAR_ABOVE_CHANCE - EDGE)},
            "is winning",
        ),
        (
            {"gradient_ratio": OVERPOWERING + EDGE, "task": 0.9},
            {"gradient_ratio": OVERPOWERING - EDGE, "task": 0.9},
            "is overpowering the task",
        ),
        (
            {"gradient_ratio": 9.0, "task": 0.5 * (1 + RISING) + EDGE},
            {"gradient_ratio": 9.0, "task": 0.5 * (1 + RISING) - EDGE},
            "is overpowering the task",
        ),
    ],
)
def test_each_threshold(inside: dict[str, float], outside: dict[str, float], what: str) -> None:
    before = record(h_accuracy=accuracy(FAR_ABOVE_CHANCE))
    assert f"the adversary {what}" in said(record(**inside), before)
    assert f"the adversary {what}" not in said(record(**outside), before)


def test_a_falling_accuracy_is_no_win() -> None:
    now = record(h_accuracy=0.8)
    assert said(now, record(h_accuracy=0.8 + FALLING - EDGE)) == ["the adversary is winning"]
    assert said(now, record(h_accuracy=0.8 + FALLING + EDGE)) == []


def test_a_bias_that_is_the_same_everywhere_leaves_nothing_to_say() -> None:
    assert diagnose(record(h_accuracy=1.0), 1.0, MI_MAX, record(h_accuracy=1.0)) == []


def test_undefined_numbers_are_skipped() -> None:
    assert said(record(h_accuracy=math.nan, gradient_ratio=math.nan), record(h_accuracy=0.5)) == []
