"""Metrics: pure functions of predictions, each in [0, 1]."""

from collections.abc import Callable, Sequence

from lntl.evaluation.predict import Predictions
from lntl.ops import group_mean


def accuracy(p: Predictions) -> float:
    """Return the share of right predictions."""
    return float(p.correct.double().mean())


def unbiased_accuracy(p: Predictions) -> float:
    """Return the mean of the accuracies of the groups that have an image."""
    return float(group_mean(p.correct, p.group, p.num_groups)[0].nanmean())


def worst_group_accuracy(p: Predictions) -> float:
    """Return the lowest accuracy among the groups that have an image."""
    means, count = group_mean(p.correct, p.group, p.num_groups)
    return float(means[count > 0].min())


def f1_score_macro(p: Predictions) -> float:
    """Return the unweighted mean of the classes' F1 scores (scikit-learn; a class without a prediction counts 0)."""
    from sklearn.metrics import f1_score  # here, for it is slow to import

    return float(f1_score(p.y.numpy(), p.predicted.numpy(), average="macro", zero_division=0.0))


def bias_accuracy(p: Predictions) -> float:
    """Return h's accuracy over the known bias labels (chance is the share of the most frequent value)."""
    return int(p.bias_hits.sum()) / max(1, int(p.bias_labels.sum()))


METRICS: dict[str, Callable[[Predictions], float]] = {
    metric.__name__: metric
    for metric in (accuracy, unbiased_accuracy, worst_group_accuracy, f1_score_macro, bias_accuracy)
}


def compute(p: Predictions, names: Sequence[str]) -> dict[str, float]:
    """Return the named metrics of the predictions."""
    return {name: METRICS[name](p) for name in names}
