"""Summary: everything that is told of the predictions on a split, as plain values without a NaN, ready for JSON."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lntl.evaluation import metrics
from lntl.evaluation.bootstrap import interval, resample
from lntl.evaluation.metrics import METRICS, Array, Metric, Tally
from lntl.evaluation.predict import Predictions
from lntl.evaluation.tally import tally

SMALL = 30  # images below which an accuracy is flagged: a rule of thumb, its 95 % interval is then wider than +-0.1

Row = dict[str, Any]  # value, low, high, n, undefined (the reason, else None)

_STATISTICS = {name: metric.function for name, metric in METRICS.items()} | {
    "by_class": metrics.class_accuracy,
    "by_bias": metrics.bias_value_accuracy,
}


def summarise(p: Predictions, class_names: Sequence[str], bias_value_names: Sequence[str]) -> dict[str, Any]:
    """Return n, names, all metrics, accuracy by class and by bias value, groups, confusion matrix, and warnings.

    Each value has its n, the images that it rests on, and its bootstrap interval (None, and why, where undefined).
    """
    t, samples = tally(p), resample(p, _STATISTICS)
    told = {name: _metric(metric, t, samples[name]) for name, metric in METRICS.items()}
    count, classes = t.count[0], t.confusion[0].sum(axis=1)
    return {
        "n": len(p.y),
        "class_names": list(class_names),
        "bias_value_names": list(bias_value_names),
        "metrics": told,
        "by_class": _rows("class", class_names, metrics.class_accuracy(t)[0], classes, samples["by_class"]),
        "by_bias": _rows(
            "bias value", bias_value_names, metrics.bias_value_accuracy(t)[0], count.sum(0), samples["by_bias"]
        ),
        "groups": {
            "accuracy": [[_number(value) for value in row] for row in metrics.group_accuracy(t)[0]],
            "count": count.astype(int).tolist(),
        },
        "confusion": t.confusion[0].astype(int).tolist(),
        "warnings": list(_warnings(t, told, class_names, bias_value_names)),
    }


def _metric(metric: Metric, t: Tally, samples: Array) -> Row:
    value = metric.function(t)[0]
    why = metric.undefined(t) if np.isnan(value) else None
    return _row(value, samples, metric.images(t), why) | {"meaning": metric.meaning}


def _row(value: float, samples: Array, n: int, why_undefined: str | None) -> Row:
    if np.isnan(value):
        return {"value": None, "low": None, "high": None, "n": n, "undefined": why_undefined}
    low, high = interval(samples)
    return {"value": float(value), "low": low, "high": high, "n": n, "undefined": None}


def _rows(what: str, names: Sequence[str], values: Array, count: Array, samples: Array) -> list[Row]:
    """Return a row for each class or bias value; samples (R, len(names))."""
    return [
        {"name": name, "small": bool(n < SMALL)} | _row(value, column, int(n), f"no image of this {what}")
        for name, value, n, column in zip(names, values, count, samples.T, strict=True)
    ]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _warnings(
    t: Tally, told: dict[str, Row], class_names: Sequence[str], bias_value_names: Sequence[str]
) -> Iterator[str]:
    """Yield a sentence for each thing without which the numbers mislead."""
    count = t.count[0]
    yield from _missing("classes", class_names, t.confusion[0].sum(axis=1))
    yield from _missing("bias values", bias_value_names, count.sum(axis=0))
    yield from _thin_groups(count, class_names, bias_value_names)
    if unknown := int(t.unknown.sum()):
        yield f"{unknown} of {int(t.total[0])} images have no known bias value: what is said of groups leaves them out"
    predicted = t.confusion[0].sum(axis=0)
    if (predicted > 0).sum() == 1:
        name = class_names[int(predicted.argmax())]
        yield f"every image is predicted as {name}: a constant answer has no gap, whatever it owes to the bias"
    for name, row in told.items():
        if row["value"] is not None and not row["low"] <= row["value"] <= row["high"]:
            yield (
                f"{name.replace('_', ' ')}: its value lies outside its interval, for it takes extremes or distances, "
                "which chance makes larger in a resample; read the interval as a width"
            )


def _missing(what: str, names: Sequence[str], count: Array) -> Iterator[str]:
    missing = [name for name, n in zip(names, count, strict=True) if n == 0]
    if missing:
        yield f"{len(missing)} of {len(names)} {what} have no image: {', '.join(missing)}"


def _thin_groups(
    count: NDArray[np.float64], class_names: Sequence[str], bias_value_names: Sequence[str]
) -> Iterator[str]:
    empty, small = (count == 0).sum(), ((count > 0) & (count < SMALL)).sum()
    if empty:
        yield f"{empty} of {count.size} groups (class and bias value) have no image: means over groups leave them out"
    if small:
        smallest = int(np.where(count > 0, count, np.inf).argmin())
        label, value = divmod(smallest, len(bias_value_names))
        name = f"{class_names[label]} with {bias_value_names[value]}"
        yield (
            f"{small} of {count.size} groups have fewer than {SMALL} images, {name} only {int(count.flat[smallest])}: "
            "what is said of single groups is uncertain"
        )
