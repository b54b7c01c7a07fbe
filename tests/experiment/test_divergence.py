"""If training diverges, the last finite checkpoint is kept, and the error message names it."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import RUN, SignalAtCall, lntl, run, write_config
from torch import Tensor

from lntl import experiment
from lntl.config import Config
from lntl.errors import DeadEndError, UserError
from lntl.experiment import Run
from lntl.runs import checkpoint
from lntl.training.trainer import Step

HUGE_RATE = {"name": "sgd", "lr": 1e30}


def set_to_nan(weights: Iterator[Tensor]) -> None:
    """Set the first weight to NaN."""
    with torch.no_grad():
        next(weights).fill_(torch.nan)


def train_and_get_error(run: Run, corrupt: Callable[[Run], None]) -> str:
    """Train, call `corrupt(run)` after the last step of each epoch, and return the error message."""
    try:
        for event in run.train():
            if isinstance(event, Step) and event.index == event.total:
                corrupt(run)
    except DeadEndError as error:
        return str(error)
    return ""


def corrupt_weights(run: Run) -> None:
    set_to_nan(run.experiment.networks.f.parameters())


def corrupt_average(run: Run) -> None:
    set_to_nan(run.experiment.trainer.evaluated.f.parameters())


def corrupt_outputs(run: Run) -> None:
    """Make the weights so large that the logits overflow."""
    with torch.no_grad():
        for weight in run.experiment.networks.parameters():
            weight.fill_(3e38)


@pytest.mark.parametrize(
    ("ema", "corrupt", "message"),
    [
        (None, corrupt_weights, "the weight f.norm.weight is not finite after step 3: training diverged"),
        (0.5, corrupt_average, "the weight module.f.norm.weight is not finite after step 3: training diverged"),
        (None, corrupt_outputs, "the networks' outputs on val are not finite: training diverged"),
    ],
)
def test_weights_that_become_nan_in_the_last_update_are_not_saved(
    make_config: Callable[..., Config], ema: float | None, corrupt: Callable[[Run], None], message: str
) -> None:
    """The loss of each step is finite."""
    run = experiment.start(make_config("erm", training={"ema": ema}))
    saved_bytes = run.folder.last.read_bytes()
    error_message = train_and_get_error(run, corrupt)
    assert error_message.startswith(message)
    assert error_message.endswith(f"; the last good checkpoint is {run.folder.last}")
    assert run.folder.last.read_bytes() == saved_bytes
    assert not run.folder.best.exists()
    assert run.folder.read_metrics() == []


def stop_and_get_error(run: Run, corrupt: Callable[[Run], None]) -> str:
    """Stop a run after its first step, call `corrupt(run)` and return the message of the error that follows."""
    events = run.train(stop=lambda: True)
    next(events)
    corrupt(run)
    with pytest.raises(DeadEndError) as error:
        next(events)
    return str(error.value)


def corrupt_loss(run: Run) -> None:
    """Set the loss of the latest step, which is not yet reported, to NaN."""
    run.experiment.trainer._terms.pending[-1].fill_(torch.nan)


@pytest.mark.parametrize("part", ["weights", "loss"])
def test_a_stop_saves_no_nan(make_config: Callable[..., Config], part: str) -> None:
    run = experiment.start(make_config("erm", logging={"log_interval_batches": 1000}))
    saved_bytes = run.folder.last.read_bytes()
    corrupt = corrupt_loss if part == "loss" else lambda run: set_to_nan(run.experiment.networks.g.parameters())
    assert "is not finite after step 1: training diverged; lower the learning rate" in stop_and_get_error(run, corrupt)
    assert run.folder.last.read_bytes() == saved_bytes


@pytest.mark.full
def test_sigterm_while_the_loss_is_nan_keeps_the_finite_checkpoint(tmp_path: Path) -> None:
    training: dict[str, Any] = {"phases": [{"method": "erm", "epochs": 1, "optimizer_fg": HUGE_RATE}]}
    write_config(tmp_path, training=training, logging={"output_dir": "results", "log_interval_batches": 1000})
    send_sigterm = SignalAtCall("lntl.training.trainer:Trainer._update", 3, signal.SIGTERM)
    assert run("train", "tiny.yaml", folder=tmp_path, prepare=send_sigterm) == 2
    last_line = (tmp_path / "stderr").read_text().splitlines()[-1]
    assert last_line.endswith(f"the last good checkpoint is {RUN}/checkpoints/last.pth")
    assert checkpoint.load(tmp_path / RUN / "checkpoints/last.pth").trainer["step"] == 0


def test_start_weights_that_are_not_finite_are_refused(
    make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = experiment.run.build

    def build_with_nan(config: Config, *arguments: Any, **keywords: Any) -> experiment.Experiment:
        new_experiment = build(config, *arguments, **keywords)
        set_to_nan(new_experiment.networks.f.parameters())
        return new_experiment

    monkeypatch.setattr(experiment.run, "build", build_with_nan)
    config = make_config("erm")
    with pytest.raises(UserError, match=r"not saved, because the weight f\.\S+ is not finite"):
        experiment.start(config)


@pytest.mark.parametrize("command", [["eval"], ["probe"], ["train", "tiny.yaml", "--resume"]], ids=str)
def test_every_command_refuses_a_checkpoint_with_nan(
    folder: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    experiment.start(experiment.run.configuration.read(Path("tiny.yaml")))
    last_path = RUN / "checkpoints/last.pth"
    content = torch.load(last_path, weights_only=True)
    set_to_nan(iter(content["trainer"]["networks"].values()))
    torch.save(content, last_path)
    assert lntl(*command, str(last_path)) == 2
    assert f"{last_path}: the weight f." in capsys.readouterr().err
