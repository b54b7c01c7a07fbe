"""Evaluate checkpoints, and conclude a run."""

from pathlib import Path
from typing import Any

from lntl import config as configuration
from lntl.config import Config
from lntl.experiment.build import Experiment, build, fitting
from lntl.experiment.run import Run
from lntl.runs import checkpoint
from lntl.runs.checkpoint import Checkpoint
from lntl.runs.files import write_json
from lntl.types import Networks


def load_networks(experiment: Experiment, saved: Checkpoint, path: Path) -> Networks:
    """Return the networks with a checkpoint's weights to evaluate: their average, where it has one."""
    average = saved.trainer["average"]
    weights = saved.trainer["networks"]
    if average is not None:
        weights = {k.removeprefix("module."): v for k, v in average.items() if k.startswith("module.")}
    with fitting(path):
        experiment.networks.load_state_dict(weights)
    return experiment.networks


def evaluate_checkpoint(path: Path, split: str = "test", device: str | None = None) -> tuple[Config, dict[str, Any]]:
    """Return the configuration of a checkpoint and its facts: file, epoch, and metrics on a split."""
    saved = checkpoint.load(path)
    raw = saved.config if device is None else saved.config | {"training": saved.config["training"] | {"device": device}}
    config = configuration.validate(raw, f"{path} (the configuration inside)")
    return config, _facts(build(config), path, saved, split)


def _facts(experiment: Experiment, path: Path, saved: Checkpoint, split: str) -> dict[str, Any]:
    scores = experiment.evaluate(load_networks(experiment, saved, path), split)
    return {"checkpoint": str(path), "epoch": len(saved.records), split: scores}


def conclude(run: Run, erm: dict[str, Any] | None) -> dict[str, Any]:
    """Evaluate the last and the best checkpoint on the test set, once, and write result.json."""
    config = run.experiment.config
    result = {
        "project": config.project.name,
        "experiment": config.project.experiment_name,
        "method": config.training.phases[-1].method,
        "seed": config.project.seed,
        "data": run.experiment.data.source,
        "selection": f"best: highest {config.evaluation.best_model_metric} on val ({run.experiment.data.val_note}) "
        "among the epochs of the last phase; last: no choice; the test set chooses nothing",
        **{
            kind: _facts(run.experiment, path, checkpoint.load(path), "test")
            for kind, path in (("last", run.folder.last), ("best", run.folder.best))
        },
        "erm": erm,
        "training_seconds": round(sum(record["time/seconds"] for record in run.records), 1),
    }
    write_json(run.folder.result, result)
    return result
