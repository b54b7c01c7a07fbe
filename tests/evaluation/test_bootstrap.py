"""Bootstrap samples equal metrics of resampled images, and the intervals contain the true value often enough."""

from time import process_time

import numpy as np
import pytest
import torch
from predictions import make_random_predictions
from sklearn.metrics import accuracy_score, f1_score

from lntl.evaluation import metrics
from lntl.evaluation.predict import Predictions
from lntl.evaluation.summary import summarise
from lntl.evaluation.tally import RESAMPLES, SEED, compute, interval, resample


def select_images(p: Predictions, index: torch.Tensor) -> Predictions:
    """Return the predictions of the images at `index`, which may repeat images."""
    columns = (column[index] for column in (p.y, p.group, p.row, p.logits, p.bias_hits, p.bias_labels))
    return Predictions(*columns, p.num_groups, p.aligned)


def test_samples_equal_a_loop_over_images() -> None:
    """A sample is n images drawn with replacement; its metrics equal the metrics of these images."""
    p, rng = make_random_predictions(60, 3, 2, seed=1, skill=1.0), np.random.default_rng(SEED)
    statistics = resample(p, {name: metric.function for name, metric in metrics.METRICS.items()})
    assert all(values.shape == (RESAMPLES,) for values in statistics.values())
    for sample in range(60):  # more samples than are counted in one batch
        images = select_images(p, torch.from_numpy(rng.integers(60, size=60)))
        expected = compute(images, list(metrics.METRICS))
        for name, value in expected.items():
            assert statistics[name][sample] == pytest.approx(
                np.nan if value is None else value, abs=1e-9, nan_ok=True
            ), name
        y, predicted = images.y.tolist(), images.predicted.tolist()
        assert statistics["accuracy"][sample] == pytest.approx(accuracy_score(y, predicted), abs=1e-9)
        f1 = f1_score(y, predicted, average="macro", zero_division=0)
        assert statistics["f1_score_macro"][sample] == pytest.approx(f1, abs=1e-9)


def test_the_interval_goes_from_the_2_5th_to_the_97_5th_percentile() -> None:
    values = np.random.default_rng(0).permutation(np.arange(1001.0))
    assert interval(values) == pytest.approx((25.0, 975.0))


def test_samples_without_a_value_are_left_out() -> None:
    assert interval(np.array([np.nan, 1.0, np.nan, 1.0])) == (1.0, 1.0)
    assert interval(np.array([np.nan, np.nan])) == (None, None)


def test_the_interval_of_accuracy_has_the_binomial_standard_deviation() -> None:
    p = make_random_predictions(1000, 5, 2, seed=2, skill=2.0)
    (values,) = resample(p, {"accuracy": metrics.accuracy}).values()
    accuracy = float(p.correct.double().mean())
    assert values.std() == pytest.approx((accuracy * (1 - accuracy) / 1000) ** 0.5, rel=0.1)
    low, high = interval(values)
    assert low is not None
    assert high is not None
    assert low < accuracy < high


@pytest.mark.full
def test_the_interval_contains_the_true_value_in_most_test_sets() -> None:
    """For 40 test sets of a network with accuracy 0.7, at least 33 intervals contain 0.7 (with probability > 0.99)."""
    rng, hits = torch.Generator().manual_seed(0), 0
    for _ in range(40):
        is_correct = torch.rand(200, generator=rng) < 0.7
        y = torch.zeros(200, dtype=torch.int64)
        logits = torch.nn.functional.one_hot((~is_correct).long(), 2).float()
        p = Predictions(y, y, y, logits, y, y, 2)
        low, high = interval(resample(p, {"accuracy": metrics.accuracy})["accuracy"])
        hits += low is not None and high is not None and low <= 0.7 <= high
    assert hits >= 33


def test_the_same_predictions_give_the_same_intervals() -> None:
    p = make_random_predictions(50, 3, 2, seed=3)
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    first_summary = summarise(p, "abc", "uv")
    torch.manual_seed(2)
    np.random.seed(2)  # noqa: NPY002
    assert summarise(p, "abc", "uv") == first_summary


def test_a_summary_of_10_000_images_takes_less_than_10_seconds() -> None:
    """With 10 classes and 10 bias values it takes about 1 s on one core; the limit allows for a busy machine."""
    p = make_random_predictions(10_000, 10, 10, seed=0, skill=3.0)
    start = process_time()
    summarise(p, "0123456789", "abcdefghij")
    assert process_time() - start < 10
