"""Find plug-ins: a plug-in is a file whose `__all__` names one class, and this class has a `Config`.

A dotted name ("mypackage.mymodule.MyMethod") loads a user's class.
"""

import difflib
import importlib
import os
import pkgutil
import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from lntl.errors import UntrustedError, UserError, shorten

Base = TypeVar("Base")
Weight = Annotated[float, Field(ge=0, le=1e9)]  # weight of a loss term


def conflict(message: str) -> PydanticCustomError:
    """Return the error that a validator of several settings raises; the message is a sentence."""
    return PydanticCustomError("conflict", "{message}", {"message": message})


class Settings(BaseModel):
    """Base class of all settings: immutable, strict about types, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _check_for_nul(cls, value: object) -> object:
        """Refuse the character NUL, which paths and names cannot contain."""
        if _has_nul(value):
            raise ValueError("a string without the character NUL")
        return value


def _has_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_has_nul(item) for pair in value.items() for item in pair)
    return isinstance(value, list | tuple) and any(_has_nul(item) for item in value)


@cache
def names(folder: str) -> tuple[str, ...]:
    """Return the names of the plug-ins in a package.

    Args:
        folder: Package of the plug-ins, such as "lntl.methods".

    Returns:
        Their names, sorted; each is the name of a file.
    """
    return tuple(name for name in modules(folder) if _plugin(f"{folder}.{name}") is not None)


def modules(folder: str) -> tuple[str, ...]:
    """Return the names of the modules in a package, sorted; no module is imported."""
    spec = find_spec(folder)
    paths = spec.submodule_search_locations if spec is not None else None
    return tuple(sorted(module.name for module in pkgutil.iter_modules(paths or [])))


def _plugin(module_name: str) -> type | None:
    """Return the plug-in of a module: the only name in its `__all__`, if it is a class with a Config."""
    module = vars(importlib.import_module(module_name))
    public = [module[name] for name in module.get("__all__", ())]
    return public[0] if len(public) == 1 and isinstance(public[0], type) and hasattr(public[0], "Config") else None


def load(folder: str, name: str, base: type[Base]) -> type[Base]:
    """Return a plug-in's class.

    Args:
        folder: Package of the plug-ins, such as "lntl.methods".
        name: Name of a plug-in there, or the dotted name of a user's class.
        base: The class that the plug-in has to derive from.

    Returns:
        The class, a subclass of `base`.

    Raises:
        UserError: If there is no such plug-in; the message suggests the most similar valid name.

    Example:
        >>> load("lntl.methods", "erm", object).__name__
        'ERM'
    """
    if name in names(folder):
        plugin: object = _plugin(f"{folder}.{name}")
    elif "." in name:
        plugin = _user_class(name)
    else:
        raise UserError(f"{shorten(name)} is not one of {folder.rsplit('.', 1)[-1]}{did_you_mean(name, names(folder))}")
    if not (isinstance(plugin, type) and issubclass(plugin, base)):
        raise UserError(f"{shorten(name)} is not a class that derives from {base.__module__}.{base.__qualname__}")
    return plugin


def check_trust(dotted: str, where: str, trust: str | Sequence[str]) -> None:
    """Check that the user trusts code that a file names.

    Args:
        dotted: The name in the file, e.g. mypackage.mymodule.MyMethod.
        where: The file.
        trust: Packages, modules or classes whose code may run; the environment variable LNTL_TRUST names more.

    Raises:
        UntrustedError: If the user does not trust it.
    """
    trusted = [trust] if isinstance(trust, str) else [*trust]
    trusted += re.split(r"[\s,]+", os.environ.get("LNTL_TRUST", ""))
    if not any(name and f"{dotted}.".startswith(f"{name}.") for name in trusted):
        module = dotted.rpartition(".")[0][:100]
        raise UntrustedError(
            f"{where}: it names {dotted[:200]}, and importing {module} runs its code; if you trust it, allow it: on "
            f"the command line --trust {module}, in Python trust={module!r}, or permanently with the environment "
            f"variable LNTL_TRUST={module}"
        )


def _user_class(dotted: str) -> object:
    module, _, attribute = dotted.rpartition(".")
    if not all(part.isidentifier() for part in dotted.split(".")):
        raise UserError(f"cannot load {shorten(dotted)}: write it as package.module.Class")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"cannot load {shorten(dotted)}: {error}; is its folder in PYTHONPATH?") from error


def did_you_mean(name: str, valid: Sequence[str]) -> str:
    """Return the end of an error message about an unknown name: a suggestion.

    Args:
        name: The unknown name.
        valid: All valid names.

    Returns:
        "; did you mean 'x'?" with the most similar valid name, or the list of all if none is similar.
    """
    similar = difflib.get_close_matches(str(name)[:200], valid, n=1, cutoff=0.5)
    return f"; did you mean {similar[0]!r}?" if similar else f"; valid: {', '.join(valid)}"
