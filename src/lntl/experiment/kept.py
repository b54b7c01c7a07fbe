"""What a checkpoint keeps of its data, as plain values, so that its networks can be used where the data are not."""

from collections.abc import Mapping
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


def networks(model: Mapping[str, Any], spec: Mapping[str, Any], where: str) -> Networks:
    """Return the networks of a section `model` of a configuration, with random weights, for data of that spec."""
    plugin = plugins.load("lntl.models", model["name"])
    try:
        settings = plugin.Config.model_validate({key: value for key, value in model.items() if key != "name"})
        read = TypeAdapter(DataSpec).validate_python(spec)
    except ValidationError as error:
        raise UserError(f"{where}: the model it describes cannot be built: {error.errors()[0]['msg']}") from error
    made: Networks = plugin(read, settings)
    return made
