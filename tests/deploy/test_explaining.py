"""`lntl explain` writes a complete folder or nothing; bad input gives one sentence."""

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

TrainedRun = Callable[[str], Path]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def pets(trained_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run on image files; the working directory has its images in pets/."""
    run = trained_run("table")
    shutil.copytree(run.parents[1] / "pets", tmp_path / "pets")
    monkeypatch.chdir(tmp_path)
    return run


def test_explain_writes_a_page_the_attributions_and_a_picture_for_each_image(pets: Path, capsys: Capture) -> None:
    names = [str(path) for path in sorted(Path("pets/more").glob("*.png"))][:3]
    assert lntl("explain", str(pets), "pets/more", "--out", "explained", "--limit", "3", "--steps", "4") == 0
    assert "3 of 30 examples are explained; use --limit to explain more" in capsys.readouterr().out
    image_names = [path.name for path in sorted(Path("explained").glob("*.png"))]
    assert image_names == [f"{number:04}_{Path(name).stem}.png" for number, name in enumerate(names, 1)]
    page = Path("explained/index.html").read_text("utf-8")
    assert all(f'src="{image_name}"' in page for image_name in image_names)
    assert all(name in page for name in names)
    model = load(pets)
    expected = integrated_gradients(model, model.transform(names), 4)
    with np.load("explained/attributions.npz") as arrays:
        assert arrays["name"].tolist() == names
        torch.testing.assert_close(torch.from_numpy(arrays["run"]), expected.values, atol=1e-5, rtol=1e-3)
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


def test_plain_training_is_shown_beside_the_run(pets: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(pets, run)
    shutil.copytree(pets, run / "erm")
    assert lntl("explain", str(run), "pets/00.png", "--out", "explained", "--steps", "2") == 0
    assert "plain training (ERM): " in Path("explained/index.html").read_text("utf-8")
    with np.load("explained/attributions.npz") as arrays:
        np.testing.assert_array_equal(arrays["run"], arrays["erm"])  # both runs have the same networks


def test_attributions_of_vectors_are_plotted_and_stored(
    trained_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = trained_run("vectors")
    assert lntl("explain", str(run), str(run.parents[1] / "vectors.npz"), "--out", "explained", "--limit", "2") == 0
    assert len([*Path("explained").glob("*.png")]) == 2
    with np.load("explained/attributions.npz") as arrays:
        assert arrays["run"].shape == (2, 7)


def test_bad_input_gives_one_sentence_and_leaves_no_file(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def run_and_get_error(*arguments: str) -> str:
        files_before = sorted(Path().rglob("*"))
        assert lntl("explain", *arguments) == 2
        assert sorted(Path().rglob("*")) == files_before
        text = capsys.readouterr().err
        assert "Traceback" not in text
        return text

    run = str(pets)
    Path("existing").mkdir()
    Path("empty").mkdir()
    Path("broken").mkdir()
    Path("broken/a.png").write_bytes(b"no image")
    assert "existing: exists already, and its files are never replaced" in run_and_get_error(
        run, "pets", "--out", "existing"
    )
    assert "there is no folder no" in run_and_get_error(run, "pets", "--out", "no/explained")
    assert "empty: it contains no image file" in run_and_get_error(run, "empty", "--out", "explained")
    assert "broken/a.png: not an image" in run_and_get_error(run, "broken", "--out", "explained")
    assert "nothing.pth: there is no such" in run_and_get_error("nothing.pth", "pets", "--out", "explained")
    monkeypatch.setattr("lntl.deploy.loading.Classifier.forward", lambda self, x: (self.g(self.f(x)) > 0).float())
    assert "cannot be differentiated" in run_and_get_error(run, "pets", "--out", "explained")
    monkeypatch.setattr(explaining, "captum_installed", lambda: False)
    assert "pip install 'lntl[explain]'" in run_and_get_error(run, "pets", "--out", "explained")
