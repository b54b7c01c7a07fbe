"""The summary of an evaluation: values with n and interval, or the reason why they are undefined, and warnings."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from predictions import draw_predictions, make_predictions, make_random_predictions

from lntl.evaluation import metrics
from lntl.evaluation.predict import Predictions
from lntl.evaluation.summary import SMALL_GROUP_SIZE
from lntl.evaluation.summary import summarise as summarise_model
from lntl.evaluation.tally import compute
from lntl.types import IGNORE

LARGE_SAMPLE = make_random_predictions(3000, 3, 2, seed=0, skill=1.0)  # 500 images per group


def summarise(*arguments: Any) -> dict[str, Any]:
    """Return the summary as a dict, as it is written to JSON."""
    return summarise_model(*arguments).model_dump(exclude_unset=True)


def make_names(p: Predictions) -> tuple[list[str], list[str]]:
    return [f"class {i}" for i in range(p.num_classes)], [f"bias {i}" for i in range(p.num_bias_values)]


def collect_rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return [*summary["metrics"].values(), *summary["by_class"], *summary["by_bias"]]


@settings(max_examples=10)
@given(draw_predictions())
def test_each_metric_has_a_value_or_a_reason_and_is_never_nan(p: Predictions) -> None:
    summary = summarise(p, *make_names(p))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    for row in collect_rows(summary):
        if row["value"] is None:
            assert row["undefined"]
            assert row["low"] is row["high"] is None
        else:
            assert row["undefined"] is None
            assert 0 <= row["low"] <= row["high"] <= 1
    assert {name: row["value"] for name, row in summary["metrics"].items()} == compute(p, list(metrics.METRICS))


@settings(max_examples=10)
@given(draw_predictions())
def test_tables_equal_slow_loops(p: Predictions) -> None:
    summary = summarise(p, *make_names(p))
    images = list(zip(p.y.tolist(), p.bias.tolist(), p.correct.tolist(), strict=True))
    assert summary["n"] == len(images)
    assert (summary["class_names"], summary["bias_value_names"]) == make_names(p)
    for c in range(p.num_classes):
        for b in range(p.num_bias_values):
            hits = [is_correct for y, bias, is_correct in images if (y, bias) == (c, b)]
            assert summary["groups"]["count"][c][b] == len(hits)
            accuracy = summary["groups"]["accuracy"][c][b]
            assert accuracy == (pytest.approx(sum(hits) / len(hits), abs=1e-12) if hits else None)
    for column, key in enumerate(("by_class", "by_bias")):
        for value, row in enumerate(summary[key]):
            hits = [image[2] for image in images if image[column] == value]
            assert (row["n"], row["small"]) == (len(hits), len(hits) < 30)
            assert row["value"] == (pytest.approx(sum(hits) / len(hits), abs=1e-12) if hits else None)
    pairs, classes = list(zip(p.y.tolist(), p.predicted.tolist(), strict=True)), range(p.num_classes)
    assert summary["confusion"] == [[pairs.count((c, d)) for d in classes] for c in classes]


def test_n_is_the_number_of_images_that_a_metric_uses() -> None:
    p = make_predictions(
        [0, 0, 0, 1, 1], [0, 0, 1, 1, 1], [0, 0, 1, 1, 1], classes=2, values=2, aligned=(0, 1), bias_labels=1
    )
    p.bias_labels[4] = 0
    counts = {name: row["n"] for name, row in summarise(p, *make_names(p))["metrics"].items()}
    expected = dict.fromkeys(metrics.METRICS, 5)
    expected |= {"aligned_accuracy": 4, "conflicting_accuracy": 1, "bias_accuracy": 4}
    assert counts == expected


def test_intervals_of_means_contain_the_value() -> None:
    summary = summarise(LARGE_SAMPLE, *make_names(LARGE_SAMPLE))
    means = [summary["metrics"][name] for name in ("accuracy", "unbiased_accuracy", "f1_score_macro", "bias_accuracy")]
    for row in [*means, *summary["by_class"], *summary["by_bias"]]:
        assert row["low"] < row["value"] < row["high"]
        assert row["high"] - row["low"] < 0.1


def test_predictions_without_faults_give_no_warning() -> None:
    warnings = [
        warning
        for warning in summarise(LARGE_SAMPLE, *make_names(LARGE_SAMPLE))["warnings"]
        if "interval" not in warning
    ]
    assert warnings == []


CASES: dict[str, tuple[Predictions, list[str], dict[str, str]]] = {
    "missing class": (
        make_predictions([0, 0, 2, 2], [0, 2, 2, 2], [0, 1, 0, 1], 3, 2, (0, 1, 0)),
        ["1 of 3 classes have no image: class 1", "2 of 6 groups (class and bias value) have no image"],
        {},
    ),
    "missing bias value": (
        make_predictions([0, 0, 1, 1], [0, 1, 1, 1], [0, 2, 0, 2], 2, 3, (0, 1)),
        ["1 of 3 bias values have no image: bias 1", "2 of 6 groups"],
        {},
    ),
    "missing group": (
        make_predictions([0, 0, 1], [0, 1, 1], [0, 1, 0], 2, 2, (0, 1)),
        [
            "1 of 4 groups",
            f"3 of 4 groups have fewer than {SMALL_GROUP_SIZE} images (the smallest: class 0 with bias 0, 1 image)",
        ],
        {},
    ),
    "constant bias": (
        make_predictions([0, 0, 1], [0, 1, 1], [1, 1, 1], 2, 2, (0, 1)),
        ["1 of 2 bias values have no image: bias 0"],
        {
            "demographic_parity_gap": "all images have the same bias value",
            "equalised_odds_gap": "all images have the same bias value",
        },
    ),
    "all predictions equal": (
        make_predictions([0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 0, 1], 2, 2, (0, 1)),
        ["every image is predicted as class 1: constant predictions have no gap"],
        {},
    ),
    "no aligned image": (
        make_predictions([0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 0, 0], 2, 2, (0, 1)),
        [],
        {"aligned_accuracy": "no image has the bias value that indicates its class in training"},
    ),
    "no conflicting image": (
        make_predictions([0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], 2, 2, (0, 1)),
        [],
        {"conflicting_accuracy": "every image has the bias value that indicates its class in training"},
    ),
    "no aligned value": (
        make_predictions([0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], 2, 2),
        [],
        dict.fromkeys(("aligned_accuracy", "conflicting_accuracy"), "the data do not say which bias value indicates"),
    ),
    "no bias label": (
        make_predictions([0, 1], [0, 1], [0, 1], 2, 2),
        [],
        {"bias_accuracy": "no bias label is known"},
    ),
    "one image": (make_predictions([0], [0], [0], 2, 2, (0, 1)), ["1 of 4 groups have fewer than 30 images"], {}),
}


@pytest.mark.parametrize("case", CASES)
def test_each_fault_of_predictions_gives_a_warning_or_a_reason(case: str) -> None:
    p, warnings, reasons = CASES[case]
    summary = summarise(p, *make_names(p))
    json.dumps(summary, allow_nan=False)
    for warning in warnings:
        assert any(text.startswith(warning) for text in summary["warnings"]), (warning, summary["warnings"])
    for name, reason in reasons.items():
        assert summary["metrics"][name]["value"] is None
        assert summary["metrics"][name]["undefined"].startswith(reason)


def test_images_of_unknown_bias_are_counted_in_a_warning() -> None:
    p = make_predictions([0, 0, 1, 1, 1], [0, 1, 1, 1, 0], [0, 1, 0, 1, 1], 2, 2, (0, 1))
    summary = summarise(replace(p, group=torch.tensor([0, IGNORE, 2, 3, IGNORE])), *make_names(p))
    assert "2 of 5 images have no known bias value: metrics by group leave them out" in summary["warnings"]
    assert summary["n"] == summary["metrics"]["accuracy"]["n"] == 5
    assert summary["metrics"]["unbiased_accuracy"]["n"] == 3
    assert [row["n"] for row in summary["by_class"]] == [2, 3]
    assert [row["n"] for row in summary["by_bias"]] == [2, 1]
    assert summary["groups"]["count"] == [[1, 0], [1, 1]]
    assert summary["confusion"] == [[1, 1], [1, 2]]
    summary_without_biases = summarise(replace(p, group=torch.full((5,), IGNORE)), *make_names(p))
    row = summary_without_biases["metrics"]["worst_group_accuracy"]
    assert (row["value"], row["n"], row["undefined"]) == (None, 0, "no image has a known bias value")
    warnings = [warning for warning in summary_without_biases["warnings"] if "bias" in warning or "groups" in warning]
    assert warnings == ["no image has a known bias value: metrics by group are undefined"]


def test_a_missing_class_is_the_reason_for_an_undefined_accuracy() -> None:
    p, *_ = CASES["missing class"]
    row = summarise(p, *make_names(p))["by_class"][1]
    assert row == {
        "name": "class 1", "value": None, "low": None, "high": None, "n": 0, "small": True,
        "undefined": "no image of this class",
    }  # fmt: skip


def test_a_probability_that_is_not_finite_makes_the_calibration_error_undefined() -> None:
    p = make_predictions([0, 1], [0, 1], [0, 1], 2, 2, (0, 1))
    p.logits[1] = np.nan
    row = summarise(p, *make_names(p))["metrics"]["expected_calibration_error"]
    assert (row["value"], row["undefined"]) == (None, "a probability is not a finite number")


def test_a_value_outside_its_interval_gives_a_warning() -> None:
    """A network without skill has only a random gap, which resampling makes larger."""
    p = make_random_predictions(2000, 10, 10, seed=0)
    summary = summarise(p, *make_names(p))
    row = summary["metrics"]["demographic_parity_gap"]
    assert row["value"] < row["low"]
    assert any(text.startswith("demographic-parity gap: its value lies outside") for text in summary["warnings"])


def test_fewer_than_thirty_images_are_marked_as_small() -> None:
    y = [0] * 30 + [1] * 29
    summary = summarise(make_predictions(y, y, y, 2, 2, (0, 1)), ["zero", "one"], ["u", "v"])
    for key in ("by_class", "by_bias"):
        assert [row["small"] for row in summary[key]] == [False, True]
    warning = (
        "1 of 4 groups have fewer than 30 images (the smallest: one with v, 29 images): "
        "the accuracies of these groups are uncertain"
    )
    assert warning in summary["warnings"]


def test_groups_that_occur_only_in_other_splits_are_counted_and_named_in_a_warning() -> None:
    p = replace(make_predictions([0, 0, 1], [0, 1, 1], [0, 1, 0], 2, 2, (0, 1)), all_groups=torch.arange(4))
    summary = summarise(p, ["0", "1"], ["0", "1"], "Blond_Hair", "Male")
    for name in ("unbiased_accuracy", "worst_group_accuracy"):
        row = summary["metrics"][name]
        assert (row["cells"], row["all_cells"], row["n"]) == (3, 4, 3)
    assert summary["metrics"]["worst_group_accuracy"]["lowest"] == "Blond_Hair=0, Male=1, 1 image"
    gap_row = summary["metrics"]["equalised_odds_gap"]
    assert (gap_row["value"], gap_row["low"], gap_row["high"]) == (None, None, None)
    assert gap_row["undefined"] == "no image is Blond_Hair=1, Male=1, so one of the compared rates is undefined"
    assert (
        "1 of the 4 groups (class and bias value) that occur in the data have no image here: Blond_Hair=1, Male=1; "
        "worst-group and unbiased accuracy leave them out"
    ) in summary["warnings"]
    parity_summary = summarise(
        replace(p, num_groups=6, group=torch.tensor([0, 1, 3]), all_groups=torch.arange(6)), "ab", "uvw"
    )
    reason = "no image has bias value w, so its rates are undefined"
    assert parity_summary["metrics"]["demographic_parity_gap"]["undefined"] == reason


def test_tables_of_too_many_groups_or_classes_are_left_empty() -> None:
    p = make_random_predictions(50, 300, 300, seed=0)
    summary = summarise(p, *make_names(p))
    assert summary["confusion"] == summary["groups"]["accuracy"] == summary["groups"]["count"] == []
    assert summary["metrics"]["worst_group_accuracy"]["cells"] == len(p.group.unique())
