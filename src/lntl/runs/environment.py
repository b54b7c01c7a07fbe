"""Where a run took place: versions, commit, hardware."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lntl import __version__

_PACKAGES = ("torch", "lightning-fabric", "numpy", "scikit-learn", "pydantic")


def describe() -> dict[str, Any]:
    """Return versions, git commit (None outside a checkout), processor, cores, threads, memory and accelerator."""
    return {
        "lntl": __version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "git_commit": _git_commit(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def resumed(then: dict[str, Any]) -> dict[str, Any]:
    """Return the environment of a run that goes on here: `resumed` has, part by part, what was not as at first."""
    now = {name: value for name, value in describe().items() if value != then.get(name)}
    later = then.get("resumed", [])
    return then if now == (later[-1] if later else {}) else then | {"resumed": [*later, now]}


def parts(environment: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the facts of each part of a run, in order."""
    first = {name: value for name, value in environment.items() if name != "resumed"}
    return [first, *(first | part for part in environment.get("resumed", []))]


def _git_commit() -> str | None:
    """Return the commit of the checkout that this package is imported from, with -dirty where the package changed."""
    folder = Path(__file__).parents[1]
    if not (folder.parents[1] / ".git").exists():
        return None
    try:
        commit, changes = (
            _git(folder, *command) for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "."))
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changes else commit


def _git(folder: Path, *command: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
