"""The imports of src/lntl against the table of rooms and floors in docs/ARCHITECTURE.md."""

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
TRAINERS_WORK = {"backward", "step", "zero_grad", "train", "eval", "to"}  # what no method may call
TOUCHES_FILES = {"io", "json", "os", "pathlib", "pickle", "shutil", "tempfile", "ruamel"}
FILELESS = ("methods", "models", "training", "evaluation")


@dataclass(frozen=True)
class Room:
    floor: int
    name: str
    modules: tuple[str, ...]
    packages: frozenset[str]


def rooms() -> list[Room]:
    """Return the rooms of the table: floor, name, modules in backticks, packages."""
    rows = re.findall(
        r"^\| (\d) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", (ROOT / "docs/ARCHITECTURE.md").read_text(), re.M
    )
    return [Room(int(f), name, tuple(re.findall(r"`(\w+)`", m)), frozenset(p.split())) for f, name, m, p in rows]


ROOMS = {module: room for room in rooms() for module in room.modules}


def module_name(path: Path) -> str:
    """Return e.g. lntl.data.loader for src/lntl/data/loader.py."""
    return ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, also within functions; `from a import b` gives a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def edges() -> Iterator[tuple[str, str]]:
    """Yield (importing module, imported module) within lntl."""
    known = {module_name(path) for path in PACKAGE.rglob("*.py")}
    for path in set(PACKAGE.rglob("*.py")) - {PACKAGE / "__init__.py"}:  # which has no room: `load` looks into one
        for name in imports(path):
            target = name if name in known else name.rpartition(".")[0]
            if target in known and target != "lntl":  # of the package itself they take the version
                yield module_name(path), target


def room_of(module: str) -> Room:
    return ROOMS[module.split(".")[1]]


def allowed(importer: Room, imported: Room) -> bool:
    return importer == imported or imported.floor < importer.floor


def test_every_module_has_one_room_and_every_room_its_modules() -> None:
    named = [module for room in rooms() for module in room.modules]
    present = {path.stem for path in PACKAGE.glob("*.py")} | {
        path.parent.name for path in PACKAGE.glob("*/__init__.py")
    }
    assert sorted(named) == sorted(present - {"__init__"})


def test_no_import_runs_the_wrong_way() -> None:
    found = set(edges())
    assert ("lntl.training.trainer", "lntl.seeding") in found  # the search does find imports
    assert ("lntl.cli.card", "lntl.reporting.pages") in found  # those within functions as well
    assert [f"{a} -> {b}" for a, b in sorted(found) if not allowed(room_of(a), room_of(b))] == []


@pytest.mark.parametrize(
    ("importer", "imported", "right"),
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
def test_what_the_table_allows(importer: str, imported: str, right: bool) -> None:
    assert allowed(ROOMS[importer], ROOMS[imported]) == right


def test_imports_have_no_cycle() -> None:
    graph: dict[str, set[str]] = {}
    for importer, imported in edges():
        graph.setdefault(importer, set()).add(imported)
    list(graphlib.TopologicalSorter(graph).static_order())


def test_each_room_imports_only_its_packages() -> None:
    wrong = [
        f"{module_name(path)}: {name}"
        for path in PACKAGE.rglob("*.py")
        for name in sorted({name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names - {"lntl"})
        if module_name(path) != "lntl" and name not in room_of(module_name(path)).packages
    ]
    assert wrong == []


def test_methods_models_training_and_evaluation_touch_no_files() -> None:
    wrong = [
        f"{module_name(path)}: {name}"
        for room in FILELESS
        for path in (PACKAGE / room).rglob("*.py")
        for name in imports(path)
        if name.split(".")[0] in TOUCHES_FILES
    ]
    assert wrong == []


def calls(tree: ast.AST) -> Iterator[str]:
    """Yield the names of the attributes that are called: x.step() gives step."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr


def test_a_method_leaves_the_trainers_work_to_the_trainer() -> None:
    wrong = {
        path.name: TRAINERS_WORK.intersection(calls(ast.parse(path.read_text())))
        for path in (PACKAGE / "methods").glob("*.py")
        if path.name != "bias_classifier.py"  # fitted before the phase, in `prepare`, and frozen in it
    }
    assert {name: names for name, names in wrong.items() if names} == {}


def test_the_search_for_calls_can_fail() -> None:
    assert TRAINERS_WORK.intersection(calls(ast.parse("loss.backward(); self.h.eval()"))) == {"backward", "eval"}


def test_the_plain_script_knows_the_command_line_alone() -> None:
    ours = {name for name in imports(ROOT / "src" / "main.py") if name.startswith("lntl")}
    assert {room_of(name).name for name in ours} == {"command line"}


def test_no_blind_except() -> None:
    wrong = [
        f"{path.name}:{node.lineno}"
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
    ]
    assert wrong == []
