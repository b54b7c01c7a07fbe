"""Score the runs of a plan by one column of their table, even if they were trained with another bias.

    python benchmarks/real/sets.py benchmarks/real/dogs_and_cats/plan.yaml color [--probe]

A run trained with bins of brightness has its own groups. Here all runs of a plan are compared on the groups of one
column: accuracy on the test images of the training set's kind (`own`), on those of the other set (`other`), and the
mean and the lowest accuracy of the groups. Differences from plain training are differences of means over seeds. Their
95 % intervals come from a bootstrap over images within each group, with the same images for both methods. --probe
measures how well new probes predict the column at z and before the logits, on 3,000 test images.

Writes into the plan's folder: hits.npz (which images each run classified correctly, so that the runs may be removed),
sets.json, sets.md.
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
from lntl.data.labels import aligned
from lntl.experiment.checkpoints import load_networks, open_checkpoint
from lntl.probing.features import default_layers, features
from lntl.probing.probes import Halves, probe_layer
from lntl.runs.files import write_atomic, write_json, write_text
from lntl.runs.folder import RunFolder
from lntl.seeding import permutation

RESAMPLES, PROBED, BATCH = 2000, 3000, 250
PLAIN = "erm"  # the method that the others are compared with


@dataclass(frozen=True)
class Groups:
    """The test images of a run: rows of the table (n,), groups by the column (n,), and whether they conflict (n,)."""

    row: NDArray[np.int64]
    cell: NDArray[np.int64]
    conflicting: NDArray[np.bool_] | None
    names: list[str]
    y: NDArray[np.int64]
    value: NDArray[np.int64]


def groups(run: PlannedRun, column: str) -> Groups:
    """Return the test images of a run by its label and the column; no image is opened."""
    settings = run.config.data.model_dump(exclude_unset=True) | {"bias": column, "check": "none"}
    data = datasets.load(run.config.data.name, type(run.config.data).model_validate(settings))
    train, test = data.splits["train"], data.splits["test"]
    b, names = data.spec.num_bias_values, data.spec
    goes_with = aligned(train.y, train.bias_labels(torch.arange(len(train))), names.num_classes, b)
    y, value = test.y.numpy(), test.bias_labels(torch.arange(len(test))).numpy()
    cells = [f"{label}, {bias}" for label in names.class_names for bias in names.bias_value_names]
    conflicting = np.asarray(goes_with)[y] != value if goes_with else None
    return Groups(test.row.numpy(), y * b + value, conflicting, cells, y, value)


def hits_of(folder: RunFolder, split: Groups) -> NDArray[np.bool_]:
    """Return which of the test images the last checkpoint of a run classified correctly."""
    with np.load(folder.evaluation_of(folder.last).with_suffix(".npz")) as saved:
        right = dict(
            zip(saved["row"].tolist(), (saved["probabilities"].argmax(axis=1) == saved["y"]).tolist(), strict=True)
        )
    return np.array([right[row] for row in split.row.tolist()], dtype=np.bool_)


def scores(split: Groups, right: NDArray[np.bool_], weight: NDArray[np.int64]) -> dict[str, float]:
    """Return accuracies on the sets and groups; weight (n,): how often each image counts."""
    count, hits = (np.bincount(split.cell, weight * w, len(split.names)) for w in (np.ones(len(right)), right))
    cells = hits[count > 0] / count[count > 0]
    found = {"unbiased": float(cells.mean()), "worst": float(cells.min()), "all": float(hits.sum() / count.sum())}
    if split.conflicting is not None:
        for name, part in (("own", ~split.conflicting), ("other", split.conflicting)):
            found[name] = float((weight * right)[part].sum() / weight[part].sum())
    return found


def resampled(split: Groups, seed: int) -> NDArray[np.int64]:
    """Return how often each row counts in a resample within groups; equal for runs with the same test images."""
    generator, weight = np.random.default_rng(seed), np.zeros(len(split.row), dtype=np.int64)
    for cell in np.unique(split.cell):
        (place,) = np.nonzero(split.cell == cell)
        weight[place] = np.bincount(generator.integers(0, len(place), len(place)), minlength=len(place))
    return weight


def leakage(path: Path, split: Groups) -> dict[str, float]:
    """Return the highest accuracy of new probes for the column at each layer, and that of a constant prediction."""
    experiment, saved = open_checkpoint(path)
    networks = load_networks(experiment, saved, path)
    chosen = permutation(len(split.row), 0)[:PROBED].sort().values
    y, bias = torch.from_numpy(split.y)[chosen], torch.from_numpy(split.value)[chosen]
    halves = Halves(y, bias, (0, 1, 2))
    test = experiment.data.splits["test"]
    assert test.row.cpu().tolist() == split.row.tolist()
    found = {"chance": halves.majority}
    for layer in default_layers(networks):
        z = features(networks, (test.batch(index).x for index in chosen.split(BATCH)), layer)
        found[layer] = max(row.mean for row in probe_layer(layer, z, halves, torch.device("cpu")))
    return found


def main() -> None:
    """Write the three files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("column")
    parser.add_argument("--probe", action="store_true")
    options = parser.parse_args()
    checked = plans.read(options.plan)
    beside, kept = options.plan.parent, options.plan.parent / "hits.npz"
    store: dict[str, Any] = dict(np.load(kept)) if kept.exists() else {}
    old = json.loads((beside / "sets.json").read_text())["runs"] if (beside / "sets.json").exists() else {}
    results_file = beside / checked.results
    done = {line.key for line in results.read(results_file) if not line.failed}
    runs = [run for run in plans.planned_runs(checked, options.plan) if run.key in done]
    splits, right, table = {}, {}, {}
    for run in runs:
        splits[run.id] = split = groups(run, options.column)
        folder = RunFolder(results_file.parent / "runs" / results_file.stem / run.id)
        if run.id not in store:
            store[run.id] = np.packbits(hits_of(folder, split))
        right[run.id] = np.unpackbits(store[run.id], count=len(split.row)).astype(np.bool_)
        table[run.id] = {"name": run.name, "overrides": run.overrides, "seed": run.seed,
                         **scores(split, right[run.id], np.ones(len(split.row), dtype=np.int64))}  # fmt: skip
        table[run.id]["leakage"] = old.get(run.id, {}).get("leakage")
        if options.probe and table[run.id]["leakage"] is None:
            table[run.id]["leakage"] = leakage(folder.last, split)
            print(f"{run.title}: {table[run.id]['leakage']}", flush=True)
    write_atomic(kept, lambda file: np.savez_compressed(file, **store))
    rows = [row for row in (summary(runs, splits, right, table, key) for key in _cells(runs)) if row is not None]
    write_json(beside / "sets.json", {"column": options.column, "rows": rows, "runs": table})
    write_text(beside / "sets.md", markdown(rows))
    print(markdown(rows))


def _cells(runs: list[PlannedRun]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((json.dumps(run.overrides), run.name) for run in runs))


def summary(
    runs: list[PlannedRun],
    splits: Mapping[str, Groups],
    right: Mapping[str, NDArray[np.bool_]],
    table: Mapping[str, dict[str, Any]],
    key: tuple[str, str],
) -> dict[str, Any] | None:
    """Return mean, seeds and the difference from plain training of the runs of one method and one training set."""
    overrides, name = key
    own = {run.seed: run.id for run in runs if (json.dumps(run.overrides), run.name) == key}
    plain = {run.seed: run.id for run in runs if (json.dumps(run.overrides), run.name) == (overrides, PLAIN)}
    seeds = sorted(own.keys() & plain.keys())
    label = next(run.label for run in runs if run.name == name)
    row: dict[str, Any] = {"name": name, "label": label, "overrides": json.loads(overrides), "n": len(own)}
    for metric in ("own", "other", "unbiased", "worst"):
        if metric not in table[next(iter(own.values()))]:
            continue
        values = [table[own[seed]][metric] for seed in sorted(own)]
        row[metric] = {"mean": float(np.mean(values)), "seeds": values}
        if name != PLAIN and seeds:
            draws = []
            for resample in range(RESAMPLES):
                weights = {seed: resampled(splits[own[seed]], resample) for seed in seeds}
                draws.append(np.mean([
                    scores(splits[own[s]], right[own[s]], weights[s])[metric]
                    - scores(splits[plain[s]], right[plain[s]], weights[s])[metric] for s in seeds
                ]))  # fmt: skip
            low, high = np.quantile(draws, [0.025, 0.975]).tolist()
            value = np.mean([table[own[s]][metric] - table[plain[s]][metric] for s in seeds])
            row[metric]["difference"] = {"value": float(value), "low": low, "high": high, "seeds": len(seeds)}
    leaks = [table[id]["leakage"] for id in own.values() if table[id]["leakage"]]
    if leaks:
        row["leakage"] = {layer: float(np.mean([leak[layer] for leak in leaks])) for layer in leaks[0]}
    return row


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table: accuracies in per cent, seeds in brackets, and the difference from plain training."""
    metrics = [m for m in ("own", "other", "unbiased", "worst") if any(m in row for row in rows)]
    lines = [f"| method | {' | '.join(metrics)} | leakage |", f"|---|{'---|' * (len(metrics) + 1)}"]
    for row in rows:
        cells = []
        for metric in metrics:
            found = row[metric]
            text = f"{100 * found['mean']:.1f} ({', '.join(f'{100 * v:.1f}' for v in found['seeds'])})"
            if difference := found.get("difference"):
                text += "; {value:+.1f} [{low:+.1f}, {high:+.1f}]".format(
                    **{key: 100 * difference[key] for key in ("value", "low", "high")}
                )
            cells.append(text)
        leaks = ", ".join(f"{layer} {value:.3f}" for layer, value in row.get("leakage", {}).items())
        where = ", ".join(Path(str(v)).stem for v in row["overrides"].values())
        lines.append(f"| {row['label']}{f', {where}' if where else ''} | {' | '.join(cells)} | {leaks} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
