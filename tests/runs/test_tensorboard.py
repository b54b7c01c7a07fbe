"""What TensorBoard shows of a run, and that a resumed run shows each step once."""

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from lntl import experiment
from lntl.config import Config
from lntl.config.keys import MetricName
from lntl.errors import UserError
from lntl.experiment import Run
from lntl.training.trainer import Step

TERMS = {"task", "mi", "bias", "mu", "h_accuracy", "gradient_ratio", "lr_f", "lr_g", "lr_h"}
VAL = get_args(MetricName)


def shown(run: Run) -> EventAccumulator:
    """Return what TensorBoard shows of a run."""
    board = EventAccumulator(str(run.folder.tensorboard))
    board.Reload()
    return board


def steps(board: EventAccumulator, tag: str) -> list[int]:
    """Return the steps at which a scalar was logged."""
    return [event.step for event in board.Scalars(tag)]


@pytest.fixture
def config(make_config: Callable[..., Config]) -> Config:
    """Three epochs of three steps, a report at steps 2 and 3 of each."""
    return make_config("erm", {"method": "lntl", "epochs": 2})


def stop_after(run: Run, steps: int) -> None:
    """Train some steps, then leave the run as a crash would.

    Returns in another second than it began: event files are read in the order of their names, which tell the second.
    """
    taken = (event for event in run.train() if isinstance(event, Step))
    for _ in range(steps):
        next(taken)
    taken.close()
    time.sleep(1)


def test_scalars_and_pictures(config: Config) -> None:
    run = experiment.start(config)
    for _ in run.train():
        pass
    board = shown(run)
    expected = {f"train/{t}" for t in TERMS} | {f"val/{m}" for m in VAL} | {"time/images_per_second", "time/seconds"}
    assert set(board.Tags()["scalars"]) == expected
    assert steps(board, "train/task") == [2, 3, 5, 6, 8, 9]
    assert steps(board, "train/bias") == [5, 6, 8, 9]
    for tag in ("val/accuracy", "val/bias_accuracy", "time/seconds"):
        assert steps(board, tag) == [3, 6, 9]
    assert set(board.Tags()["images"]) == {"data/train", "data/test"}
    for tag in ("data/train", "data/test"):
        (picture,) = board.Images(tag)
        assert picture.width == 2 + 10 * 30  # ten columns of 28 pixels, two between and around them
        assert 2 + 8 * 30 <= picture.height <= 2 + 10 * 30  # a row a class; 100 images hold few of some


def test_the_numbers_are_those_of_metrics_jsonl(config: Config) -> None:
    run = experiment.start(config)
    for _ in run.train():
        pass
    board = shown(run)
    for name in ("val/accuracy", "val/bias_accuracy", "time/seconds"):
        logged = [event.value for event in board.Scalars(name)]
        assert logged == pytest.approx([record[name] for record in run.folder.read_metrics()])


@pytest.mark.parametrize("crash", [2, 5, 6, 8])
def test_a_resumed_run_shows_each_step_once(config: Config, crash: int) -> None:
    run = experiment.start(config)
    stop_after(run, crash)
    resumed = experiment.resume(config, run.folder.last)
    for _ in resumed.train():
        pass
    board = shown(resumed)
    assert steps(board, "train/task") == [2, 3, 5, 6, 8, 9]
    assert steps(board, "val/accuracy") == [3, 6, 9]


def test_a_run_resumed_in_its_first_epoch_shows_the_pictures_once(config: Config) -> None:
    run = experiment.start(config)
    stop_after(run, 2)
    resumed = experiment.resume(config, run.folder.last)
    for _ in resumed.train():
        pass
    assert len(shown(resumed).Images("data/train")) == 1


def test_no_files_where_it_is_switched_off(make_config: Callable[..., Config], tmp_path: Path) -> None:
    config = make_config("erm", logging={"use_tensorboard": False})
    run = experiment.start(config)
    for _ in run.train():
        pass
    assert not run.folder.tensorboard.exists()


def test_a_full_disk_is_a_sentence(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SummaryWriter, "add_scalar", fail)
    with pytest.raises(UserError, match="tensorboard_logs: cannot write"):
        stop_after(experiment.start(config), 3)
