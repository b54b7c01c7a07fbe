"""The whole configuration: every key, its type, its meaning; read from YAML and checked before anything runs.

The sections `data`, `model` and each of `training.phases` take the keys of the plug-in that they name as well.
"""

from lntl.config.keys import Config, Data, Evaluation, Logging, Model, Project, Training
from lntl.config.reading import (
    config_model,
    dotted_names,
    erm_config,
    find,
    json_schema,
    read,
    read_for_data,
    ready_names,
    to_yaml,
    validate,
)
from lntl.training import Optimizer, Phase

__all__ = [
    "Config",
    "Data",
    "Evaluation",
    "Logging",
    "Model",
    "Optimizer",
    "Phase",
    "Project",
    "Training",
    "config_model",
    "dotted_names",
    "erm_config",
    "find",
    "json_schema",
    "read",
    "read_for_data",
    "ready_names",
    "to_yaml",
    "validate",
]
