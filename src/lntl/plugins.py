"""A plug-in is a file: `load("lntl.methods", "erm")` takes the one name in the `__all__` of lntl/methods/erm.py.

A dotted name ("mypackage.mymodule.MyMethod") loads the user's own class. Each plug-in carries its `Config`.
"""

import difflib
import importlib
import os
import pkgutil
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict, field_validator

from lntl.errors import UserError, shorten


class Settings(BaseModel):
    """Base of all settings: immutable, strict about types, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _holds_no_nul(cls, value: object) -> object:
        """Refuse the character NUL, which no path and no name can hold."""
        if _has_nul(value):
            raise ValueError("a text without the character NUL")
        return value


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(item) for pair in value.items() for item in pair)
    return isinstance(value, list | tuple) and any(_has_nul(item) for item in value)


@cache
def names(folder: str) -> tuple[str, ...]:
    """Return the names of the plug-ins in a package: its modules whose one public name carries a `Config`."""
    modules = (m.name for m in pkgutil.iter_modules(importlib.import_module(folder).__path__))
    return tuple(sorted(name for name in modules if _public(f"{folder}.{name}") is not None))


def _public(module: str) -> Any | None:
    members = [
        getattr(importlib.import_module(module), name)
        for name in getattr(importlib.import_module(module), "__all__", ())
    ]
    return members[0] if len(members) == 1 and hasattr(members[0], "Config") else None


def load(folder: str, name: str) -> Any:
    """Return the plug-in called `name` of `folder`, or the class that a dotted name points to.

    Raises UserError with the nearest valid name when there is none.
    """
    if name in names(folder):
        return _public(f"{folder}.{name}")
    if "." in name:
        return _user_class(name)
    raise UserError(f"{shorten(name)} is not one of {folder.rsplit('.', 1)[-1]}{did_you_mean(name, names(folder))}")


def check_trust(dotted: str, where: str, trust: str | Sequence[str]) -> None:
    """Raise UserError if a file names code of the user's that the user has not named.

    Args:
        dotted: The name in the file, e.g. mypackage.mymodule.MyMethod.
        where: The file.
        trust: Packages, modules or names of code that may run; the environment variable LNTL_TRUST names more.
    """
    trusted = [trust] if isinstance(trust, str) else [*trust]
    trusted += re.split(r"[\s,]+", os.environ.get("LNTL_TRUST", ""))
    if not any(name and f"{dotted}.".startswith(f"{name}.") for name in trusted):
        module = dotted.rpartition(".")[0][:100]
        raise UserError(
            f"{where}: it names {dotted[:200]}, and importing {module} runs its code; if you trust it, say so: on the "
            f"command line --trust {module}, in Python trust={module!r}, or for good in the environment variable "
            f"LNTL_TRUST={module}"
        )


def _user_class(dotted: str) -> Any:
    module, _, attribute = dotted.rpartition(".")
    if not all(part.isidentifier() for part in dotted.split(".")):
        raise UserError(f"cannot load {shorten(dotted)}: write it as package.module.Class")
    try:
        plugin = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"cannot load {shorten(dotted)}: {error}; is its folder in PYTHONPATH?") from error
    if not hasattr(plugin, "Config"):
        raise UserError(f"{dotted!r} has no Config: give the class a `class Config(lntl.plugins.Settings)`")
    return plugin


def did_you_mean(name: str, valid: tuple[str, ...] | list[str]) -> str:
    """Return "; did you mean 'x'?" with the nearest valid name, or the list of all where none is near."""
    near = difflib.get_close_matches(str(name)[:200], valid, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; valid: {', '.join(valid)}"
