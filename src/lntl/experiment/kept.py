"""What a checkpoint keeps of its data, as plain values, so that its networks can be used where the data are not."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pydantic import TypeAdapter, ValidationError

from lntl import plugins
from lntl.data.eval_transform import as_it_is
from lntl.errors import UserError
from lntl.types import DataSpec, Networks


def of_data(data: Any) -> dict[str, Any]:
    """Return the spec of a data set, and the settings of its evaluation transform."""
    transform = getattr(data, "transform", None) or as_it_is(data.spec.image_shape)
    return {"spec": asdict(data.spec), "transform": transform.kept()}


def networks(
    model: Mapping[str, Any], spec: Mapping[str, Any], where: str, trust: str | Sequence[str] = ()
) -> Networks:
    """Return the networks of a section `model` of a configuration, with random weights, for data of that spec.

    trust: modules that may be imported for it, besides those that are imported already.
    """
    plugin, settings = _plugin("lntl.models", model, where, trust)
    try:
        read = TypeAdapter(DataSpec).validate_python(spec)
    except ValidationError as error:
        raise UserError(f"{where}: the data that it tells of are none: {error.errors()[0]['msg']}") from error
    made: Networks = plugin(read, settings)
    return made


def dataset(data: Mapping[str, Any], where: str, trust: str | Sequence[str]) -> Any:
    """Return the data set of a section `data` of a configuration; trust: as of `networks`."""
    plugin, settings = _plugin("lntl.data", data, where, trust)
    biases = getattr(settings, "bias", None)
    for bias in biases if isinstance(biases, list) else []:
        if function := getattr(bias, "computed", None):
            plugins.check_trust(function, where, trust)
    return plugin(settings)


def _plugin(folder: str, section: Mapping[str, Any], where: str, trust: str | Sequence[str]) -> tuple[Any, Any]:
    """Return the plug-in that a section names, and its settings."""
    name = str(section["name"])
    plugins.check_trust(name, where, trust)
    try:
        plugin = plugins.load(folder, name)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    try:
        return plugin, plugin.Config.model_validate({key: value for key, value in section.items() if key != "name"})
    except ValidationError as error:
        what = folder.removeprefix("lntl.").removesuffix("s")
        raise UserError(f"{where}: the {what} it describes cannot be built: {error.errors()[0]['msg']}") from error
