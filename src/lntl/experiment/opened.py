"""A checkpoint opened: the experiment that it came from, and its networks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lntl import config as configuration
from lntl.experiment import kept
from lntl.experiment.build import Experiment, build, fitting
from lntl.runs import checkpoint
from lntl.runs.checkpoint import Checkpoint
from lntl.runs.folder import RunFolder
from lntl.types import Networks


def open_checkpoint(path: Path, device: str | None = None, trust: Sequence[str] = ()) -> tuple[Experiment, Checkpoint]:
    """Return the experiment of the configuration inside a checkpoint, on `device` if named, and the checkpoint.

    trust: modules that may be imported for one that lies in no run; a run folder is taken for one's own.
    Raises UserError where the data are no longer those that it learned from.
    """
    saved = checkpoint.load(path)
    if RunFolder.of_checkpoint(path) is None:
        kept.check_trusted(saved.config, str(path), trust)
    config = configuration.validate(_on(device, saved.config), f"{path} (the configuration inside)")
    experiment = build(config, trained=True)
    kept.check_same(experiment.data, saved.data, path)
    return experiment, saved


def _on(device: str | None, raw: Any) -> Any:
    """Return a raw configuration with another device; one that is malformed as it is, for the check to tell."""
    if device is None or not isinstance(raw, dict) or not isinstance(raw.get("training"), dict):
        return raw
    return raw | {"training": raw["training"] | {"device": device}}


def load_networks(experiment: Experiment, saved: Checkpoint, path: Path) -> Networks:
    """Return the networks with a checkpoint's weights to evaluate: their average, where it has one."""
    with fitting(path):
        experiment.networks.load_state_dict(evaluated_weights(saved))
    return experiment.networks


def evaluated_weights(saved: Checkpoint) -> dict[str, Tensor]:
    """Return a checkpoint's weights of f, g and h to evaluate: their average, where it has one."""
    average: dict[str, Tensor] | None = saved.trainer["average"]
    weights: dict[str, Tensor] = saved.trainer["networks"]
    if average is None:
        return weights
    return {k.removeprefix("module."): v for k, v in average.items() if k.startswith("module.")}
