"""Attributions of a run's test examples: which examples are chosen and what is stored."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lntl.probing import checkpoint
from lntl.probing.saliency import MAX_MISTAKES, SAMPLE_SIZE, spread_over_groups
from lntl.reporting.run_files import read_run
from lntl.runs.folder import RunFolder

TrainedRun = Callable[[str], Path]


def test_examples_come_from_as_many_groups_as_possible() -> None:
    group = torch.tensor([0] * 50 + [1] * 3 + [2] * 40 + [-100] * 2)
    selected_rows = spread_over_groups(torch.arange(95), group, 10)
    assert len(set(selected_rows.tolist())) == 10
    assert sorted(torch.bincount(group[selected_rows] + 100, minlength=103)[[0, 100, 101, 102]].tolist()) == [
        2,
        2,
        3,
        3,
    ]
    assert group[selected_rows].tolist() == sorted(group[selected_rows].tolist())
    assert spread_over_groups(torch.arange(0), group, 10).tolist() == []
    assert spread_over_groups(torch.tensor([50, 0]), group, 10).tolist() == [0, 50]


@pytest.fixture
def copy_run(trained_run: TrainedRun, tmp_path: Path) -> Callable[[str], RunFolder]:
    """A function that copies the run of a kind; probe.json and samples.npz exist already, so they are not computed."""

    def copy_folder(kind: str) -> RunFolder:
        folder = RunFolder(tmp_path / kind)
        shutil.copytree(trained_run(kind), folder.path)
        for path in (folder.probe, folder.samples):
            path.write_text("{}")
        return folder

    return copy_folder


@pytest.mark.parametrize("kind", [pytest.param("table", marks=pytest.mark.full), "vectors"])
def test_a_report_gets_mistakes_and_a_sample_of_the_groups(copy_run: Callable[[str], RunFolder], kind: str) -> None:
    folder = copy_run(kind)
    assert checkpoint.complete(folder) == []
    files = read_run(folder.path)
    assert files.saliency is not None
    assert files.saliency_maps is not None
    examples = files.saliency.examples
    with np.load(folder.evaluation_of(folder.best).with_suffix(".npz")) as arrays:
        n, num_mistakes = len(arrays["y"]), int((arrays["probabilities"].argmax(axis=1) != arrays["y"]).sum())
    mistakes = [example for example in examples if example.mistake]
    assert len(mistakes) == min(MAX_MISTAKES, num_mistakes)
    assert all(example.predicted != example.label for example in mistakes)
    assert len(examples) == len(mistakes) + min(SAMPLE_SIZE, n - len(mistakes))
    assert len({example.name for example in examples}) == len(examples)
    maps = files.saliency_maps["maps"]
    assert maps.shape == ((1, len(examples), 16, 16) if kind == "table" else (1, len(examples), 7))
    inode = folder.saliency.stat().st_ino
    assert checkpoint.complete(folder) == []
    assert folder.saliency.stat().st_ino == inode  # the file was not written again
    content = json.loads(folder.saliency.read_text())
    folder.saliency.write_text(json.dumps(content | {"epoch": 7}))
    assert checkpoint.complete(folder) == []
    assert json.loads(folder.saliency.read_text()) == content  # the file of another epoch was replaced


def test_a_model_that_cannot_be_differentiated_gives_one_sentence(
    copy_run: Callable[[str], RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_run("vectors")
    monkeypatch.setattr("lntl.models.mlp.MLP.__init__", make_init_without_gradient(), raising=True)
    (fault,) = checkpoint.complete(folder)
    assert fault.startswith("saliency.json could not be made: the model cannot be differentiated")
    assert not folder.saliency.exists()
    assert not folder.saliency_maps.exists()


def make_init_without_gradient() -> Callable[..., None]:
    """Return an __init__ of MLP whose f has no gradient."""
    from lntl.models.mlp import MLP

    original_init = MLP.__init__

    def init(self: torch.nn.Module, *arguments: object) -> None:
        original_init(self, *arguments)  # type: ignore[arg-type]
        self.f.register_forward_hook(lambda module, inputs, out: out.detach())

    return init


def test_without_captum_the_report_names_the_command_to_install_it(
    copy_run: Callable[[str], RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lntl.reporting import run_report

    folder = copy_run("vectors")
    monkeypatch.setattr(checkpoint, "captum_installed", lambda: False)
    monkeypatch.setattr(run_report, "captum_installed", lambda: False)
    assert checkpoint.complete(folder) == []
    assert not folder.saliency.exists()
    command = run_report.run_report(read_run(folder.path)).missing["saliency"]
    assert command == f"pip install 'lntl[explain]' && lntl report {folder.path}"
