"""Measure the time and the memory for reading, checking and splitting a large table of images.

Usage: python benchmarks/table.py [--rows 1000000] [--rounds 3] [--out benchmarks/table.json]

Makes a CSV file with an image, three classes, twenty hospitals, an age (5 % are missing) and a patient (all rows of one
patient go into one split), and builds the data set without opening an image. Prints and writes the wall-clock
seconds, the processor seconds, and the peak memory of the process before and after building.
"""

import argparse
import csv
import resource
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from output import write_result

from lntl.data.table import Table


def write_table(path: Path, rows: int) -> None:
    """Write the table; its values are drawn with a fixed seed."""
    random = np.random.default_rng(0)
    label, hospital = random.integers(0, 3, rows).tolist(), random.integers(0, 20, rows).tolist()
    patient, age = random.integers(0, max(1, rows // 3), rows).tolist(), random.normal(50, 15, rows).round(1).tolist()
    missing = (random.random(rows) < 0.05).tolist()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "finding", "hospital", "age", "patient"))
        for k in range(rows):
            image = f"images/{k // 1000:04d}/{k:08d}.png"
            writer.writerow((image, f"finding {label[k]}", hospital[k], "" if missing[k] else age[k], patient[k]))


def read_peak_memory() -> float:
    """Return the peak memory of the process so far, in GB (Linux reports KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main() -> None:
    """Measure all rounds, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="rounds to measure; the results are medians")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("table.json"))
    args = parser.parse_args()
    peak_before, seconds, processor_seconds = read_peak_memory(), [], []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write_table(path, args.rows)
        bias = ["hospital", {"column": "age", "bins": 8}]
        settings = {"path": str(path), "label": "finding", "bias": bias, "group_id": "patient", "check": "none"}
        for _ in range(args.rounds):
            start, processor_start = time.perf_counter(), time.process_time()
            data = Table(Table.Config.model_validate(settings))
            seconds.append(time.perf_counter() - start)
            processor_seconds.append(time.process_time() - processor_start)
            del data
    result = {
        "seconds": round(statistics.median(seconds), 2),
        "seconds_range": [round(min(seconds), 2), round(max(seconds), 2)],
        "processor_seconds": round(statistics.median(processor_seconds), 2),
        "peak_gb": round(read_peak_memory(), 3),
        "before_gb": round(peak_before, 3),
        "rows": args.rows,
        "rounds": args.rounds,
    }
    write_result(result, args.out)


if __name__ == "__main__":
    main()
