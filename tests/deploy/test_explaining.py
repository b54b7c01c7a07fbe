"""`lntl explain` writes a whole folder or nothing; each fault is one sentence."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import lntl

from lntl.deploy import explaining
from lntl.deploy.loading import load
from lntl.evaluation.saliency import integrated_gradients

Used = Callable[[str], Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def pets(used: Used, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run on image files; the working directory has its images in pets/."""
    run = used("table")
    shutil.copytree(run.parents[1] / "pets", tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    return run


def test_explain_writes_a_page_and_the_attributions_and_a_picture_of_each_image(pets: Path, capsys: Capture) -> None:
    names = [str(path) for path in sorted(Path("pets/more").glob("*.png"))][:3]
    assert lntl("explain", str(pets), "pets/more", "--out", "shown", "--limit", "3", "--steps", "4") == 0
    assert "3 of 30 examples are explained; --limit changes that" in capsys.readouterr().out
    pictures = [path.name for path in sorted(Path("shown").glob("*.png"))]
    assert pictures == [f"{number:04}_{Path(name).stem}.png" for number, name in enumerate(names, 1)]
    page = Path("shown/index.html").read_text("utf-8")
    assert all(f'src="{picture}"' in page for picture in pictures)
    assert all(name in page for name in names)
    model = load(pets)
    expected = integrated_gradients(model, model.transform(names), 4)
    with np.load("shown/attributions.npz") as found:
        assert found["name"].tolist() == names
        torch.testing.assert_close(torch.from_numpy(found["run"]), expected.values, atol=1e-5, rtol=1e-3)
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


def test_plain_training_is_shown_beside_the_run(pets: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(pets, run)
    shutil.copytree(pets, run / "erm")
    assert lntl("explain", str(run), "pets/00.png", "--out", "shown", "--steps", "2") == 0
    assert "plain training (ERM): " in Path("shown/index.html").read_text("utf-8")
    with np.load("shown/attributions.npz") as found:
        np.testing.assert_array_equal(found["run"], found["erm"])  # the same networks


def test_attributions_of_vectors_are_bars(used: Used, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = used("vectors")
    assert lntl("explain", str(run), str(run.parents[1] / "vectors.npz"), "--out", "shown", "--limit", "2") == 0
    assert len([*Path("shown").glob("*.png")]) == 2
    with np.load("shown/attributions.npz") as found:
        assert found["run"].shape == (2, 7)


def test_bad_input_is_one_sentence_and_leaves_nothing(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def message(*arguments: str) -> str:
        before = sorted(Path().rglob("*"))
        assert lntl("explain", *arguments) == 2
        assert sorted(Path().rglob("*")) == before
        text = capsys.readouterr().err
        assert "Traceback" not in text
        return text

    run = str(pets)
    Path("there").mkdir()
    Path("empty").mkdir()
    Path("broken").mkdir()
    Path("broken/a.png").write_bytes(b"no image")
    assert "there: exists already, and nothing in it is replaced" in message(run, "pets", "--out", "there")
    assert "there is no folder no" in message(run, "pets", "--out", "no/shown")
    assert "empty: it contains no image file" in message(run, "empty", "--out", "shown")
    assert "broken/a.png: not an image" in message(run, "broken", "--out", "shown")
    assert "nothing.pth: there is no such" in message("nothing.pth", "pets", "--out", "shown")
    monkeypatch.setattr("lntl.deploy.loading.Classifier.forward", lambda self, x: (self.g(self.f(x)) > 0).float())
    assert "cannot be differentiated" in message(run, "pets", "--out", "shown")
    monkeypatch.setattr(explaining, "captum_installed", lambda: False)
    assert "pip install 'lntl[explain]'" in message(run, "pets", "--out", "shown")
