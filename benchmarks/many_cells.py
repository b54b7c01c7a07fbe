#!/usr/bin/env python
"""Measure time and memory for many classes and bias values: 1,000 classes x 500 values on 4,000 rows, on one core.

Usage: python benchmarks/many_cells.py [--classes 1000] [--values 500]

Nearly all of the 500,000 groups are empty, so time and memory must grow with the number of rows, not of groups. Prints
the processor seconds and the peak memory of `import torch` and of each command. The exit code is 1 if a command takes
10 s or 1 GiB more than `import torch`.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

ROWS_PER_CLASS = 4  # two in train, one in val, one in test
MAX_SECONDS, MAX_MIB = 10, 1024
CONFIG = """
project: {experiment_name: many_cells}
data: {name: arrays, path: rows.npz, split: split}
model: {name: mlp, hidden: [32, 16]}
training: {device: cpu, batch_size: 64, phases: [{method: erm, epochs: 1}]}
evaluation: {best_model_metric: worst_group_accuracy}
logging: {use_tensorboard: false}
"""
RUN = "results/many_cells"


def write_data(folder: Path, classes: int, values: int) -> None:
    """Write rows.npz and many_cells.yaml."""
    random, y = np.random.default_rng(0), np.arange(ROWS_PER_CLASS * classes) % classes
    np.savez(
        folder / "rows.npz",
        x=(random.normal(size=(len(y), 8)) + y[:, None] / classes).astype(np.float32),
        y=y,
        bias=random.integers(0, values, len(y)),
        split=np.array(["train", "train", "val", "test"])[np.arange(len(y)) // classes],
    )
    (folder / "many_cells.yaml").write_text(CONFIG, encoding="utf-8")


def measure(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command on one core; return its processor seconds and its peak memory in MiB."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    """Measure each command and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--values", type=int, default=500)
    arguments = parser.parse_args()
    lntl = [sys.executable, "-m", "lntl"]
    commands = [
        [*lntl, "data", "check", "many_cells.yaml"],
        [*lntl, "train", "many_cells.yaml"],
        [*lntl, "eval", RUN],
        [*lntl, "probe", RUN],
        [*lntl, "report", RUN],
    ]
    too_expensive = False
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, arguments.classes, arguments.values)
        base_seconds, base_memory = measure([sys.executable, "-c", "import torch"], folder)
        print(f"{'import torch':<40} {base_seconds:6.1f} s {base_memory:8.0f} MiB")
        for command in commands:
            seconds, memory = measure(command, folder)
            too_expensive |= seconds - base_seconds > MAX_SECONDS or memory - base_memory > MAX_MIB
            print(f"{'lntl ' + ' '.join(command[len(lntl) :]):<40} {seconds:6.1f} s {memory:8.0f} MiB", flush=True)
    raise SystemExit(too_expensive)


if __name__ == "__main__":
    main()
