"""Read and write YAML 1.2 with ruamel.yaml: no code runs, keys are unique, and size and depth are bounded."""

import io
import re
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import Event
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError
from ruamel.yaml.representer import SafeRepresenter
from ruamel.yaml.resolver import VersionedResolver

from lntl.errors import UserError, shorten

MAX_CHARACTERS = 1_000_000  # in a document
MAX_DEPTH = 50  # levels of nested mappings and lists
MAX_NODES = 100_000  # keys and values, after aliases and merge keys are expanded
MAX_INTEGER = 2**64

_TAG_PREFIX = "tag:yaml.org,2002:"


def _fault(problem: str, position: Node | Event) -> MarkedYAMLError:
    return MarkedYAMLError(problem=problem, problem_mark=position.start_mark)


class _Composer(Composer):
    """Composer that limits the size of the tree and replaces each alias by a copy, so that no two values share data."""

    def __init__(self, loader: YAML) -> None:
        super().__init__(loader)
        self.warn_double_anchors = False
        self.node_count = 0

    def compose_node(self, parent: Node | None, index: object) -> Node:
        self._count(self.depth, self.parser.peek_event())
        node: Node = super().compose_node(parent, index)
        return node

    def _count(self, depth: int, position: Node | Event) -> None:
        self.node_count += 1
        if depth > MAX_DEPTH:
            raise _fault(f"a value is nested more than {MAX_DEPTH} levels deep", position)
        if self.node_count > MAX_NODES:
            raise _fault(f"the document has more than {MAX_NODES:,} values after aliases are expanded", position)

    def return_alias(self, node: Node) -> Node:
        return self._copy(node, self.depth)

    def _copy(self, node: Node, depth: int) -> Node:
        self._count(depth, node)
        if not isinstance(node, CollectionNode):
            return node
        if node.end_mark is None:
            raise _fault("an alias refers to the value that contains it", node)
        if isinstance(node, SequenceNode):
            children: list[object] = [self._copy(child, depth + 1) for child in node.value]
        else:
            children = [(self._copy(key, depth + 1), self._copy(child, depth + 1)) for key, child in node.value]
        return type(node)(node.ctag, children, node.start_mark, node.end_mark, node.flow_style)

    def compose_mapping_node(self, anchor: str | None) -> MappingNode:
        node: MappingNode = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise _fault("a key must be a string, not a list or a mapping", key)
            if (key.tag, key.value) in keys:
                raise _fault(f"key {shorten(key.value)} is given twice", key)
            keys.add((key.tag, key.value))
        return node


class _Constructor(SafeConstructor):
    """Constructor that accepts mappings, lists, strings, numbers, booleans and null; a date is a string (YAML 1.2)."""

    yaml_constructors = {  # noqa: RUF012 - overrides an attribute of the class
        **{
            _TAG_PREFIX + kind: SafeConstructor.yaml_constructors[_TAG_PREFIX + kind]
            for kind in ["null", "bool", "float", "str", "seq", "map"]
        },
        _TAG_PREFIX + "timestamp": SafeConstructor.construct_yaml_str,
        _TAG_PREFIX + "value": SafeConstructor.construct_yaml_str,
    }

    def construct_scalar(self, node: Node) -> str:
        value: str = super().construct_scalar(node)
        if invalid := re.search("[\0\ud800-\udfff]", value):
            raise _fault(f"a string cannot contain the character U+{ord(invalid[0]):04X}", node)
        return value

    def construct_undefined(self, node: Node) -> None:
        raise _fault(f"unknown tag {shorten(str(node.tag))}", node)

    def construct_non_recursive_object(self, node: Node, tag: str | None = None) -> object:
        try:
            return super().construct_non_recursive_object(node, tag)
        except (ValueError, LookupError):
            kind = str(node.tag).removeprefix(_TAG_PREFIX)
            raise _fault(f"{shorten(node.value)} is not a valid {kind}", node) from None

    def construct_yaml_int(self, node: ScalarNode) -> int:
        if re.fullmatch(r"[-+]?0[0-9_]+", str(node.value)):
            number = re.sub("^([-+]?)[0_]+(?=.)", r"\1", node.value)
            advice = f"write {number} for the number, or put it into quotes for a string"
            raise _fault(f"{shorten(node.value)} begins with a zero; {advice}", node)
        value: int = super().construct_yaml_int(node)
        if abs(value) > MAX_INTEGER:
            raise _fault(f"{shorten(node.value)} is too large for an integer", node)
        return value


_Constructor.add_constructor(_TAG_PREFIX + "int", _Constructor.construct_yaml_int)
_Constructor.add_constructor(None, _Constructor.construct_undefined)


class _Resolver(VersionedResolver):
    """Resolver of YAML 1.2, even if a document declares another version."""

    processing_version = (1, 2)


class _Representer(SafeRepresenter):
    """Representer without anchors and aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _yaml() -> YAML:
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _Composer  # type: ignore[assignment] # the stub allows only the default
    yaml.Constructor, yaml.Resolver, yaml.Representer = _Constructor, _Resolver, _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    return yaml


def dump(content: object) -> str:
    """Return YAML that `parse` reads back as the same content."""
    out = io.StringIO()
    _yaml().dump(content, out)
    return out.getvalue()


def parse(text: str, origin: str) -> object:
    """Return the value of a YAML text: None, a bool, int, float or str, or a list or dict of these.

    Raises:
        UserError: If the text is not valid YAML, or exceeds a limit of this module. The message names `origin`, line
            and column.
    """
    if len(text) > MAX_CHARACTERS:
        raise UserError(f"{origin}: the text has more than {MAX_CHARACTERS:,} characters, the limit of this program")
    try:
        value: object = _yaml().load(text)
        return value
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(
            f"{origin}, line {line}: not valid YAML: a string cannot contain the character U+{error.character:04X}"
        ) from None
    except YAMLError as error:
        raise UserError(f"{origin}{_position(error)}: not valid YAML: {_problem(error)}") from None


def _position(error: YAMLError) -> str:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _problem(error: YAMLError) -> str:
    problem = error.problem if isinstance(error, MarkedYAMLError) else None
    return (problem or str(error).partition("\n")[0])[:400]


def read_yaml(path: Path) -> dict[str, object]:
    """Return the mapping in a YAML file; raises UserError if it is unreadable, not valid YAML, or not a mapping."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(
            f"{path}: cannot read the configuration: {reason}; `lntl configs` lists the ready configurations"
        ) from None
    raw = parse(text, str(path))
    if not isinstance(raw, dict):
        raise UserError(
            f"{path}: a configuration must be a mapping with the sections project, data, model and training"
        )
    return raw
