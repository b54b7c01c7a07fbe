"""The folder of a run: made, refused, replaced; and the facts about where the run took place."""

import json
import os
import platform
import re
from pathlib import Path

import pytest
import torch
from tiny_runs import ROOT, tree

from lntl import __version__
from lntl.errors import UserError
from lntl.runs import environment
from lntl.runs.folder import RunFolder, of_checkpoint, run_around


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that has written each of its files."""
    folder = RunFolder(tmp_path / "results" / "tiny")
    folder.create("seed: 1\n")
    for path in (folder.last, folder.best, folder.checkpoint(1), folder.log, folder.result):
        path.write_text("{}")
    folder.tensorboard.mkdir()
    (folder.tensorboard / "events").write_text("")
    folder.evaluation.mkdir()
    folder.evaluation_of(folder.best).write_text("{}")
    folder.write_metrics([{"epoch": 1}])
    return folder


def test_create(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "deep" / "results" / "tiny")
    assert not folder.holds_a_run
    folder.create("seed: 1\n")
    assert folder.holds_a_run
    assert folder.config.read_text() == "seed: 1\n"
    assert json.loads(folder.environment.read_text()) == environment.describe()
    assert sorted(tree(folder.path)) == ["checkpoints", "config.yaml", "environment.json"]


def test_a_run_is_never_replaced_silently(folder: RunFolder) -> None:
    before = tree(folder.path)
    with pytest.raises(UserError, match="already holds a run") as told:
        folder.create("seed: 2\n")
    for way_out in ("--resume auto", "--overwrite", "project.experiment_name"):
        assert way_out in str(told.value)
    assert tree(folder.path) == before


@pytest.mark.parametrize("left", ["config", "checkpoints"])
def test_part_of_a_run_is_a_run(folder: RunFolder, left: str) -> None:
    rest = RunFolder(folder.path.with_name("rest"))
    rest.path.mkdir()
    getattr(folder, left).rename(getattr(rest, left))
    with pytest.raises(UserError, match="already holds a run"):
        rest.create("seed: 2\n")


def test_overwrite_removes_the_files_of_the_run_and_no_other(folder: RunFolder) -> None:
    (folder.path / "notes.txt").write_text("mine")
    RunFolder(folder.erm).create("seed: 1\n")  # the plain run beside it
    folder.create("seed: 2\n", overwrite=True)
    assert sorted(tree(folder.path)) == ["checkpoints", "config.yaml", "environment.json", "notes.txt"]
    assert folder.config.read_text() == "seed: 2\n"


def test_files_of_others_are_no_run(tmp_path: Path) -> None:
    (tmp_path / "erm").mkdir()
    (tmp_path / "erm" / "notes.txt").write_text("mine")
    RunFolder(tmp_path).create("seed: 1\n")
    RunFolder(tmp_path).create("seed: 2\n", overwrite=True)
    assert (tmp_path / "erm" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["evaluation/mine.csv", "report/mine.html", "tensorboard_logs/mine", "result.json"])
def test_files_of_others_with_a_name_that_a_run_writes_stay(tmp_path: Path, name: str, overwrite: bool) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=r"is there, but .* holds no run.*: move it away"):
        RunFolder(tmp_path).create("seed: 1\n", overwrite)
    assert tree(tmp_path) == before


def test_a_run_half_removed_is_still_a_run(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = Path.unlink

    def killed(path: Path, missing_ok: bool = False) -> None:
        if path == folder.result:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        folder.create("seed: 2\n", overwrite=True)
    monkeypatch.undo()
    folder.create("seed: 2\n", overwrite=True)
    assert sorted(tree(folder.path)) == ["checkpoints", "config.yaml", "environment.json"]


@pytest.mark.parametrize("below", ["file", "file/results"])
def test_a_folder_that_cannot_be_made(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("a regular file")
    with pytest.raises(UserError, match=r"cannot make the run folder: .*logging\.output_dir"):
        RunFolder(tmp_path / below / "tiny").create("seed: 1\n")
    assert tree(tmp_path) == {"file": b"a regular file"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot make the run folder: Permission denied"):
        RunFolder(tmp_path / "tiny").create("seed: 1\n")


def test_names_of_checkpoints() -> None:
    folder = RunFolder(Path("results/tiny"))
    names = [folder.checkpoint(7).name, folder.checkpoint(123).name, folder.last.name, folder.best.name]
    assert names == ["checkpoint_epoch_07.pth", "checkpoint_epoch_123.pth", "last.pth", "best_model.pth"]


def test_names_of_evaluations() -> None:
    folder = RunFolder(Path("results/tiny"))
    names = [folder.evaluation_of(path).name for path in (folder.best, folder.last, folder.checkpoint(7))]
    assert names == ["test.json", "test_last.json", "test_checkpoint_epoch_07.json"]
    assert folder.evaluation_of(folder.last, "val") == Path("results/tiny/evaluation/val_last.json")


def test_metrics_and_result_read_back(folder: RunFolder) -> None:
    folder.write_metrics([{"epoch": 1, "val/accuracy": 0.5}, {"epoch": 2, "val/accuracy": 0.25}])
    assert folder.read_metrics() == [{"epoch": 1, "val/accuracy": 0.5}, {"epoch": 2, "val/accuracy": 0.25}]
    assert folder.read_result() == {}
    empty = RunFolder(folder.path / "empty")
    assert empty.read_metrics() == []
    assert empty.read_result() is None


def test_the_run_of_a_checkpoint(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert of_checkpoint(folder.checkpoint(1)).path == folder.path
    monkeypatch.chdir(folder.checkpoints)
    assert of_checkpoint(Path("last.pth")).path.resolve() == folder.path


def test_a_checkpoint_elsewhere_has_no_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"lies in RUN/checkpoints/"):
        of_checkpoint(tmp_path / "last.pth")
    assert run_around(tmp_path / "last.pth") is None


def test_a_folder_of_checkpoints_makes_no_run(folder: RunFolder) -> None:
    around = run_around(folder.last)
    assert around is not None
    assert around.path == folder.path
    folder.config.unlink()
    assert run_around(folder.last) is None


def test_environment() -> None:
    facts = environment.describe()
    assert facts["lntl"] == __version__
    assert facts["python"] == platform.python_version()
    assert facts["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert facts["threads"] == torch.get_num_threads()
    assert facts["cores"] == os.cpu_count()
    assert facts["memory_gib"] > 0.1
    assert facts["processor"]
    assert (facts["cuda"] is not None) == torch.cuda.is_available()
    assert json.loads(json.dumps(facts)) == facts


def test_a_run_that_goes_on_elsewhere_tells_of_each_part(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    first = environment.describe()
    folder.take_up("seed: 1\n")
    assert json.loads(folder.environment.read_text()) == first  # nothing was different
    for commit in ("a", "a", "b"):
        monkeypatch.setattr(environment, "describe", lambda commit=commit: first | {"git_commit": commit})
        folder.take_up("seed: 2\n")
    monkeypatch.setattr(environment, "describe", lambda: first)
    folder.take_up("seed: 2\n")
    told = json.loads(folder.environment.read_text())
    assert told == first | {"resumed": [{"git_commit": "a"}, {"git_commit": "b"}, {}]}
    assert environment.parts(told) == [first, first | {"git_commit": "a"}, first | {"git_commit": "b"}, first]
    assert folder.config.read_text() == "seed: 2\n"


def test_the_commit_is_that_of_the_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if (ROOT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", environment.describe()["git_commit"])
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "site-packages" / "lntl" / "runs" / "environment.py"))
    assert environment.describe()["git_commit"] is None
