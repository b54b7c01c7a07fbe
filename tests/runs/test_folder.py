"""Run folders: creating and replacing them, reading their files, and the record of the environment of a run."""

import ast
import json
import os
import platform
import re
import shutil
from pathlib import Path

import pytest
import torch
from tiny_runs import ROOT, read_tree

from lntl import __version__
from lntl.errors import UserError
from lntl.reporting.run_files import read_run
from lntl.runs import environment
from lntl.runs.files import read_json, write_json
from lntl.runs.folder import RunFolder
from lntl.runs.formats import Environment, Epoch, Machine


def make_epoch(number: int, accuracy: float) -> Epoch:
    """Return the record of an epoch."""
    position = {"phase": 1, "method": "erm", "epoch": number, "total_epoch": number, "step": 3 * number}
    return Epoch.model_validate(position | {"val/accuracy": accuracy})


RESULT = """{"project": "p", "experiment": "tiny", "method": "erm", "seed": 0,
"last": {"checkpoint": "last.pth", "epoch": 2, "test": {"accuracy": 0.5, "aligned_accuracy": null}},
"best": {"checkpoint": "best_model.pth", "epoch": 1, "test": {"accuracy": 0.75}}, "erm": null}"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """The folder of a run with each of its files."""
    folder = RunFolder(tmp_path / "results" / "tiny")
    folder.create("seed: 1\n")
    for path in (folder.last, folder.best, folder.checkpoint(1), folder.log, folder.result):
        path.write_text("{}")
    folder.tensorboard.mkdir()
    (folder.tensorboard / "events").write_text("")
    folder.evaluation.mkdir()
    folder.evaluation_of(folder.best).write_text("{}")
    folder.write_metrics([make_epoch(1, 0.5)])
    return folder


def test_create_writes_the_configuration_and_the_environment(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "deep" / "results" / "tiny")
    assert not folder.holds_a_run
    folder.create("seed: 1\n")
    assert folder.holds_a_run
    assert folder.config.read_text() == "seed: 1\n"
    assert read_json(folder.environment, Environment) == environment.describe()
    assert sorted(read_tree(folder.path)) == ["checkpoints", "config.yaml", "environment.json"]


def test_a_run_is_never_replaced_silently(folder: RunFolder) -> None:
    files_before = read_tree(folder.path)
    with pytest.raises(UserError, match="already contains a run") as error:
        folder.create("seed: 2\n")
    for option in ("--resume auto", "--overwrite", "project.experiment_name"):
        assert option in str(error.value)
    assert read_tree(folder.path) == files_before


@pytest.mark.parametrize("file", ["config", "checkpoints"])
def test_a_folder_with_some_files_of_a_run_counts_as_a_run(folder: RunFolder, file: str) -> None:
    partial_run = RunFolder(folder.path.with_name("partial"))
    partial_run.path.mkdir()
    getattr(folder, file).rename(getattr(partial_run, file))
    with pytest.raises(UserError, match="already contains a run"):
        partial_run.create("seed: 2\n")


def test_overwrite_removes_the_files_of_the_run_and_no_other(folder: RunFolder) -> None:
    (folder.path / "notes.txt").write_text("mine")
    RunFolder(folder.erm).create("seed: 1\n")  # the ERM run within the run folder
    folder.create("seed: 2\n", overwrite=True)
    assert sorted(read_tree(folder.path)) == ["checkpoints", "config.yaml", "environment.json", "notes.txt"]
    assert folder.config.read_text() == "seed: 2\n"


def test_other_files_do_not_count_as_a_run(tmp_path: Path) -> None:
    (tmp_path / "erm").mkdir()
    (tmp_path / "erm" / "notes.txt").write_text("mine")
    RunFolder(tmp_path).create("seed: 1\n")
    RunFolder(tmp_path).create("seed: 2\n", overwrite=True)
    assert (tmp_path / "erm" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["evaluation/mine.csv", "report/mine.html", "tensorboard_logs/mine", "result.json"])
def test_other_files_with_a_name_that_a_run_writes_are_kept(tmp_path: Path, name: str, overwrite: bool) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    files_before = read_tree(tmp_path)
    with pytest.raises(UserError, match=r"exists, but .* contains no run.*: move it away"):
        RunFolder(tmp_path).create("seed: 1\n", overwrite)
    assert read_tree(tmp_path) == files_before


def test_a_partly_removed_run_still_counts_as_a_run(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    unlink = Path.unlink

    def interrupt_unlink(path: Path, missing_ok: bool = False) -> None:
        if path == folder.result:
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", interrupt_unlink)
    with pytest.raises(KeyboardInterrupt):
        folder.create("seed: 2\n", overwrite=True)
    monkeypatch.undo()
    folder.create("seed: 2\n", overwrite=True)
    assert sorted(read_tree(folder.path)) == ["checkpoints", "config.yaml", "environment.json"]


@pytest.mark.parametrize("subfolder", ["file", "file/results"])
def test_a_folder_that_cannot_be_created_gives_one_sentence(tmp_path: Path, subfolder: str) -> None:
    (tmp_path / "file").write_text("a regular file")
    with pytest.raises(UserError, match=r"cannot make the run folder: .*logging\.output_dir"):
        RunFolder(tmp_path / subfolder / "tiny").create("seed: 1\n")
    assert read_tree(tmp_path) == {"file": b"a regular file"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_gives_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot make the run folder: Permission denied"):
        RunFolder(tmp_path / "tiny").create("seed: 1\n")


def test_checkpoints_have_the_documented_names() -> None:
    folder = RunFolder(Path("results/tiny"))
    names = [folder.checkpoint(7).name, folder.checkpoint(123).name, folder.last.name, folder.best.name]
    assert names == ["checkpoint_epoch_07.pth", "checkpoint_epoch_123.pth", "last.pth", "best_model.pth"]


def test_evaluations_have_the_documented_names() -> None:
    folder = RunFolder(Path("results/tiny"))
    names = [folder.evaluation_of(path).name for path in (folder.best, folder.last, folder.checkpoint(7))]
    assert names == ["test.json", "test_last.json", "test_checkpoint_epoch_07.json"]
    assert folder.evaluation_of(folder.last, "val") == Path("results/tiny/evaluation/val_last.json")


def test_metrics_and_result_are_read_as_they_were_written(folder: RunFolder) -> None:
    folder.write_metrics([make_epoch(1, 0.5), make_epoch(2, 0.25)])
    assert json.loads(folder.metrics.read_text().splitlines()[1])["val/accuracy"] == 0.25
    assert folder.read_metrics() == [make_epoch(1, 0.5), make_epoch(2, 0.25)]
    assert folder.read_metrics()[1].metrics == {"val/accuracy": 0.25}
    folder.result.write_text(RESULT)
    result = folder.read_result()
    assert result is not None
    assert (result.last.epoch, result.last.test) == (2, {"accuracy": 0.5, "aligned_accuracy": None})
    write_json(folder.result, result)
    assert json.loads(folder.result.read_text()) == json.loads(RESULT)  # the same keys and values
    empty_folder = RunFolder(folder.path / "empty")
    assert empty_folder.read_metrics() == []
    assert empty_folder.read_result() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"last": {', '{"last": 3}', "\xff", '{"experiment": {"a": [1]}}'])
def test_the_error_for_a_damaged_file_names_it(folder: RunFolder, text: str) -> None:
    folder.result.write_text(text, encoding="latin-1")
    folder.metrics.write_text(f"{text}\n", encoding="latin-1")
    with pytest.raises(UserError, match=r"result\.json: is damaged, or written by another version \("):
        folder.read_result()
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 1: is damaged"):
        folder.read_metrics()


def test_resolve_returns_the_best_checkpoint_or_else_the_last(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    assert RunFolder.resolve(folder.path) == folder.best
    assert RunFolder.resolve(folder.path, "last") == folder.last
    assert RunFolder.resolve(folder.checkpoint(1)) == folder.checkpoint(1)
    assert caplog.messages == []
    folder.best.unlink()
    assert RunFolder.resolve(folder.path) == folder.last
    assert caplog.messages == [
        f"{folder.path} has no best checkpoint yet, so its last checkpoint is used: {folder.last}"
    ]


def test_resolve_refuses_exports_and_missing_checkpoints(folder: RunFolder, tmp_path: Path) -> None:
    export = tmp_path / "model.safetensors"
    export.touch()
    assert RunFolder.resolve(export, exports=True) == export
    with pytest.raises(UserError, match=r"it is an export, which has no h and no data; name its run folder"):
        RunFolder.resolve(export)
    with pytest.raises(UserError, match=r"there is no such checkpoint or run folder; `ls "):
        RunFolder.resolve(tmp_path / "missing.pth")
    with pytest.raises(UserError, match=r"its folder checkpoints/ has no checkpoint; is it a run folder"):
        RunFolder.resolve(tmp_path)
    for name in (folder.best, folder.last):
        name.unlink()
    with pytest.raises(UserError, match=r"best_model\.pth is missing; name another checkpoint, e\.g\. .*_01\.pth"):
        RunFolder.resolve(folder.path)


def test_of_checkpoint_returns_the_run_of_a_checkpoint(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder.of_checkpoint(folder.checkpoint(1))
    assert run is not None
    assert run.path == folder.path
    assert RunFolder.of_checkpoint(tmp_path / "last.pth") is None
    monkeypatch.chdir(folder.checkpoints)
    run = RunFolder.of_checkpoint(Path("last.pth"))
    assert run is not None
    assert run.path.resolve() == folder.path


def test_epoch_checkpoints_ignores_files_with_other_names(folder: RunFolder) -> None:
    for name in ("checkpoint_epoch_02_copy.pth", "checkpoint_epoch_.pth", "checkpoint_epoch_x.pth", "mine.pth"):
        (folder.checkpoints / name).touch()
    assert folder.epoch_checkpoints() == {1: folder.checkpoint(1)}


def test_describe_returns_versions_and_hardware() -> None:
    description = environment.describe()
    assert description.lntl == __version__
    assert description.python == platform.python_version()
    assert description.packages["torch"] == torch.__version__.partition("+")[0]
    assert description.threads == torch.get_num_threads()
    assert description.cores == os.cpu_count()
    assert description.memory_gib is not None
    assert description.memory_gib > 0.1
    assert description.processor
    assert (description.cuda is not None) == torch.cuda.is_available()
    assert Environment.model_validate_json(description.model_dump_json()) == description


def test_without_sysconf_the_memory_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no sysconf."""
    monkeypatch.delattr(os, "sysconf")
    assert environment.describe().memory_gib is None


def test_no_module_imports_posix_modules_at_its_top() -> None:
    """All modules can be imported on Windows; POSIX functions are used by getattr or imported in a function."""
    posix_modules = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios"}
    violations = [
        f"{path.name}: {name}"
        for path in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in [alias.name for alias in getattr(node, "names", [])] + [getattr(node, "module", None)]
        if isinstance(node, ast.Import | ast.ImportFrom) and name in posix_modules
    ]
    assert violations == []


def test_the_machine_of_each_resumed_part_is_recorded(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    original_environment = environment.describe()
    folder.resume("seed: 1\n")
    assert read_json(folder.environment, Environment) == original_environment  # the machine was the same
    machines = [original_environment.model_copy(update={"git_commit": commit}) for commit in ("a", "b")]
    for machine in (machines[0], machines[0], machines[1], original_environment):
        monkeypatch.setattr(environment, "describe", lambda machine=machine: machine)
        folder.resume("seed: 2\n")
    content = json.loads(folder.environment.read_text())
    assert content.pop("resumed") == [{"git_commit": "a"}, {"git_commit": "b"}, {}]
    assert content == original_environment.model_dump(exclude_unset=True)
    parts = read_json(folder.environment, Environment).parts()
    assert parts == [
        Machine.model_validate(machine.model_dump())
        for machine in (original_environment, *machines, original_environment)
    ]
    assert folder.config.read_text() == "seed: 2\n"


@pytest.mark.parametrize("text", ["", "[]", '{"resumed": 3}'])
def test_a_damaged_environment_is_written_again(folder: RunFolder, text: str) -> None:
    folder.environment.write_text(text)
    folder.resume("seed: 1\n")
    assert read_json(folder.environment, Environment) == environment.describe()


def test_the_commit_of_the_checkout_is_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if (ROOT / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", environment.describe().git_commit or "")
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "site-packages" / "lntl" / "runs" / "environment.py"))
    assert environment.describe().git_commit is None


@pytest.mark.parametrize("name", ["checkpoints", "evaluation", "tensorboard_logs", "wandb", "report", "run.log", "erm"])
def test_a_link_in_place_of_a_folder_or_the_log_is_refused(folder: RunFolder, tmp_path: Path, name: str) -> None:
    path, other_folder = folder.path / name, tmp_path / "other_folder"
    other_folder.mkdir()
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(other_folder)
    files_before = read_tree(tmp_path)
    with pytest.raises(UserError, match=rf"{name}: it is a link, but a run writes only into its own folder"):
        folder.check_links()
    assert read_tree(tmp_path) == files_before


@pytest.mark.parametrize("name", ["result.json", "config.yaml", "run.log", "checkpoints"])
def test_a_pipe_in_place_of_a_file_is_refused(folder: RunFolder, name: str) -> None:
    path = folder.path / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    for check in (folder.check_links, lambda: read_run(folder.path)):
        with pytest.raises(UserError, match=f"{name}: is neither a file nor a folder; remove it"):
            check()
