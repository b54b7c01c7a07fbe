"""The whole configuration: every key, its type, its meaning; read from YAML and checked before anything runs.

The sections `data`, `model` and each of `training.phases` take the keys of the plug-in that they name as well.
"""

from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, cast

import yaml
from pydantic import Field, ValidationError, create_model, model_validator

from lntl import plugins
from lntl.config_errors import describe
from lntl.errors import UserError
from lntl.plugins import Settings
from lntl.yaml_file import parse, read_yaml


class Project(Settings):
    """Who the run is."""

    name: str = Field("LearningNotToLearn", description="Name of the project; shown in reports.")
    experiment_name: str = Field(
        min_length=1, pattern=r"^[^/\\\s]+$", description="Name of the run; its folder is logging.output_dir/NAME."
    )
    seed: int = Field(0, ge=0, description="Seed of initial weights, order and augmentation.")
    description: str = Field("", description="Free text.")


class Data(Settings):
    """What to train on."""

    name: str = Field(description="Data set: a name from `lntl.data`, or the dotted name of your own class.")


class Model(Settings):
    """The networks f, g and h."""

    name: str = Field(description="Architecture: a name from `lntl.models`, or the dotted name of your own class.")


class Optimizer(Settings):
    """How weights are updated, and the learning rate as a function of progress."""

    name: Literal["sgd", "adam", "adamw", "adagrad"] = Field("adam", description="Optimiser of torch.optim.")
    lr: float = Field(0.001, gt=0, description="Learning rate at the top of the schedule.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay as the optimiser defines it.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum; sgd only.")
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = Field(
        "constant", description="Learning rate over the phase; one_cycle: up from lr/25 over the first 30 %, then down."
    )
    step_size: int = Field(40, ge=1, description="Epochs between two drops; schedule `step` only.")
    gamma: float = Field(0.1, gt=0, le=1, description="Factor of each drop; schedule `step` only.")


class Phase(Settings):
    """A stretch of epochs with one method; what it leaves out it takes from `training`."""

    method: str = Field(description="Method: a name from `lntl methods`, or the dotted name of your own class.")
    epochs: int = Field(ge=1, description="Passes over the training data.")
    optimizer_fg: Optimizer = Field(Optimizer(), description="Optimiser of f and g in this phase.")
    optimizer_h: Optimizer = Field(Optimizer(), description="Optimiser of h in this phase.")
    ema: float | None = Field(None, gt=0, lt=1, description="As training.ema, for this phase.")
    clip_grad_norm: float | None = Field(None, gt=0, description="As training.clip_grad_norm, for this phase.")


_INHERITED = ("optimizer_fg", "optimizer_h", "ema", "clip_grad_norm")


class Training(Settings):
    """How to train: defaults, then the phases in order."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps.")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(
        "32-true", description="Precision of Lightning Fabric."
    )
    batch_size: int = Field(128, ge=2, description="Images in one step.")
    adversarial_lambda: float = Field(0.1, ge=0, description="mu of every phase that has one and does not set it.")
    optimizer_fg: Optimizer = Field(
        Optimizer(), description="Optimiser of f and g; a phase may set single keys of it anew."
    )
    optimizer_h: Optimizer = Field(Optimizer(), description="Optimiser of h; a phase may set single keys of it anew.")
    ema: float | None = Field(
        None, gt=0, lt=1, description="Decay of the weights' moving average a step; the average is what is evaluated."
    )
    clip_grad_norm: float | None = Field(None, gt=0, description="Largest gradient norm of each network.")
    phases: list[Phase] = Field(min_length=1, description="The training story, in order.")

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, raw: Any) -> Any:
        """Fill each phase with what it takes from the section."""
        if not isinstance(raw, dict) or not isinstance(raw.get("phases"), list):
            return raw
        return raw | {"phases": [_filled(phase, raw) if isinstance(phase, dict) else phase for phase in raw["phases"]]}


def _filled(phase: dict[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    filled = dict(phase)
    for key in _INHERITED:
        given, default = phase.get(key), training.get(key)
        if isinstance(given, dict) and isinstance(default, dict):
            filled[key] = default | given
        elif key not in phase and key in training:
            filled[key] = default
    if "mu" not in phase and "adversarial_lambda" in training and _takes_mu(phase.get("method")):
        filled["mu"] = training["adversarial_lambda"]
    return filled


def _takes_mu(method: Any) -> bool:
    try:
        return "mu" in plugins.load("lntl.methods", method).Config.model_fields
    except (UserError, TypeError):
        return False  # the validation that follows names it


class Logging(Settings):
    """What a run writes, and where."""

    output_dir: str = Field("results", min_length=1, description="Folder of the run folders.")
    log_interval_batches: int = Field(50, ge=1, description="Steps between two log entries and progress updates.")
    checkpoint_interval_epochs: int = Field(1, ge=1, description="Epochs between two checkpoint_epoch_XX.pth.")
    use_tensorboard: bool = Field(True, description="Write TensorBoard event files.")


MetricName = Literal["accuracy", "unbiased_accuracy", "worst_group_accuracy", "f1_score_macro", "bias_accuracy"]


class Evaluation(Settings):
    """What is measured, and what chooses the best checkpoint."""

    metrics: list[MetricName] = Field(
        ["accuracy", "unbiased_accuracy", "worst_group_accuracy", "f1_score_macro", "bias_accuracy"],
        min_length=1,
        description="Metrics to report, on val after each epoch and on test at the end.",
    )
    best_model_metric: MetricName = Field(
        "accuracy", description="Metric on val that chooses best_model.pth among the epochs of the last phase."
    )
    batch_size: int = Field(1000, ge=1, description="Images in one forward pass.")
    erm_epochs: int = Field(
        0, ge=0, description="Epochs of a plain training run (ERM) made first, to compare with; 0 for none."
    )


class Config(Settings):
    """The configuration of a run."""

    project: Project
    data: Data
    model: Model
    training: Training
    logging: Logging = Logging()
    evaluation: Evaluation = Evaluation()


def _tagged(folder: str, key: str, base: type[Settings], chosen: tuple[str, ...]) -> Any:
    """Return the union of `base` joined with each plug-in's Config, told apart by `key`."""
    variants = []
    for name in dict.fromkeys((*plugins.names(folder), *chosen)):
        bases = (plugins.load(folder, name).Config, base)
        variants.append(create_model(name, __base__=bases, **cast(Any, {key: (Literal[name], base.model_fields[key])})))
    if len(variants) == 1:
        return variants[0]
    return Annotated[Union[tuple(variants)], Field(discriminator=key)]  # noqa: UP007 - a union made at run time


@cache
def config_model(data: str = "", model: str = "", methods: tuple[str, ...] = ()) -> type[Config]:
    """Return Config with every plug-in's keys; the arguments add the user's own classes by dotted name."""
    own = {"data": tuple(n for n in (data,) if "." in n), "model": tuple(n for n in (model,) if "." in n)}
    phase = _tagged("lntl.methods", "method", Phase, tuple(n for n in methods if "." in n))
    training = create_model(
        "Training",
        __base__=Training,
        __doc__=Training.__doc__,
        phases=(list[phase], Training.model_fields["phases"]),  # type: ignore[valid-type]
    )
    return create_model(
        "Config",
        __base__=Config,
        __doc__=Config.__doc__,
        data=(_tagged("lntl.data", "name", Data, own["data"]), ...),
        model=(_tagged("lntl.models", "name", Model, own["model"]), ...),
        training=(training, ...),
    )


def validate(raw: Any, origin: str) -> Config:
    """Return the checked configuration; raises UserError with every fault, one a line, each with path and value."""
    model = config_model(*_named(raw))
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        faults = [f"  {line}" for line in describe(error, model, raw)]
        raise UserError("\n".join([f"{origin}: {len(faults)} fault(s) in the configuration", *faults])) from None


def _named(raw: Any) -> tuple[str, str, tuple[str, ...]]:
    """Return the names of data, model and methods that a raw document mentions."""

    def name(section: Any, key: str) -> str:
        value = section.get(key) if isinstance(section, dict) else None
        return value if isinstance(value, str) else ""

    sections = raw if isinstance(raw, dict) else {}
    training = sections.get("training")
    phases = training.get("phases") if isinstance(training, dict) else None
    methods = tuple(name(phase, "method") for phase in phases) if isinstance(phases, list) else ()
    return name(sections.get("data"), "name"), name(sections.get("model"), "name"), methods


def read(path: Path, overrides: list[str] | None = None, num_epochs: int | None = None) -> Config:
    """Return the configuration in a YAML file, with `key=value` overrides applied.

    num_epochs sets the epochs of the last phase and caps those of the phases before it.
    """
    raw = read_yaml(path)
    for override in overrides or []:
        _apply(raw, override)
    if num_epochs is not None:
        _set_epochs(raw, num_epochs)
    return validate(raw, str(path))


def _apply(raw: Any, override: str) -> None:
    key, equals, text = override.partition("=")
    if not (key and equals and text.strip()):
        raise UserError(f"override {override!r}: write it as key=value, e.g. training.batch_size=64 (null for nothing)")
    *parents, last = [int(part) if part.isdecimal() else part for part in key.split(".")]
    place = raw
    for part in parents:
        if isinstance(place, dict):
            place = place.setdefault(part, {})
        elif isinstance(place, list) and isinstance(part, int) and part < len(place):
            place = place[part]
        else:
            raise UserError(f"override {override!r}: there is no {key!r} in the configuration")
    if not isinstance(place, dict):
        raise UserError(f"override {override!r}: there is no {key!r} in the configuration")
    place[last] = parse(text, f"override {override!r}")


def _set_epochs(raw: Any, num_epochs: int) -> None:
    if num_epochs < 1:
        raise UserError(f"the number of epochs must be at least 1, not {num_epochs}")
    try:
        *before, last = raw["training"]["phases"]
        for phase in before:
            phase["epochs"] = min(phase["epochs"], num_epochs)
        last["epochs"] = num_epochs
        evaluation = raw.get("evaluation") or {}
        if evaluation.get("erm_epochs", 0) > num_epochs:
            evaluation["erm_epochs"] = num_epochs
    except (KeyError, TypeError, ValueError, AttributeError):
        return  # the validation that follows names what is missing


def to_yaml(config: Config) -> str:
    """Return the resolved configuration as YAML: reading it again gives an equal one."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)


def erm_twin(config: Config) -> Config:
    """Return the configuration of plain training with the same data, model, optimiser and seed, to compare with."""
    raw = config.model_dump()
    raw["project"]["experiment_name"] = "erm"
    raw["logging"]["output_dir"] = str(Path(config.logging.output_dir) / config.project.experiment_name)
    raw["training"]["phases"] = [{"method": "erm", "epochs": config.evaluation.erm_epochs}]
    raw["evaluation"]["erm_epochs"] = 0
    return validate(raw, "ERM to compare with")
