"""The answers of the report follow from the numbers and claim no more than the numbers show."""

from itertools import product
from typing import Any

import pytest

from lntl.reporting.verdict import (
    MIN_DIFFERENCE,
    Measurements,
    answers,
    bias_use_answer,
    cost_answer,
    duration,
    leakage_answer,
    probe_sentences,
    verdict,
)
from lntl.runs.formats import Chance, Estimate, Probe, ProbeRow


def make_estimate(value: float, half_width: float = 0.01) -> Estimate:
    return Estimate(value=value, low=value - half_width, high=value + half_width)


BETTER_ACCURACY: dict[str, Any] = {"unbiased": make_estimate(0.8), "erm_unbiased": make_estimate(0.5)}
SAME_ACCURACY: dict[str, Any] = {"unbiased": make_estimate(0.505), "erm_unbiased": make_estimate(0.5)}
WORSE_ACCURACY: dict[str, Any] = {"unbiased": make_estimate(0.3), "erm_unbiased": make_estimate(0.5)}
FEW_FLIPS: dict[str, Any] = {"flips": make_estimate(0.2), "erm_flips": make_estimate(0.9)}
MANY_FLIPS: dict[str, Any] = {"flips": make_estimate(0.95), "erm_flips": make_estimate(0.9)}
CHANCE = 0.1
PROBE_SETTINGS: dict[str, Any] = {"chance": CHANCE, "n_test": 5000}
LEAKAGE_BY_ANSWER: dict[str, dict[str, Any]] = {
    "Yes": PROBE_SETTINGS | {"leakage": 0.14, "erm_leakage": 0.9},
    "Partly": PROBE_SETTINGS | {"leakage": 0.89 - MIN_DIFFERENCE * (1 - CHANCE), "erm_leakage": 0.9},
    "No": PROBE_SETTINGS | {"leakage": 0.91 - MIN_DIFFERENCE * (1 - CHANCE), "erm_leakage": 0.9},
    "Not measured": {},
}


@pytest.mark.parametrize(
    ("numbers", "answer"),
    [
        (BETTER_ACCURACY, "Yes"),
        (BETTER_ACCURACY | FEW_FLIPS, "Yes"),
        (SAME_ACCURACY | FEW_FLIPS, "Yes"),
        (SAME_ACCURACY, "No"),
        (WORSE_ACCURACY, "No"),
        (SAME_ACCURACY | MANY_FLIPS, "No"),
        (BETTER_ACCURACY | MANY_FLIPS, "Unclear"),
        (WORSE_ACCURACY | FEW_FLIPS, "Unclear"),
        ({"unbiased": make_estimate(0.8)}, "Not measured"),
        # Without an interval there is no answer.
        ({"unbiased": Estimate(value=0.8), "erm_unbiased": make_estimate(0.5)}, "Not measured"),
        ({"unbiased": Estimate(undefined="no image"), "erm_unbiased": make_estimate(0.5)}, "Not measured"),
        ({}, "Not measured"),
    ],
)
def test_the_answer_about_the_use_of_the_bias_follows_from_accuracy_and_flips(
    numbers: dict[str, Any], answer: str
) -> None:
    assert bias_use_answer(Measurements("color", False, **numbers)).short == answer


@pytest.mark.parametrize("expected", LEAKAGE_BY_ANSWER)
def test_the_answer_about_leakage_compares_with_plain_training(expected: str) -> None:
    answer = leakage_answer(Measurements("color", False, **LEAKAGE_BY_ANSWER[expected]))
    assert answer.short == expected
    assert ("not clearly less than with plain training" in answer.text) == (expected == "No")


def test_leakage_is_compared_by_skill_where_chance_is_high() -> None:
    settings = {"chance": 0.95, "n_test": 100_000, "erm_leakage": 0.998}
    assert leakage_answer(Measurements("scar", False, leakage=0.98, **settings)).short == "Partly"
    assert leakage_answer(Measurements("scar", False, leakage=0.995, **settings)).short == "No"


def test_without_plain_training_the_answer_about_leakage_has_no_comparison() -> None:
    answer = leakage_answer(Measurements("color", False, leakage=0.5, **PROBE_SETTINGS))
    assert answer.short == "No"
    assert "plain training" not in answer.text


def test_the_report_and_the_probe_command_give_the_same_answer() -> None:
    """Both treat a probe and h as being at chance in the same cases, for low and high chance, few and many images."""
    for chance, n, skill, h_skill in product((0.1, 0.951), (20, 5000), (0.0, 0.04, 0.06, 1.0), (0.0, 0.06, 1.0)):
        leakage, h = (chance + share * (1 - chance) for share in (skill, h_skill))
        measurements = Measurements(
            "sex", False, leakage=leakage, chance=chance, n_test=n, h_accuracy=h, h_chance=chance
        )
        probe = Probe(
            epoch=1,
            bias="sex",
            n_train=n,
            n_test=n,
            seeds=[0],
            chance=Chance(majority=chance, permutation=0),
            probes=[ProbeRow(layer="f", probe="linear", mean=leakage, values=[leakage])],
            leakage=leakage,
            h_accuracy=h,
            h_chance=chance,
        )
        answer, (sentence,) = leakage_answer(measurements), probe_sentences(probe, None)
        assert (answer.short == "Yes") == sentence.startswith("No bias was found:")
        assert ("h was fooled" in answer.text) == ("so h was fooled" in sentence)
        if n == 5000 and skill in (0.0, 1.0):
            assert answer.short == ("No" if skill else "Yes")


@pytest.mark.parametrize(("h", "leakage", "is_fooled"), [(0.12, "No", True), (0.5, "No", False), (0.12, "Yes", False)])
def test_h_was_fooled_only_if_h_is_at_chance_and_the_probe_is_not(h: float, leakage: str, is_fooled: bool) -> None:
    text = leakage_answer(Measurements("color", False, h_accuracy=h, h_chance=0.1, **LEAKAGE_BY_ANSWER[leakage])).text
    assert "accuracy of the bias head h is" in text
    assert ("h was fooled" in text) == is_fooled
    assert (
        "bias head"
        not in leakage_answer(
            Measurements("color", True, h_accuracy=h, h_chance=0.1, **LEAKAGE_BY_ANSWER[leakage])
        ).text
    )


@pytest.mark.parametrize(
    ("numbers", "leakage", "word", "phrase"),
    [
        (BETTER_ACCURACY, "Yes", "Yes", "and the color can no longer be predicted from the features."),
        (BETTER_ACCURACY, "Partly", "Partly", "but can still be predicted well above chance."),
        (BETTER_ACCURACY, "No", "Partly", "but the color can still be predicted from the features."),
        (
            SAME_ACCURACY,
            "Yes",
            "Partly",
            "do not depend less on the color than with plain training, but the color can no longer",
        ),
        (SAME_ACCURACY, "No", "No", "and the color can still be predicted"),
        (BETTER_ACCURACY, "Not measured", "Open", "; it was not measured whether the color is gone"),
        ({}, "Yes", "Open", "It was not measured whether predictions depend less on the color"),
        ({}, "Not measured", "Open", "Neither"),
        (BETTER_ACCURACY | MANY_FLIPS, "No", "No", "contradict"),
    ],
)
def test_the_verdict_combines_both_answers(numbers: dict[str, Any], leakage: str, word: str, phrase: str) -> None:
    answer = verdict(Measurements("color", False, **numbers, **LEAKAGE_BY_ANSWER[leakage]))
    assert answer.word == word
    assert phrase in answer.text
    assert answer.text.endswith(".")


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ({"flips": make_estimate(0.5)}, "Biased"),
        ({"flips": make_estimate(0.05)}, "Not biased"),
        ({"conflicting": make_estimate(0.45), "aligned": make_estimate(0.99)}, "Biased"),
        ({"conflicting": make_estimate(0.97), "aligned": make_estimate(0.99)}, "Not biased"),
        ({}, "Plain"),
    ],
)
def test_plain_training_does_not_claim_to_unlearn(numbers: dict[str, Any], word: str) -> None:
    measurements = Measurements("color", True, **numbers)
    assert verdict(measurements).word == word
    assert [answer.question for answer in answers(measurements)] == [
        "Does the network use the color?",
        "Is the color gone from the features?",
    ]


@pytest.mark.parametrize(
    ("aligned", "expected"),
    [(0.99, "No accuracy"), (0.985, "No accuracy"), (0.9, "9.0 points"), (None, "Not measured")],
)
def test_the_cost_is_the_loss_of_aligned_accuracy_and_the_time(aligned: float | None, expected: str) -> None:
    value = None if aligned is None else make_estimate(aligned)
    answer = cost_answer(
        Measurements("color", False, aligned=value, erm_aligned=make_estimate(0.99), seconds=600, erm_seconds=300)
    )
    assert answer.short == expected
    assert "Training took 10.0\u202fmin, 2.0 times as long as plain training." in answer.text


@pytest.mark.parametrize(("seconds", "text"), [(45, "45\u202fs"), (318, "5.3\u202fmin"), (7560, "2.1\u202fh")])
def test_a_duration_is_given_in_seconds_minutes_or_hours(seconds: float, text: str) -> None:
    assert duration(seconds) == text
