"""Measure how many seconds recipes need to reach the paper's accuracy at sigma^2 = 0.030.

Usage: python benchmarks/time_to_accuracy.py [--recipes colored_mnist/best colored_mnist/random_colors]
                                             [--seeds 10 11 12 13 14] [--out benchmarks/time_to_accuracy.json]

The time starts with the process. Each run is a new process, one after another, with all cores; for each seed the
recipes take turns. After every epoch the run is evaluated on the test set. The test set only decides when the
measurement ends: recipe, epochs and seeds are fixed in advance. Prints and writes the median and the range of each
recipe.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from output import write_result

from lntl.paper import LNTL

TARGET = LNTL[0.030]
RECIPES = ["colored_mnist/best", "colored_mnist/random_colors"]


def train(seed: int, start: float, recipe: str) -> None:
    """Train one run; print one JSON line per epoch: seconds since the time `start`, and test accuracy."""
    from lntl import config, experiment
    from lntl.evaluation.tally import compute
    from lntl.types import EpochRecord

    with TemporaryDirectory() as folder:
        overrides = [f"project.seed={seed}", f"data.seed={seed}", "data.color_var=0.030", "evaluation.erm_epochs=0"]
        overrides += ["logging.use_tensorboard=false", f"logging.output_dir={folder}"]
        run = experiment.start(config.read(recipe, overrides))
        for event in run.train():
            if isinstance(event, EpochRecord):
                predictions = run.experiment.predict(run.experiment.trainer.evaluated, "test")
                accuracy = compute(predictions, ["accuracy"])["accuracy"]
                line = {"epoch": event.total_epoch, "seconds": time.time() - start, "accuracy": accuracy}
                print(json.dumps(line), flush=True)


def measure(seed: int, recipe: str) -> dict[str, object]:
    """Return the epochs of one seed up to the target accuracy, and the seconds until then (None: not reached)."""
    command = [sys.executable, __file__, "--train", str(seed), "--start", repr(time.time()), "--recipe", recipe]
    epochs, seconds = [], None
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            epochs.append(json.loads(line))
            if epochs[-1]["accuracy"] >= TARGET:
                seconds = epochs[-1]["seconds"]
                process.terminate()
                break
    if seconds is None and process.returncode != 0:
        raise SystemExit(f"seed {seed}: the training process ended with exit code {process.returncode}")
    return {"seed": seed, "seconds": seconds, "epochs": epochs}


def summarise(runs: list[dict[str, object]]) -> dict[str, object]:
    """Return how many runs reached the target, the median and the range of their seconds, and the runs."""
    seconds = [float(run["seconds"]) for run in runs if isinstance(run["seconds"], float)]
    summary: dict[str, object] = {"reached": len(seconds), "of": len(runs)}
    if seconds:
        summary |= {"median": statistics.median(seconds), "lowest": min(seconds), "highest": max(seconds)}
    return summary | {"runs": runs}


def main() -> None:
    """Measure every seed; print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12, 13, 14])
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("time_to_accuracy.json"))
    parser.add_argument("--train", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--start", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--recipe", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train is not None:
        train(args.train, args.start, args.recipe)
        return
    runs: dict[str, list[dict[str, object]]] = {recipe: [] for recipe in args.recipes}
    for seed in args.seeds:
        for recipe in args.recipes:
            runs[recipe].append(measure(seed, recipe))
            print(f"{recipe}, seed {seed}: {runs[recipe][-1]['seconds'] or 'not reached'}", flush=True)
    write_result({"target": TARGET, "recipes": {recipe: summarise(runs[recipe]) for recipe in runs}}, args.out)


if __name__ == "__main__":
    main()
