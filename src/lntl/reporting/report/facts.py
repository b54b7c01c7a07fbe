"""Everything that a report says of one run, as plain values: the page, report.json and report.md tell the same."""

import math
from typing import Any

from lntl.evaluation.metrics import METRICS
from lntl.reporting.report import verdict
from lntl.reporting.report.per_bias import estimate, highest, per_bias
from lntl.reporting.report.reading import RunFiles
from lntl.reporting.report.verdict import Measured
from lntl.runs.formats import Estimate, ProbeRow, Row

Facts = dict[str, Any]

LAYERS = {"f": "z, the features", "penultimate": "before the logits", "pixels": "raw pixels"}


def run_facts(files: RunFiles, notes: list[str]) -> Facts:
    """Return the facts of a run; `notes` are what making its missing parts had to say."""
    measured = _measured(files)
    word, sentence = verdict.verdict(measured)
    result, evaluation = files.result, files.evaluation
    return {
        "name": files.path.resolve().name,
        "folder": str(files.path),
        "method": files.method,
        "epoch": evaluation.epoch if evaluation else result.best.epoch if result else None,
        "seed": result.seed if result else None,
        "data": result.data if result else None,
        "bias": measured.bias,
        "question": f"Did the network unlearn the {measured.bias}?"
        if measured.unlearns
        else f"How much does plain training use the {measured.bias}?",
        "verdict": {"word": word, "text": sentence},
        "answers": [vars(answer) for answer in verdict.answers(measured)],
        "key_numbers": _key_numbers(files, measured),
        **_evaluation(files),
        "per_bias": per_bias(files),
        "probe": _probe(files),
        "recoloring": _recoloring(files),
        "phases": [_phase(phase) for phase in files.phases],
        "epochs": _finite(files.records),
        "selection": result.selection if result else None,
        "training_seconds": measured.seconds,
        "config": _finite(files.config),
        "environment": _finite(files.environment),
        "warnings": _warnings(files, notes),
        "missing": _missing(files),
    }


def _phase(phase: Facts) -> str:
    """Return a phase in a line: method, epochs, and its plain settings."""
    settings = {key: value for key, value in phase.items() if key not in ("method", "epochs")}
    told = [f"{key} {value}" for key, value in settings.items() if isinstance(value, str | int | float)]
    epochs = phase.get("epochs")
    head = f"{phase.get('method')}, {epochs} epoch{'' if epochs == 1 else 's'}"
    return f"{head}: {', '.join(told)}" if told else head


def _measured(files: RunFiles) -> Measured:
    """Return what the answers rest on."""
    erm = files.erm
    chance = files.probe and files.probe.chance
    seconds = [each.result.training_seconds if each and each.result else None for each in (files, erm)]
    return Measured(
        bias=_bias(files),
        unlearns=files.method != "erm",
        unbiased=metric(files, "unbiased_accuracy"),
        erm_unbiased=metric(erm, "unbiased_accuracy"),
        aligned=metric(files, "aligned_accuracy"),
        erm_aligned=metric(erm, "aligned_accuracy"),
        conflicting=metric(files, "conflicting_accuracy"),
        flips=files.recoloring.flip_rate if files.recoloring else None,
        erm_flips=files.recoloring.erm.flip_rate if files.recoloring and files.recoloring.erm else None,
        leakage=files.probe.leakage if files.probe else None,
        erm_leakage=_highest(files.probe.reference.erm) if files.probe else None,
        chance=max(chance.majority, chance.permutation) if chance else None,
        n_test=files.probe.n_test if files.probe else None,
        h_accuracy=files.probe.h_accuracy if files.probe else None,
        h_chance=files.probe.h_chance if files.probe else None,
        seconds=seconds[0],
        erm_seconds=seconds[1],
    )


def _bias(files: RunFiles) -> str:
    """Return the word for the bias: colour where it is one, else what the probes predict."""
    data = files.config.get("data")
    told = files.probe.bias if files.probe else ""
    colored = isinstance(data, dict) and data.get("name") == "colored_mnist"
    if files.probe and files.probe.per_bias:
        return f"combination of {told}"
    return "colour" if colored or "colour" in told or "color" in told else told or "bias"


def metric(files: RunFiles | None, name: str) -> Estimate | None:
    """Return a metric of the evaluation; without one, that of result.json, which has no interval."""
    if files is None:
        return None
    if files.evaluation is not None:
        return files.evaluation.metrics.get(name)
    value = files.result.best.test.get(name) if files.result else None
    return Estimate(value=value) if isinstance(value, int | float) and math.isfinite(value) else None


def _highest(rows: list[ProbeRow] | None) -> float | None:
    return max((row.mean for row in rows), default=None) if rows else None


def _key_numbers(files: RunFiles, m: Measured) -> list[dict[str, Any]]:
    """Return the four numbers of the first screen, each with plain training's and, where it has one, chance."""
    rows = files.probe.probes if files.probe else []
    erm_rows = (files.probe.reference.erm if files.probe else None) or []
    numbers = [
        ("unbiased_accuracy", "Unbiased accuracy", f"the mean over groups of class and {m.bias}", "more is better"),
        ("leakage", "Leakage", f"how well a fresh probe reads the {m.bias}", "less is better"),
        ("flip_rate", "Flip rate", f"answers that change with the {m.bias}", "less is better"),
        ("worst_group_accuracy", "Worst group", f"lowest accuracy of a class and {m.bias}", "more is better"),
    ]
    values = {
        "unbiased_accuracy": (m.unbiased, m.erm_unbiased),
        "leakage": (highest(rows), highest(erm_rows)),
        "flip_rate": (m.flips, m.erm_flips),
        "worst_group_accuracy": (metric(files, "worst_group_accuracy"), metric(files.erm, "worst_group_accuracy")),
    }
    return [
        {"name": name, "label": label, "meaning": meaning, "better": better}
        | {"run": estimate(values[name][0]), "erm": estimate(values[name][1])}
        | {"chance": m.chance if name == "leakage" else None}
        for name, label, meaning, better in numbers
    ]


def _evaluation(files: RunFiles) -> Facts:
    """Return the metrics, the tables by class and by bias value, groups and confusion, of the run and of ERM."""
    run, erm = files.evaluation, files.erm.evaluation if files.erm else None
    names = run.metrics if run else dict.fromkeys(files.result.best.test) if files.result else {}
    metrics = [
        {
            "name": name,
            "label": METRICS[name].label if name in METRICS else name.replace("_", " "),
            "meaning": run.metrics[name].meaning if run else "",
            "n": run.metrics[name].n if run else None,
            "run": estimate(metric(files, name)),
            "erm": estimate(metric(files.erm, name)),
        }
        for name in names
    ]
    both = [each for each in (("run", run), ("erm", erm)) if each[1] is not None]
    return {
        "n": run.n if run else None,
        "class_names": run.class_names if run else None,
        "bias_value_names": run.bias_value_names if run else None,
        "metrics": metrics,
        "by_class": _rows(run.by_class, erm.by_class if erm else []) if run else None,
        "by_bias": _rows(run.by_bias, erm.by_bias if erm else []) if run else None,
        "groups": {name: each.groups.model_dump() for name, each in both if each} if run else None,
        "confusion": {name: each.confusion for name, each in both if each} if run else None,
    }


def _rows(run: list[Row], erm: list[Row]) -> list[Facts]:
    beside = {row.name: row for row in erm}
    return [
        {"name": row.name, "n": row.n, "small": row.small}
        | {"run": estimate(row), "erm": estimate(beside.get(row.name))}
        for row in run
    ]


def _probe(files: RunFiles) -> Facts | None:
    if files.probe is None:
        return None
    facts = files.probe.model_dump(exclude={"warnings"})
    return facts | {"layers": {row.layer: LAYERS.get(row.layer, row.layer) for row in _probe_rows(files)}}


def _probe_rows(files: RunFiles) -> list[ProbeRow]:
    assert files.probe is not None
    reference = files.probe.reference
    return [*files.probe.probes, *(reference.erm or []), *reference.pixels]


def _recoloring(files: RunFiles) -> Facts | None:
    recoloring = files.recoloring
    if recoloring is None:
        return None
    changes = {
        name: {"flip_rate": estimate(each.flip_rate), "mean_change": estimate(each.mean_change)} if each else None
        for name, each in (("run", recoloring), ("erm", recoloring.erm))
    }
    return changes | {"n": recoloring.n, "by_color": [color.model_dump() for color in recoloring.by_color]}


def _warnings(files: RunFiles, notes: list[str]) -> list[str]:
    """Return what a reader must know before trusting the numbers, each once."""
    parts = [part.warnings for part in (files.evaluation, files.probe) if part is not None]
    return list(dict.fromkeys([*notes, *files.faults, *(warning for part in parts for warning in part)]))


def _missing(files: RunFiles) -> dict[str, str]:
    """Return the command that makes each part that is not there."""
    run = files.path
    commands = {
        "samples": (files.samples, f"lntl report {run}"),
        "epochs": (files.records, f"lntl train {run}/config.yaml --resume auto"),
        "result": (files.result, f"lntl train {run}/config.yaml --resume auto"),
        "evaluation": (files.evaluation, f"lntl eval {run}"),
        "probe": (files.probe, f"lntl probe {run}"),
        "embedding": (files.embedding, f"lntl probe {run}"),
    }
    if files.probe is None or files.probe.recolorable:
        commands |= {part: (getattr(files, part), f"lntl probe {run}") for part in ("recoloring", "strip")}
    if files.erm is not None:
        commands["erm_evaluation"] = (files.erm.evaluation, f"lntl eval {files.erm.path}")
    return {name: command for name, (part, command) in commands.items() if not part}


def _finite(value: Any) -> Any:
    """Return nested values with null for a number that is none, as JSON has no word for it."""
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | None) else str(value)
