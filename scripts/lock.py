"""Write requirements.txt and requirements-dev.txt: the exact version of every package that `lntl` needs.

Usage: python scripts/lock.py   (or `make lock`)

pip chooses the newest versions that fit the running Python (a dry run: nothing is installed). So run it on Linux, with
the lowest version of Python that the project supports, 3.11.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Update both by hand and together: with another version of torch, results differ in the last digits.
FIXED_VERSIONS = {"torch": "2.14.1", "torchvision": "0.29.1"}

# On Linux, torch installs matching versions of the CUDA libraries and of Triton.
TORCH_DEPENDENCY = re.compile(r"(nvidia|cuda)-.*|triton")

HEADER = """\
# Written by `make lock` ({contents}, resolved with Python {python} on Linux); edit pyproject.toml, not this file.
# nvidia-*, cuda-* and triton are left out on purpose: torch chooses them itself, and only where they exist.
"""

Pins = dict[str, str]


def normalise(name: str) -> str:
    """Return the name of a package in the spelling of package indexes."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolve(extras: str, fixed_versions: Pins) -> Pins:
    """Return the version of each package that `lntl[extras]` needs, by name; `fixed_versions` do not change."""
    with tempfile.TemporaryDirectory() as folder:
        constraints, report = Path(folder, "held.txt"), Path(folder, "report.json")
        constraints.write_text(
            "".join(f"{name}=={version}\n" for name, version in fixed_versions.items()), encoding="utf-8"
        )
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        options = ["--constraint", str(constraints), "--report", str(report), f"{ROOT}[{extras}]"]
        subprocess.run(pip + options, check=True)
        items = [item["metadata"] for item in json.loads(report.read_text(encoding="utf-8"))["install"]]
    pins = {normalise(item["name"]): item["version"] for item in items}
    return {name: pins[name] for name in sorted(pins) if name != "lntl" and not TORCH_DEPENDENCY.fullmatch(name)}


def write(name: str, contents: str, lines: list[str]) -> None:
    """Write one lock file; `contents` describes its packages."""
    python = ".".join(map(str, sys.version_info[:2]))
    text = HEADER.format(contents=contents, python=python) + "".join(f"{line}\n" for line in lines)
    (ROOT / name).write_text(text, encoding="utf-8")
    print(f"wrote {name}: {len(lines)} lines")


def main() -> None:
    """Choose the versions for users, then those for developers, which include the versions for users."""
    runtime = resolve("download", FIXED_VERSIONS)
    develop = resolve("download,notebooks,dev", runtime)
    write("requirements.txt", "runtime and download", [f"{name}=={version}" for name, version in runtime.items()])
    development_only = [f"{name}=={version}" for name, version in develop.items() if name not in runtime]
    lines = ["-r requirements.txt", *development_only]
    write("requirements-dev.txt", "development, notebooks and documentation", lines)


if __name__ == "__main__":
    main()
