"""Measure the commands check, train, eval and predict on many small images in Parquet shards, for several sizes.

Usage: python benchmarks/large_table.py [--rows 30000 300000] [--out benchmarks/large_table.json]

Makes Parquet shards with PNG images of 28 x 28 pixels inside (ten classes, four skies as the bias, three splits) and
reads them as `data: {name: huggingface}`: `lntl data check`, `lntl train` for one epoch, `lntl eval`, `lntl predict`,
each as a process, for each number of rows. Prints and writes the wall-clock seconds, the processor seconds and the peak
memory of each process, which includes the mapped file. Needs lntl[huggingface].
"""

import argparse
import io
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import yaml
from output import write_result
from PIL import Image

SHARD_ROWS = 10_000
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def write_shards(folder: Path, rows: int) -> None:
    """Write the shards; their values are drawn with a fixed seed."""
    import pyarrow as pa
    from pyarrow import parquet

    random = np.random.default_rng(0)
    folder.mkdir()
    for name, share in SHARES.items():
        remaining, number = round(rows * share), 0
        while remaining:
            n = min(SHARD_ROWS, remaining)
            label, sky = random.integers(0, 10, n), random.integers(0, 4, n)
            images = random.integers(0, 64, (n, 28, 28, 3), dtype=np.uint8)
            images[:, :14] += (label * 19).astype(np.uint8)[:, None, None, None]
            images[:, 14:] += (sky * 60).astype(np.uint8)[:, None, None, None]
            contents = [{"bytes": encode_png(image), "path": None} for image in images]
            kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
            columns = {"image": pa.array(contents, kind), "label": pa.array(label), "sky": pa.array(sky)}
            parquet.write_table(pa.table(columns), folder / f"{name}-{number:05d}.parquet", row_group_size=1000)
            remaining, number = remaining - n, number + 1


def encode_png(image: np.ndarray) -> bytes:
    """Return an image as the content of a PNG file."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1)
    return file.getvalue()


def measure(folder: Path, *arguments: str) -> dict[str, float]:
    """Run `lntl ARGUMENTS` in the folder; return seconds and the peak memory."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "lntl", *arguments], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    message = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    code = process.returncode = os.waitstatus_to_exitcode(status)
    if code not in (0, 1):  # 1: the check found a problem in the labels
        raise SystemExit(f"lntl {' '.join(arguments)} ended with {code}: {message[-1000:]}")
    return {
        "seconds": round(time.perf_counter() - start, 1),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_gb": round(usage.ru_maxrss * 1024 / 1e9, 3),
    }


def main() -> None:
    """Measure every size; print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[30_000, 300_000])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("large_table.json"))
    args = parser.parse_args()
    result: dict[str, object] = {}
    for rows in args.rows:
        with TemporaryDirectory() as name:
            folder = Path(name)
            write_shards(folder / "shards", rows)
            config = {
                "project": {"experiment_name": "large"},
                "data": {
                    "name": "huggingface", "path": "shards", "bias": "sky", "size": 28, "check": "header",
                    "arrow_dir": "arrow",
                },
                "model": {"name": "lenet"},
                "training": {"device": "cpu", "batch_size": 128, "phases": [{"method": "lntl", "epochs": 1}]},
                "logging": {"trackers": []},
            }  # fmt: skip
            (folder / "large.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
            result[f"{rows} rows"] = {
                "check": measure(folder, "data", "check", "large.yaml"),
                "train": measure(folder, "train", "large.yaml"),
                "eval": measure(folder, "eval", "results/large"),
                "predict": measure(folder, "predict", "results/large", "shards", "--out", "predictions.csv"),
            }
    write_result(result, args.out)


if __name__ == "__main__":
    main()
