"""Each metric against slow loops and scikit-learn, on random predictions."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from lntl.evaluation import metrics
from lntl.evaluation.predict import Predictions


@st.composite
def predictions(draw: Any) -> Predictions:
    """Random predictions of a few classes and bias values, some of which may not occur."""
    n, classes, values = draw(st.integers(1, 40)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    y = torch.randint(0, classes, (n,), generator=random)
    labels = torch.randint(0, 5, (n,), generator=random)
    return Predictions(
        y=y,
        group=y * values + torch.randint(0, values, (n,), generator=random),
        row=torch.arange(n),
        logits=torch.randn(n, classes, generator=random),
        bias_hits=(labels * torch.rand(n, generator=random)).long(),
        bias_labels=labels,
        num_groups=classes * values,
    )


def of(y: list[int], predicted: list[int], group: list[int], num_groups: int) -> Predictions:
    none = torch.zeros(len(y), dtype=torch.int64)
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), 10).float()
    return Predictions(torch.tensor(y), torch.tensor(group), none, logits, none, none, num_groups)


def group_accuracies(p: Predictions) -> list[float]:
    """Return the accuracy of each group that has an image."""
    found: dict[int, list[bool]] = {}
    for y, group, logits in zip(p.y.tolist(), p.group.tolist(), p.logits.tolist(), strict=True):
        found.setdefault(group, []).append(logits.index(max(logits)) == y)
    return [sum(hits) / len(hits) for hits in found.values()]


def slow_f1(p: Predictions) -> float:
    predicted, y = p.predicted.tolist(), p.y.tolist()
    scores = []
    for each in sorted({*y, *predicted}):
        hits = sum(a == b == each for a, b in zip(y, predicted, strict=True))
        scores.append(2 * hits / (y.count(each) + predicted.count(each)))
    return sum(scores) / len(scores)


@given(predictions())
def test_metrics_against_loops_and_scikit_learn(p: Predictions) -> None:
    y, predicted, groups = p.y.numpy(), p.logits.argmax(dim=1).numpy(), group_accuracies(p)
    expected = {
        "accuracy": sklearn.accuracy_score(y, predicted),
        "unbiased_accuracy": sum(groups) / len(groups),
        "worst_group_accuracy": min(groups),
        "f1_score_macro": slow_f1(p),
        "bias_accuracy": int(p.bias_hits.sum()) / max(1, int(p.bias_labels.sum())),
    }
    assert expected["f1_score_macro"] == pytest.approx(sklearn.f1_score(y, predicted, average="macro", zero_division=0))
    found = metrics.compute(p, list(metrics.METRICS))
    assert found == pytest.approx(expected, abs=1e-9)
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in found.values())
    assert found["worst_group_accuracy"] <= found["unbiased_accuracy"] + 1e-12


@given(predictions())
def test_unbiased_accuracy_of_the_classes_is_the_balanced_accuracy(p: Predictions) -> None:
    """Where the groups are the classes; over the classes that occur."""
    classes = int(p.y.max()) + 1
    by_class = Predictions(p.y, p.y, p.row, p.logits, p.bias_hits, p.bias_labels, classes)
    expected = sklearn.recall_score(p.y, p.predicted, labels=p.y.unique(), average="macro", zero_division=0)
    assert metrics.unbiased_accuracy(by_class) == pytest.approx(expected, abs=1e-9)


def test_a_group_without_an_image_counts_for_nothing() -> None:
    p = of(y=[0, 0, 0, 1], predicted=[0, 0, 3, 1], group=[0, 0, 0, 5], num_groups=9)
    assert metrics.unbiased_accuracy(p) == pytest.approx((2 / 3 + 1) / 2)
    assert metrics.worst_group_accuracy(p) == pytest.approx(2 / 3)
    assert metrics.accuracy(p) == 0.75


def test_f1_counts_a_class_that_is_never_right_as_0() -> None:
    p = of(y=[0, 0, 1], predicted=[0, 0, 2], group=[0, 0, 1], num_groups=2)
    assert metrics.f1_score_macro(p) == pytest.approx((1 + 0 + 0) / 3)


def test_bias_accuracy_without_a_label_is_0() -> None:
    assert metrics.bias_accuracy(of(y=[0], predicted=[0], group=[0], num_groups=1)) == 0


def test_compute_gives_the_metrics_asked_for_in_their_order() -> None:
    p = of(y=[0], predicted=[0], group=[0], num_groups=1)
    assert list(metrics.compute(p, ["worst_group_accuracy", "accuracy"])) == ["worst_group_accuracy", "accuracy"]
