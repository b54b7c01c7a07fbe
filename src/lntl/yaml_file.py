"""Read YAML the way a configuration means it: 1e-3 is a number, a key given twice is an error."""

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from lntl.errors import UserError


class _Loader(yaml.SafeLoader):
    """SafeLoader that knows 1e-3 as a number, and refuses duplicate keys and dates that are none."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise ConstructorError(None, None, f"key {key[1]!r} is given twice", node.start_mark)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise ConstructorError(None, None, f"{error}; a text stands in quotes", node.start_mark) from error


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes a text which _Loader would take for a number."""


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )


def dump(content: Any) -> str:
    """Return YAML that `parse` reads back as the same content."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def parse(text: str, origin: str) -> Any:
    """Return the value that a YAML text stands for; raises UserError with the place of the fault."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise UserError(f"{origin}{place}: not valid YAML: {problem}") from None


def read_yaml(path: Path) -> Any:
    """Return the content of a YAML file, a mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"{path}: cannot read the configuration: {reason}; `lntl configs` lists the ready ones"
        ) from None
    raw = parse(text, str(path))
    if not isinstance(raw, dict):
        raise UserError(f"{path}: a configuration is a mapping with the sections project, data, model and training")
    return raw
