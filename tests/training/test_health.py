"""`diagnose` returns a sentence for each problem of the adversary, and none without a problem."""

import math
from typing import Any

import pytest

from lntl.training.health import (
    CHANCE_SKILL,
    CLEAR_SKILL,
    FULL_ENTROPY,
    MIN_FALL,
    MIN_RELATIVE_RISE,
    MIN_RISE,
    NEGLIGIBLE_RATIO,
    OVERPOWERING_RATIO,
    diagnose,
)

CHANCE, MI_MAX = 0.2, math.log(8)
HEALTHY_METRICS = {"h_accuracy": 0.3, "h_entropy": 1.5, "gradient_ratio": 0.4, "task": 0.5}  # h a little above chance


def make_metrics(**changes: float) -> dict[str, float]:
    return {f"train/{name}": value for name, value in (HEALTHY_METRICS | changes).items()} | {"val/accuracy": 0.9}


def get_problems(metrics: dict[str, Any], previous_metrics: dict[str, float] | None = None) -> list[str]:
    """Return the beginning of each sentence, which names the problem."""
    return [sentence.split(":")[0] for sentence in diagnose(metrics, CHANCE, MI_MAX, previous_metrics)]


def compute_accuracy(skill: float) -> float:
    return CHANCE + skill * (1 - CHANCE)


def test_a_healthy_adversary_gives_no_sentence() -> None:
    assert diagnose(make_metrics(), CHANCE, MI_MAX, make_metrics(task=0.4, h_accuracy=0.35)) == []


@pytest.mark.parametrize("metrics", [{}, {"train/task": 0.5}, {"train/h_entropy": 2.0}, {"h_accuracy": 0.2}])
def test_missing_metrics_give_no_sentence(metrics: dict[str, float]) -> None:
    assert diagnose(metrics, CHANCE, MI_MAX, metrics) == []


def test_an_h_with_a_tiny_gradient_is_dead() -> None:
    assert diagnose(make_metrics(h_accuracy=0.205, gradient_ratio=0.002), CHANCE, MI_MAX) == [
        "the adversary is dead: h is at chance on the training data (20.5%, chance 20.0%) and its gradient at z is "
        "0.002 of the task's, so it no longer changes f; if lntl probe RUN still finds the bias, raise optimizer_h.lr "
        "or h_steps, lower mu (alpha of blind_eye), or train h first in a phase of bias_head"
    ]


def test_an_h_with_uniform_predictions_is_dead() -> None:
    (sentence,) = diagnose(make_metrics(h_accuracy=0.19, h_entropy=2.075), CHANCE, MI_MAX)
    assert sentence.startswith(
        "the adversary is dead: h is at chance on the training data (19.0%, chance 20.0%) and its prediction is "
        "almost uniform (entropy 2.08 of 2.08 nats), so it no longer changes f; "
    )


def test_the_sentence_gives_both_reasons_for_a_dead_h() -> None:
    (sentence,) = diagnose(make_metrics(h_accuracy=0.2, h_entropy=2.079, gradient_ratio=0.0), CHANCE, MI_MAX)
    assert "its gradient at z is 0 of the task's and its prediction is almost uniform" in sentence


def test_an_h_at_chance_may_be_blind() -> None:
    assert diagnose(make_metrics(h_accuracy=0.21), CHANCE, MI_MAX) == [
        "the adversary may be blind: h is at chance on the training data (21.0%, chance 20.0%); either the features "
        "contain no bias, or h cannot read it; train fresh probes: lntl probe RUN"
    ]


def test_without_gradient_and_entropy_a_head_at_chance_may_be_blind() -> None:
    assert get_problems({"train/h_accuracy": 0.2}) == ["the adversary may be blind"]
    assert diagnose(make_metrics(h_accuracy=0.2, h_entropy=2.079), CHANCE, None)[0].startswith(
        "the adversary may be blind"
    )


def test_an_h_that_stays_accurate_is_winning() -> None:
    assert diagnose(make_metrics(h_accuracy=0.8), CHANCE, MI_MAX, make_metrics(h_accuracy=0.79)) == [
        "the adversary is winning: h reads the bias from z (80.0%; chance if the class is known: 20.0%) no worse than "
        "in the previous epoch (79.0%), so f does not unlearn it; raise mu (alpha of blind_eye), raise "
        "max_gradient_ratio if it is set, or train for more epochs"
    ]


def test_an_h_is_compared_with_chance_given_the_class() -> None:
    current_metrics, previous_metrics = make_metrics(h_accuracy=0.61), make_metrics(h_accuracy=0.6)
    assert diagnose(current_metrics, CHANCE, MI_MAX, previous_metrics)[0].startswith("the adversary is winning")
    assert diagnose(current_metrics, CHANCE, MI_MAX, previous_metrics, class_chance=0.6) == []
    assert (
        "chance if the class is known: 30.0%"
        in diagnose(current_metrics, CHANCE, MI_MAX, previous_metrics, class_chance=0.3)[0]
    )


def test_without_a_previous_epoch_changes_give_no_sentence() -> None:
    assert get_problems(make_metrics(h_accuracy=0.8, gradient_ratio=50.0, task=9.0)) == []


def test_a_large_gradient_ratio_with_a_rising_task_loss_is_overpowering() -> None:
    assert diagnose(make_metrics(gradient_ratio=12.0, task=0.8), CHANCE, MI_MAX, make_metrics(task=0.5)) == [
        "the adversary is overpowering the task: its gradient at z is 12 times the task's, and the task loss rose from "
        "0.5 to 0.8; lower mu, or set or lower max_gradient_ratio"
    ]


def test_a_tiny_task_loss_may_rise_a_little() -> None:
    current_metrics = {"train/gradient_ratio": 70.0, "train/task": 0.0012}
    assert get_problems(current_metrics, {"train/task": 0.0011}) == []
    assert get_problems(current_metrics | {"train/task": 0.0253}, {"train/task": 0.0059}) == []
    assert get_problems(current_metrics | {"train/task": 0.0362}, {"train/task": 0.0059}) == [
        "the adversary is overpowering the task"
    ]


def test_a_large_task_loss_may_rise_by_a_small_share() -> None:
    metrics = make_metrics(gradient_ratio=9.0, task=2.0 * (1 + MIN_RELATIVE_RISE) - EPSILON)
    assert get_problems(metrics, {"train/task": 2.0}) == []
    assert get_problems(metrics | {"train/task": 2.2}, {"train/task": 2.0}) == [
        "the adversary is overpowering the task"
    ]


def test_two_problems_give_two_sentences() -> None:
    current_metrics, previous_metrics = (
        make_metrics(h_accuracy=0.8, gradient_ratio=12.0, task=0.8),
        make_metrics(h_accuracy=0.8, task=0.5),
    )
    assert get_problems(current_metrics, previous_metrics) == [
        "the adversary is winning",
        "the adversary is overpowering the task",
    ]


EPSILON = 1e-6


@pytest.mark.parametrize(
    ("metrics_beyond", "metrics_within", "problem"),
    [
        (
            {"h_accuracy": compute_accuracy(CHANCE_SKILL - EPSILON)},
            {"h_accuracy": compute_accuracy(CHANCE_SKILL + EPSILON)},
            "may be blind",
        ),
        (
            {"h_accuracy": CHANCE, "gradient_ratio": NEGLIGIBLE_RATIO - EPSILON},
            {"h_accuracy": CHANCE, "gradient_ratio": NEGLIGIBLE_RATIO + EPSILON},
            "is dead",
        ),
        (
            {"h_accuracy": CHANCE, "h_entropy": FULL_ENTROPY * MI_MAX + EPSILON},
            {"h_accuracy": CHANCE, "h_entropy": FULL_ENTROPY * MI_MAX - EPSILON},
            "is dead",
        ),
        (
            {"h_accuracy": compute_accuracy(CLEAR_SKILL + EPSILON)},
            {"h_accuracy": compute_accuracy(CLEAR_SKILL - EPSILON)},
            "is winning",
        ),
        (
            {"gradient_ratio": OVERPOWERING_RATIO + EPSILON, "task": 0.9},
            {"gradient_ratio": OVERPOWERING_RATIO - EPSILON, "task": 0.9},
            "is overpowering the task",
        ),
        (
            {"gradient_ratio": 9.0, "task": 0.5 + MIN_RISE + EPSILON},
            {"gradient_ratio": 9.0, "task": 0.5 + MIN_RISE - EPSILON},
            "is overpowering the task",
        ),
    ],
)
def test_each_threshold_separates_healthy_from_reported_metrics(
    metrics_beyond: dict[str, float], metrics_within: dict[str, float], problem: str
) -> None:
    previous_metrics = make_metrics(h_accuracy=compute_accuracy(CLEAR_SKILL))
    assert f"the adversary {problem}" in get_problems(make_metrics(**metrics_beyond), previous_metrics)
    assert f"the adversary {problem}" not in get_problems(make_metrics(**metrics_within), previous_metrics)


def test_an_h_with_falling_accuracy_is_not_winning() -> None:
    current_metrics = make_metrics(h_accuracy=0.8)
    assert get_problems(current_metrics, make_metrics(h_accuracy=0.8 + MIN_FALL - EPSILON)) == [
        "the adversary is winning"
    ]
    assert get_problems(current_metrics, make_metrics(h_accuracy=0.8 + MIN_FALL + EPSILON)) == []


def test_a_constant_bias_gives_no_sentence() -> None:
    assert diagnose(make_metrics(h_accuracy=1.0), 1.0, MI_MAX, make_metrics(h_accuracy=1.0)) == []


def test_undefined_metrics_give_no_sentence() -> None:
    assert get_problems(make_metrics(h_accuracy=math.nan, gradient_ratio=math.nan), make_metrics(h_accuracy=0.5)) == []
