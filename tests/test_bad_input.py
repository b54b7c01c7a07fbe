"""Bad input gives one sentence on stderr and exit code 2, no traceback without --debug, and changes no file."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from tiny_runs import RUN, get_exit_code, lntl, read_tree, run, write_config

from lntl import cli
from lntl.errors import UserError

TRAIN_COMMAND = ["train", "tiny.yaml"]


def make_config_writer(name: str, content: bytes | str) -> Callable[[], None]:
    """Return a function that writes a configuration file with this content."""
    return lambda: Path(name).write_bytes(content if isinstance(content, bytes) else content.encode()) and None


def make_official_file_writer(name: str = "mnist_10color_jitter_var_0.030.npy", label: int = 3) -> Callable[[], None]:
    """Return a function that writes a file in the authors' format with all labels equal to `label`."""

    def write() -> None:
        images, labels = np.zeros((100, 28, 28, 3), np.uint8), np.full(100, label)
        content = {"train_image": images, "train_label": labels, "test_image": images, "test_label": labels}
        np.save(name, np.array(content, dtype=object), allow_pickle=True)

    return write


def make_truncating_writer(write: Callable[[], None], name: str) -> Callable[[], None]:
    """Return a function that calls `write` and then removes the second half of the file."""

    def write_half() -> None:
        write()
        Path(name).write_bytes(Path(name).read_bytes()[: Path(name).stat().st_size // 2])

    return write_half


def write_unreadable_header() -> None:
    """Write an .npz file whose array x has a damaged header."""
    np.savez("own.npz", x=np.zeros((40, 2), np.float32), y=np.arange(40) % 2, bias=np.arange(40) // 2 % 2)
    with ZipFile("own.npz") as archive:
        arrays = {name: archive.read(name) for name in archive.namelist()}
    arrays["x.npy"] = arrays["x.npy"].replace(b"(40, 2)", b"(40, {{", 1)
    with ZipFile("own.npz", "w") as archive:
        for name, content in arrays.items():
            archive.writestr(name, content)


def do_nothing() -> None:
    """Prepare no file."""


OFFICIAL_FILE = "mnist_10color_jitter_var_0.030.npy"
ONE_FAULT = r"tiny\.yaml: 1 error in the configuration\n  "  # followed by key, value and remedy
# For each case: a function that prepares files, the arguments of the command, and a pattern of the error message.
BAD_INPUTS: dict[str, tuple[Callable[[], None], list[str], str]] = {
    "missing config": (
        do_nothing,
        ["train", "missing.yaml"],
        r"missing\.yaml: cannot read the configuration: No such file",
    ),
    "unknown ready config": (do_nothing, ["train", "colored_mnist_defalt"], r"did you mean 'colored_mnist_default'\?"),
    "config is a folder": (
        lambda: Path("d.yaml").mkdir(),
        ["train", "d.yaml"],
        r"d\.yaml: cannot read .*: Is a directory",
    ),
    "config is a folder without suffix": (
        lambda: Path("d").mkdir(),
        ["train", "d"],
        r"d: cannot read .*: Is a directory",
    ),
    "config is binary": (
        make_config_writer("b.yaml", bytes(range(256))),
        ["train", "b.yaml"],
        r"b\.yaml: cannot read .*utf-8",
    ),
    "config is UTF-16": (
        make_config_writer("b.yaml", "a: 1".encode("utf-16")),
        ["train", "b.yaml"],
        r"b\.yaml: cannot read",
    ),
    "config contains control characters": (
        make_config_writer("b.yaml", b"a: \x00\x01"),
        ["train", "b.yaml"],
        r"b\.yaml.*not valid",
    ),
    "config is empty": (
        make_config_writer("b.yaml", ""),
        ["train", "b.yaml"],
        r"b\.yaml: a configuration must be a mapping",
    ),
    "config is a list": (
        make_config_writer("b.yaml", "[1, 2]"),
        ["train", "b.yaml"],
        r"b\.yaml: a configuration must be a mapping",
    ),
    "malformed YAML": (
        make_config_writer("b.yaml", "a: [1\nb: 2"),
        ["train", "b.yaml"],
        r"b\.yaml, line 2, column 2: not valid",
    ),
    "duplicate key": (
        make_config_writer("b.yaml", "a: 1\na: 2"),
        ["train", "b.yaml"],
        r"line 2.*key 'a' is given twice",
    ),
    "python object in YAML": (
        make_config_writer("b.yaml", "a: !!python/object/apply:os.mkdir [executed]"),
        ["train", "b.yaml"],
        r"b\.yaml, line 1, column 4: not valid YAML",
    ),
    "unknown method": (
        do_nothing,
        [*TRAIN_COMMAND, "training.phases.0.method=lntll"],
        ONE_FAULT + r"training\.phases\.0\.method: unknown name 'lntll'; did you mean 'lntl'\?",
    ),
    "unknown model": (
        do_nothing,
        [*TRAIN_COMMAND, "model.name=convnt"],
        ONE_FAULT + r"model\.name: .*'convnt'; did you mean 'convnet'\?",
    ),
    "unknown data": (
        do_nothing,
        [*TRAIN_COMMAND, "data.name=mnist"],
        ONE_FAULT + r"data\.name: .*'mnist'; did you mean 'biased_mnist'",
    ),
    "own class in a missing module": (
        do_nothing,
        [*TRAIN_COMMAND, "model.name=my.Net"],
        r"cannot load 'my\.Net': No module named 'my'",
    ),
    "own class without Config": (
        do_nothing,
        [*TRAIN_COMMAND, "model.name=torch.nn.Linear"],
        r"'torch\.nn\.Linear' is not a class that derives from",
    ),
    "unknown device": (
        do_nothing,
        [*TRAIN_COMMAND, "--device", "tpu"],
        r"training\.device: unknown device 'tpu'; use auto, cpu",
    ),
    "malformed device": (
        do_nothing,
        [*TRAIN_COMMAND, "--device", "cuda:one"],
        r"training\.device: unknown device 'cuda:one'",
    ),
    "unknown precision": (
        do_nothing,
        [*TRAIN_COMMAND, "training.precision=bf16"],
        ONE_FAULT + r"training\.precision: unknown value 'bf16'; did you mean 'bf16-mixed'\?",
    ),
    "output folder within a file": (
        do_nothing,
        [*TRAIN_COMMAND, "logging.output_dir=tiny.yaml/x"],
        r"tiny\.yaml/x/tiny: cannot lock the folder",
    ),
    "output folder is a file": (
        do_nothing,
        [*TRAIN_COMMAND, "logging.output_dir=tiny.yaml"],
        r"tiny\.yaml/tiny: cannot lock the folder",
    ),
    "output folder in a read-only file system": (
        do_nothing,
        [*TRAIN_COMMAND, "logging.output_dir=/proc"],
        r"/proc/tiny: cannot lock the folder",
    ),
    "labels out of range": (make_official_file_writer(label=10), [*TRAIN_COMMAND, "data.path=."], r"0 to 9\b.*\b10\b"),
    "negative labels": (make_official_file_writer(label=-1), [*TRAIN_COMMAND, "data.path=."], r"0 to 9\b.*-1\b"),
    "truncated data": (
        make_truncating_writer(make_official_file_writer(), OFFICIAL_FILE),
        [*TRAIN_COMMAND, "data.path=."],
        OFFICIAL_FILE + r": not a readable Colored",
    ),
    "HTML page instead of data": (
        make_config_writer(OFFICIAL_FILE, "<html>"),
        [*TRAIN_COMMAND, "data.path=."],
        OFFICIAL_FILE + r": not a readable Colored MNIST",
    ),
    "epochs 0": (do_nothing, [*TRAIN_COMMAND, "--epochs", "0"], r"the number of epochs must be at least 1, not 0"),
    "epochs negative": (
        do_nothing,
        [*TRAIN_COMMAND, "--epochs", "-3"],
        r"the number of epochs must be at least 1, not -3",
    ),
    "epochs 0 in the configuration": (
        do_nothing,
        [*TRAIN_COMMAND, "training.phases.2.epochs=0"],
        ONE_FAULT + r"training\.phases\.2\.epochs: 0 should be greater than or equal to 1",
    ),
    "no phases": (
        do_nothing,
        [*TRAIN_COMMAND, "training.phases=[]"],
        ONE_FAULT + r"training\.phases: .*at least 1 item",
    ),
    "override with an empty value": (
        do_nothing,
        [*TRAIN_COMMAND, "training.batch_size="],
        r"'training\.batch_size=': write it as key=value",
    ),
    "override with a blank value": (
        do_nothing,
        [*TRAIN_COMMAND, "training.batch_size= "],
        r"'training\.batch_size= ': write it as key=value",
    ),
    "override without value": (
        do_nothing,
        [*TRAIN_COMMAND, "training.batch_size"],
        r"'training\.batch_size': write it as key=value",
    ),
    "empty string as override": (do_nothing, [*TRAIN_COMMAND, ""], r"override '': write it as key=value"),
    "override without key": (do_nothing, [*TRAIN_COMMAND, "=64"], r"override '=64': write it as key=value"),
    "override of an unknown key": (
        do_nothing,
        [*TRAIN_COMMAND, "training.bath_size=64"],
        ONE_FAULT + r"training\.bath_size: unknown key; did you mean 'batch_size'\?",
    ),
    "override of an unknown section": (
        do_nothing,
        [*TRAIN_COMMAND, "trainig.x=1"],
        ONE_FAULT + r"trainig: unknown key; did you mean 'training'",
    ),
    "override of a phase that does not exist": (
        do_nothing,
        [*TRAIN_COMMAND, "training.phases.7.epochs=1"],
        r"there is no 'training\.phases\.7\.epochs'",
    ),
    "override of a key within a value": (
        do_nothing,
        [*TRAIN_COMMAND, "model.name.x=1"],
        r"there is no 'model\.name\.x'",
    ),
    "override that is not valid YAML": (
        do_nothing,
        [*TRAIN_COMMAND, "project.seed=[1"],
        r"override 'project\.seed=\[1'.*not valid YAML",
    ),
    "wrong type": (
        do_nothing,
        [*TRAIN_COMMAND, "training.batch_size=many"],
        ONE_FAULT + r"training\.batch_size: 'many' should be a valid int",
    ),
    "float instead of an int": (
        do_nothing,
        [*TRAIN_COMMAND, "training.batch_size=2.5"],
        ONE_FAULT + r"training\.batch_size: .*2\.5",
    ),
    "out of range": (
        do_nothing,
        [*TRAIN_COMMAND, "data.val_split_ratio=1.5"],
        ONE_FAULT + r"data\.val_split_ratio: 1\.5 should be less",
    ),
    "not finite": (
        do_nothing,
        [*TRAIN_COMMAND, "training.adversarial_lambda=.nan"],
        r"adversarial_lambda: nan should be a finite",
    ),
    "experiment name is a path": (
        do_nothing,
        [*TRAIN_COMMAND, "project.experiment_name=a/b"],
        ONE_FAULT + r"project\.experiment_name: 'a/b' should be a name without spaces and slashes that does not begin",
    ),
    "section is null": (do_nothing, [*TRAIN_COMMAND, "model=null"], ONE_FAULT + r"model: None should be"),
    "eval of an empty folder": (
        lambda: Path("empty").mkdir(),
        ["eval", "empty"],
        r"empty: its folder checkpoints/ has no checkpoint",
    ),
    "eval of a missing file": (do_nothing, ["eval", "none.pth"], r"none\.pth: there is no such checkpoint"),
    "eval of a file that is no checkpoint": (
        do_nothing,
        ["eval", "tiny.yaml"],
        r"tiny\.yaml: not a readable checkpoint",
    ),
    "eval on an unknown device": (
        do_nothing,
        ["eval", "none.pth", "--device", "x"],
        r"none\.pth: there is no such checkpoint",
    ),
    "description of an unknown method": (
        do_nothing,
        ["methods", "ermm"],
        r"'ermm' is not one of methods; did you mean 'erm'\?",
    ),
    "copy of an unknown config": (do_nothing, ["configs", "copy", "defalt"], r"no ready configuration 'defalt'"),
    "copy to a missing folder": (
        do_nothing,
        ["configs", "copy", "colored_mnist_default", "no/such"],
        r"no/such/colored_mnist_default\.yaml: cannot write it: .*No such file or directory",
    ),
    "make data in a missing folder": (
        do_nothing,
        ["data", "make", "colored_mnist", "no/x.npz", "tiny.yaml"],
        r"no/x\.npz: cannot write it",
    ),
    "make Colored MNIST from other data": (
        lambda: np.savez("own.npz", x=np.zeros((40, 2), np.float32), y=np.arange(40) % 2, bias=np.arange(40) // 2 % 2),
        ["data", "make", "colored_mnist", "x.npz", "tiny.yaml", "data={name: arrays, path: own.npz}"],
        r"tiny\.yaml: its data set is not Colored MNIST; use a configuration",
    ),
    "array whose header does not parse": (
        write_unreadable_header,
        ["data", "info", "tiny.yaml", "data={name: arrays, path: own.npz}"],
        r"own\.npz: not a readable \.npz file of plain arrays",
    ),
    "data of a missing config": (do_nothing, ["data", "info", "no.yaml"], r"no\.yaml: cannot read the configuration"),
}


def run_failing_command(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail and change no file; return its message: one line, then a line for each fault."""
    files_before = read_tree(Path())
    assert lntl(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    first_line, *fault_lines = captured.err.splitlines()
    assert first_line.startswith("Error: ")
    assert all(line.startswith("  ") for line in fault_lines)
    assert len(fault_lines) == (
        int(first_line.split(": ")[-1].split(" error")[0]) if re.search(r": \d+ errors? in", first_line) else 0
    )
    assert read_tree(Path()) == files_before
    return captured.err


@pytest.fixture(autouse=True)
def _working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input_gives_one_sentence(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    prepare, arguments, message = BAD_INPUTS[case]
    prepare()
    assert re.search(message, run_failing_command(capsys, *arguments))


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is available")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_cuda_without_a_gpu_gives_one_sentence(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    stderr = run_failing_command(capsys, *TRAIN_COMMAND, "--device", device)
    assert f"training.device: {device} is not available here" in stderr
    assert "use cpu or auto" in stderr


def test_all_faults_of_a_configuration_are_listed_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    stderr = run_failing_command(
        capsys, *TRAIN_COMMAND, "training.batch_size=1", "model.name=x", "logging.outputdir=y", "project.seed=-1"
    )
    assert "4 errors in the configuration" in stderr
    for path in ("training.batch_size: 1", "model.name: ", "logging.outputdir: unknown key", "project.seed: -1"):
        assert f"\n  {path}" in stderr


def test_a_refused_command_does_not_change_an_existing_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*TRAIN_COMMAND, folder=Path.cwd()) == 0
    assert f"{RUN} already contains a run" in run_failing_command(capsys, *TRAIN_COMMAND)
    assert f"{RUN} already contains a run" in run_failing_command(
        capsys, *TRAIN_COMMAND, "--epochs", "1", "project.seed=3"
    )
    for override in ("training.batch_size=0", "training.device=tpu", "data.path=."):
        make_official_file_writer(label=77)()
        run_failing_command(capsys, *TRAIN_COMMAND, override, "--overwrite")


@pytest.mark.parametrize("name", [".", ".."])
def test_an_experiment_name_cannot_leave_the_output_folder(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "project.experiment_name" in run_failing_command(capsys, *TRAIN_COMMAND, f"project.experiment_name={name}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write every file")
@pytest.mark.parametrize(("path", "expected"), [("tiny.yaml", "Permission denied"), (".", "cannot lock the folder")])
def test_missing_permission_gives_one_sentence(path: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    mode = Path(path).stat().st_mode
    Path(path).chmod(0o500 if path == "." else 0)
    try:
        assert lntl(*TRAIN_COMMAND) == 2
        assert expected in capsys.readouterr().err
    finally:
        Path(path).chmod(mode)


def test_debug_shows_the_traceback() -> None:
    for arguments in (["--debug", *TRAIN_COMMAND, "--epochs", "0"], [*TRAIN_COMMAND, "--epochs", "0", "--debug"]):
        with pytest.raises(UserError, match="must be at least 1"):
            cli.main(arguments)


@pytest.mark.parametrize("arguments", [TRAIN_COMMAND, [*TRAIN_COMMAND, "--debug"]])
def test_exit_code_and_stderr_of_a_failed_process(arguments: list[str]) -> None:
    """Without --debug, one sentence and exit code 2; with --debug, a traceback that ends in the same sentence."""
    Path("tiny.yaml").write_text("project: {experiment_name: tiny}\ndata: 3\n")
    assert run(*arguments, folder=Path.cwd()) != 0
    stderr = Path("stderr").read_text()
    assert "tiny.yaml: 3 errors in the configuration" in stderr
    assert ("Traceback" in stderr) == ("--debug" in arguments)


def test_a_bug_in_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only errors that the user can correct are shortened to one sentence."""

    def raise_bug(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("lntl.experiment.train", raise_bug)
    with pytest.raises(ZeroDivisionError):
        get_exit_code(lambda: cli.main(TRAIN_COMMAND))
