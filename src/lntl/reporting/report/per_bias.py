"""Where the data have several biases: what a report says of each by itself."""

from typing import Any

from lntl.reporting.report.reading import RunFiles
from lntl.runs.formats import BiasSpec, Estimate, Leaks, ProbeRow

METRICS = ("worst_group_accuracy", "unbiased_accuracy")


def per_bias(files: RunFiles) -> list[dict[str, Any]]:
    """Return of each of several biases its leakage, metrics and groups, of the run and of ERM; nothing of one bias."""
    run = files.evaluation.per_bias if files.evaluation else {}
    erm = files.erm.evaluation.per_bias if files.erm and files.erm.evaluation else {}
    probes = files.probe.per_bias if files.probe else {}
    return [_of_one(name, run.get(name), erm.get(name), probes.get(name)) for name in dict.fromkeys([*run, *probes])]


def _of_one(name: str, run: BiasSpec | None, erm: BiasSpec | None, leaks: Leaks | None) -> dict[str, Any]:
    both = {who: one for who, one in (("run", run), ("erm", erm)) if one is not None}
    leakage = (
        {}
        if leaks is None
        else {"run": leaks.probes, "erm": leaks.reference.erm or [], "pixels": leaks.reference.pixels}
    )
    return {
        "name": name,
        "bias_value_names": run.bias_value_names if run else None,
        "chance": max(leaks.chance.majority, leaks.chance.permutation) if leaks else None,
        "leakage": {who: estimate(highest(rows)) for who, rows in leakage.items()},
        "metrics": {
            metric: {who: estimate(one.metrics.get(metric)) for who, one in both.items()} for metric in METRICS
        },
        "groups": {who: one.groups.model_dump() for who, one in both.items()},
    }


def highest(rows: list[ProbeRow]) -> Estimate | None:
    """Return the highest probe accuracy, with the range over its seeds where it has several."""
    if not rows:
        return None
    row = max(rows, key=lambda row: row.mean)
    several = row.values if len(row.values) > 1 else []
    return Estimate(value=row.mean, low=min(several, default=None), high=max(several, default=None))


def estimate(value: Estimate | None) -> dict[str, Any] | None:
    """Return value, low, high and undefined, None where nothing was measured."""
    return None if value is None else {name: getattr(value, name) for name in Estimate.model_fields}
