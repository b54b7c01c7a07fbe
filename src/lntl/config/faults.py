"""The faults of a configuration: one line each, with path, value and the most similar valid name."""

from collections import defaultdict
from collections.abc import Iterator
from functools import reduce
from typing import Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lntl.config.keys import RENAMED_KEYS, RUN_NAME, RUN_NAME_RULE, Config
from lntl.errors import shorten
from lntl.plugins import did_you_mean

_MISSING = object()
_BOOLEANS = {"yes": "true", "on": "true", "no": "false", "off": "false"}  # booleans in YAML 1.1, strings in YAML 1.2


def describe(error: ValidationError, model: type[BaseModel], raw: object) -> Iterator[str]:
    """Yield one sentence per fault; a fault that phases inherit from `training` is reported only for `training`."""
    faults = [(fault, list(_strip_plugin_names(fault["loc"], raw))) for fault in error.errors()]
    own_faults = [
        (f, path)
        for f, path in faults
        if f["type"] == "missing" or _has_value(path, raw) or not _has_value(path[:2], raw)
    ]
    alternatives = defaultdict[tuple[int | str, ...], list[ErrorDetails]](list)  # one fault for each type of a value
    for fault, path in own_faults or faults:  # if all faults are inherited, `training` lacks the key
        alternatives[tuple(path)].append(fault)
    for loc, (fault, *others) in alternatives.items():
        literals = [other["ctx"]["expected"] for other in others if other["type"] == "literal_error"]
        yield ", or ".join([_describe_fault(fault, list(loc), model), *literals])


def _child(value: object, part: int | str) -> object:
    """Return the value of a key or the item of a list; _MISSING if there is no such value."""
    if isinstance(value, list):
        return value[part] if isinstance(part, int) and part < len(value) else _MISSING
    return value.get(part, _MISSING) if isinstance(value, dict) else _MISSING


def _has_value(path: list[int | str], raw: object) -> bool:
    """Return whether the document has a value at `path`."""
    return reduce(_child, path, raw) is not _MISSING


def _describe_fault(fault: ErrorDetails, loc: list[int | str], model: type[BaseModel]) -> str:
    path = ".".join(_format_part(part) for part in loc) or "(top)"
    kind, value, context = fault["type"], shorten(fault["input"]), fault.get("ctx", {})
    if kind == "extra_forbidden":
        key, valid = str(fault["loc"][-1]), _valid_keys(model, fault["loc"][:-1])
        if RENAMED_KEYS.get(key) in valid:
            return f"{path}: unknown key; its name is {RENAMED_KEYS[key]} since lntl 0.2"
        return f"{path}: unknown key{did_you_mean(key, valid)}"
    if kind == "missing":
        return f"{path}: missing{_describe_key(model, fault['loc'])}"
    if kind == "union_tag_not_found":
        return f"{path}: missing {context['discriminator']}"
    if kind == "union_tag_invalid":
        key, valid = context["discriminator"].strip("'"), context["expected_tags"].replace("'", "").split(", ")
        return f"{path}.{key}: unknown name {shorten(context['tag'])}{did_you_mean(context['tag'], valid)}"
    if kind == "literal_error":
        valid = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"{path}: unknown value {value}{did_you_mean(str(fault['input']), valid)}"
    if kind == "bool_type" and str(fault["input"]).lower() in _BOOLEANS:
        return f"{path}: {value} is a string in YAML 1.2; write {_BOOLEANS[str(fault['input']).lower()]}"
    if kind == "conflict":  # several settings contradict each other; to show the whole section would not help
        return f"{path}: {fault['msg']}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"{path}: {value} should be a mapping of keys to values"
    if kind == "string_pattern_mismatch" and context.get("pattern") == RUN_NAME:
        return f"{path}: {value} should be {RUN_NAME_RULE}"
    message = fault["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if message == fault["msg"]:
        return f"{path}: {message}, not {value}"
    return f"{path}: {value} should be {message if len(message) <= 500 else message[:500] + '...'}"


def _format_part(part: int | str) -> str:
    """Return a part of a path for a message; a long or unprintable key is shortened."""
    text = str(part)
    return text if text.isprintable() and len(text) <= 200 else shorten(text)


def _strip_plugin_names(loc: tuple[int | str, ...], raw: object) -> Iterator[int | str]:
    """Yield the path without the names of plug-ins and types that pydantic inserts, which are not keys."""
    value = raw
    for position, part in enumerate(loc):
        child = _child(value, part)
        if child is not _MISSING:
            value = child
        is_name = part in (_child(value, "name"), _child(value, "method"))
        is_missing_key = position == len(loc) - 1 and isinstance(value, (dict, list)) and not is_name
        if child is not _MISSING or is_missing_key:
            yield part


def _describe_key(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """Return the description of the key at `loc` in brackets, or "" if it has no description."""
    key = str(loc[-1])
    # The description of a section is the docstring of its class.
    owners = [Config] if len(loc) == 1 else _models_at(model, loc[:-1])
    for owner in owners:
        if field := owner.model_fields.get(key):
            text = field.description or getattr(field.annotation, "__doc__", None) or ""
            return f" ({text.strip().rstrip('.')})" if text else ""
    return ""


def _valid_keys(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the valid keys at `loc`."""
    return sorted({name for m in _models_at(model, loc) for name in m.model_fields})


def _models_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """Return the models to which `loc`, a path of fields, list positions and plug-ins, may refer."""
    models = [model]
    for part in loc:
        submodels = [
            m
            for owner in models
            if part in owner.model_fields
            for m in _find_models(owner.model_fields[str(part)].annotation)
        ]
        models = submodels or [m for m in models if m.__name__ == part] or models
    return models


def _find_models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    arguments = () if get_origin(annotation) is Literal else get_args(annotation)
    return [m for argument in arguments for m in _find_models(argument)]
