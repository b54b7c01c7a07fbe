"""The Makefile: its list of targets, and the commands that its variables give."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from checkout_copy import copy_checkout, run_shell
from tiny_runs import ROOT, RUN, write_config

TARGETS = re.findall(r"^([a-z_-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
ORIGINAL_TARGETS = (
    "help setup install download_data train quick_train eval tensorboard notebook list_configs "
    "clean clean_results clean_data"
)
TRAIN_COMMAND = [".venv/bin/python", "src/main.py", "--config", "configs/colored_mnist_default.yaml", "--mode", "train"]
EVALUATE_COMMAND = [*TRAIN_COMMAND[:-1], "evaluate"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of the checkout."""
    return copy_checkout(tmp_path)


@pytest.fixture
def unchanged_repository(shared_folder: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """A copy of the checkout in which no test changes a file."""
    return shared_folder("checkout", copy_checkout)


def get_last_command(repository: Path, arguments: str) -> list[str]:
    """Return the arguments of the last command that `make ARGUMENTS` would run."""
    process = run_shell(f"make -n {arguments}", repository)
    assert process.returncode == 0, process.stderr
    return shlex.split(process.stdout.splitlines()[-1])


@pytest.mark.parametrize("command", ["make", "make help"])
def test_help_lists_every_target_and_variable(unchanged_repository: Path, command: str) -> None:
    process = run_shell(command, unchanged_repository)
    assert process.returncode == 0
    targets = re.findall(r"^  ([a-z_-]+) +[A-Z]", process.stdout, re.MULTILINE)
    assert targets == TARGETS
    assert set(ORIGINAL_TARGETS.split()) <= set(targets)
    for variable in ("CONFIG", "EPOCHS", "DEVICE", "CHECKPOINT", "LOGDIR"):
        assert re.search(rf"^  {variable} +[a-z]", process.stdout, re.MULTILINE)


def test_a_file_with_the_name_of_a_target_does_not_hide_the_target(repository: Path) -> None:
    for target in TARGETS:
        if not (repository / target).exists():  # docs/ exists
            (repository / target).write_text("")
    for target in TARGETS:
        assert "up to date" not in run_shell(f"make -n {target}", repository).stdout, target


def test_an_installed_environment_is_not_installed_again(repository: Path) -> None:
    for target in ("train", "test", "list_configs"):
        assert "pip install" not in run_shell(f"make -n {target}", repository).stdout
    (repository / "requirements.txt").touch()
    assert "pip install -r requirements.txt" in run_shell("make -n train", repository).stdout


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ("train", TRAIN_COMMAND),  # without EPOCHS, the YAML sets the epochs
        ("train EPOCHS=3", [*TRAIN_COMMAND, "--num_epochs", "3"]),
        ("train DEVICE=cuda:0", [*TRAIN_COMMAND, "--device", "cuda:0"]),
        ("train EPOCHS= DEVICE=", TRAIN_COMMAND),
        (
            "train CONFIG=my.yaml EPOCHS=2 DEVICE=cpu",
            [*TRAIN_COMMAND[:3], "my.yaml", *TRAIN_COMMAND[4:], "--num_epochs", "2", "--device", "cpu"],
        ),
        ('train CONFIG="it\'s mine.yaml"', [*TRAIN_COMMAND[:3], "it's mine.yaml", *TRAIN_COMMAND[4:]]),
        ("train ARGS='--overwrite training.ema=null'", [*TRAIN_COMMAND, "--overwrite", "training.ema=null"]),
        ("eval", EVALUATE_COMMAND),
        ("eval CHECKPOINT=a/b.pth DEVICE=cpu", [*EVALUATE_COMMAND, "--checkpoint_path", "a/b.pth", "--device", "cpu"]),
        ("report", [".venv/bin/lntl", "report", "configs/colored_mnist_default.yaml"]),
        ("report CONFIG=my.yaml RUN=results/a", [".venv/bin/lntl", "report", "results/a"]),
        ("download_data", ["bash", "scripts/download_dataset.sh"]),
        ("tensorboard LOGDIR=src", [".venv/bin/python", "-m", "tensorboard.main", "--logdir", "src"]),
        ("list_configs", [".venv/bin/lntl", "configs"]),
        ("setup", [".venv/bin/lntl", "data", "info"]),
    ],
)
def test_a_target_runs_its_command(unchanged_repository: Path, arguments: str, command: list[str]) -> None:
    assert get_last_command(unchanged_repository, arguments) == command


def test_quick_train_trains_one_epoch_in_another_folder(unchanged_repository: Path) -> None:
    arguments = get_last_command(unchanged_repository, "quick_train")
    assert arguments[: len(TRAIN_COMMAND)] == TRAIN_COMMAND
    assert arguments[arguments.index("--num_epochs") + 1] == "1"
    assert {"--overwrite", "project.experiment_name=quick_train"} <= set(arguments)


def test_no_variable_has_a_trailing_blank_or_comment() -> None:
    values = re.findall(r"^[A-Z0-9]+ :?=(.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(values) >= 6
    for value in values:
        assert value == value.rstrip()
        assert "#" not in value


def test_tensorboard_without_a_run_suggests_training(unchanged_repository: Path) -> None:
    process = run_shell("make tensorboard", unchanged_repository)
    assert process.returncode != 0
    assert "No folder results/colored_mnist_baseline/tensorboard_logs: train first" in process.stderr


@pytest.mark.full
def test_train_and_eval_run_in_one_command(repository: Path) -> None:
    write_config(repository)
    process = run_shell("make train eval CONFIG=tiny.yaml", repository)
    assert process.returncode == 0, process.stderr
    assert "lntl, best on val" in process.stdout
    assert "tiny: best_model.pth, epoch" in " ".join(process.stdout.split())
    assert (repository / RUN / "result.json").exists()


def test_clean_removes_only_files_that_can_be_rebuilt(repository: Path) -> None:
    def list_names() -> set[str]:
        return {str(p.relative_to(repository)) for p in repository.rglob("*") if ".venv" not in p.parts}

    original_names = list_names()
    for name in ("results/a/result.json", "src/lntl/__pycache__/x.pyc", ".pytest_cache/y", "build/z", "data/set/d.npy"):
        (repository / name).parent.mkdir(parents=True)
        (repository / name).write_text("")
    assert run_shell("make clean", repository).returncode == 0
    assert list_names() - original_names == {"data/set", "data/set/d.npy"}
    assert run_shell("make clean_data", repository).returncode == 0
    assert list_names() == original_names


def test_clean_results_removes_only_the_results(repository: Path) -> None:
    for name in ("results/a/result.json", "build/z"):
        (repository / name).parent.mkdir(parents=True)
        (repository / name).write_text("")
    assert run_shell("make clean_results", repository).returncode == 0
    assert not (repository / "results").exists()
    assert (repository / "build/z").exists()
