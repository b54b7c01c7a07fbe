"""Score the runs of a plan by one column of their table, even if they were trained with another bias.

    python benchmarks/real/sets.py benchmarks/real/dogs_and_cats/plan.yaml color [--probe]

A run that was trained with bins of brightness has other groups. This script compares all runs of a plan on the groups
of one column: accuracy on the test images whose column value agrees with the label as in the training set (`own`),
accuracy on the other test images (`other`), the accuracy of each group, and the mean and the lowest of these.
Differences from plain training are differences of means over seeds. The 95 % intervals of differences and groups come
from a bootstrap over images within each group, with the same images for both methods. --probe measures how well new
probes predict the column from z and from the layer before the logits, on 3,000 test images.

Writes three files into the folder of the plan: hits.npz (which test images each run classified correctly, as bits in
the order of the table, so that the runs may be removed), sets.json and sets.md. A row of sets.json stays as it is if
neither the folders of its runs nor their bits exist.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lntl import data as datasets
from lntl.benchmark import plan as plans
from lntl.benchmark import results
from lntl.benchmark.plan import PlannedRun
from lntl.cli.train import keep_freed_memory
from lntl.data.labels import find_aligned_values
from lntl.experiment.checkpoints import load_networks, open_checkpoint
from lntl.probing.features import default_layers, features
from lntl.probing.probes import Halves, probe_layer
from lntl.runs.files import write_atomic, write_json, write_text
from lntl.runs.folder import RunFolder
from lntl.seeding import permutation

RESAMPLES, MAX_PROBE_IMAGES, BATCH = 2000, 3000, 250
PLAIN = "erm"  # the method with which the others are compared


@dataclass(frozen=True)
class Groups:
    """The n test images of a run.

    Attributes:
        row: Rows of the table (n,).
        cell: Groups, by label and column (n,): indices of `names`.
        conflicting: Whether the value in the column disagrees with the label (n,); None if this is undefined.
        names: Names of the groups.
        y: Labels (n,).
        value: Indices of the values in the column (n,).
    """

    row: NDArray[np.int64]
    cell: NDArray[np.int64]
    conflicting: NDArray[np.bool_] | None
    names: list[str]
    y: NDArray[np.int64]
    value: NDArray[np.int64]


def read_groups(run: PlannedRun, column: str) -> Groups:
    """Return the groups of the test images of a run, by its label and the column; no image is opened."""
    settings = run.config.data.model_dump(exclude_unset=True) | {"bias": column, "check": "none"}
    data = datasets.load(run.config.data.name, type(run.config.data).model_validate(settings))
    train, test = data.splits["train"], data.splits["test"]
    spec, num_values = data.spec, data.spec.num_bias_values
    aligned_value = find_aligned_values(
        train.y, train.bias_labels(torch.arange(len(train))), spec.num_classes, num_values
    )
    y, value = test.y.numpy(), test.bias_labels(torch.arange(len(test))).numpy()
    names = [f"{label}, {bias}" for label in spec.class_names for bias in spec.bias_value_names]
    conflicting = np.asarray(aligned_value)[y] != value if aligned_value else None
    return Groups(test.row.numpy(), y * num_values + value, conflicting, names, y, value)


def read_hits(folder: RunFolder, split: Groups) -> NDArray[np.bool_]:
    """Return which of the test images the last checkpoint of a run classified correctly."""
    with np.load(folder.evaluation_of(folder.last).with_suffix(".npz")) as saved:
        hits = dict(
            zip(saved["row"].tolist(), (saved["probabilities"].argmax(axis=1) == saved["y"]).tolist(), strict=True)
        )
    return np.array([hits[row] for row in split.row.tolist()], dtype=np.bool_)


def group_accuracy(split: Groups, is_correct: NDArray[np.bool_], weight: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the accuracy of each group that has images, in the order of `names`; arguments as in compute_scores."""
    hits, count = (np.bincount(split.cell, weight * w, len(split.names)) for w in (is_correct, np.ones(len(weight))))
    accuracy: NDArray[np.float64] = hits[count > 0] / count[count > 0]
    return accuracy


def compute_scores(split: Groups, is_correct: NDArray[np.bool_], weight: NDArray[np.int64]) -> dict[str, float]:
    """Return accuracies on the sets and groups.

    is_correct (n,): whether each image is classified correctly. weight (n,): how often each image counts.
    """
    accuracies = group_accuracy(split, is_correct, weight)
    result = {"unbiased": float(accuracies.mean()), "worst": float(accuracies.min())}
    result["all"] = float((weight * is_correct).sum() / weight.sum())
    if split.conflicting is not None:
        for name, part in (("own", ~split.conflicting), ("other", split.conflicting)):
            result[name] = float((weight * is_correct)[part].sum() / weight[part].sum())
    return result


def resample_weights(split: Groups, seed: int) -> NDArray[np.int64]:
    """Return how often each image counts in a resample within groups; equal for runs with the same test images."""
    generator, weight = np.random.default_rng(seed), np.zeros(len(split.row), dtype=np.int64)
    for cell in np.unique(split.cell):
        (index,) = np.nonzero(split.cell == cell)
        weight[index] = np.bincount(generator.integers(0, len(index), len(index)), minlength=len(index))
    return weight


def measure_leakage(path: Path, split: Groups) -> dict[str, float]:
    """Return the highest accuracy of new probes for the column at each layer, and that of a constant prediction."""
    experiment, saved = open_checkpoint(path)
    networks = load_networks(experiment, saved, path)
    sample = permutation(len(split.row), 0)[:MAX_PROBE_IMAGES].sort().values
    y, bias = torch.from_numpy(split.y)[sample], torch.from_numpy(split.value)[sample]
    halves = Halves(y, bias, (0, 1, 2))
    test = experiment.data.splits["test"]
    assert test.row.cpu().tolist() == split.row.tolist()
    accuracies = {"chance": halves.majority}
    for layer in default_layers(networks):
        z = features(networks, (test.batch(index).x for index in sample.split(BATCH)), layer)
        accuracies[layer] = max(row.mean for row in probe_layer(layer, z, halves, torch.device("cpu")))
    return accuracies


def main() -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("column")
    parser.add_argument("--probe", action="store_true")
    options = parser.parse_args()
    keep_freed_memory()
    plan = plans.read(options.plan)
    plan_folder, hits_file = options.plan.parent, options.plan.parent / "hits.npz"
    packed_hits: dict[str, Any] = dict(np.load(hits_file)) if hits_file.exists() else {}
    sets_file = plan_folder / "sets.json"
    old = json.loads(sets_file.read_text()) if sets_file.exists() else {"rows": [], "runs": {}}
    old_table, old_rows = old["runs"], {(json.dumps(row["overrides"]), row["name"]): row for row in old["rows"]}
    results_file = plan_folder / plan.results
    finished_keys = {line.key for line in results.read(results_file) if not line.failed}
    finished_runs = [run for run in plans.planned_runs(plan, options.plan) if run.key in finished_keys]
    folders = {run.id: RunFolder(results_file.parent / "runs" / results_file.stem / run.id) for run in finished_runs}
    runs = [run for run in finished_runs if run.id in packed_hits or folders[run.id].path.is_dir()]
    splits, hits, table = {}, {}, {run.id: old_table[run.id] for run in finished_runs if run.id in old_table}
    for run in runs:
        splits[run.id] = split = read_groups(run, options.column)
        folder = folders[run.id]
        if run.id not in packed_hits:
            packed_hits[run.id] = np.packbits(read_hits(folder, split))
        hits[run.id] = np.unpackbits(packed_hits[run.id], count=len(split.row)).astype(np.bool_)
        table[run.id] = {"name": run.name, "overrides": run.overrides, "seed": run.seed,
                         **compute_scores(split, hits[run.id], np.ones(len(split.row), dtype=np.int64))}  # fmt: skip
        table[run.id]["leakage"] = old_table.get(run.id, {}).get("leakage")
        if options.probe and table[run.id]["leakage"] is None and folder.last.exists():
            table[run.id]["leakage"] = measure_leakage(folder.last, split)
            write_json(sets_file, {"column": options.column, "rows": old["rows"], "runs": table})
            print(f"{run.title}: {table[run.id]['leakage']}", flush=True)
    write_atomic(hits_file, lambda file: np.savez_compressed(file, **packed_hits))
    keys = _list_row_keys(runs)
    rows = [
        make_row(runs, splits, hits, table, key) if key in keys else old_rows[key]
        for key in _list_row_keys(finished_runs)
        if key in keys or key in old_rows
    ]
    write_json(sets_file, {"column": options.column, "rows": rows, "runs": table})
    write_text(plan_folder / "sets.md", format_markdown(rows))
    print(format_markdown(rows))


def _list_row_keys(runs: list[PlannedRun]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((json.dumps(run.overrides), run.name) for run in runs))


def make_row(
    runs: list[PlannedRun],
    splits: Mapping[str, Groups],
    hits: Mapping[str, NDArray[np.bool_]],
    table: Mapping[str, dict[str, Any]],
    key: tuple[str, str],
) -> dict[str, Any]:
    """Return mean, value of each seed and difference from plain training, for one method and one training set."""
    overrides, name = key
    ids = {run.seed: run.id for run in runs if (json.dumps(run.overrides), run.name) == key}
    plain_ids = {run.seed: run.id for run in runs if (json.dumps(run.overrides), run.name) == (overrides, PLAIN)}
    seeds = sorted(ids.keys() & plain_ids.keys())
    label = next(run.label for run in runs if run.name == name)
    row: dict[str, Any] = {"name": name, "label": label, "overrides": json.loads(overrides), "n": len(ids)}
    for metric in ("own", "other", "unbiased", "worst"):
        if metric not in table[next(iter(ids.values()))]:
            continue
        values = [table[ids[seed]][metric] for seed in sorted(ids)]
        row[metric] = {"mean": float(np.mean(values)), "seeds": values}
        if name != PLAIN and seeds:
            draws = []
            for resample in range(RESAMPLES):
                weights = {seed: resample_weights(splits[ids[seed]], resample) for seed in seeds}
                draws.append(np.mean([
                    compute_scores(splits[ids[s]], hits[ids[s]], weights[s])[metric]
                    - compute_scores(splits[plain_ids[s]], hits[plain_ids[s]], weights[s])[metric] for s in seeds
                ]))  # fmt: skip
            low, high = np.quantile(draws, [0.025, 0.975]).tolist()
            value = np.mean([table[ids[s]][metric] - table[plain_ids[s]][metric] for s in seeds])
            row[metric]["difference"] = {"value": float(value), "low": low, "high": high, "seeds": len(seeds)}
    row["groups"] = list_groups([splits[run_id] for run_id in ids.values()], [hits[run_id] for run_id in ids.values()])
    leakages = [table[run_id]["leakage"] for run_id in ids.values() if table[run_id]["leakage"]]
    if leakages:
        row["leakage"] = {layer: float(np.mean([leakage[layer] for leakage in leakages])) for layer in leakages[0]}
    return row


def list_groups(splits: list[Groups], hits: list[NDArray[np.bool_]]) -> dict[str, dict[str, float]]:
    """Return of each group its images in one test set, its mean accuracy over seeds, and the 95 % interval."""
    images = np.bincount(splits[0].cell, minlength=len(splits[0].names))
    runs = list(zip(splits, hits, strict=True))
    means = np.mean([group_accuracy(split, hit, np.ones(len(hit), dtype=np.int64)) for split, hit in runs], axis=0)
    draws = [
        np.mean([group_accuracy(split, hit, resample_weights(split, resample)) for split, hit in runs], axis=0)
        for resample in range(RESAMPLES)
    ]
    lows, highs = np.quantile(draws, [0.025, 0.975], axis=0)
    names = [name for name, n in zip(splits[0].names, images, strict=True) if n]
    return {
        name: {"n": int(n), "mean": float(mean), "low": float(low), "high": float(high)}
        for name, n, mean, low, high in zip(names, images[images > 0], means, lows, highs, strict=True)
    }


def format_markdown(rows: list[dict[str, Any]]) -> str:
    """Return two tables: scores in per cent, with each seed and the difference from plain training; then the groups."""
    metrics = [m for m in ("own", "other", "unbiased", "worst") if any(m in row for row in rows)]
    lines = [f"| method | {' | '.join(metrics)} | leakage |", f"|---|{'---|' * (len(metrics) + 1)}"]
    for row in rows:
        cells = []
        for metric in metrics:
            score = row[metric]
            text = f"{100 * score['mean']:.1f} ({', '.join(f'{100 * v:.1f}' for v in score['seeds'])})"
            if difference := score.get("difference"):
                text += "; {value:+.1f} [{low:+.1f}, {high:+.1f}]".format(
                    **{key: 100 * difference[key] for key in ("value", "low", "high")}
                )
            cells.append(text)
        leakage = ", ".join(f"{layer} {value:.3f}" for layer, value in row.get("leakage", {}).items())
        lines.append(f"| {_title(row)} | {' | '.join(cells)} | {leakage} |")
    lines += ["", "| group | method | images | accuracy |", "|---|---|---|---|"]
    for name in rows[0]["groups"]:
        for row in rows:
            group = row["groups"][name]
            mean, low, high = (f"{100 * group[key]:.1f}" for key in ("mean", "low", "high"))
            lines.append(f"| {name} | {_title(row)} | {group['n']} | {mean} [{low}, {high}] |")
    return "\n".join(lines) + "\n"


def _title(row: dict[str, Any]) -> str:
    """Return the label of a row, with its training set if the plan has several."""
    return ", ".join([row["label"], *(Path(str(value)).stem for value in row["overrides"].values())])


if __name__ == "__main__":
    main()
