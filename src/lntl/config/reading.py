"""Read a configuration, with the keys of the plug-ins it names, and check it."""

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, cast

from pydantic import Field, ValidationError, create_model

from lntl import plugins
from lntl.config.faults import describe
from lntl.config.keys import Config, Data, Model, Phase, Training
from lntl.errors import UserError, shorten
from lntl.plugins import Settings
from lntl.yaml_file import dump, parse, read_yaml

MAX_FAULTS = 20  # that one message lists


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
    try:
        model = config_model(*named(raw))
    except UserError as error:  # one of the user's own classes
        raise UserError(f"{origin}: {error}") from error
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        faults = [f"  {line}" for line in describe(error, model, raw)]
        shown = faults[:MAX_FAULTS] + [f"  and {len(faults) - MAX_FAULTS} more"] * (len(faults) > MAX_FAULTS)
        raise UserError("\n".join([f"{origin}: {len(faults)} fault(s) in the configuration", *shown])) from None


def named(raw: Any) -> tuple[str, str, tuple[str, ...]]:
    """Return the dotted names of data, model and methods that a raw document mentions, empty where there is none.

    A name with a slash, such as timm/resnet18.a1_in1k, is none.
    """

    def name(section: Any, key: str) -> str:
        value = section.get(key) if isinstance(section, dict) else None
        return value if isinstance(value, str) and "." in value and "/" not in value else ""

    sections = raw if isinstance(raw, dict) else {}
    training = sections.get("training")
    phases = training.get("phases") if isinstance(training, dict) else None
    methods = {name(phase, "method") for phase in phases} - {""} if isinstance(phases, list) else set()
    return name(sections.get("data"), "name"), name(sections.get("model"), "name"), tuple(sorted(methods))


def read(path: Path, overrides: list[str] | None = None, num_epochs: int | None = None) -> Config:
    """Return the configuration in a YAML file, with `key=value` overrides applied.

    num_epochs sets the epochs of the last phase and caps those of the phases before it.
    """
    raw = _overridden(path, overrides)
    if num_epochs is not None:
        _set_epochs(raw, num_epochs)
    return validate(raw, str(path))


def read_for_data(path: Path, overrides: list[str] | None = None) -> Config:
    """Return the configuration in a YAML file for one who looks at the data alone: only `data` has to be there yet."""
    raw = _overridden(path, overrides)
    if isinstance(raw, dict):
        stands_in: dict[str, dict[str, Any]] = {
            "project": {"experiment_name": re.sub(r"[\s/\\]|^\.", "_", path.stem)},
            "training": {"phases": [{"method": "erm", "epochs": 1}]},
        }
        for section, keys in stands_in.items():
            if isinstance(given := raw.get(section) or {}, dict):
                raw[section] = keys | given
        raw["model"] = raw.get("model") or {"name": "mlp"}
    return validate(raw, str(path))


def _overridden(path: Path, overrides: list[str] | None) -> Any:
    raw = read_yaml(path)
    for override in overrides or []:
        _apply(raw, override)
    return raw


def _apply(raw: Any, override: str) -> None:
    """Set one value of a raw document; a section that is missing is added, an item of a list has to be there."""
    key, equals, text = override.partition("=")
    origin = f"override {shorten(override)}"
    if not (key and equals and text.strip()):
        raise UserError(f"{origin}: write it as key=value, e.g. training.batch_size=64 (null for nothing)")
    *parents, last = [int(part) if part.isdecimal() and len(part) < 9 else part for part in key.split(".")]
    value, parent = parse(text, origin), raw
    try:
        for part in parents:
            parent = parent.setdefault(part, {}) if isinstance(parent, dict) else parent[part]
        parent[last] = value
    except (TypeError, IndexError):
        raise UserError(f"{origin}: there is no {shorten(key)} in the configuration") from None


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
    return dump(config.model_dump())


def erm_config(config: Config, folder: Path) -> Config:
    """Return the configuration of plain training with the same data, model, optimiser and seed, in `folder`/erm."""
    raw = config.model_dump()
    raw["project"]["experiment_name"] = "erm"
    raw["logging"]["output_dir"] = str(folder)
    raw["training"]["phases"] = [{"method": "erm", "epochs": config.evaluation.erm_epochs}]
    raw["evaluation"]["erm_epochs"] = 0
    return validate(raw, "ERM to compare with")
