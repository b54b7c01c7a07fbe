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
from tiny_runs import RUN, exit_code, lntl, run, tree, write_config

from lntl import cli
from lntl.errors import UserError

TRAIN = ["train", "tiny.yaml"]


def config_file(name: str, content: bytes | str) -> Callable[[], None]:
    """Return a function that writes a configuration file with this content."""
    return lambda: Path(name).write_bytes(content if isinstance(content, bytes) else content.encode()) and None


def official_file(name: str = "mnist_10color_jitter_var_0.030.npy", label: int = 3) -> Callable[[], None]:
    """Return a function that writes a file in the authors' format with all labels equal to `label`."""

    def write() -> None:
        images, labels = np.zeros((100, 28, 28, 3), np.uint8), np.full(100, label)
        content = {"train_image": images, "train_label": labels, "test_image": images, "test_label": labels}
        np.save(name, np.array(content, dtype=object), allow_pickle=True)

    return write


def truncated(write: Callable[[], None], name: str) -> Callable[[], None]:
    """Return a function that calls `write` and cuts the file in half."""

    def cut() -> None:
        write()
        Path(name).write_bytes(Path(name).read_bytes()[: Path(name).stat().st_size // 2])

    return cut


def header_that_does_not_parse() -> None:
    """Write an .npz file in which the header of x is cut within its text."""
    np.savez("own.npz", x=np.zeros((40, 2), np.float32), y=np.arange(40) % 2, bias=np.arange(40) // 2 % 2)
    with ZipFile("own.npz") as archive:
        arrays = {name: archive.read(name) for name in archive.namelist()}
    arrays["x.npy"] = arrays["x.npy"].replace(b"(40, 2)", b"(40, {{", 1)
    with ZipFile("own.npz", "w") as archive:
        for name, content in arrays.items():
            archive.writestr(name, content)


def nothing() -> None:
    """Prepare nothing."""


OFFICIAL = "mnist_10color_jitter_var_0.030.npy"
FAULT = r"tiny\.yaml: 1 fault\(s\) in the configuration\n  "  # followed by key, value and remedy
# By case: a function that prepares files, the arguments of the command, and a pattern of its message.
BAD: dict[str, tuple[Callable[[], None], list[str], str]] = {
    "missing config": (
        nothing,
        ["train", "missing.yaml"],
        r"missing\.yaml: cannot read the configuration: No such file",
    ),
    "unknown ready config": (nothing, ["train", "colored_mnist_defalt"], r"did you mean 'colored_mnist_default'\?"),
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
        config_file("b.yaml", bytes(range(256))),
        ["train", "b.yaml"],
        r"b\.yaml: cannot read .*utf-8",
    ),
    "config is UTF-16": (config_file("b.yaml", "a: 1".encode("utf-16")), ["train", "b.yaml"], r"b\.yaml: cannot read"),
    "config holds control characters": (
        config_file("b.yaml", b"a: \x00\x01"),
        ["train", "b.yaml"],
        r"b\.yaml.*not valid",
    ),
    "config is empty": (config_file("b.yaml", ""), ["train", "b.yaml"], r"b\.yaml: a configuration is a mapping"),
    "config is a list": (
        config_file("b.yaml", "[1, 2]"),
        ["train", "b.yaml"],
        r"b\.yaml: a configuration is a mapping",
    ),
    "malformed YAML": (
        config_file("b.yaml", "a: [1\nb: 2"),
        ["train", "b.yaml"],
        r"b\.yaml, line 2, column 2: not valid",
    ),
    "key given twice": (config_file("b.yaml", "a: 1\na: 2"), ["train", "b.yaml"], r"line 2.*key 'a' is given twice"),
    "python object in YAML": (
        config_file("b.yaml", "a: !!python/object/apply:os.mkdir [executed]"),
        ["train", "b.yaml"],
        r"b\.yaml, line 1, column 4: not valid YAML",
    ),
    "unknown method": (
        nothing,
        [*TRAIN, "training.phases.0.method=lntll"],
        FAULT + r"training\.phases\.0\.method: unknown name 'lntll'; did you mean 'lntl'\?",
    ),
    "unknown model": (
        nothing,
        [*TRAIN, "model.name=convnt"],
        FAULT + r"model\.name: .*'convnt'; did you mean 'convnet'\?",
    ),
    "unknown data": (
        nothing,
        [*TRAIN, "data.name=mnist"],
        FAULT + r"data\.name: .*'mnist'; did you mean 'biased_mnist'",
    ),
    "own class in a missing module": (
        nothing,
        [*TRAIN, "model.name=my.Net"],
        r"cannot load 'my\.Net': No module named 'my'",
    ),
    "own class without Config": (
        nothing,
        [*TRAIN, "model.name=torch.nn.Linear"],
        r"'torch\.nn\.Linear' is not a class that derives from",
    ),
    "unknown device": (nothing, [*TRAIN, "--device", "tpu"], r"training\.device: unknown device 'tpu'; use auto, cpu"),
    "malformed device": (nothing, [*TRAIN, "--device", "cuda:one"], r"training\.device: unknown device 'cuda:one'"),
    "unknown precision": (
        nothing,
        [*TRAIN, "training.precision=bf16"],
        FAULT + r"training\.precision: unknown value 'bf16'; did you mean 'bf16-mixed'\?",
    ),
    "output below a file": (
        nothing,
        [*TRAIN, "logging.output_dir=tiny.yaml/x"],
        r"tiny\.yaml/x/tiny: cannot lock the folder",
    ),
    "output is a file": (
        nothing,
        [*TRAIN, "logging.output_dir=tiny.yaml"],
        r"tiny\.yaml/tiny: cannot lock the folder",
    ),
    "output in no writable system": (
        nothing,
        [*TRAIN, "logging.output_dir=/proc"],
        r"/proc/tiny: cannot lock the folder",
    ),
    "labels out of range": (official_file(label=10), [*TRAIN, "data.path=."], r"0 to 9\b.*\b10\b"),
    "negative labels": (official_file(label=-1), [*TRAIN, "data.path=."], r"0 to 9\b.*-1\b"),
    "truncated data": (
        truncated(official_file(), OFFICIAL),
        [*TRAIN, "data.path=."],
        OFFICIAL + r": not a readable Colored",
    ),
    "foreign data": (
        config_file(OFFICIAL, "<html>"),
        [*TRAIN, "data.path=."],
        OFFICIAL + r": not a readable Colored MNIST",
    ),
    "epochs 0": (nothing, [*TRAIN, "--epochs", "0"], r"the number of epochs must be at least 1, not 0"),
    "epochs negative": (nothing, [*TRAIN, "--epochs", "-3"], r"the number of epochs must be at least 1, not -3"),
    "epochs 0 in the configuration": (
        nothing,
        [*TRAIN, "training.phases.2.epochs=0"],
        FAULT + r"training\.phases\.2\.epochs: 0 should be greater than or equal to 1",
    ),
    "no phases": (nothing, [*TRAIN, "training.phases=[]"], FAULT + r"training\.phases: .*at least 1 item"),
    "empty override": (nothing, [*TRAIN, "training.batch_size="], r"'training\.batch_size=': write it as key=value"),
    "blank override": (nothing, [*TRAIN, "training.batch_size= "], r"'training\.batch_size= ': write it as key=value"),
    "override without value": (
        nothing,
        [*TRAIN, "training.batch_size"],
        r"'training\.batch_size': write it as key=value",
    ),
    "override that is empty": (nothing, [*TRAIN, ""], r"override '': write it as key=value"),
    "override without key": (nothing, [*TRAIN, "=64"], r"override '=64': write it as key=value"),
    "override of an unknown key": (
        nothing,
        [*TRAIN, "training.bath_size=64"],
        FAULT + r"training\.bath_size: unknown key; did you mean 'batch_size'\?",
    ),
    "override of an unknown section": (
        nothing,
        [*TRAIN, "trainig.x=1"],
        FAULT + r"trainig: unknown key; did you mean 'training'",
    ),
    "override of a phase that does not exist": (
        nothing,
        [*TRAIN, "training.phases.7.epochs=1"],
        r"there is no 'training\.phases\.7\.epochs'",
    ),
    "override below a value": (nothing, [*TRAIN, "model.name.x=1"], r"there is no 'model\.name\.x'"),
    "override that is not valid YAML": (
        nothing,
        [*TRAIN, "project.seed=[1"],
        r"override 'project\.seed=\[1'.*not valid YAML",
    ),
    "wrong type": (
        nothing,
        [*TRAIN, "training.batch_size=many"],
        FAULT + r"training\.batch_size: 'many' should be a valid int",
    ),
    "a float for an int": (nothing, [*TRAIN, "training.batch_size=2.5"], FAULT + r"training\.batch_size: .*2\.5"),
    "out of range": (
        nothing,
        [*TRAIN, "data.val_split_ratio=1.5"],
        FAULT + r"data\.val_split_ratio: 1\.5 should be less",
    ),
    "not finite": (
        nothing,
        [*TRAIN, "training.adversarial_lambda=.nan"],
        r"adversarial_lambda: nan should be a finite",
    ),
    "a name that is a path": (
        nothing,
        [*TRAIN, "project.experiment_name=a/b"],
        FAULT + r"project\.experiment_name: .*'a/b'",
    ),
    "a section that is null": (nothing, [*TRAIN, "model=null"], FAULT + r"model: None should be"),
    "eval of an empty folder": (
        lambda: Path("empty").mkdir(),
        ["eval", "empty"],
        r"empty: its folder checkpoints/ has no checkpoint",
    ),
    "eval of a missing file": (nothing, ["eval", "none.pth"], r"none\.pth: there is no such checkpoint"),
    "eval of a foreign file": (nothing, ["eval", "tiny.yaml"], r"tiny\.yaml: not a readable checkpoint"),
    "eval on an unknown device": (
        nothing,
        ["eval", "none.pth", "--device", "x"],
        r"none\.pth: there is no such checkpoint",
    ),
    "unknown method to describe": (nothing, ["methods", "ermm"], r"'ermm' is not one of methods; did you mean 'erm'\?"),
    "unknown config to copy": (nothing, ["configs", "copy", "defalt"], r"no ready configuration 'defalt'"),
    "copy to a missing folder": (
        nothing,
        ["configs", "copy", "colored_mnist_default", "no/such"],
        r"no/such/colored_mnist_default\.yaml: cannot write it: .*No such file or directory",
    ),
    "data into a missing folder": (
        nothing,
        ["data", "make", "colored_mnist", "no/x.npz", "tiny.yaml"],
        r"no/x\.npz: cannot write it",
    ),
    "other data made as Colored MNIST": (
        lambda: np.savez("own.npz", x=np.zeros((40, 2), np.float32), y=np.arange(40) % 2, bias=np.arange(40) // 2 % 2),
        ["data", "make", "colored_mnist", "x.npz", "tiny.yaml", "data={name: arrays, path: own.npz}"],
        r"tiny\.yaml: its data are not Colored MNIST; name a configuration",
    ),
    "array whose header does not parse": (
        header_that_does_not_parse,
        ["data", "info", "tiny.yaml", "data={name: arrays, path: own.npz}"],
        r"own\.npz: not a readable \.npz file of plain arrays",
    ),
    "data of a missing config": (nothing, ["data", "info", "no.yaml"], r"no\.yaml: cannot read the configuration"),
}


def error_message(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail and change no file; return its message: one line, or one more line per fault."""
    before = tree(Path())
    assert lntl(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    first, *more = captured.err.splitlines()
    assert first.startswith("Error: ")
    assert all(line.startswith("  ") for line in more)
    assert len(more) == (int(first.split(": ")[-1].split(" fault")[0]) if " fault(s) in" in first else 0)
    assert tree(Path()) == before
    return captured.err


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    prepare, arguments, message = BAD[case]
    prepare()
    assert re.search(message, error_message(capsys, *arguments))


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_cuda_without_a_gpu_is_one_sentence(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    stderr = error_message(capsys, *TRAIN, "--device", device)
    assert f"training.device: {device} is not available here" in stderr
    assert "use cpu or auto" in stderr


def test_all_faults_of_a_configuration_are_listed_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    stderr = error_message(
        capsys, *TRAIN, "training.batch_size=1", "model.name=x", "logging.outputdir=y", "project.seed=-1"
    )
    assert "4 fault(s)" in stderr
    for path in ("training.batch_size: 1", "model.name: ", "logging.outputdir: unknown key", "project.seed: -1"):
        assert f"\n  {path}" in stderr


def test_an_existing_run_is_not_touched(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*TRAIN, folder=Path.cwd()) == 0
    assert f"{RUN} already contains a run" in error_message(capsys, *TRAIN)
    assert f"{RUN} already contains a run" in error_message(capsys, *TRAIN, "--epochs", "1", "project.seed=3")
    for bad in ("training.batch_size=0", "training.device=tpu", "data.path=."):
        official_file(label=77)()
        error_message(capsys, *TRAIN, bad, "--overwrite")


@pytest.mark.parametrize("name", [".", ".."])
def test_an_experiment_name_cannot_leave_the_output_folder(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "project.experiment_name" in error_message(capsys, *TRAIN, f"project.experiment_name={name}")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads and writes anything")
@pytest.mark.parametrize(("what", "expected"), [("tiny.yaml", "Permission denied"), (".", "cannot lock the folder")])
def test_missing_permission_is_one_sentence(what: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    mode = Path(what).stat().st_mode
    Path(what).chmod(0o500 if what == "." else 0)
    try:
        assert lntl(*TRAIN) == 2
        assert expected in capsys.readouterr().err
    finally:
        Path(what).chmod(mode)


def test_debug_shows_the_traceback() -> None:
    for arguments in (["--debug", *TRAIN, "--epochs", "0"], [*TRAIN, "--epochs", "0", "--debug"]):
        with pytest.raises(UserError, match="must be at least 1"):
            cli.main(arguments)


@pytest.mark.parametrize("arguments", [TRAIN, [*TRAIN, "--debug"]])
def test_exit_code_and_stderr_of_a_failed_process(arguments: list[str]) -> None:
    """Without --debug, one sentence and exit code 2; with --debug, a traceback that ends in the same sentence."""
    Path("tiny.yaml").write_text("project: {experiment_name: tiny}\ndata: 3\n")
    assert run(*arguments, folder=Path.cwd()) != 0
    stderr = Path("stderr").read_text()
    assert "tiny.yaml: 3 fault(s) in the configuration" in stderr
    assert ("Traceback" in stderr) == ("--debug" in arguments)


def test_a_bug_in_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only errors that the user can correct become one sentence; others keep their traceback."""

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("lntl.experiment.train", broken)
    with pytest.raises(ZeroDivisionError):
        exit_code(lambda: cli.main(TRAIN))
