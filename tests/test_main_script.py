"""src/main.py runs the code of `lntl` with the options of the original script."""

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import ROOT, RUN, get_exit_code, read_metrics

from lntl.runs import checkpoint

Capture = pytest.CaptureFixture[str]


def run_main_py(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run `python src/main.py ARGUMENTS` in this process; return its exit code."""
    monkeypatch.setattr(sys, "argv", ["src/main.py", *arguments])
    return get_exit_code(lambda: runpy.run_path(str(ROOT / "src/main.py"), run_name="__main__"))


def test_help_of_main_py_does_not_import_torch() -> None:
    command = [sys.executable, "-X", "importtime", str(ROOT / "src/main.py"), "--help"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0
    assert "--checkpoint_path" in process.stdout
    assert "lntl.cli" in process.stderr
    assert not re.search(r"\| +torch$", process.stderr, re.MULTILINE)


def test_main_py_without_the_packages_suggests_make_setup() -> None:
    command = [sys.executable, "-S", str(ROOT / "src/main.py"), "--help"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 2
    assert process.stderr.startswith("Error: ")
    assert "no package 'typer'" in process.stderr
    assert process.stderr.endswith("run `make setup`, then `source .venv/bin/activate`.\n")


def test_main_py_trains_and_evaluates(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    config = ["--config", "tiny.yaml"]
    assert run_main_py(monkeypatch, *config, "--mode", "train", "--num_epochs", "2", "--device", "cpu") == 0
    assert [record["epoch"] for record in read_metrics(RUN)] == [1, 1, 2]
    assert "lntl, last" in capsys.readouterr().out
    assert run_main_py(monkeypatch, *config, "--mode", "evaluate") == 0
    assert "tiny: best_model.pth, epoch" in capsys.readouterr().out
    last_checkpoint = str(RUN / "checkpoints/last.pth")
    assert (
        run_main_py(monkeypatch, *config, "--mode", "evaluate", "--checkpoint_path", last_checkpoint, "--device", "cpu")
        == 0
    )
    assert "tiny: last.pth, epoch 3, test set" in capsys.readouterr().out


@pytest.mark.full
def test_main_py_resumes(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    assert run_main_py(monkeypatch, "--config", "tiny.yaml") == 0  # --mode train is the default
    first_checkpoint = checkpoint.load(RUN / "checkpoints/last.pth")
    earlier_path = str(RUN / "checkpoints/checkpoint_epoch_01.pth")
    assert run_main_py(monkeypatch, "--config", "tiny.yaml", "--mode", "train", "--checkpoint_path", earlier_path) == 0
    assert checkpoint.load(RUN / "checkpoints/last.pth").records[0] == first_checkpoint.records[0]
    assert len(read_metrics(RUN)) == 2
    capsys.readouterr()
    assert run_main_py(monkeypatch, "--config", "tiny.yaml") == 2
    message = capsys.readouterr().err
    assert "already contains a run" in message
    # The option that the message names also works for src/main.py.
    (option,) = re.findall(r"continue it with (--\S+ auto)", message)
    assert run_main_py(monkeypatch, "--config", "tiny.yaml", *option.split()) == 0


def test_main_py_accepts_overrides_anywhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["project.experiment_name=quick", "--config", "tiny.yaml", "--num_epochs", "1", "project.seed=3"]
    assert run_main_py(monkeypatch, *arguments, "--overwrite", "training.batch_size=90") == 0
    config: dict[str, Any] = yaml.safe_load(Path("results/quick/config.yaml").read_text())
    assert (config["project"]["seed"], config["training"]["batch_size"]) == (3, 90)


def test_main_py_suggests_training_if_there_is_no_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert run_main_py(monkeypatch, "--config", "tiny.yaml", "--mode", "evaluate") == 2
    message = capsys.readouterr().err
    assert message == f"Error: {RUN}: there is no such run folder; train first: lntl train tiny.yaml\n"
