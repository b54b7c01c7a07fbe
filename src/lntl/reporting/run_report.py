"""Build the content of a report from the files of a run; index.html, report.json and report.md all show it."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lntl.evaluation.metrics import METRICS
from lntl.evaluation.saliency import captum_installed
from lntl.reporting import verdict
from lntl.reporting.run_files import RunFiles
from lntl.reporting.verdict import Measurements, percent
from lntl.runs.formats import (
    BiasEvaluation,
    BiasLeakage,
    BiasReport,
    Changes,
    ComparedMetric,
    ComparedRow,
    ComparedRun,
    Estimate,
    KeyNumber,
    LeakageResult,
    Metric,
    ProbeRow,
    RecoloringReport,
    Row,
    RunAndErm,
    RunComparison,
    RunReport,
)
from lntl.text import shell

_LAYERS = {"f": "z, the features", "penultimate": "before the logits", "pixels": "raw pixels"}
_AUGMENTATION_KEYS = ("rotation", "crop", "flip", "randaugment", "random_colors", "random_invert")
_COMPARED_NUMBERS = ("unbiased_accuracy", "worst_group_accuracy", "leakage", "flip_rate")


def layer_label(layer: str) -> str:
    """Return the display name of a layer, e.g. "raw pixels" for `pixels`."""
    return _LAYERS.get(layer, layer)


def command(name: str, run: Path | str) -> str:
    """Return the command line of `lntl NAME` for a run folder."""
    return f"lntl {name} {shell(run)}"


def groups_note(metric: Metric | ComparedMetric | None) -> str:
    """Return a note for a metric over groups: how many have images, and the lowest; empty for other metrics."""
    if metric is None or not metric.all_cells:
        return ""
    lowest = f", lowest: {metric.lowest}" if metric.lowest else ""
    return f"{metric.cells} of {metric.all_cells} groups have images{lowest}"


def run_report(files: RunFiles, notes: Sequence[str] = ()) -> RunReport:
    """Return the report of a run; `notes` are warnings to add to those of its files."""
    numbers = _collect_measurements(files)
    result, evaluation = files.result, files.evaluation
    erm = files.erm.evaluation if files.erm else None
    return RunReport(
        name=files.path.resolve().name,
        folder=str(files.path),
        method=files.method,
        is_plain=files.is_plain,
        epoch=evaluation.epoch if evaluation else result.best.epoch if result else None,
        seed=result.seed if result else None,
        data=result.data if result else None,
        bias=numbers.bias,
        question=f"How much does plain training use the {numbers.bias}?"
        if numbers.is_plain
        else f"Did the network unlearn the {numbers.bias}?",
        verdict=verdict.verdict(numbers),
        answers=verdict.answers(numbers),
        key_numbers=_make_key_numbers(files, numbers),
        n=evaluation.n if evaluation else None,
        class_names=evaluation.class_names if evaluation else [],
        bias_value_names=evaluation.bias_value_names if evaluation else [],
        metrics=_collect_metrics(files),
        by_class=_compare_rows(evaluation.by_class, erm.by_class if erm else []) if evaluation else [],
        by_bias=_compare_rows(evaluation.by_bias, erm.by_bias if erm else []) if evaluation and files.has_bias else [],
        groups=RunAndErm(run=evaluation and evaluation.groups, erm=erm and erm.groups),
        confusion=RunAndErm(run=evaluation and evaluation.confusion, erm=erm and erm.confusion),
        per_bias=_report_per_bias(files),
        probe=files.probe,
        recoloring=_report_recoloring(files),
        image_shift=files.image_shift,
        saliency=files.saliency,
        phases=[_describe_phase(phase) for phase in files.phases],
        augmentation=_describe_augmentation(files.section("data")),
        epochs=files.epochs,
        selection=result.selection if result else None,
        training_seconds=numbers.seconds,
        config=files.config,
        environment=files.environment,
        warnings=_collect_warnings(files, notes),
        missing=_find_missing_parts(files),
    )


def _describe_phase(phase: dict[str, object]) -> str:
    """Return a phase in one line: method, epochs, and the settings that are strings or numbers."""
    settings = {key: value for key, value in phase.items() if key not in ("method", "epochs")}
    texts = [f"{key} {value}" for key, value in settings.items() if isinstance(value, str | int | float)]
    epochs = phase.get("epochs")
    method = f"{phase.get('method')}, {epochs} epoch{'' if epochs == 1 else 's'}"
    return f"{method}: {', '.join(texts)}" if texts else method


def _describe_augmentation(data: dict[str, object]) -> str:
    """Return the settings that change training images at random, from the section `data`."""
    values = {name: data.get(name) for name in _AUGMENTATION_KEYS}
    set_values = {key: value for key, value in values.items() if value not in (None, 0, "none")}
    return ", ".join(key if value is True else f"{key} {value}" for key, value in set_values.items())


def _collect_measurements(files: RunFiles) -> Measurements:
    """Return the numbers on which the verdict and the answers depend."""
    erm, probe, recoloring = files.erm, files.probe, files.recoloring
    erm_leakage = _find_highest(probe.reference.erm or []) if probe else None
    return Measurements(
        bias=_name_bias(files),
        is_plain=files.is_plain,
        unbiased=_get_metric(files, "unbiased_accuracy"),
        erm_unbiased=_get_metric(erm, "unbiased_accuracy"),
        aligned=_get_metric(files, "aligned_accuracy"),
        erm_aligned=_get_metric(erm, "aligned_accuracy"),
        conflicting=_get_metric(files, "conflicting_accuracy"),
        flips=recoloring.flip_rate if recoloring else None,
        erm_flips=recoloring.erm.flip_rate if recoloring and recoloring.erm else None,
        shifts=tuple(verdict.shift_sentences(files.image_shift)),
        leakage=probe.leakage if probe else None,
        erm_leakage=erm_leakage.value if erm_leakage else None,
        chance=_get_chance(probe),
        n_test=probe.n_test if probe else None,
        h_accuracy=probe.h_accuracy if probe else None,
        h_chance=probe.h_chance if probe else None,
        seconds=files.result.training_seconds if files.result else None,
        erm_seconds=erm.result.training_seconds if erm and erm.result else None,
    )


def _name_bias(files: RunFiles) -> str:
    """Return the name of the bias: that in probe.json, otherwise its column; "color" for Colored MNIST."""
    data = files.section("data")
    if data.get("name") == "colored_mnist":
        return "color"
    column = data.get("bias")
    kind = files.probe.bias if files.probe else column if isinstance(column, str) else "bias"
    is_combination = files.probe is not None and bool(files.probe.per_bias) and "combination" not in kind
    return f"combination of {kind}" if is_combination else kind


def _get_metric(files: RunFiles | None, name: str) -> Estimate | None:
    """Return a metric from the evaluation, otherwise from result.json, which has no intervals."""
    if files is None:
        return None
    if files.evaluation is not None:
        return files.evaluation.metrics.get(name)
    value = files.result.best.test.get(name) if files.result else None
    return Estimate(value=value) if isinstance(value, int | float) and math.isfinite(value) else None


def _find_highest(rows: list[ProbeRow]) -> Estimate | None:
    """Return the highest probe accuracy, with the range over its seeds if it has several."""
    if not rows:
        return None
    row = max(rows, key=lambda row: row.mean)
    seed_values = row.values if len(row.values) > 1 else []
    return Estimate(value=row.mean, low=min(seed_values, default=None), high=max(seed_values, default=None))


def _get_chance(result: LeakageResult | None) -> float | None:
    return None if result is None else max(result.chance.majority, result.chance.permutation)


def _make_key_numbers(files: RunFiles, m: Measurements) -> list[KeyNumber]:
    """Return the four numbers at the top of a report."""
    probe, missing = files.probe, None if files.has_bias else Estimate(undefined="no test image has a bias label")
    no_recoloring = None
    if probe and not probe.recolorable:
        no_recoloring = Estimate(undefined=f"these images cannot be given another {m.bias}")
    metrics = files.evaluation.metrics if files.evaluation else {}

    def make_group_number(name: str, label: str, meaning: str) -> KeyNumber:
        groups = groups_note(metrics.get(name))
        return KeyNumber(
            name=name,
            label=label,
            meaning=f"{meaning}; {groups}" if groups else meaning,
            better="more is better",
            run=_get_metric(files, name),
            erm=_get_metric(files.erm, name),
        )

    return [
        make_group_number("unbiased_accuracy", "Unbiased accuracy", f"the mean over groups of class and {m.bias}"),
        KeyNumber(
            name="leakage",
            label="Leakage",
            meaning=f"accuracy of a fresh probe for the {m.bias}",
            better="less is better",
            run=_find_highest(probe.probes) if probe else missing,
            erm=_find_highest(probe.reference.erm or []) if probe else None,
            chance=m.chance,
        ),
        KeyNumber(
            name="flip_rate",
            label="Flip rate",
            meaning=f"share of predictions that change if only the {m.bias} changes",
            better="less is better",
            run=m.flips or missing or no_recoloring,
            erm=m.erm_flips,
        ),
        make_group_number("worst_group_accuracy", "Worst group", f"lowest accuracy of a group of class and {m.bias}"),
    ]


def _collect_metrics(files: RunFiles) -> list[ComparedMetric]:
    """Return the metrics of the run and of its ERM run from their evaluations, otherwise from result.json."""
    metrics = files.evaluation.metrics if files.evaluation else {}
    names = metrics or (files.result.best.test if files.result else {})
    return [
        ComparedMetric(
            name=name,
            label=METRICS[name].label if name in METRICS else name.replace("_", " "),
            meaning=metrics[name].meaning if metrics else "",
            n=metrics[name].n if metrics else None,
            cells=metrics[name].cells if metrics else None,
            all_cells=metrics[name].all_cells if metrics else None,
            lowest=metrics[name].lowest if metrics else None,
            run=_get_metric(files, name),
            erm=_get_metric(files.erm, name),
        )
        for name in names
    ]


def _compare_rows(run: list[Row], erm: list[Row]) -> list[ComparedRow]:
    erm_rows = {row.name: row for row in erm}
    return [ComparedRow(name=row.name, n=row.n, small=row.small, run=row, erm=erm_rows.get(row.name)) for row in run]


def _report_per_bias(files: RunFiles) -> list[BiasReport]:
    """Return a report for each bias; empty if the data have only one."""
    run = files.evaluation.per_bias if files.evaluation else {}
    erm = files.erm.evaluation.per_bias if files.erm and files.erm.evaluation else {}
    probes = files.probe.per_bias if files.probe else {}
    return [_make_bias_report(name, run.get(name), erm.get(name), probes.get(name)) for name in {**run, **probes}]


def _make_bias_report(
    name: str, run: BiasEvaluation | None, erm: BiasEvaluation | None, result: LeakageResult | None
) -> BiasReport:
    leakage = BiasLeakage()
    if result is not None:
        reference = result.reference
        leakage = BiasLeakage(
            run=_find_highest(result.probes),
            erm=_find_highest(reference.erm or []),
            pixels=_find_highest(reference.pixels),
        )
    return BiasReport(
        name=name,
        bias_value_names=run.bias_value_names if run else None,
        chance=_get_chance(result),
        leakage=leakage,
        metrics={
            metric: RunAndErm(run=run and run.metrics.get(metric), erm=erm and erm.metrics.get(metric))
            for metric in ("worst_group_accuracy", "unbiased_accuracy")
        },
        groups=RunAndErm(run=run and run.groups, erm=erm and erm.groups),
    )


def _report_recoloring(files: RunFiles) -> RecoloringReport | None:
    if files.recoloring is None:
        return None
    run = Changes(flip_rate=files.recoloring.flip_rate, mean_change=files.recoloring.mean_change)
    return RecoloringReport(run=run, erm=files.recoloring.erm, n=files.recoloring.n, by_color=files.recoloring.by_color)


def _collect_warnings(files: RunFiles, notes: Sequence[str]) -> list[str]:
    """Return the warnings about the numbers, without duplicates."""
    measurements = [part.warnings for part in (files.evaluation, files.probe) if part is not None]
    return list(dict.fromkeys([*notes, *files.warnings, *(text for warnings in measurements for text in warnings)]))


def _find_missing_parts(files: RunFiles) -> dict[str, str]:
    """Return, for each missing part of the report, the command that creates it."""
    train = f"lntl train {shell(files.path / 'config.yaml')} --resume auto"
    probe, evaluate = command("probe", files.path), command("eval", files.path)
    commands: dict[str, tuple[object, str]] = {
        "samples": (files.samples, command("report", files.path)),
        "epochs": (files.epochs, train),
        "result": (files.result, train),
        "evaluation": (files.evaluation, evaluate),
        "saliency": (files.saliency and files.saliency_maps, _make_saliency_command(files.path)),
    }
    if files.has_bias:
        commands |= {"probe": (files.probe, probe), "embedding": (files.embedding, probe)}
    if files.has_bias and (files.probe is None or files.probe.recolorable):
        commands |= {"recoloring": (files.recoloring, probe), "strip": (files.strip, probe)}
    if files.erm is not None:
        commands["erm_evaluation"] = (files.erm.evaluation, command("eval", files.erm.path))
    return {name: text for name, (part, text) in commands.items() if not part}


def _make_saliency_command(path: Path) -> str:
    report = command("report", path)
    return report if captum_installed() else f"pip install 'lntl[explain]' && {report}"


def compare_runs(runs: Sequence[RunReport]) -> RunComparison:
    """Return a comparison with a row for each run and each ERM run, and with a summary sentence."""
    count = Counter(run.name for run in runs)
    rows: list[ComparedRun] = []
    for run in runs:
        name = run.name if count[run.name] == 1 else run.folder
        numbers = {number.name: number for number in run.key_numbers}
        chance = numbers["leakage"].chance
        rows.append(
            ComparedRun(
                name=name,
                method=run.method,
                verdict=run.verdict.word,
                seed=run.seed,
                chance=chance,
                **{key: numbers[key].run for key in _COMPARED_NUMBERS},
            )
        )
        erm_numbers = {key: numbers[key].erm for key in _COMPARED_NUMBERS}
        erm = ComparedRun(name=f"ERM of {name}", method="erm", seed=run.seed, chance=chance, **erm_numbers)
        if any(erm_numbers.values()) and not any(_have_same_numbers(erm, row) for row in rows):
            rows.append(erm)
    test_sets = {(run.n, *run.class_names, "", *run.bias_value_names) for run in runs if run.n is not None}
    note = "The runs were evaluated on different test sets, so their numbers cannot be compared. "
    return RunComparison(
        question="Which run has the least leakage, and which is the most accurate?",
        answer=(note if len(test_sets) > 1 else "") + _summarise(rows),
        rows=rows,
    )


def _have_same_numbers(first: ComparedRun, second: ComparedRun) -> bool:
    names = {"method", *_COMPARED_NUMBERS}
    return first.model_dump(include=names) == second.model_dump(include=names)


def _summarise(rows: list[ComparedRun]) -> str:
    accuracies = {row.name: row.unbiased_accuracy.value for row in rows if row.unbiased_accuracy}
    leakages = {row.name: row.leakage.value for row in rows if row.leakage}
    texts = []
    for text, values, best in (
        ("Highest unbiased accuracy", accuracies, max),
        ("Least leakage", leakages, min),
    ):
        known = {name: value for name, value in values.items() if value is not None}
        if known:
            name = best(known, key=lambda name: known[name])
            texts.append(f"{text}: {name} ({percent(known[name])}).")
    return " ".join(texts) or "Neither accuracy nor leakage was measured yet."
