"""A configuration without a YAML file, from a method's name or its phases, for data in memory."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from lntl import config as configuration
from lntl import plugins
from lntl.config import Config
from lntl.methods import load_method


def phases_of(method: str, epochs: int, own: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the phases of a method with its own settings: pre-training, a tenth as long, and the method itself.

    A game against h begins from what plain training and h alone have learned; jtt learns from errors of plain training.
    """
    trains = load_method(method).trains
    before = ["erm", "bias_head"] if {"f", "h"} <= {*trains} else ["erm"] if method == "jtt" else []
    warm_up = [{"method": name, "epochs": max(1, epochs // 10)} for name in before]
    return [*warm_up, {"method": method, "epochs": epochs} | own]


def config_of(name: str, seed: int, model: dict[str, Any], training: dict[str, Any]) -> Config:
    """Return the configuration, with the model that its methods need; raises UserError with all faults."""
    project = {"experiment_name": name, "seed": seed}
    raw = _plain({"project": project, "data": {"name": "arrays", "path": "memory"}, "training": training})
    config = configuration.validate(raw | {"model": _plain(model)}, name)
    needs = {key: value for method in methods_of(config) for key, value in method.required_model_settings.items()}
    return configuration.validate(raw | {"model": _plain(model) | needs}, name) if needs else config


def methods_of(config: Config) -> Iterable[Any]:
    """Yield the method of each phase, a class."""
    return (load_method(phase.method) for phase in config.training.phases)


def methods_without_bias() -> list[str]:
    """Return the names of the methods that do not see the bias."""
    return [name for name in plugins.names("lntl.methods") if not load_method(name).sees_bias]


def _plain(tree: Any) -> Any:
    """Return a tree of settings with numbers of Python and lists: a search hands out numpy's numbers."""
    if isinstance(tree, dict):
        return {key: _plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_plain(value) for value in tree]
    return tree.item() if isinstance(tree, np.generic) else tree
