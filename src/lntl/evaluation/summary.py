"""Summarise the predictions on a split: all metrics with intervals, reasons if undefined, and warnings."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lntl.evaluation.metrics import (
    MAX_DENSE_GROUPS,
    METRICS,
    Array,
    CellNames,
    Metric,
    Tally,
    bias_value_accuracy,
    class_accuracy,
    format_count,
    group_accuracy,
    join_names,
)
from lntl.evaluation.predict import Predictions
from lntl.evaluation.tally import confusion, interval, resample, tally
from lntl.runs import formats
from lntl.runs.formats import Groups, Row, Summary
from lntl.types import BiasSpec

# An accuracy from fewer images is marked: a rule of thumb, its 95 % interval is then wider than +-0.1.
SMALL_GROUP_SIZE = 30

_STATISTICS = {name: metric.function for name, metric in METRICS.items()} | {
    "by_class": class_accuracy,
    "by_bias": bias_value_accuracy,
}


def summarise(
    p: Predictions,
    class_names: Sequence[str],
    bias_value_names: Sequence[str],
    label: str = "class",
    bias: str = "bias value",
    biases: Sequence[BiasSpec] = (),
) -> Summary:
    """Return all metrics, accuracy by class and by bias value, groups, confusion matrix, and warnings.

    Args:
        p: Predictions on a split.
        class_names: Name of each class.
        bias_value_names: Name of each bias value.
        label: Name of the property that the classes describe, for the names of groups.
        bias: Name of the property that the bias values describe, for the names of groups.
        biases: The biases whose combinations are the bias values, if there are several.

    Returns:
        Values in [0, 1], each with its number of images n and its bootstrap interval. An undefined value is None and
        has a reason.
    """
    names = CellNames(class_names, bias_value_names, label, bias, biases)
    t, samples = tally(p), resample(p, _STATISTICS)
    metrics = {name: _make_metric(metric, t, samples[name], names) for name, metric in METRICS.items()}
    return Summary(
        n=len(p.y),
        class_names=list(class_names),
        bias_value_names=list(bias_value_names),
        metrics=metrics,
        by_class=_rows("class", class_names, class_accuracy(t)[0], t.labelled[0], samples["by_class"]),
        by_bias=_rows("bias value", bias_value_names, bias_value_accuracy(t)[0], t.value_count[0], samples["by_bias"]),
        groups=_groups(t),
        confusion=confusion(p).tolist() if p.num_classes**2 <= MAX_DENSE_GROUPS else [],
        warnings=list(_warnings(t, metrics, names)),
    )


def _make_metric(metric: Metric, t: Tally, samples: Array, names: CellNames) -> formats.Metric:
    value = float(metric.function(t)[0])
    reason = metric.undefined(t, names) if np.isnan(value) else None
    entry = formats.Metric(**_estimate(value, samples, reason), n=metric.images(t), meaning=metric.meaning)
    if metric.over_groups:
        entry.cells, entry.all_cells = int((t.count[0] > 0).sum()), len(t.groups)
    if metric.name == "worst_group_accuracy" and reason is None:
        worst = np.flatnonzero(group_accuracy(t)[0] == value)
        smallest = worst[t.count[0][worst].argmin()]  # of several groups with this accuracy
        entry.lowest = f"{names[t.cells[smallest]]}, {format_count(int(t.count[0][smallest]), 'image')}"
    return entry


def _estimate(value: float, samples: Array, reason: str | None) -> dict[str, Any]:
    """Return the fields of an estimate; `reason` says why it is undefined, None if it is defined."""
    if reason is not None:
        return {"value": None, "low": None, "high": None, "undefined": reason}
    low, high = interval(samples)
    return {"value": value, "low": low, "high": high, "undefined": None}


def _rows(kind: str, names: Sequence[str], values: Array, count: Array, samples: Array) -> list[Row]:
    """Return a row for each class or bias value; samples (R, len(names))."""
    return [
        Row(
            **_estimate(float(value), column, f"no image of this {kind}" if np.isnan(value) else None),
            name=name,
            n=int(n),
            small=bool(n < SMALL_GROUP_SIZE),
        )
        for name, value, n, column in zip(names, values, count, samples.T, strict=True)
    ]


def _groups(t: Tally) -> Groups:
    """Return the accuracy and the number of images of every group; empty lists if there are too many groups."""
    shape = (t.labelled.shape[1], t.num_values)
    if np.prod(shape) > MAX_DENSE_GROUPS:
        return Groups(accuracy=[], count=[])
    accuracy, count = np.full(shape, np.nan), np.zeros(shape, dtype=np.int64)
    accuracy[t.cell_class, t.cell_value] = group_accuracy(t)[0]
    count[t.cell_class, t.cell_value] = t.count[0]
    return Groups(
        accuracy=[[None if np.isnan(value) else float(value) for value in row] for row in accuracy],
        count=count.tolist(),
    )


def _warnings(t: Tally, metrics: dict[str, formats.Metric], names: CellNames) -> Iterator[str]:
    """Yield warnings about reasons why the numbers may be misleading."""
    yield from _missing_warnings("classes", names.classes, t.labelled[0])
    unknown = int(t.total[0] - t.count[0].sum())
    if unknown == t.total[0]:
        yield "no image has a known bias value: metrics by group are undefined"
    else:
        yield from _missing_warnings("bias values", names.values, t.value_count[0])
        yield from _group_warnings(t, names)
    if 0 < unknown < t.total[0]:
        yield f"{unknown} of {int(t.total[0])} images have no known bias value: metrics by group leave them out"
    if (t.predicted[0] > 0).sum() == 1:
        name = names.classes[int(t.predicted[0].argmax())]
        yield f"every image is predicted as {name}: constant predictions have no gap between bias values"
    for name, row in metrics.items():
        if row.value is None or row.low is None or row.high is None:
            continue
        if not row.low <= row.value <= row.high:
            yield (
                f"{METRICS[name].label}: its value lies outside its interval, because resampling makes extremes and "
                "distances larger; only the width of the interval is meaningful"
            )


def _missing_warnings(kind: str, names: Sequence[str], count: Array) -> Iterator[str]:
    missing = [name for name, n in zip(names, count, strict=True) if n == 0]
    if missing:
        yield f"{len(missing)} of {len(names)} {kind} have no image: {join_names(missing)}"


def _group_warnings(t: Tally, names: CellNames) -> Iterator[str]:
    cells, count = t.cells[t.count[0] > 0], t.count[0][t.count[0] > 0]
    num_groups = t.labelled.shape[1] * t.num_values
    absent_groups = np.setdiff1d(t.groups, cells)
    if len(absent_groups):
        yield (
            f"{len(absent_groups)} of the {len(t.groups)} groups (class and bias value) that occur in the data "
            "have no image "
            f"here: {join_names([names[cell] for cell in absent_groups])}; worst-group and unbiased accuracy "
            "leave them out"
        )
    elif num_groups > len(cells):
        yield (
            f"{num_groups - len(cells)} of {num_groups} groups (class and bias value) have no image: worst-group "
            "and unbiased accuracy leave them out"
        )
    is_small = count < SMALL_GROUP_SIZE
    if is_small.any():
        smallest = int(count.argmin())
        yield (
            f"{is_small.sum()} of {num_groups} groups have fewer than {SMALL_GROUP_SIZE} images (the smallest: "
            f"{names[cells[smallest]]}, {format_count(int(count[smallest]), 'image')}): the accuracies of these groups "
            "are uncertain"
        )
