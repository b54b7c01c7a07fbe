"""Every command of the README and of the first pages of the docs runs in a copy of the checkout."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from checkout_copy import copy_checkout, run_shell, shrink_config
from tiny_runs import ROOT, run

from lntl import paper

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [README, *((ROOT / f"docs/{name}.md").read_text("utf-8") for name in ("quick_start", "commands", "files"))]
RUN_NAME = "colored_mnist_baseline"
RUN = Path("results") / RUN_NAME


def find_commands() -> list[str]:
    """Return the command lines of all ```bash blocks, without comments, each once, in order."""
    blocks = re.findall(r"^```bash\n(.*?)^```", "\n".join(PAGES).replace("\\\n", " "), re.MULTILINE | re.DOTALL)
    lines = (re.sub(r"(^|\s+)#.*", "", line).strip() for block in blocks for line in block.splitlines())
    return list(dict.fromkeys(line for line in lines if line))


@dataclass(frozen=True)
class Expectation:
    """The expected effect of a command, which is tested with a smaller configuration and a run in results/."""

    text: str  # in the output
    path: str = "README.md"  # a file or folder that exists afterwards
    existing_run: str = "nothing"  # in results/ before the command: nothing, a run, or half a run
    dry_run: bool = False  # run `make -n`, which only prints the commands


MAIN_COMMAND = "python src/main.py --config configs/colored_mnist_default.yaml --mode train"
RESULT_FILE = f"{RUN}/result.json"
EXPECTATIONS: dict[str, Expectation] = {
    "make train": Expectation("lntl, best on val", RESULT_FILE),
    "make setup": Expectation("rendered from the embedded MNIST strokes"),
    "make setup && source .venv/bin/activate": Expectation("rendered from the embedded MNIST strokes"),
    "source .venv/bin/activate": Expectation(""),
    "lntl --help": Expectation("Train classifiers"),
    "lntl configs": Expectation("colored_mnist_default"),
    "make quick_train": Expectation("lntl, best on val", "results/quick_train/result.json"),
    "make train EPOCHS=20 CONFIG=configs/colored_mnist_default.yaml DEVICE=cpu ARGS=--overwrite": Expectation(
        "lntl, best on val", f"{RUN}/checkpoints/checkpoint_epoch_22.pth", existing_run="a run"
    ),
    "make list_configs": Expectation("colored_mnist_default"),
    "make eval": Expectation(f"{RUN_NAME}: best_model.pth", existing_run="a run"),
    f"make eval CHECKPOINT={RUN}/checkpoints/last.pth": Expectation(f"{RUN_NAME}: last.pth", existing_run="a run"),
    "make bench": Expectation("benchmarks/step.py", "benchmarks/step.json", dry_run=True),
    "make tensorboard": Expectation(
        f"tensorboard.main --logdir '{RUN}/tensorboard_logs'", existing_run="a run", dry_run=True
    ),
    "make notebook": Expectation("jupyterlab notebooks", "notebooks", dry_run=True),
    "lntl data info": Expectation("rendered from the embedded MNIST strokes"),
    "lntl init shapes && cd shapes && make train": Expectation(
        "lntl train config.yaml", "shapes/config.yaml", dry_run=True
    ),
    "lntl methods lntl": Expectation("Learning Not to Learn"),
    "lntl configs copy colored_mnist_default .": Expectation(
        "colored_mnist_default.yaml", "colored_mnist_default.yaml"
    ),
    "lntl train colored_mnist_default data.color_var=0.02 project.experiment_name=harder": Expectation(
        "harder on the test set", "results/harder/result.json"
    ),
    "lntl train colored_mnist_default --resume auto": Expectation("lntl, last", RESULT_FILE, existing_run="half a run"),
    f"lntl eval {RUN}": Expectation(f"{RUN_NAME}: best_model.pth", existing_run="a run"),
    f"lntl probe {RUN}": Expectation("chance", f"{RUN}/probe.json", existing_run="a run"),
    "make report": Expectation("index.html", f"{RUN}/report/index.html", existing_run="a run"),
    f"lntl report {RUN}": Expectation("index.html", f"{RUN}/report/index.html", existing_run="a run"),
    f"{MAIN_COMMAND} --num_epochs 20 --device cpu": Expectation(
        "lntl, last", f"{RUN}/checkpoints/checkpoint_epoch_22.pth"
    ),
    f"{MAIN_COMMAND} --checkpoint_path {RUN}/checkpoints/last.pth": Expectation(
        "lntl, last", RESULT_FILE, existing_run="half a run"
    ),
}


def test_every_command_has_an_expectation() -> None:
    assert sorted(find_commands()) == sorted(EXPECTATIONS)


@pytest.fixture(scope="module")
def results_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results/ folder of the shrunk default configuration."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(ROOT / "configs/colored_mnist_default.yaml", folder)
    shrink_config(folder / "colored_mnist_default.yaml")
    assert run("train", "colored_mnist_default.yaml", folder=folder) == 0
    return folder / "results"


@pytest.mark.full
@pytest.mark.parametrize("command", EXPECTATIONS)
def test_a_command_has_the_expected_effect(command: str, results_folder: Path, tmp_path: Path) -> None:
    expectation = EXPECTATIONS[command]
    repository = copy_checkout(tmp_path)
    shrink_config(repository / "configs/colored_mnist_default.yaml")
    if expectation.existing_run != "nothing":
        shutil.copytree(results_folder, repository / "results")
    if expectation.existing_run == "half a run":
        checkpoints = repository / RUN / "checkpoints"
        (checkpoints / "checkpoint_epoch_02.pth").replace(checkpoints / "last.pth")
        (repository / RESULT_FILE).unlink()
    process = run_shell(command.replace("make ", "make -n ") if expectation.dry_run else command, repository)
    assert process.returncode == 0, process.stderr
    assert expectation.text in " ".join(process.stdout.split())
    assert (repository / expectation.path).exists()
    if expectation.existing_run == "half a run":
        expected_result, result = (
            json.loads((results / RUN_NAME / "result.json").read_text())
            for results in (results_folder, repository / "results")
        )
        assert expected_result["last"]["test"] == result["last"]["test"]


def test_files_that_the_readme_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    for name in re.findall(r"`(\d\d_\w+)`", README):
        assert (ROOT / f"notebooks/{name}.ipynb").exists(), name


def test_the_rows_of_results_are_those_of_the_benchmark() -> None:
    table_lines = (ROOT / "benchmarks/colored_mnist/table.md").read_text(encoding="utf-8").splitlines()
    section = README.partition("## Results\n")[2].partition("\n## ")[0]
    readme_rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(readme_rows) > 5
    assert [line for line in table_lines if line in readme_rows] == readme_rows


def test_the_quick_start_quotes_the_accuracies_of_the_paper() -> None:
    quick_start = README.partition("## Quick start\n")[2].partition("\n## ")[0]
    for name, accuracy in (("baseline", paper.BASELINE), ("LNTL", paper.LNTL)):
        assert f"| paper: {name} | {paper.EPOCHS} | {accuracy[0.030]:.3f} | |" in quick_start
