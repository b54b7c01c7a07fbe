"""Run the examples of examples/gallery/ and store their output and images: `make gallery` runs this script.

Usage: python scripts/gallery.py [NAME ...]

Each example runs in an empty folder with one thread. Its image NAME.png is copied into examples/gallery/output/, and
NAME.json is written there, with the printed text, the seconds of processor time and the hardware. `make docs` shows
both.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from lntl.runs import environment

GALLERY = Path(__file__).resolve().parents[1] / "examples/gallery"


def main(names: list[str]) -> None:
    """Run the named examples, or all of them if `names` is empty."""
    for path in sorted(GALLERY.glob("*.py")):
        if not names or path.stem in names:
            run(path)


def run(path: Path) -> None:
    """Run one example and store its output."""
    with TemporaryDirectory() as folder:
        start = os.times()
        process = subprocess.run(
            [sys.executable, path],
            cwd=folder,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        end = os.times()
        output = GALLERY / "output"
        output.mkdir(exist_ok=True)
        shutil.copy(Path(folder) / f"{path.stem}.png", output)
    seconds = round(sum(end[2:4]) - sum(start[2:4]))  # user and system time of the example and its processes
    machine = environment.describe()
    content = {
        "printed": process.stdout,
        "seconds": seconds,
        "processor": machine.processor,
        "packages": machine.packages,
    }
    (output / f"{path.stem}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"{path.stem}: {seconds} s\n{process.stdout}")


if __name__ == "__main__":
    main(sys.argv[1:])
