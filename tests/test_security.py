"""No module of the package reads a file in a way that can run code, and overrides have the limits of YAML files."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lntl
from lntl import config
from lntl.errors import UserError

PACKAGE = Path(lntl.__file__).parent
IMPORTERS = {"plugins.py", "data/biases.py"}  # they import code that a configuration names, after a check of trust


def runs_code(call: ast.Call) -> bool:
    """Return whether a call can run code that a file contains."""
    function = ast.unparse(call.func)
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    return (
        function in ("eval", "exec", "compile", "__import__", "os.system", "pickle.load", "pickle.loads")
        or function in ("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load")
        or (function == "torch.load" and options.get("weights_only") != "True")
        or (function == "np.load" and options.get("allow_pickle", "False") != "False")
        or (function.endswith("read_array") and options.get("allow_pickle") != "False")
        or options.get("shell", "False") != "False"
    )


def find_dangerous_calls(source: str) -> Iterator[str]:
    """Yield the calls of a module that can run code of a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and runs_code(node):
            yield ast.unparse(node)


def test_no_call_can_run_code_of_a_file() -> None:
    calls_by_file = {
        str(path): calls for path in PACKAGE.rglob("*.py") if (calls := list(find_dangerous_calls(path.read_text())))
    }
    assert calls_by_file == {}


@pytest.mark.parametrize(
    "source", ["torch.load(path)", "np.load(path, allow_pickle=True)", "pickle.loads(text)", "yaml.load(text, Loader)"]
)
def test_the_search_finds_dangerous_calls(source: str) -> None:
    assert list(find_dangerous_calls(source)) == [source]


def test_only_two_modules_import_code_by_name() -> None:
    importers = {
        path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if "import_module(" in path.read_text()
    }
    assert importers == IMPORTERS


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("[" * 100 + "]" * 100, "nested more than 50 levels deep"),
        ("x" * 1_000_001, "more than 1,000,000 characters"),
        ("!!python/object/apply:os.system ['true']", "unknown tag"),
        (str(2**64 + 1), "too large for an integer"),
    ],
)
def test_overrides_have_the_same_limits_as_yaml_files(value: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as error:
        config.read("colored_mnist_default", [f"project.description={value}"])
    assert len(str(error.value)) < 1000
