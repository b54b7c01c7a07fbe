"""The configuration of a run, read from YAML and checked before the run starts, with the settings of all plug-ins.

The sections `data`, `model` and each item of `training.phases` name a plug-in and also have the keys of its Config.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import Field, ValidationError, create_model

from lntl import plugins
from lntl.config.faults import describe
from lntl.config.keys import Config as Config
from lntl.config.keys import Data, Model
from lntl.config.keys import Training as Training
from lntl.errors import UserError, shorten
from lntl.plugins import Settings, did_you_mean
from lntl.text import count
from lntl.training import Optimizer as Optimizer
from lntl.training import Phase as Phase
from lntl.yaml_file import dump, parse, read_yaml

MAX_FAULTS = 20  # largest number of faults in one message
READY_FOLDER = Path(str(files("lntl") / "configs"))  # folder of the configurations that ship with the package


def _union(key: str, base: type[Settings], configs: Mapping[str, type[Settings]]) -> Any:
    """Return a union of one model per plug-in, with the keys of `base` and of its Config; `key` selects the model."""
    fields = {name: {key: (Literal[name], base.model_fields[key])} for name in configs}
    variants = [create_model(name, __base__=(config, base), **fields[name]) for name, config in configs.items()]  # type: ignore[call-overload]
    return Annotated[Union[tuple(variants)], Field(discriminator=key)]  # noqa: UP007 - the union is built at run time


@cache
def config_model(data: str = "", model: str = "", methods: tuple[str, ...] = ()) -> type[Config]:
    """Return Config with the keys of every plug-in.

    Args:
        data: Dotted name of the user's data set, or "".
        model: Dotted name of the user's model, or "".
        methods: Dotted names of the user's methods.
    """
    from lntl.methods.base import Method  # imported here because it imports torch
    from lntl.types import Dataset, Networks

    def configs(folder: str, base: type[Method | Networks | Dataset], *dotted: str) -> dict[str, type[Settings]]:
        names = (*plugins.names(folder), *filter(None, dotted))
        return {name: plugins.load(folder, name, base).Config for name in names}

    phase = _union("method", Phase, configs("lntl.methods", Method, *methods))
    phases = (list[phase], Training.model_fields["phases"])  # type: ignore[valid-type]
    return create_model(
        "Config",
        __base__=Config,
        __doc__=Config.__doc__,
        data=(_union("name", Data, configs("lntl.data", Dataset, data)), ...),
        model=(_union("name", Model, configs("lntl.models", Networks, model)), ...),
        training=(create_model("Training", __base__=Training, __doc__=Training.__doc__, phases=phases), ...),
    )


def validate(raw: object, origin: str) -> Config:
    """Return the checked configuration.

    Args:
        raw: The parsed YAML: nested dicts and lists.
        origin: Name of the document in messages, such as its path.

    Raises:
        UserError: If the configuration is invalid; one line for each fault, with key, value and remedy.
    """
    try:
        model = config_model(*dotted_names(raw))
    except UserError as error:  # the error is about a class of the user
        raise UserError(f"{origin}: {error}") from error
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        faults = [f"  {line}" for line in describe(error, model, raw)]
        lines = faults[:MAX_FAULTS] + [f"  and {len(faults) - MAX_FAULTS} more"] * (len(faults) > MAX_FAULTS)
        raise UserError("\n".join([f"{origin}: {count(len(faults), 'error')} in the configuration", *lines])) from None


def dotted_names(raw: object) -> tuple[str, str, tuple[str, ...]]:
    """Return the dotted names (user's classes) of data, model and methods in a raw document.

    A name is "" if the section names no such class. A name with a slash (timm/resnet18.a1_in1k) is not a dotted name.
    """

    def dotted_name(section: object, key: str) -> str:
        value = section.get(key) if isinstance(section, dict) else None
        return value if isinstance(value, str) and "." in value and "/" not in value else ""

    sections = raw if isinstance(raw, dict) else {}
    match sections.get("training"):
        case {"phases": list(phases)}:
            methods = {dotted_name(phase, "method") for phase in phases} - {""}
        case _:
            methods = set()
    return dotted_name(sections.get("data"), "name"), dotted_name(sections.get("model"), "name"), tuple(sorted(methods))


def code_names(raw: object) -> list[str]:
    """Return the dotted names in an unchecked configuration: user's classes and bias functions."""
    data, model, methods = dotted_names(raw)
    section = raw.get("data") if isinstance(raw, dict) else None
    biases = section.get("bias") if isinstance(section, dict) else None
    sections = [bias for bias in (biases if isinstance(biases, list) else [biases]) if isinstance(bias, dict)]
    functions = [bias.get("from") for bias in sections]
    return [name for name in (data, model, *methods, *functions) if isinstance(name, str) and "." in name]


def check_trusted(raw: object, where: str, trust: str | Sequence[str] = ()) -> None:
    """Raise UntrustedError if an unchecked configuration names code outside the modules in `trust`."""
    for name in code_names(raw):
        plugins.check_trust(name, where, trust)


def ready_names() -> list[str]:
    """Return the names of the ready configurations, e.g. colored_mnist_default or colored_mnist/authors."""
    return sorted(str(path.relative_to(READY_FOLDER).with_suffix("")) for path in READY_FOLDER.rglob("*.yaml"))


def find(name: str | Path) -> Path:
    """Return the path of a configuration; `name` is a path or the name of a ready configuration."""
    path, name = Path(name), str(name)
    if path.suffix in (".yaml", ".yml") or path.exists():
        return path
    if name not in (valid_names := ready_names()):
        raise UserError(f"{name!r} is neither a file nor a ready configuration{did_you_mean(name, valid_names)}")
    return READY_FOLDER / f"{name}.yaml"


def read(
    name: str | Path,
    overrides: list[str] | None = None,
    num_epochs: int | None = None,
    trust: str | Sequence[str] | None = None,
) -> Config:
    """Return the configuration in a YAML file.

    Args:
        name: The file, or the name of a ready configuration.
        overrides: Settings that replace those of the file, as `key=value` with the value in YAML.
        num_epochs: Epochs of the last phase, and the maximum for the other phases; None: the epochs in the file.
        trust: Modules that the file may name; None: any module, because the user wrote the file.

    Returns:
        The checked configuration.

    Raises:
        UserError: If the file cannot be read, or the configuration is invalid.
        UntrustedError: If the file names a module that is not in `trust`.
    """
    path = find(name)
    raw = _read_with_overrides(path, overrides)
    if trust is not None:
        check_trusted(raw, str(path), trust)
    if num_epochs is not None:
        _set_epochs(raw, num_epochs)
    return validate(raw, str(path))


def read_for_data(name: str | Path, overrides: list[str] | None = None) -> Config:
    """Return the configuration in a YAML file, with defaults for the sections that are missing, except `data`.

    Args:
        name: The file, or the name of a ready configuration.
        overrides: As for `read`.
    """
    path = find(name)
    raw = _read_with_overrides(path, overrides)
    defaults: dict[str, dict[str, object]] = {
        "project": {"experiment_name": re.sub(r"[\s/\\]|^\.", "_", path.stem)},
        "training": {"phases": [{"method": "erm", "epochs": 1}]},
    }
    for section, keys in defaults.items():
        if isinstance(settings := raw.get(section) or {}, dict):
            raw[section] = keys | settings
    raw["model"] = raw.get("model") or {"name": "mlp"}
    return validate(raw, str(path))


def _read_with_overrides(path: Path, overrides: list[str] | None) -> dict[str, object]:
    raw = read_yaml(path)
    for override in overrides or []:
        _apply(raw, override)
    return raw


def key_and_value(setting: str, kind: str, example: str) -> tuple[str, object]:
    """Return key and value of a command-line argument `key=value` with the value in YAML.

    Args:
        setting: The argument.
        kind: "override" or "setting", for messages.
        example: A valid argument, for messages.

    Raises:
        UserError: If the argument does not have this form, or the value is not valid YAML.
    """
    key, equals, text = setting.partition("=")
    origin = f"{kind} {shorten(setting)}"
    if not (key and equals and text.strip()):
        raise UserError(f"{origin}: write it as key=value, e.g. {example}")
    return key, parse(text, origin)


def _apply(raw: dict[str, object], override: str) -> None:
    """Set one value of a raw document; a missing section is added, but an item of a list must exist."""
    origin = f"override {shorten(override)}"
    key, value = key_and_value(override, "override", "training.batch_size=64 (null for no value)")
    *parents, last_part = [int(part) if part.isdecimal() and len(part) < 9 else part for part in key.split(".")]
    parent: Any = raw
    try:
        for part in parents:
            parent = parent.setdefault(part, {}) if isinstance(parent, dict) else parent[part]
        parent[last_part] = value
    except (TypeError, IndexError):
        raise UserError(f"{origin}: there is no {shorten(key)} in the configuration") from None


def _set_epochs(raw: dict[str, object], num_epochs: int) -> None:
    """Set the epochs of the last phase, and limit the epochs of other phases; validation reports missing keys."""
    if num_epochs < 1:
        raise UserError(f"the number of epochs must be at least 1, not {num_epochs}")
    match raw.get("training"):
        case {"phases": [*earlier_phases, dict(last_phase)]}:
            last_phase["epochs"] = num_epochs
            sections = [(phase, "epochs") for phase in earlier_phases] + [(raw.get("evaluation"), "erm_epochs")]
            for section, key in sections:
                if isinstance(section, dict) and isinstance(epochs := section.get(key), int):
                    section[key] = min(epochs, num_epochs)


def to_yaml(config: Config) -> str:
    """Return the configuration with all defaults as YAML; reading it gives an equal configuration."""
    return dump(config.model_dump())


def erm_config(config: Config, folder: Path) -> Config:
    """Return the configuration of plain training with the same data, model, optimiser and seed, in `folder`/erm.

    Plain training has no random colors in training: they hide a bias, and this run is the baseline.
    """
    raw = config.model_dump()
    raw["project"]["experiment_name"] = "erm"
    raw["logging"]["output_dir"] = str(folder)
    raw["data"] |= {name: 0.0 for name in ("random_colors", "random_invert") if name in raw["data"]}
    raw["training"]["phases"] = [{"method": "erm", "epochs": config.evaluation.erm_epochs}]
    raw["training"]["start_from"] = None
    raw["evaluation"]["erm_epochs"] = 0
    return validate(raw, "ERM baseline")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the configuration, including short forms, for completion and checks in editors."""
    schema = config_model().model_json_schema()
    for variant in schema["properties"]["model"]["oneOf"]:
        model = schema["$defs"][variant["$ref"].rpartition("/")[2]]
        if "arch" in model["properties"]:  # `name: torchvision/resnet18` stands for name and arch, as Config reads it
            name = model["properties"]["name"]
            plugin = name.pop("const")
            name["anyOf"] = [{"const": plugin}, {"pattern": f"^{plugin}/.+$"}]
            model["required"].remove("arch")
            model["if"] = {"properties": {"name": {"const": plugin}}}
            model["then"] = {"required": ["arch"]}
    return schema
