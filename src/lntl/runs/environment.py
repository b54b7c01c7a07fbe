"""The environment of a run: versions, commit and hardware."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from lntl import __version__
from lntl.runs.formats import Environment, Machine

_PACKAGES = ("torch", "lightning-fabric", "numpy", "scikit-learn", "pydantic")


def describe() -> Environment:
    """Return versions, git commit (None outside a checkout), processor, cores, threads, memory and accelerator."""
    return Environment(
        lntl=__version__,
        python=platform.python_version(),
        packages={name: version(name) for name in _PACKAGES},
        git_commit=_read_git_commit(),
        platform=platform.platform(),
        processor=_read_processor(),
        cores=os.cpu_count(),
        threads=torch.get_num_threads(),
        memory_gib=_read_memory_gib(),
        cuda=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    )


def add_resumed_part(environment: Environment) -> Environment:
    """Return the environment of a run that is resumed now.

    `resumed` gets an entry with all that differs from the first environment, unless its last entry is the same.
    """
    current, first = describe().model_dump(), environment.model_dump()
    part = {name: current[name] for name in Machine.model_fields if current[name] != first[name]}
    last = environment.resumed[-1].model_dump(exclude_unset=True) if environment.resumed else {}
    if part == last:
        return environment
    return environment.model_copy(update={"resumed": [*environment.resumed, Machine.model_validate(part)]})


def _read_memory_gib() -> float | None:
    """Return the memory of the machine in GiB; None if it is unknown (Windows)."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _read_git_commit() -> str | None:
    """Return the commit of the checkout from which this package is imported, with -dirty if the package changed."""
    folder = Path(__file__).parents[1]
    if not (folder.parents[1] / ".git").exists():
        return None
    try:
        commit = _run_git(folder, "rev-parse", "HEAD")
        changes = _run_git(folder, "status", "--porcelain", ".")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if changes else commit


def _run_git(folder: Path, *command: str) -> str:
    arguments = ["git", "-C", str(folder), *command]
    return subprocess.run(arguments, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def _read_processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
