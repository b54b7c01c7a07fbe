"""The JSON Schema of the configuration, by which editors complete and underline."""

from typing import Any

from lntl.config.reading import config_model


def json_schema() -> dict[str, Any]:
    """Return the schema of the YAML as it may be written, short forms included."""
    schema = config_model().model_json_schema()
    for variant in schema["properties"]["model"]["oneOf"]:
        model = schema["$defs"][variant["$ref"].rpartition("/")[2]]
        if "arch" in model["properties"]:
            _allow_slash(model)
    return schema


def _allow_slash(model: dict[str, Any]) -> None:
    """Let `name: torchvision/resnet18` stand for name and arch, as Config reads it."""
    name = model["properties"]["name"]
    plugin = name.pop("const")
    name["anyOf"] = [{"const": plugin}, {"pattern": f"^{plugin}/.+$"}]
    model["required"].remove("arch")
    model["if"] = {"properties": {"name": {"const": plugin}}}
    model["then"] = {"required": ["arch"]}
