"""Compare each metric with scikit-learn, fairlearn and slow loops on random predictions; check undefined metrics."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from fairlearn.metrics import MetricFrame, demographic_parity_difference, equalized_odds_difference
from hypothesis import given, settings
from numpy.typing import ArrayLike
from predictions import draw_predictions, make_predictions, make_random_predictions
from pydantic import ValidationError
from sklearn import metrics as sklearn
from torch import Tensor

from lntl.config.keys import Evaluation
from lntl.evaluation import metrics
from lntl.evaluation.metrics import METRICS, CellNames, bias_name, join_names, lower_is_better
from lntl.evaluation.predict import Predictions
from lntl.evaluation.tally import compute, confusion, tally
from lntl.types import IGNORE, BiasSpec

TOLERANCE = 1e-9
FEW_EXAMPLES = settings(max_examples=12)  # a MetricFrame takes tens of milliseconds and needs at least two images


def is_close(value: float | None, expected: float) -> bool:
    """Return whether a metric equals the expected value; None equals NaN."""
    return math.isnan(expected) if value is None else value == pytest.approx(expected, rel=0, abs=TOLERANCE)


def compute_accuracy_where(p: Predictions, aligned: bool) -> float:
    selected_hits = [
        is_correct
        for is_correct, y, bias in zip(p.correct.tolist(), p.y.tolist(), p.bias.tolist(), strict=True)
        if (bias == p.aligned[y]) == aligned
    ]
    return sum(selected_hits) / len(selected_hits) if selected_hits else math.nan


def compute_calibration_error(p: Predictions) -> float:
    """Return the sum over bins (low, high] of (images in the bin / n) * |mean confidence - accuracy|."""
    confidence, is_correct = p.probabilities.double().amax(dim=1).tolist(), p.correct.tolist()
    total = 0.0
    for low, high in zip(np.linspace(0, 1, 16)[:-1], np.linspace(0, 1, 16)[1:], strict=True):
        bin_images = [(c, r) for c, r in zip(confidence, is_correct, strict=True) if low < c <= high]
        if bin_images:
            mean, accuracy = (sum(column) / len(bin_images) for column in zip(*bin_images, strict=True))
            total += len(bin_images) / len(p.y) * abs(mean - accuracy)
    return total


@given(draw_predictions())
def test_metrics_equal_loops_and_scikit_learn(p: Predictions) -> None:
    y, predicted, num_bias_labels = p.y.numpy(), p.logits.argmax(dim=1).numpy(), int(p.bias_labels.sum())
    values = compute(p, list(metrics.METRICS))
    expected = {
        "accuracy": sklearn.accuracy_score(y, predicted),
        "f1_score_macro": sklearn.f1_score(y, predicted, average="macro", zero_division=0),
        "bias_accuracy": int(p.bias_hits.sum()) / num_bias_labels if num_bias_labels else math.nan,
        "aligned_accuracy": compute_accuracy_where(p, aligned=True),
        "conflicting_accuracy": compute_accuracy_where(p, aligned=False),
        "expected_calibration_error": compute_calibration_error(p),
    }
    assert [name for name, value in expected.items() if not is_close(values[name], value)] == []
    assert all(value is None or 0 <= value <= 1 for value in values.values())


def make_metric_frame(feature: Tensor, p: Predictions) -> MetricFrame:
    """Return fairlearn's accuracy for each value of a feature of shape (n,)."""
    y, predicted = p.y.numpy(), p.predicted.numpy()
    return MetricFrame(metrics=sklearn.accuracy_score, y_true=y, y_pred=predicted, sensitive_features=feature.numpy())


@FEW_EXAMPLES
@given(draw_predictions(min_images=2))
def test_group_accuracies_equal_fairlearn(p: Predictions) -> None:
    groups = make_metric_frame(p.group, p)
    values = compute(p, ["unbiased_accuracy", "worst_group_accuracy"])
    assert is_close(values["unbiased_accuracy"], groups.by_group.mean())
    assert is_close(values["worst_group_accuracy"], groups.group_min())
    counts = tally(p)
    by_group = np.full(p.num_groups, np.nan)
    by_group[counts.cells] = metrics.group_accuracy(counts)[0]
    tables = {
        "group": (by_group, groups),
        "class": (metrics.class_accuracy(counts)[0], make_metric_frame(p.y, p)),
        "bias value": (metrics.bias_value_accuracy(counts)[0], make_metric_frame(p.bias, p)),
    }
    for name, (accuracies, frame) in tables.items():
        assert np.flatnonzero(~np.isnan(accuracies)).tolist() == sorted(frame.by_group.index), name
        assert all(is_close(accuracies[k], accuracy) for k, accuracy in frame.by_group.items()), name


@FEW_EXAMPLES
@given(draw_predictions(min_images=2))
def test_demographic_parity_equals_fairlearn(p: Predictions) -> None:
    """The gap is the largest one-against-rest gap; for a single bias value fairlearn returns 0 and lntl None."""
    y, predicted, bias = p.y.numpy(), p.predicted.numpy(), p.bias.numpy()
    gaps = [
        demographic_parity_difference(y == c, predicted == c, sensitive_features=bias) for c in range(p.num_classes)
    ]
    expected = max(gaps) if len(set(bias)) > 1 else math.nan
    assert is_close(compute(p, ["demographic_parity_gap"])["demographic_parity_gap"], expected)


def compute_positive_rate(y_true: ArrayLike, y_pred: ArrayLike, label: bool) -> float:
    """Return the share of positive predictions among the images with this label, NaN if there are none."""
    selected_predictions = np.asarray(y_pred)[np.asarray(y_true) == label]
    return float(selected_predictions.mean()) if len(selected_predictions) else math.nan


@FEW_EXAMPLES
@given(draw_predictions(min_images=2))
def test_equalised_odds_equals_rates_of_fairlearn(p: Predictions) -> None:
    """A gap is undefined if a rate is undefined, because a class has no image with one of the bias values."""
    y, predicted, bias = p.y.numpy(), p.predicted.numpy(), p.bias.numpy()
    gaps = []
    for c in range(p.num_classes):
        labels = (True, False) if c in y else (False,)  # a class without an image has no true positive rate
        rates = {str(label): lambda t, p, label=label: compute_positive_rate(t, p, label) for label in labels}
        frame = MetricFrame(metrics=rates, y_true=y == c, y_pred=predicted == c, sensitive_features=bias)
        is_complete = frame.by_group.notna().all(axis=None)
        gaps.append((frame.by_group.max() - frame.by_group.min()).max() if is_complete else math.nan)
    expected = math.nan if any(map(math.isnan, gaps)) or len(set(bias)) < 2 else max(gaps)
    assert is_close(compute(p, ["equalised_odds_gap"])["equalised_odds_gap"], expected)


@pytest.mark.parametrize("seed", range(5))
def test_equalised_odds_equals_fairlearn_if_every_group_has_images(seed: int) -> None:
    p = make_random_predictions(300, 3, 3, seed, skill=1.0)
    y, predicted, bias = p.y.numpy(), p.predicted.numpy(), p.bias.numpy()
    gaps = [equalized_odds_difference(y == c, predicted == c, sensitive_features=bias) for c in range(3)]
    assert is_close(compute(p, ["equalised_odds_gap"])["equalised_odds_gap"], max(gaps))


@pytest.mark.full
def test_metrics_of_10_000_images_equal_scikit_learn_and_fairlearn() -> None:
    p = make_random_predictions(10_000, 10, 10, seed=0, skill=2.0)
    y, predicted, bias = p.y.numpy(), p.predicted.numpy(), p.bias.numpy()
    values = compute(p, list(metrics.METRICS))
    frame = make_metric_frame(p.group, p)
    expected = {
        "accuracy": sklearn.accuracy_score(y, predicted),
        "unbiased_accuracy": frame.by_group.mean(),
        "worst_group_accuracy": frame.group_min(),
        "f1_score_macro": sklearn.f1_score(y, predicted, average="macro"),
        "expected_calibration_error": compute_calibration_error(p),
        "demographic_parity_gap": max(
            demographic_parity_difference(y == c, predicted == c, sensitive_features=bias) for c in range(10)
        ),
        "equalised_odds_gap": max(
            equalized_odds_difference(y == c, predicted == c, sensitive_features=bias) for c in range(10)
        ),
    }
    assert [name for name, value in expected.items() if not is_close(values[name], value)] == []


def test_groups_without_images_are_ignored() -> None:
    p = make_predictions(y=[0, 0, 0, 1], predicted=[0, 0, 2, 1], bias=[0, 0, 0, 2], classes=3, values=3)
    values = compute(p, ["unbiased_accuracy", "worst_group_accuracy", "accuracy"])
    assert values == pytest.approx(
        {"unbiased_accuracy": (2 / 3 + 1) / 2, "worst_group_accuracy": 2 / 3, "accuracy": 0.75}
    )


def test_f1_of_a_class_without_correct_predictions_is_0() -> None:
    p = make_predictions(y=[0, 0, 1], predicted=[0, 0, 2], bias=[0, 0, 0], classes=3, values=1)
    assert compute(p, ["f1_score_macro"])["f1_score_macro"] == pytest.approx((1 + 0 + 0) / 3)


def find_undefined_metrics(p: Predictions) -> set[str]:
    return {name for name, value in compute(p, list(metrics.METRICS)).items() if value is None}


def test_undefined_metrics_are_none() -> None:
    arrays: dict[str, Any] = {"y": [0, 1, 0, 1], "predicted": [0, 1, 1, 0], "bias": [0, 1, 1, 0]}
    gap_names, alignment_names = (
        {"demographic_parity_gap", "equalised_odds_gap"},
        {"aligned_accuracy", "conflicting_accuracy"},
    )
    assert (
        find_undefined_metrics(make_predictions(**arrays, classes=2, values=2, aligned=(0, 1), bias_labels=1)) == set()
    )
    assert find_undefined_metrics(make_predictions(**arrays, classes=2, values=2, bias_labels=1)) == alignment_names
    assert find_undefined_metrics(make_predictions(**arrays, classes=2, values=2, aligned=(0, 1))) == {"bias_accuracy"}
    constant_bias = make_predictions(
        **arrays | {"bias": [0, 0, 0, 0]}, classes=2, values=2, aligned=(0, 1), bias_labels=1
    )
    assert find_undefined_metrics(constant_bias) == gap_names
    aligned_predictions = make_predictions(
        **arrays | {"bias": [0, 1, 0, 1]}, classes=2, values=2, aligned=(0, 1), bias_labels=1
    )
    assert find_undefined_metrics(aligned_predictions) == {"conflicting_accuracy", "equalised_odds_gap"}
    conflicting_predictions = make_predictions(
        **arrays | {"bias": [1, 0, 1, 0]}, classes=2, values=2, aligned=(0, 1), bias_labels=1
    )
    assert find_undefined_metrics(conflicting_predictions) == {"aligned_accuracy", "equalised_odds_gap"}


def test_calibration_error_is_undefined_if_a_probability_is_nan() -> None:
    p = make_predictions(y=[0, 1], predicted=[0, 1], bias=[0, 1], classes=2, values=2, aligned=(0, 1), bias_labels=1)
    p.logits[1] = math.nan
    assert "expected_calibration_error" in find_undefined_metrics(p)
    assert compute(p, ["accuracy"]) == {"accuracy": 0.5}


def test_a_constant_prediction_has_a_gap_of_0() -> None:
    p = make_predictions(y=[0, 1, 0, 1], predicted=[1, 1, 1, 1], bias=[0, 1, 1, 0], classes=2, values=2)
    assert compute(p, ["demographic_parity_gap", "equalised_odds_gap"]) == {
        "demographic_parity_gap": 0.0,
        "equalised_odds_gap": 0.0,
    }


def test_compute_returns_the_named_metrics_in_their_order() -> None:
    p = make_predictions(y=[0], predicted=[0], bias=[0], classes=1, values=1)
    assert list(compute(p, ["worst_group_accuracy", "accuracy"])) == ["worst_group_accuracy", "accuracy"]


def test_configuration_accepts_each_metric_and_no_other_name() -> None:
    assert Evaluation().metrics == list(METRICS)
    for name in METRICS:
        assert Evaluation(best_model_metric=name).best_model_metric == name
    with pytest.raises(ValidationError, match="best_model_metric"):
        Evaluation(best_model_metric="acuracy")


def test_lower_is_better_for_errors_and_gaps() -> None:
    expected_names = {"expected_calibration_error", "demographic_parity_gap", "equalised_odds_gap"}
    assert {name for name in METRICS if lower_is_better(name)} == expected_names
    assert not lower_is_better("seconds")


def test_each_metric_is_described() -> None:
    for name, metric in METRICS.items():
        assert metric.name == name == metric.function.__name__
        assert metric.label
        assert metric.column
        assert metric.unit
        assert metric.meaning
        assert not metric.meaning.endswith(".")
    assert METRICS["accuracy"].meaning == "the share of right predictions"


# --- images whose bias value is unknown ---

GROUP_METRICS = (
    "unbiased_accuracy",
    "worst_group_accuracy",
    "aligned_accuracy",
    "conflicting_accuracy",
    "demographic_parity_gap",
    "equalised_odds_gap",
)


def select_images(p: Predictions, mask: Tensor) -> Predictions:
    columns = ("y", "group", "row", "logits", "bias_hits", "bias_labels")
    return replace(p, **{name: getattr(p, name)[mask] for name in columns})


@given(draw_predictions(min_images=2))
def test_only_group_metrics_leave_out_images_of_unknown_bias(p: Predictions) -> None:
    is_known = torch.arange(len(p.y)) % 3 != 0
    p_with_unknown_bias = replace(p, group=torch.where(is_known, p.group, IGNORE))
    assert (p_with_unknown_bias.bias == IGNORE).equal(~is_known)
    values, all_values, known_values = (
        compute(data, list(metrics.METRICS)) for data in (p_with_unknown_bias, p, select_images(p, is_known))
    )
    for name, value in values.items():
        expected = (known_values if name in GROUP_METRICS else all_values)[name]
        assert value == (expected if expected is None else pytest.approx(expected, abs=TOLERANCE)), name
    np.testing.assert_allclose(metrics.class_accuracy(tally(p_with_unknown_bias)), metrics.class_accuracy(tally(p)))
    np.testing.assert_array_equal(confusion(p_with_unknown_bias), confusion(p))


def test_without_known_bias_values_group_metrics_are_undefined() -> None:
    p = replace(make_predictions([0, 1], [0, 1], [0, 1], 2, 2, (0, 1)), group=torch.tensor([IGNORE, IGNORE]))
    values = compute(p, list(metrics.METRICS))
    assert {name for name, value in values.items() if value is None} == {*GROUP_METRICS, "bias_accuracy"}
    assert values["accuracy"] == 1


# --- gaps, and groups that are missing in a split ---


def compute_equalised_odds_gap(p: Predictions) -> float | None:
    return compute(p, ["equalised_odds_gap"])["equalised_odds_gap"]


def test_a_gap_is_undefined_if_one_of_its_rates_is_undefined() -> None:
    """Bias value 1 has no positive image and bias value 0 has a recall of 0.5, so the gap is undefined, not 0."""
    y, bias = [0] * 100 + [1] * 100 + [0] * 100, [0] * 200 + [1] * 100
    predicted = [0] * 100 + [1] * 50 + [0] * 150
    assert compute_equalised_odds_gap(make_predictions(y, predicted, bias, classes=2, values=2)) is None
    assert (
        compute_equalised_odds_gap(make_predictions([*y, 1], [*predicted, 1], [*bias, 1], classes=2, values=2)) == 0.5
    )


def test_gaps_are_undefined_if_a_bias_value_occurs_only_in_another_split() -> None:
    p = make_predictions(y=[0, 0, 1, 1], predicted=[0, 0, 1, 0], bias=[0, 1, 0, 1], classes=2, values=3)
    names = ["demographic_parity_gap", "equalised_odds_gap"]
    assert compute(p, names) == dict.fromkeys(names, 0.5) | {"equalised_odds_gap": 1.0}
    same_groups = replace(p, all_groups=torch.tensor([0, 1, 3, 4]))
    assert compute(same_groups, names) == compute(p, names)
    absent_group = replace(p, all_groups=torch.tensor([0, 1, 2, 3, 4]))  # class 0 with bias value 2
    assert compute(absent_group, names) == dict.fromkeys(names)
    accuracies = ["unbiased_accuracy", "worst_group_accuracy"]  # these average over the groups that have images
    assert compute(absent_group, accuracies) == compute(p, accuracies) == {accuracies[0]: 0.75, accuracies[1]: 0.0}


def test_the_mean_over_groups_is_the_same_with_and_without_a_dense_table(monkeypatch: pytest.MonkeyPatch) -> None:
    p = make_random_predictions(500, 7, 5, seed=0)
    expected = compute(p, ["unbiased_accuracy"])["unbiased_accuracy"]
    monkeypatch.setattr(metrics, "MAX_DENSE_GROUPS", 0)
    assert compute(p, ["unbiased_accuracy"])["unbiased_accuracy"] == pytest.approx(expected, abs=1e-12)


def test_groups_without_images_need_no_memory() -> None:
    """With 20,000 classes and 10,000 bias values, a table (class, predicted, bias) would have 4e12 entries."""
    n, classes, values = 300, 20_000, 10_000
    rng = torch.Generator().manual_seed(0)
    y, bias = torch.randint(classes, (n,), generator=rng), torch.randint(values, (n,), generator=rng)
    logits = torch.zeros(n, classes)
    logits[torch.arange(n), torch.where(torch.arange(n) % 2 == 0, y, 0)] = 1
    no_labels = torch.zeros(n, dtype=torch.int64)
    metric_values = compute(
        Predictions(y, y * values + bias, torch.arange(n), logits, no_labels, no_labels, classes * values),
        list(METRICS),
    )
    assert metric_values["accuracy"] == metric_values["unbiased_accuracy"] == 0.5
    assert metric_values["worst_group_accuracy"] == 0
    assert metric_values["demographic_parity_gap"] == 1
    assert metric_values["equalised_odds_gap"] is None


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("cat", "night"), "cat with night"),
        (("1", "1"), "Blond_Hair=1, Male=1"),
        (("cat", "0"), "Blond_Hair=cat, Male=0"),
        (("-1.5", "[3, 4)"), "Blond_Hair=-1.5, Male=[3, 4)"),
    ],
)
def test_a_group_name_includes_the_columns_if_the_values_are_numbers(names: tuple[str, str], expected: str) -> None:
    assert CellNames([names[0]], [names[1]], "Blond_Hair", "Male")[0] == expected


def test_the_name_of_a_group_lists_all_its_biases() -> None:
    biases = (BiasSpec("sky", ("day", "night"), (0, 0, 1)), BiasSpec("Male", ("0", "1"), (0, 1, 1)))
    names = CellNames(["cat", "dog"], ["day, 0", "day, 1", "night, 1"], "species", "sky, Male", biases)
    assert names[4] == "species=dog, sky=day, Male=1"
    many_biases = tuple(BiasSpec(f"b{k}", ("0", "1"), (0, 1)) for k in range(40))
    assert CellNames(["cat"], ["", ""], "species", "", many_biases)[1] == (
        "species=cat, b0=1, b1=1, b2=1, b3=1, b4=1 and 35 more"
    )
    assert (bias_name("sky, Male", biases), bias_name("long", many_biases)) == ("sky, Male", "combination of 40 biases")


def test_long_lists_and_long_names_are_shortened() -> None:
    assert join_names(["a", "b"]) == "a; b"
    assert join_names(["x" * 200, *"bcdefg"]) == "x" * 149 + "…; b; c; d; e; and 2 more"
