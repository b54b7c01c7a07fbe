"""Say what is wrong with a configuration: one line a fault, with path, value and the nearest valid name."""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lntl.config.keys import RENAMED, Config
from lntl.plugins import did_you_mean


def describe(error: ValidationError, model: type[BaseModel], raw: Any) -> Iterator[str]:
    """Yield one sentence a fault; what a phase took over from `training` is told once, where it stands."""
    faults = [(fault, list(_without_tags(fault["loc"], raw))) for fault in error.errors()]
    own = [
        (f, path) for f, path in faults if f["type"] == "missing" or _stands(path, raw) or not _stands(path[:2], raw)
    ]
    for fault, path in own or faults:  # where all were taken over, they are faults in the phase alone
        yield _sentence(fault, path, model)


def _has(place: Any, part: int | str) -> bool:
    return (isinstance(place, dict) and part in place) or (isinstance(place, list) and isinstance(part, int))


def _stands(path: list[int | str], raw: Any) -> bool:
    """Return whether the document itself has something at `path`."""
    place: Any = raw
    for part in path:
        if not _has(place, part):
            return False
        place = place[part]
    return True


def _sentence(fault: ErrorDetails, loc: list[int | str], model: type[BaseModel]) -> str:
    path = ".".join(map(str, loc)) or "(top)"
    kind, given, context = fault["type"], fault["input"], fault.get("ctx", {})
    if kind == "extra_forbidden":
        key, valid = str(fault["loc"][-1]), _fields(model, fault["loc"][:-1])
        if RENAMED.get(key) in valid:
            return f"{path}: unknown key; its name is {RENAMED[key]} since lntl 0.2"
        return f"{path}: unknown key{did_you_mean(key, valid)}"
    if kind == "missing":
        return f"{path}: missing{_meaning(model, fault['loc'])}"
    if kind == "union_tag_not_found":
        return f"{path}: missing {context['discriminator']}"
    if kind == "union_tag_invalid":
        key, valid = context["discriminator"].strip("'"), context["expected_tags"].replace("'", "").split(", ")
        return f"{path}.{key}: unknown name {context['tag']!r}{did_you_mean(context['tag'], valid)}"
    if kind == "literal_error":
        valid = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        return f"{path}: unknown value {given!r}{did_you_mean(str(given), valid)}"
    message = fault["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return f"{path}: {given!r} should be {message}" if message != fault["msg"] else f"{path}: {message}, not {given!r}"


def _without_tags(loc: tuple[int | str, ...], raw: Any) -> Iterator[int | str]:
    """Drop the plug-in names that pydantic puts into a path: they are no keys of the document."""
    place: Any = raw
    for position, part in enumerate(loc):
        known = _has(place, part)
        if known:
            place = place[part]
        if known or position == len(loc) - 1:
            yield part


def _meaning(model: type[BaseModel], loc: tuple[int | str, ...]) -> str:
    """Return what the key at `loc` is for, in brackets, or nothing where it is not described."""
    key = str(loc[-1])
    owners = [Config] if len(loc) == 1 else _at(model, loc[:-1])  # a section is described by the class it is made from
    for owner in owners:
        if field := owner.model_fields.get(key):
            text = field.description or getattr(field.annotation, "__doc__", None) or ""
            return f" ({text.strip().rstrip('.')})" if text else ""
    return ""


def _fields(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """Return the valid keys at `loc`."""
    return sorted({name for m in _at(model, loc) for name in m.model_fields})


def _at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[type[BaseModel]]:
    """Return the models that `loc` may mean; it names fields, list positions and plug-ins."""
    models = [model]
    for part in loc:
        inner = [
            m
            for owner in models
            if part in owner.model_fields
            for m in _models(owner.model_fields[str(part)].annotation)
        ]
        models = inner or [m for m in models if m.__name__ == part] or models
    return models


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    arguments = () if get_origin(annotation) is Literal else get_args(annotation)
    return [m for argument in arguments for m in _models(argument)]
