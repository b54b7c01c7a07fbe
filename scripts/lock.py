"""Write requirements.txt and requirements-dev.txt: the exact version of everything that pyproject.toml asks for.

Usage: python scripts/lock.py   (or `make lock`)

pip resolves the newest versions that fit (a dry run: nothing is installed), so run it with the Python that the project
supports first, 3.11 on Linux.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Moved by hand, both together: another torch computes other numbers in the last digits.
HELD = {"torch": "2.14.1", "torchvision": "0.29.1"}

# On Linux torch brings its CUDA libraries and Triton itself, in versions that fit it.
BROUGHT_BY_TORCH = re.compile(r"(nvidia|cuda)-.*|triton")

HEADER = """\
# Written by `make lock` ({what}, resolved with Python {python} on Linux); edit pyproject.toml, not this file.
# nvidia-*, cuda-* and triton are left out on purpose: torch chooses them itself, and only where they exist.
"""

Pins = dict[str, str]


def normalised(name: str) -> str:
    """Return a distribution's name as package indexes spell it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolve(extras: str, held: Pins) -> Pins:
    """Return name -> version of everything that `lntl[extras]` needs, with the versions in `held` kept."""
    with tempfile.TemporaryDirectory() as folder:
        constraints, report = Path(folder, "held.txt"), Path(folder, "report.json")
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in held.items()), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        wanted = ["--constraint", str(constraints), "--report", str(report), f"{ROOT}[{extras}]"]
        subprocess.run(pip + wanted, check=True)
        items = [item["metadata"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]]
    pins = {normalised(item["name"]): item["version"] for item in items}
    return {name: pins[name] for name in sorted(pins) if name != "lntl" and not BROUGHT_BY_TORCH.fullmatch(name)}


def write(name: str, what: str, lines: list[str]) -> None:
    """Write one lock file."""
    python = ".".join(map(str, sys.version_info[:2]))
    text = HEADER.format(what=what, python=python) + "".join(f"{line}\n" for line in lines)
    (ROOT / name).write_text(text, encoding="utf-8")
    print(f"wrote {name}: {len(lines)} lines")


def main() -> None:
    """Resolve what a user needs, then what a developer needs on top of exactly that."""
    runtime = resolve("download", HELD)
    develop = resolve("download,notebooks,dev", runtime)
    write("requirements.txt", "runtime and download", [f"{name}=={version}" for name, version in runtime.items()])
    added = [f"{name}=={version}" for name, version in develop.items() if name not in runtime]
    write("requirements-dev.txt", "development, notebooks and documentation", ["-r requirements.txt", *added])


if __name__ == "__main__":
    main()
