"""Every command of the README and of the first pages of the docs runs in a clone, as a new user would type it."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from clone import clone, sh, shrink
from tiny_runs import ROOT, run

from lntl import paper

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [README, *((ROOT / f"docs/{name}.md").read_text("utf-8") for name in ("quick_start", "commands", "files"))]
NAME = "colored_mnist_baseline"
RUN = Path("results") / NAME


def commands() -> list[str]:
    """Return the command lines of all ```bash blocks, without comments, each once, in order."""
    blocks = re.findall(r"^```bash\n(.*?)^```", "\n".join(PAGES).replace("\\\n", " "), re.MULTILINE | re.DOTALL)
    lines = (re.sub(r"(^|\s+)#.*", "", line).strip() for block in blocks for line in block.splitlines())
    return list(dict.fromkeys(line for line in lines if line))


@dataclass(frozen=True)
class Try:
    """How a command is tested: with a smaller configuration, and with the run `given` in results/."""

    says: str  # in its output
    makes: str = "README.md"  # a file or folder that is there afterwards
    given: str = "nothing"  # nothing, a run, or half a run
    dry: bool = False  # only what make would do is looked at


MAIN = "python src/main.py --config configs/colored_mnist_default.yaml --mode train"
RESULT = f"{RUN}/result.json"
TABLE: dict[str, Try] = {
    "make train": Try("lntl, best on val", RESULT),
    "make setup": Try("rendered from the embedded MNIST strokes"),
    "make setup && source .venv/bin/activate": Try("rendered from the embedded MNIST strokes"),
    "source .venv/bin/activate": Try(""),
    "lntl --help": Try("Train classifiers"),
    "lntl configs": Try("colored_mnist_default"),
    "make quick_train": Try("lntl, best on val", "results/quick_train/result.json"),
    "make train EPOCHS=20 CONFIG=configs/colored_mnist_default.yaml DEVICE=cpu ARGS=--overwrite": Try(
        "lntl, best on val", f"{RUN}/checkpoints/checkpoint_epoch_22.pth", given="a run"
    ),
    "make list_configs": Try("colored_mnist_default"),
    "make eval": Try(f"{NAME}: best_model.pth", given="a run"),
    f"make eval CHECKPOINT={RUN}/checkpoints/last.pth": Try(f"{NAME}: last.pth", given="a run"),
    "make bench": Try("benchmarks/step.py", "benchmarks/step.json", dry=True),
    "make tensorboard": Try(f"tensorboard.main --logdir '{RUN}/tensorboard_logs'", given="a run", dry=True),
    "make notebook": Try("jupyterlab notebooks", "notebooks", dry=True),
    "lntl data info": Try("rendered from the embedded MNIST strokes"),
    "lntl init shapes && cd shapes && make train": Try("lntl train config.yaml", "shapes/config.yaml", dry=True),
    "lntl methods lntl": Try("Learning Not to Learn"),
    "lntl configs copy colored_mnist_default .": Try("colored_mnist_default.yaml", "colored_mnist_default.yaml"),
    "lntl train colored_mnist_default data.color_var=0.02 project.experiment_name=harder": Try(
        "harder on the test set", "results/harder/result.json"
    ),
    "lntl train colored_mnist_default --resume auto": Try("lntl, last", RESULT, given="half a run"),
    f"lntl eval {RUN}": Try(f"{NAME}: best_model.pth", given="a run"),
    f"lntl probe {RUN}": Try("chance", f"{RUN}/probe.json", given="a run"),
    "make report": Try("index.html", f"{RUN}/report/index.html", given="a run"),
    f"lntl report {RUN}": Try("index.html", f"{RUN}/report/index.html", given="a run"),
    f"{MAIN} --num_epochs 20 --device cpu": Try("lntl, last", f"{RUN}/checkpoints/checkpoint_epoch_22.pth"),
    f"{MAIN} --checkpoint_path {RUN}/checkpoints/last.pth": Try("lntl, last", RESULT, given="half a run"),
}


def test_every_command_is_in_the_table_and_no_other() -> None:
    assert sorted(commands()) == sorted(TABLE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results/ folder of the shrunk default configuration."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(ROOT / "configs/colored_mnist_default.yaml", folder)
    shrink(folder / "colored_mnist_default.yaml")
    assert run("train", "colored_mnist_default.yaml", folder=folder) == 0
    return folder / "results"


@pytest.mark.full
@pytest.mark.parametrize("command", TABLE)
def test_a_command(command: str, trained: Path, tmp_path: Path) -> None:
    how = TABLE[command]
    copy = clone(tmp_path)
    shrink(copy / "configs/colored_mnist_default.yaml")
    if how.given != "nothing":
        shutil.copytree(trained, copy / "results")
    if how.given == "half a run":
        checkpoints = copy / RUN / "checkpoints"
        (checkpoints / "checkpoint_epoch_02.pth").replace(checkpoints / "last.pth")
        (copy / RESULT).unlink()
    done = sh(command.replace("make ", "make -n ") if how.dry else command, copy)
    assert done.returncode == 0, done.stderr
    assert how.says in " ".join(done.stdout.split())
    assert (copy / how.makes).exists()
    if how.given == "half a run":
        first, second = (
            json.loads((place / NAME / "result.json").read_text()) for place in (trained, copy / "results")
        )
        assert first["last"]["test"] == second["last"]["test"]


def test_files_that_the_readme_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    for name in re.findall(r"`(\d\d_\w+)`", README):
        assert (ROOT / f"notebooks/{name}.ipynb").exists(), name


def test_the_rows_of_results_are_those_of_the_benchmark() -> None:
    made = (ROOT / "benchmarks/colored_mnist/table.md").read_text(encoding="utf-8").splitlines()
    section = README.partition("## Results\n")[2].partition("\n## ")[0]
    shown = [line for line in section.splitlines() if line.startswith("|")]
    assert len(shown) > 5
    assert [line for line in made if line in shown] == shown


def test_the_papers_rows_of_the_quick_start_are_the_papers() -> None:
    quick_start = README.partition("## Quick start\n")[2].partition("\n## ")[0]
    for name, accuracy in (("baseline", paper.BASELINE), ("LNTL", paper.LNTL)):
        assert f"| paper: {name} | {paper.EPOCHS} | {accuracy[0.030]:.3f} | |" in quick_start
