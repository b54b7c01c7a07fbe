"""Measure how long a person waits for commands, alternating between two versions of the source on this machine.

Usage: python benchmarks/waiting.py RUN [--before SRC] [--only TASK ...] [--rounds 5] [--out benchmarks/waiting.json]

RUN is a trained run of the default configuration (lntl train colored_mnist_default); it is copied and not changed. SRC
is the folder src/ of the earlier version. Every command is a separate process. For each task, the script prints and
writes the median and the range of the wall seconds, and the median of the processor seconds, which depend less on other
programs on the machine. Tasks that are not measured keep their rows in the file.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from output import write_result

SOURCE = Path(__file__).resolve().parents[1] / "src"
PROBE_FILES = ("probe.json", "recoloring.json", "recoloring.npz", "embedding.npz", "samples.npz")
# The commands of each task, which are measured together, one after another; `bare` is the reference for `help`.
TASKS: dict[str, list[list[str]]] = {
    "bare": [["-c", "import typer, rich"]],
    "help": [["-m", "lntl", "--help"]],
    "probe": [["-m", "lntl", "probe", "run"]],
    "report": [["-m", "lntl", "report", "run"]],
    "train": [["-m", "lntl", "train", "colored_mnist_default", "--overwrite"]],
}


def measure(source: Path, commands: list[list[str]], folder: Path) -> tuple[float, float]:
    """Return the wall seconds and the processor seconds of the commands, run in `folder`."""
    environment = os.environ | {"PYTHONPATH": str(source)}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for command in commands:
        subprocess.run([sys.executable, *command], cwd=folder, env=environment, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def summarise(pairs: list[tuple[float, float]]) -> dict[str, float | list[float]]:
    """Return the median and range of the wall seconds, and the median processor seconds."""
    walls, cpus = zip(*pairs, strict=True)
    return {
        "wall_s": round(statistics.median(walls), 3),
        "wall_range_s": [round(min(walls), 3), round(max(walls), 3)],
        "cpu_s": round(statistics.median(cpus), 3),
        "rounds": len(pairs),
    }


def summarise_tasks(times: dict[str, dict[str, list[tuple[float, float]]]]) -> dict[str, object]:
    """Return for each task the summaries of its versions, and the median ratios of the later to the earlier one."""
    results: dict[str, object] = {}
    for task, by_version in times.items():
        row: dict[str, object] = {version: summarise(pairs) for version, pairs in by_version.items()}
        if "before" in by_version:
            for number, name in enumerate(("wall_ratio", "cpu_ratio")):
                pairs = zip(by_version["after"], by_version["before"], strict=True)
                row[name] = round(statistics.median(a[number] / b[number] for a, b in pairs), 3)
        results[task] = row
    return results


def main() -> None:
    """Measure each task; print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--only", nargs="+", choices=TASKS, default=["bare", "help", "probe", "report"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("waiting.json"))
    args = parser.parse_args()
    earlier = json.loads(args.out.read_text()) if args.out.exists() else {}
    versions = {"after": SOURCE} | ({"before": args.before.resolve()} if args.before else {})
    times: dict[str, dict[str, list[tuple[float, float]]]] = {
        task: {version: [] for version in versions} for task in args.only
    }
    with TemporaryDirectory() as temporary:
        folders = {version: Path(temporary) / version for version in versions}
        for _ in range(args.rounds):
            for folder in folders.values():  # a new copy, because the report makes missing files
                shutil.rmtree(folder, ignore_errors=True)
                ignore = shutil.ignore_patterns(*PROBE_FILES, "report")
                shutil.copytree(args.run, folder / "run", ignore=ignore)
            for task in args.only:
                for version, source in versions.items():
                    times[task][version].append(measure(source, TASKS[task], folders[version]))
                    print(task, version, *(f"{seconds:.2f}" for seconds in times[task][version][-1]), flush=True)
            # After each round, so that a long measurement can be ended; rows of tasks that are not measured stay.
            write_result(earlier | summarise_tasks(times), args.out)


if __name__ == "__main__":
    main()
