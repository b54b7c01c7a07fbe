"""A copy of the checkout in which tests run commands as a user would; it uses the installed environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tiny_runs import ROOT, TINY_CONFIG


def copy_checkout(folder: Path) -> Path:
    """Copy the files that git does not ignore; link this environment as .venv and mark it as completely installed."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout, so the files of the project are unknown")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (source := ROOT / name).is_symlink() or source.exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, folder / name, follow_symlinks=False)
    venv = folder / ".venv"
    venv.mkdir()
    for entry in Path(sys.prefix).iterdir():
        if not entry.name.startswith("."):
            (venv / entry.name).symlink_to(entry)
    for stamp in (".installed", ".installed-dev"):
        (venv / stamp).touch()
    return folder


def shrink_config(config: Path) -> None:
    """Reduce the data and the epochs of a configuration so that it trains in a second."""
    raw = yaml.safe_load(config.read_text())
    raw["data"]["max_images"] = TINY_CONFIG["data"]["max_images"]
    raw["training"]["batch_size"] = TINY_CONFIG["training"]["batch_size"]
    for phase in raw["training"]["phases"]:
        phase["epochs"] = 1
    raw["evaluation"]["erm_epochs"] = 1
    config.write_text(yaml.safe_dump(raw, sort_keys=False))


def run_shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a shell command in a copy of the checkout, with the package and the .venv of the copy."""
    path = f"{folder / '.venv/bin'}:{os.environ['PATH']}"
    added_variables = {"PATH": path, "PYTHONPATH": str(folder / "src"), "OMP_NUM_THREADS": "1"}
    inherited_variables = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        command,
        shell=True,
        executable="/bin/bash",
        cwd=folder,
        env=inherited_variables | added_variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
