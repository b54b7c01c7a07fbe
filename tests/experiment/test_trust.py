"""Code that a file names runs only if the user named it: a user's own package, and a stranger's run folder."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import lntl, tree

from lntl import plugins
from lntl.errors import UserError
from lntl.experiment.checkpoints import code_names

PACKAGE = """
from pathlib import Path
from lntl.methods.erm import ERM
Path("ran").touch()

class Mine(ERM):
    "Plain training under another name."
"""
VERBS: dict[str, list[str]] = {
    "eval": ["eval", "RUN"],
    "probe": ["probe", "RUN", "--seeds", "1"],
    "report": ["report", "RUN"],
}


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raw_config: Callable[..., dict[str, Any]]
) -> Iterator[Path]:
    """A folder with the package `mine`, whose method mine.method.Mine run.yaml names; it is the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("LNTL_TRUST")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/__init__.py").touch()
    (tmp_path / "mine/method.py").write_text(PACKAGE)
    raw = raw_config("mine.method.Mine", "mine.method.Mine", logging={"use_tensorboard": False})
    raw["data"]["max_images"] = 300
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(raw))
    yield tmp_path
    for name in ("mine", "mine.method"):
        sys.modules.pop(name, None)


def fresh() -> None:
    """Forget the package, as another process has not imported it."""
    for name in ("mine", "mine.method"):
        sys.modules.pop(name, None)
    Path("ran").unlink(missing_ok=True)


def test_a_method_of_a_users_package_goes_through_every_verb(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A configuration given to `lntl train` is the user's own; a file in a run folder may be anybody's."""
    run = project / "results/tiny"
    for command in (["train", "run.yaml"], ["train", "run.yaml", "--resume", "auto"]):
        fresh()
        assert lntl(*command) == 0
    fresh()
    assert lntl("train", "run.yaml", "--resume", str(run / "checkpoints/checkpoint_epoch_01.pth")) == 0
    for verb, template in VERBS.items():
        command = [str(run) if word == "RUN" else word for word in template]
        fresh()
        before = tree(run)
        capsys.readouterr()
        if verb != "report":  # which shows what can be shown
            assert lntl(*command) == 2
            (message,) = capsys.readouterr().err.splitlines()
            assert "it names mine.method.Mine, and importing mine.method runs its code; if you trust it" in message
            assert tree(run) == before
            assert not Path("ran").exists()
        assert lntl(*command, "--trust", "mine") == 0
        assert Path("ran").exists()
    monkeypatch.setenv("LNTL_TRUST", "other mine.method")
    fresh()
    assert lntl("eval", str(run)) == 0


def test_a_strangers_folder_runs_nothing(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lntl("train", "run.yaml") == 0
    shutil.move("results/tiny", "stranger")
    config = Path("stranger/config.yaml")
    config.write_text(config.read_text().replace("results", "elsewhere"))
    for verb, command in (
        *VERBS.items(),
        ("export", ["export", "RUN", "--format", "safetensors", "--out", "m.safetensors"]),
    ):
        fresh()
        capsys.readouterr()
        code = lntl(*("stranger" if word == "RUN" else word for word in command))
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        assert not Path("ran").exists(), verb
        if verb in ("eval", "probe"):
            assert code == 2
            assert said.err.count("\n") == 1
        if verb == "report":
            page = Path("stranger/report/report.md").read_text() + said.out
            assert "it names mine.method.Mine, and importing mine.method runs its code" in page
    fresh()
    assert lntl("card", "stranger") == 0
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    ("name", "trust", "trusted"),
    [
        ("pickle.loads", (), False),  # imported already
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
def test_what_is_trusted(monkeypatch: pytest.MonkeyPatch, name: str, trust: Any, trusted: bool) -> None:
    monkeypatch.delenv("LNTL_TRUST")
    if trusted:
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
def test_the_code_that_a_configuration_names(raw: Any, names: list[str]) -> None:
    assert code_names(raw) == names
