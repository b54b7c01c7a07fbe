"""The space of a study: keys of a configuration and the values to try, read from YAML and checked."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, model_validator

from lntl import config as configuration
from lntl.config import Config
from lntl.config.faults import describe
from lntl.config.keys import INHERITED_KEYS
from lntl.errors import UserError, shorten
from lntl.evaluation.metrics import METRICS
from lntl.plugins import Settings, did_you_mean
from lntl.text import count
from lntl.yaml_file import read_yaml

Value = bool | int | float | str | None
TRAINING_SECTIONS = ("data", "model", "training")  # sections of the configuration that affect training
# Keys of `training` that are only defaults for phases, or do not affect training.
_PHASE_DEFAULTS = {*INHERITED_KEYS, "adversarial_lambda", "devices", "num_nodes"}
# Settings of every trial; only the metrics of a trial on val are used.
_TRIAL_SETTINGS = (
    "evaluation.erm_epochs=0",
    "logging.use_tensorboard=false",
    "logging.trackers=[]",
    "logging.checkpoint_interval_epochs=1000000",
)


class Parameter(Settings):
    """The values of one key: a range of numbers, or a list."""

    float_: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        None, alias="float", description="Lowest and highest number."
    )
    int_: Annotated[list[int], Field(min_length=2, max_length=2)] | None = Field(
        None, alias="int", description="Lowest and highest integer."
    )
    choice: Annotated[list[Value], Field(min_length=2)] | None = Field(None, description="Values, in any order.")
    log: bool = Field(False, description="Whether a range is searched on a logarithmic scale.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if [self.float_, self.int_, self.choice].count(None) != 2:
            raise ValueError("one of float: [low, high], int: [low, high] and choice: [a, b, ...]")
        if self.choice is not None:
            if self.log:
                raise ValueError("a choice without log, which belongs to a range")
            if len({repr(value) for value in self.choice}) < len(self.choice):
                raise ValueError("a choice that names each value once")
        for ends in (self.float_, self.int_):
            if ends is None:
                continue
            low, high = ends
            if low >= high:
                raise ValueError("a range whose first number is lower than its second")
            if self.log and low <= 0:
                raise ValueError("a range above 0, because log is set")
        return self

    def contains(self, value: Value) -> bool:
        """Return whether a value is in the range, or in the choice."""
        if self.choice is not None:
            return value in self.choice
        low, high = self.float_ or self.int_ or [0, 0]
        margin = 1e-9 * max(abs(low), abs(high))  # a logarithmic scale rounds
        return isinstance(value, int | float) and low - margin <= value <= high + margin

    def ends(self) -> Sequence[Value]:
        """Return the ends of the range, or every value of the choice."""
        return self.choice or self.float_ or self.int_ or []


class Space(Settings):
    """The YAML of a space."""

    name: str = Field(
        "",
        pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.+-]*)?$",
        max_length=200,
        description="Name of the study; empty for the name of the file.",
    )
    objective: str = Field("", description="Metric on val; empty for the configuration's evaluation.best_model_metric.")
    space: dict[str, Parameter] = Field(min_length=1, description="Keys of the configuration and their values.")


def read_space(path: Path) -> Space:
    """Return the space in a file; raises UserError with all faults, one per line."""
    raw = read_yaml(path)
    try:
        space = Space.model_validate(raw)
    except ValidationError as error:
        faults = [f"  {line}" for line in describe(error, Space, raw)]
        raise UserError("\n".join([f"{path}: {count(len(faults), 'error')} in the space", *faults])) from None
    return space.model_copy(update={"name": space.name or path.stem})


def choose_objective(space: Space, config: Config) -> str:
    """Return the name of the metric to optimise on val; raises UserError if it is unknown or on the test set."""
    name = (space.objective or config.evaluation.best_model_metric).removeprefix("val/")
    if name.startswith("test"):
        raise UserError(
            f"objective: {name} is on the test set, which must not be used to choose anything; name a metric on val"
        )
    if name not in METRICS:
        raise UserError(f"objective: unknown metric {shorten(name)}{did_you_mean(name, [*METRICS])}")
    return name


def make_trial_config(
    config: str,
    overrides: Sequence[str],
    values: dict[str, Value],
    objective: str = "",
    trial_settings: Sequence[str] = (),
) -> Config:
    """Return the configuration with values of the space; for a trial, also with the settings of every trial.

    Args:
        config: The file, or the name of a ready configuration.
        overrides: Settings of the user, as key=value.
        values: A value for each key of the space.
        objective: Metric that a trial computes; "" if the configuration is not for a trial.
        trial_settings: Further settings of a trial.
    """
    texts = [f"{key}={json.dumps(value)}" for key, value in values.items()]
    metrics = [f"evaluation.metrics=[{objective}]", f"evaluation.best_model_metric={objective}"]
    return configuration.read(
        config, [*overrides, *texts, *([*metrics, *_TRIAL_SETTINGS, *trial_settings] if objective else [])]
    )


def check_space(path: Path, space: Space, config: str, overrides: Sequence[str]) -> None:
    """Raise UserError if a key is unknown or does not affect training, or if a value is not allowed."""
    for key, parameter in space.space.items():
        if key.partition(".")[0] not in TRAINING_SECTIONS:
            raise UserError(
                f"{path}: {key}: a space has keys of {', '.join(TRAINING_SECTIONS)}; other keys do not affect training"
            )
        dumps = []
        for value in parameter.ends():
            try:
                candidate = make_trial_config(config, overrides, {key: value})
            except UserError as error:
                lines = str(error).splitlines()
                raise UserError(f"{path}: {key} = {value!r} is not possible: {lines[-1].strip()}") from error
            dumps.append(candidate.model_dump(include=set(TRAINING_SECTIONS), exclude={"training": _PHASE_DEFAULTS}))
        if any(dump == dumps[0] for dump in dumps[1:]):
            raise UserError(
                f"{path}: {key}: two of its values give the same training; is the key overridden by a phase?"
            )
