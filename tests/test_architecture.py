"""The imports of src/lntl obey the table of rooms and floors in docs/ARCHITECTURE.md."""

import ast
import graphlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "lntl"
FILES = sorted((ROOT / "src").rglob("*.py"))
TRAINER_CALLS = {"backward", "step", "zero_grad", "train", "eval", "to"}  # functions that no method may call
FILE_MODULES = {"io", "json", "os", "pathlib", "pickle", "shutil", "tempfile", "ruamel"}
ROOMS_WITHOUT_FILES = ("methods", "models", "training", "evaluation")


@dataclass(frozen=True)
class Room:
    floor: int
    name: str
    modules: tuple[str, ...]
    packages: frozenset[str]


def read_rooms() -> list[Room]:
    """Read the rooms from the table: floor, name, modules in backticks, packages."""
    rows = re.findall(
        r"^\| (\d) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", (ROOT / "docs/ARCHITECTURE.md").read_text(), re.M
    )
    return [Room(int(f), name, tuple(re.findall(r"`(\w+)`", m)), frozenset(p.split())) for f, name, m, p in rows]


ROOMS = {module: room for room in read_rooms() for module in room.modules}


def get_module_name(path: Path) -> str:
    """Return e.g. lntl.data.loader for src/lntl/data/loader.py."""
    return ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")


def find_imports(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, also within functions; `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def find_edges() -> Iterator[tuple[str, str]]:
    """Yield (importing module, imported module) within lntl."""
    modules = {get_module_name(path) for path in PACKAGE.rglob("*.py")}
    for path in set(PACKAGE.rglob("*.py")) - {PACKAGE / "__init__.py"}:  # lntl/__init__.py belongs to no room
        for name in find_imports(path):
            target = name if name in modules else name.rpartition(".")[0]
            if target in modules and target != "lntl":  # modules import only the version from lntl itself
                yield get_module_name(path), target


def find_room(module: str) -> Room:
    return ROOMS[module.split(".")[1]]


def may_import(importer: Room, imported: Room) -> bool:
    return importer == imported or imported.floor < importer.floor


def test_the_table_lists_every_module_once() -> None:
    table_modules = [module for room in read_rooms() for module in room.modules]
    package_modules = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    assert sorted(table_modules) == sorted(package_modules - {"__init__"})


def test_every_import_is_of_the_same_room_or_of_a_lower_floor() -> None:
    import_pairs = set(find_edges())
    assert ("lntl.training.trainer", "lntl.seeding") in import_pairs  # the search finds imports at the top of a file
    assert ("lntl.cli.card", "lntl.reporting.pages") in import_pairs  # and imports within functions
    assert [f"{a} -> {b}" for a, b in sorted(import_pairs) if not may_import(find_room(a), find_room(b))] == []


@pytest.mark.parametrize(
    ("importer", "imported", "is_allowed"),
    [
        ("training", "methods", True),
        ("methods", "training", False),
        ("methods", "models", False),
        ("cli", "experiment", True),
        ("experiment", "reporting", False),
        ("probing", "audit", False),
        ("ops", "types", True),
    ],
)
def test_may_import_is_true_only_for_the_same_room_and_lower_floors(
    importer: str, imported: str, is_allowed: bool
) -> None:
    assert may_import(ROOMS[importer], ROOMS[imported]) == is_allowed


def test_imports_have_no_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for importer, imported in find_edges():
        graph.setdefault(importer, set()).add(imported)
    list(graphlib.TopologicalSorter(graph).static_order())


def test_each_room_imports_only_its_packages() -> None:
    violations = [
        f"{get_module_name(path)}: {name}"
        for path in PACKAGE.rglob("*.py")
        for name in sorted({name.split(".")[0] for name in find_imports(path)} - sys.stdlib_module_names - {"lntl"})
        if get_module_name(path) != "lntl" and name not in find_room(get_module_name(path)).packages
    ]
    assert violations == []


def test_methods_models_training_and_evaluation_import_no_file_modules() -> None:
    violations = [
        f"{get_module_name(path)}: {name}"
        for room in ROOMS_WITHOUT_FILES
        for path in (PACKAGE / room).rglob("*.py")
        for name in find_imports(path)
        if name.split(".")[0] in FILE_MODULES
    ]
    assert violations == []


def find_calls(tree: ast.AST) -> Iterator[str]:
    """Yield the names of the attributes that are called: x.step() gives step."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr


def test_no_method_calls_a_function_that_only_the_trainer_may_call() -> None:
    violations = {
        path.name: TRAINER_CALLS.intersection(find_calls(ast.parse(path.read_text())))
        for path in (PACKAGE / "methods").glob("*.py")
        if path.name != "bias_classifier.py"  # this class fits its classifier in `prepare`, before the phase
    }
    assert {name: names for name, names in violations.items() if names} == {}


def test_the_search_for_calls_finds_calls() -> None:
    assert TRAINER_CALLS.intersection(find_calls(ast.parse("loss.backward(); self.h.eval()"))) == {"backward", "eval"}


def test_main_py_imports_only_the_command_line() -> None:
    lntl_imports = {name for name in find_imports(ROOT / "src" / "main.py") if name.startswith("lntl")}
    assert {find_room(name).name for name in lntl_imports} == {"command line"}


def test_no_handler_catches_every_exception() -> None:
    violations = [
        f"{path.name}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
    ]
    assert violations == []
