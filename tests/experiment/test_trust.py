"""Code that a file names runs only if the user trusts it, in the user's own runs and in a stranger's run folder."""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny_runs import lntl, read_tree

from lntl import load, plugins
from lntl.config import code_names
from lntl.errors import UntrustedError, UserError

METHOD_MODULE = """
from pathlib import Path
from lntl.methods.erm import ERM
Path("ran").touch()

class Mine(ERM):
    "Plain training under another name."
"""
COMMANDS: dict[str, list[str]] = {
    "resume": ["train", "CONFIG", "--resume", "RUN"],
    "eval": ["eval", "RUN"],
    "predict": ["predict", "RUN", "INPUT", "--out", "p.csv"],
    "explain": ["explain", "RUN", "INPUT", "--out", "looks"],
    "probe": ["probe", "RUN", "--seeds", "1"],
    "report": ["report", "RUN"],
    "export": ["export", "RUN", "--format", "safetensors", "--out", "m.safetensors"],
    "card": ["card", "RUN"],
    "repair": ["repair", "RUN", "--method", "leace", "--out", "repaired"],
    "compare": ["compare", "RUN/results.jsonl", "--out", "tables"],
}
RESULT_LINE = {"name": "a", "config_hash": "0", "overrides": {}, "seed": 0, "metrics": {"accuracy": 0.5}}


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw_config: Callable[..., dict[str, Any]]
) -> Iterator[Path]:
    """The working directory, with the package `mine` and with run.yaml, which uses its method mine.method.Mine."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("LNTL_TRUST")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").touch()
    (tmp_path / "mine/method.py").write_text(METHOD_MODULE)
    raw = raw_config("mine.method.Mine", "mine.method.Mine", logging={"use_tensorboard": False})
    raw["data"]["max_images"] = 300
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(raw))
    yield tmp_path
    for name in ("mine", "mine.method"):
        sys.modules.pop(name, None)


def unload_package() -> None:
    """Unload the package, as if this were a new process."""
    for name in ("mine", "mine.method"):
        sys.modules.pop(name, None)
    Path("ran").unlink(missing_ok=True)


def make_command(name: str, run: str, config: str = "run.yaml", images: str = "x.npz") -> list[str]:
    replacements = {"CONFIG": config, "RUN": run, "INPUT": images, "RUN/results.jsonl": f"{run}/results.jsonl"}
    return [replacements.get(word, word) for word in COMMANDS[name]]


def add_benchmark(run: Path) -> None:
    """Put the results of a benchmark into a run folder, with a plan that names its config.yaml."""
    (run / "results.jsonl").write_text(json.dumps(RESULT_LINE) + "\n")
    (run / "plan.yaml").write_text(
        yaml.safe_dump({"name": "p", "seeds": [0], "runs": [{"name": "a", "config": "config.yaml"}]})
    )


@pytest.mark.full
def test_every_command_uses_a_method_of_a_users_package_if_it_is_trusted(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A configuration given to `lntl train` is the user's own; a file in a run folder may come from anybody."""
    run = project / "results/tiny"
    for arguments in (["train", "run.yaml"], ["train", "run.yaml", "--resume", "auto"]):
        unload_package()
        assert lntl(*arguments) == 0
    unload_package()
    assert lntl("train", "run.yaml", "--resume", str(run / "checkpoints/checkpoint_epoch_01.pth")) == 0
    np.savez("x.npz", x=np.zeros((2, 28, 28, 3), np.uint8))
    add_benchmark(run)
    for command_name in COMMANDS:
        unload_package()
        files_before = read_tree(run)
        capsys.readouterr()
        if command_name != "resume":  # resume gets a configuration on the command line as well
            assert lntl(*make_command(command_name, str(run))) == 2
            (message,) = capsys.readouterr().err.splitlines()
            assert "it names mine.method.Mine, and importing mine.method runs its code; if you trust it" in message
            assert read_tree(run) == files_before
            assert not Path("ran").exists()
        code = lntl(*make_command(command_name, str(run)), "--trust", "mine")
        error = capsys.readouterr().err
        assert "importing" not in error
        assert code == 0 or (command_name == "compare" and "not one of the planned runs" in error), error
    assert "1. mine.method.Mine" in (run / "MODEL_CARD.md").read_text()
    unload_package()
    assert lntl("report", "run.yaml") == 0  # a configuration on the command line is the user's own
    monkeypatch.setenv("LNTL_TRUST", "other mine.method")
    for command_name in ("eval", "predict", "card"):
        unload_package()
        assert lntl(*make_command(command_name, str(run))) == 0


UNTRUSTED_NAMES: dict[str, Callable[[dict[str, Any]], None]] = {
    "builtins.exec": lambda raw: raw["data"].update(bias=[{"from": "builtins.exec", "bins": 2}]),
    "pickle.loads": lambda raw: raw["data"].update(bias={"from": "pickle.loads", "bins": 2}),
    "os.system": lambda raw: raw["training"].update(phases=[{"method": "os.system", "epochs": 1}]),
    "beside.Model": lambda raw: raw["model"].update(name="beside.Model"),
    "beside.Data": lambda raw: raw["data"].update(name="beside.Data"),
}


@pytest.mark.parametrize("name", UNTRUSTED_NAMES)
def test_every_command_refuses_a_strangers_folder_in_one_sentence(
    name: str, trained_run: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LNTL_TRUST")
    trained_folder = trained_run("vectors")
    run = Path("stranger")
    shutil.copytree(trained_folder, run)
    monkeypatch.syspath_prepend(run)
    (run / "beside.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    config = yaml.safe_load((run / "config.yaml").read_text())
    UNTRUSTED_NAMES[name](config)
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    add_benchmark(run)
    for path in run.glob("checkpoints/*.pth"):
        content = torch.load(path, weights_only=True)
        torch.save(content | {"config": config}, path)
    files_before = read_tree(run)
    sentence = f"it names {name}, and importing {name.rpartition('.')[0]} runs its code; if you trust it, allow it"
    for command_name in COMMANDS:
        capsys.readouterr()
        assert (
            lntl(
                *make_command(
                    command_name,
                    "stranger",
                    str(trained_folder / "config.yaml"),
                    str(trained_folder.parents[1] / "vectors.npz"),
                )
            )
            == 2
        )
        output = capsys.readouterr()
        (line,) = [line for line in output.err.splitlines() if line.startswith("Error")]
        assert sentence in line
        assert "Traceback" not in output.err + output.out
    for path in (run, run / "checkpoints/last.pth"):
        with pytest.raises(UntrustedError, match=re.escape(sentence)):
            load(path)
    assert read_tree(run) == files_before
    assert not Path("ran").exists()
    assert "beside" not in sys.modules


@pytest.mark.parametrize(
    ("name", "trust", "is_trusted"),
    [
        ("pickle.loads", (), False),  # pickle is already imported, but not trusted
        ("builtins.exec", (), False),
        ("os.system", "sys", False),
        ("mine.method.Mine", "mine", True),
        ("mine.method.Mine", ["other", "mine.method"], True),
        ("mine.method.Mine", "mine.method.Mine", True),
        ("mine.method.Mine", "mine.meth", False),
        ("mine.method.Mine", "", False),
        ("minefield.method.Mine", "mine", False),
        ("lntl.runs.lock.suppress", (), False),
    ],
)
def test_trust_covers_a_module_and_its_content(
    monkeypatch: pytest.MonkeyPatch, name: str, trust: Any, is_trusted: bool
) -> None:
    monkeypatch.delenv("LNTL_TRUST")
    if is_trusted:
        plugins.check_trust(name, "x.pth", trust)
    else:
        with pytest.raises(UserError, match=rf"^x\.pth: it names {name}, and importing .* runs its code"):
            plugins.check_trust(name, "x.pth", trust)
    monkeypatch.setenv("LNTL_TRUST", f"a, {name.partition('.')[0]}")
    plugins.check_trust(name, "x.pth", trust)


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        ({"data": {"name": "table", "bias": [{"from": "a.b"}, {"from": "color"}, "sky", {"from": 3}, None]}}, ["a.b"]),
        ({"data": {"name": "a.D", "bias": {"from": "pickle.loads"}}}, ["a.D", "pickle.loads"]),
        ({"model": {"name": "timm/resnet18.a1_in1k"}}, []),
        ({"model": {"name": "a.M"}, "training": {"phases": [{"method": "a.Z"}, {"method": "erm"}, 3]}}, ["a.M", "a.Z"]),
        ({"training": {"phases": {"method": "a.Z"}}}, []),
        ({"data": [], "model": 3, "training": None}, []),
        (None, []),
    ],
)
def test_code_names_lists_the_code_that_a_configuration_uses(raw: Any, names: list[str]) -> None:
    assert code_names(raw) == names
