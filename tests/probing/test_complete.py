"""`complete` makes the missing parts of a run's report, such as example images of its data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lntl import config as configuration
from lntl.config import Config
from lntl.data.arrays import ArraySplit
from lntl.data.colored_mnist import ColoredMNIST
from lntl.data.transforms import THUMBNAIL_SIDE, thumbnails
from lntl.experiment import start
from lntl.probing import complete
from lntl.probing.checkpoint import IMAGES_PER_CLASS, write_samples
from lntl.reporting.run_files import read_run
from lntl.runs.folder import RunFolder
from lntl.types import EpochRecord


@pytest.fixture
def run(tmp_path: Path, make_config: Callable[..., Config]) -> RunFolder:
    """A run folder with nothing but its configuration."""
    folder = RunFolder(tmp_path / "run")
    folder.create(configuration.to_yaml(make_config()))
    return folder


def test_samples_are_the_first_images_of_each_class(run: RunFolder, digits: ColoredMNIST) -> None:
    complete(run)
    with np.load(run.samples, allow_pickle=False) as file:
        assert file["class_names"].tolist() == list(digits.spec.class_names)
        for name in ("train", "test"):
            split, images = digits.splits[name], file[name]
            assert images.shape == (10, IMAGES_PER_CLASS, 3, 28, 28)
            for label in range(10):
                rows = [row for row in range(len(split)) if split.y[row] == label][:IMAGES_PER_CLASS]
                for k in range(IMAGES_PER_CLASS):
                    expected = split.pixels(torch.tensor(rows[k : k + 1]))[0] if k < len(rows) else 0
                    np.testing.assert_array_equal(images[label, k], expected)


def test_an_existing_file_is_not_made_again(run: RunFolder) -> None:
    run.samples.write_bytes(b"existing")
    faults = complete(run)  # this folder has no checkpoint
    assert [fault.partition(" ")[0] for fault in faults] == ["test.json", "probe.json", "saliency.json"]
    assert run.samples.read_bytes() == b"existing"


@pytest.mark.parametrize("text", ["project: [", "data: {name: nothing_like_it}\n"])
def test_complete_returns_a_sentence_about_an_invalid_configuration(run: RunFolder, text: str) -> None:
    run.config.write_text(text)
    fault = complete(run)[0]
    assert fault.startswith("samples.npz could not be made: ")
    assert str(run.config) in fault


def test_complete_returns_a_sentence_about_data_without_images(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lntl.probing.checkpoint.ImageSplit", ArraySplit)
    assert "contain no images (ImageSplit)" in complete(run)[0]


@pytest.mark.full
def test_a_run_without_a_best_checkpoint_is_evaluated_once(make_config: Callable[..., Config]) -> None:
    unfinished_run = start(make_config("erm", "lntl"))
    next(step for step in unfinished_run.train() if isinstance(step, EpochRecord))  # stops before the last phase
    assert complete(unfinished_run.folder) == []
    evaluation = read_run(unfinished_run.folder.path).evaluation
    assert evaluation is not None
    assert evaluation.epoch == 1
    evaluation_file = unfinished_run.folder.evaluation_of(unfinished_run.folder.last)
    inode = evaluation_file.stat().st_ino
    assert complete(unfinished_run.folder) == []
    assert evaluation_file.stat().st_ino == inode  # not written again


def test_thumbnails_of_large_images_have_the_maximal_side() -> None:
    assert thumbnails(torch.full((2, 3, 224, 112), 7, dtype=torch.uint8)).shape == (
        2,
        3,
        THUMBNAIL_SIDE,
        THUMBNAIL_SIDE // 2,
    )
    assert (thumbnails(torch.full((2, 3, 224, 112), 7, dtype=torch.uint8)) == 7).all()


def test_a_new_run_in_the_folder_removes_samples_and_report(run: RunFolder) -> None:
    write_samples(run)
    run.report.mkdir()
    (run.report / "index.html").write_text("old")
    run.create(run.config.read_text(), overwrite=True)
    assert not run.samples.exists()
    assert not run.report.exists()
