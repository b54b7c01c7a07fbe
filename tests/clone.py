"""A copy of the checkout in which tests run commands as a user would; it uses the installed environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_runs import ROOT, TINY


def clone(folder: Path) -> Path:
    """Copy the files that git does not ignore, with this environment as .venv, which `make` takes as complete."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout: git would say which files belong to the project")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (source := ROOT / name).is_symlink() or source.exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name, follow_symlinks=False)
    venv = folder / ".venv"
    venv.mkdir()
    for part in Path(sys.prefix).iterdir():
        if not part.name.startswith("."):
            (venv / part.name).symlink_to(part)
    for stamp in (".installed", ".installed-dev"):
        (venv / stamp).touch()
    return folder


def shrink(config: Path) -> None:
    """Make a configuration train in a second: less data, fewer epochs, and the rest as it was."""
    raw = yaml.safe_load(config.read_text())
    raw["data"]["max_images"] = TINY["data"]["max_images"]
    raw["training"]["batch_size"] = TINY["training"]["batch_size"]
    for phase in raw["training"]["phases"]:
        phase["epochs"] = 1
    raw["evaluation"]["erm_epochs"] = 1
    config.write_text(yaml.safe_dump(raw, sort_keys=False))


def sh(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line in a clone, with the clone's own package and its .venv activated."""
    path = f"{folder / '.venv/bin'}:{os.environ['PATH']}"
    lent = {"PATH": path, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        command,
        shell=True,
        executable="/bin/bash",
        cwd=folder,
        env=clean | lent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
