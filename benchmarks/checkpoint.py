"""Measure how long training waits for a checkpoint within an epoch, and for a checkpoint at the end of an epoch.

Usage: python benchmarks/checkpoint.py [--megabytes 100] [--rounds 5] [--folder .] [--out benchmarks/checkpoint.json]

Saves the state of one layer and of its Adam optimiser to last.pth in two ways, in turns: in the background, as
`logging.checkpoint_minutes` does, and in the foreground, as at the end of an epoch. Prints and writes the median, the
lowest and the highest number of seconds: how long training waits for the background save (waiting), the slowest of many
small matrix products during the save (longest_pause), the time until the file is on the disk (until_written), and the
time of a save in the foreground (at_once).
"""

import argparse
import statistics
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import torch
from output import write_result

from lntl.runs import checkpoint
from lntl.runs.checkpoint import BackgroundSaver, Checkpoint
from lntl.types import TrainerState


def make_state(megabytes: float) -> TrainerState:
    """Return a trainer state of this size: weights, and two moving averages of their gradients."""
    weight, mean, square = (torch.randn(round(megabytes * 1e6 / 12)) for _ in range(3))
    return {
        "phase": 0,
        "epoch": 0,
        "step": 1,
        "networks": {"f.weight": weight},
        "method": {},
        "optimizers": {"f": {"state": {0: {"step": 1.0, "exp_avg": mean, "exp_avg_sq": square}}, "param_groups": []}},
        "average": None,
        "terms": [],
        "pending": [],
        "sums": None,
        "seconds": 0.0,
    }


def measure_longest_pause(saver: BackgroundSaver) -> float:
    """Multiply small matrices until the write is over; return the seconds of the slowest product."""
    matrix, longest = torch.randn(100, 100), 0.0
    while not saver.is_idle():
        start = perf_counter()
        matrix @ matrix
        longest = max(longest, perf_counter() - start)
    return longest


def main() -> None:
    """Measure both ways in turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk to measure")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/checkpoint.json"))
    arguments = parser.parse_args()
    content = Checkpoint({}, make_state(arguments.megabytes), [])
    seconds: dict[str, list[float]] = {"waiting": [], "longest_pause": [], "until_written": [], "at_once": []}
    with TemporaryDirectory(dir=arguments.folder) as name, BackgroundSaver() as saver:
        path = Path(name) / "last.pth"
        for _ in range(arguments.rounds):
            start = perf_counter()
            saver.save(path, content)
            seconds["waiting"].append(perf_counter() - start)
            seconds["longest_pause"].append(measure_longest_pause(saver))
            saver.wait()
            seconds["until_written"].append(perf_counter() - start)
            start = perf_counter()
            checkpoint.save(path, content)
            seconds["at_once"].append(perf_counter() - start)
        size = path.stat().st_size
    results = {
        name: {"median": statistics.median(values), "min": min(values), "max": max(values)}
        for name, values in seconds.items()
    }
    rounded = {name: {key: round(value, 3) for key, value in values.items()} for name, values in results.items()}
    write_result({"megabytes": round(size / 1e6, 1), "rounds": arguments.rounds, "seconds": rounded}, arguments.out)


if __name__ == "__main__":
    main()
