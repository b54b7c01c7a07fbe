"""The Makefile: its list of targets, and the commands that its variables give."""

import re
import shlex
from pathlib import Path

import pytest
from checkout_copy import copy_checkout, run_shell
from tiny_runs import ROOT, RUN, write_config

TARGETS = re.findall(r"^([a-z_-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
ORIGINAL_TARGETS = (
    "help setup install download_data train quick_train eval tensorboard notebook list_configs "
    "clean clean_results clean_data"
)
TRAIN = [".venv/bin/python", "src/main.py", "--config", "configs/colored_mnist_default.yaml", "--mode", "train"]
EVALUATE = [*TRAIN[:-1], "evaluate"]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the checkout."""
    return copy_checkout(tmp_path)


def dry_run(copy: Path, arguments: str) -> list[str]:
    """Return the arguments of the last command that `make ARGUMENTS` would run."""
    process = run_shell(f"make -n {arguments}", copy)
    assert process.returncode == 0, process.stderr
    return shlex.split(process.stdout.splitlines()[-1])


@pytest.mark.parametrize("command", ["make", "make help"])
def test_help_lists_every_target_and_variable(copy: Path, command: str) -> None:
    process = run_shell(command, copy)
    assert process.returncode == 0
    targets = re.findall(r"^  ([a-z_-]+) +[A-Z]", process.stdout, re.MULTILINE)
    assert targets == TARGETS
    assert set(ORIGINAL_TARGETS.split()) <= set(targets)
    for variable in ("CONFIG", "EPOCHS", "DEVICE", "CHECKPOINT", "LOGDIR"):
        assert re.search(rf"^  {variable} +[a-z]", process.stdout, re.MULTILINE)


def test_a_file_with_the_name_of_a_target_does_not_hide_the_target(copy: Path) -> None:
    for target in TARGETS:
        if not (copy / target).exists():  # docs/ exists
            (copy / target).write_text("")
    for target in TARGETS:
        assert "up to date" not in run_shell(f"make -n {target}", copy).stdout, target


def test_an_installed_environment_is_not_installed_again(copy: Path) -> None:
    for target in ("train", "test", "list_configs"):
        assert "pip install" not in run_shell(f"make -n {target}", copy).stdout
    (copy / "requirements.txt").touch()
    assert "pip install -r requirements.txt" in run_shell("make -n train", copy).stdout


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ("train", TRAIN),  # without EPOCHS, the YAML sets the epochs
        ("train EPOCHS=3", [*TRAIN, "--num_epochs", "3"]),
        ("train DEVICE=cuda:0", [*TRAIN, "--device", "cuda:0"]),
        ("train EPOCHS= DEVICE=", TRAIN),
        (
            "train CONFIG=my.yaml EPOCHS=2 DEVICE=cpu",
            [*TRAIN[:3], "my.yaml", *TRAIN[4:], "--num_epochs", "2", "--device", "cpu"],
        ),
        ('train CONFIG="it\'s mine.yaml"', [*TRAIN[:3], "it's mine.yaml", *TRAIN[4:]]),
        ("train ARGS='--overwrite training.ema=null'", [*TRAIN, "--overwrite", "training.ema=null"]),
        ("eval", EVALUATE),
        ("eval CHECKPOINT=a/b.pth DEVICE=cpu", [*EVALUATE, "--checkpoint_path", "a/b.pth", "--device", "cpu"]),
        ("report", [".venv/bin/lntl", "report", "configs/colored_mnist_default.yaml"]),
        ("report CONFIG=my.yaml RUN=results/a", [".venv/bin/lntl", "report", "results/a"]),
        ("download_data", ["bash", "scripts/download_dataset.sh"]),
        ("tensorboard LOGDIR=src", [".venv/bin/python", "-m", "tensorboard.main", "--logdir", "src"]),
        ("list_configs", [".venv/bin/lntl", "configs"]),
        ("setup", [".venv/bin/lntl", "data", "info"]),
    ],
)
def test_a_target_runs_its_command(copy: Path, arguments: str, command: list[str]) -> None:
    assert dry_run(copy, arguments) == command


def test_quick_train_trains_one_epoch_in_another_folder(copy: Path) -> None:
    words = dry_run(copy, "quick_train")
    assert words[: len(TRAIN)] == TRAIN
    assert words[words.index("--num_epochs") + 1] == "1"
    assert {"--overwrite", "project.experiment_name=quick_train"} <= set(words)


def test_no_variable_has_a_trailing_blank_or_comment() -> None:
    values = re.findall(r"^[A-Z0-9]+ :?=(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(values) >= 6
    for value in values:
        assert value == value.rstrip()
        assert "#" not in value


def test_tensorboard_without_a_run_suggests_training(copy: Path) -> None:
    process = run_shell("make tensorboard", copy)
    assert process.returncode != 0
    assert "No folder results/colored_mnist_baseline/tensorboard_logs: train first" in process.stderr


@pytest.mark.full
def test_train_and_eval_run_in_one_command(copy: Path) -> None:
    write_config(copy)
    process = run_shell("make train eval CONFIG=tiny.yaml", copy)
    assert process.returncode == 0, process.stderr
    assert "lntl, best on val" in process.stdout
    assert "tiny: best_model.pth, epoch" in " ".join(process.stdout.split())
    assert (copy / RUN / "result.json").exists()


def test_clean_removes_only_files_that_can_be_rebuilt(copy: Path) -> None:
    def list_names() -> set[str]:
        return {str(p.relative_to(copy)) for p in copy.rglob("*") if ".venv" not in p.parts}

    original_names = list_names()
    for name in ("results/a/result.json", "src/lntl/__pycache__/x.pyc", ".pytest_cache/y", "build/z", "data/set/d.npy"):
        (copy / name).parent.mkdir(parents=True)
        (copy / name).write_text("")
    assert run_shell("make clean", copy).returncode == 0
    assert list_names() - original_names == {"data/set", "data/set/d.npy"}
    assert run_shell("make clean_data", copy).returncode == 0
    assert list_names() == original_names


def test_clean_results_removes_only_the_results(copy: Path) -> None:
    for name in ("results/a/result.json", "build/z"):
        (copy / name).parent.mkdir(parents=True)
        (copy / name).write_text("")
    assert run_shell("make clean_results", copy).returncode == 0
    assert not (copy / "results").exists()
    assert (copy / "build/z").exists()
