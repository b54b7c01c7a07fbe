"""If training diverges, the last good checkpoint stays, and the message names it."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import RUN, Strike, lntl, run, write_config
from torch import Tensor

from lntl import experiment
from lntl.config import Config
from lntl.errors import DeadEndError, UserError
from lntl.experiment import Run
from lntl.runs import checkpoint
from lntl.training.trainer import Step

WILD = {"name": "sgd", "lr": 1e30}


def poison(weights: Iterator[Tensor]) -> None:
    """Make a weight NaN."""
    with torch.no_grad():
        next(weights).fill_(torch.nan)


def failure(run: Run, ruin: Callable[[Run], None]) -> str:
    """Return the message of a run whose state `ruin` changes after its last update."""
    try:
        for event in run.train():
            if isinstance(event, Step) and event.index == event.total:
                ruin(run)
    except DeadEndError as error:
        return str(error)
    return ""


def ruin_weights(run: Run) -> None:
    poison(run.experiment.networks.f.parameters())


def ruin_average(run: Run) -> None:
    poison(run.experiment.trainer.evaluated.f.parameters())


def ruin_answers(run: Run) -> None:
    """Make the weights so large that the logits overflow."""
    with torch.no_grad():
        for weight in run.experiment.networks.parameters():
            weight.fill_(3e38)


@pytest.mark.parametrize(
    ("ema", "ruin", "message"),
    [
        (None, ruin_weights, "the weight f.norm.weight is not finite after step 3: training diverged"),
        (0.5, ruin_average, "the weight module.f.norm.weight is not finite after step 3: training diverged"),
        (None, ruin_answers, "the networks' outputs on val are not finite: training diverged"),
    ],
)
def test_weights_that_become_nan_in_the_last_update_are_not_saved(
    make_config: Callable[..., Config], ema: float | None, ruin: Callable[[Run], None], message: str
) -> None:
    """The loss of each step was finite."""
    run = experiment.start(make_config("erm", training={"ema": ema}))
    before = run.folder.last.read_bytes()
    found = failure(run, ruin)
    assert found.startswith(message)
    assert found.endswith(f"; the last good checkpoint is {run.folder.last}")
    assert run.folder.last.read_bytes() == before
    assert not run.folder.best.exists()
    assert run.folder.read_metrics() == []


def stopped(run: Run, ruin: Callable[[Run], None]) -> str:
    """Stop a run after its first step and call `ruin` on it; return the message of the error that follows."""
    events = run.train(stop=lambda: True)
    next(events)
    ruin(run)
    with pytest.raises(DeadEndError) as error:
        next(events)
    return str(error.value)


def ruin_loss(run: Run) -> None:
    """Make the loss of the latest step NaN, which no report has shown yet."""
    run.experiment.trainer._terms.pending[-1].fill_(torch.nan)


@pytest.mark.parametrize("what", ["weights", "loss"])
def test_a_stop_saves_no_nan(make_config: Callable[..., Config], what: str) -> None:
    run = experiment.start(make_config("erm", logging={"log_interval_batches": 1000}))
    before = run.folder.last.read_bytes()
    ruin = ruin_loss if what == "loss" else lambda run: poison(run.experiment.networks.g.parameters())
    assert "is not finite after step 1: training diverged; lower the learning rate" in stopped(run, ruin)
    assert run.folder.last.read_bytes() == before


def test_sigterm_while_the_loss_is_nan(tmp_path: Path) -> None:
    training: dict[str, Any] = {"phases": [{"method": "erm", "epochs": 1, "optimizer_fg": WILD}]}
    write_config(tmp_path, training=training, logging={"output_dir": "results", "log_interval_batches": 1000})
    strike = Strike("lntl.training.trainer:Trainer._update", 3, signal.SIGTERM)
    assert run("train", "tiny.yaml", folder=tmp_path, prepare=strike) == 2
    last = (tmp_path / "stderr").read_text().splitlines()[-1]
    assert last.endswith(f"the last good checkpoint is {RUN}/checkpoints/last.pth")
    assert checkpoint.load(tmp_path / RUN / "checkpoints/last.pth").trainer["step"] == 0


def test_start_weights_that_are_not_finite(make_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    build = experiment.run.build

    def ruined(config: Config, *arguments: Any, **named: Any) -> experiment.Experiment:
        built = build(config, *arguments, **named)
        poison(built.networks.f.parameters())
        return built

    monkeypatch.setattr(experiment.run, "build", ruined)
    config = make_config("erm")
    with pytest.raises(UserError, match=r"not saved, because the weight f\.\S+ is not finite"):
        experiment.start(config)


@pytest.mark.parametrize("command", [["eval"], ["probe"], ["train", "tiny.yaml", "--resume"]], ids=str)
def test_every_command_refuses_a_checkpoint_with_nan(
    folder: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    experiment.start(experiment.run.configuration.read(Path("tiny.yaml")))
    last = RUN / "checkpoints/last.pth"
    content = torch.load(last, weights_only=True)
    poison(iter(content["trainer"]["networks"].values()))
    torch.save(content, last)
    assert lntl(*command, str(last)) == 2
    assert f"{last}: the weight f." in capsys.readouterr().err
