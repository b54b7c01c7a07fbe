"""Each notebook runs from any folder, only imports, calls and plots, and is stored without output."""

import ast
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def get_code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> NotebookNode:
    content: NotebookNode = nbformat.read(request.param, as_version=4)
    nbformat.validate(content)
    return content


def test_there_are_the_three_notebooks_of_the_readme() -> None:
    assert [path.stem for path in NOTEBOOKS] == [
        "01_data_exploration_and_visualization",
        "02_model_sanity_checks",
        "03_results_analysis",
    ]


def test_a_notebook_is_stored_without_outputs_and_machine_metadata(notebook: NotebookNode) -> None:
    assert all(cell.outputs == [] and cell.execution_count is None for cell in get_code_cells(notebook))
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert set(notebook.metadata) == {"kernelspec"}
    assert notebook.metadata.kernelspec.name == "python3"


def test_a_notebook_defines_no_function_and_no_class(notebook: NotebookNode) -> None:
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    for cell in get_code_cells(notebook):
        code = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
        assert not any(isinstance(node, definitions) for node in ast.walk(ast.parse(code))), cell.source


@pytest.mark.full
def test_a_notebook_runs_and_plots(notebook: NotebookNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbclient import NotebookClient

    monkeypatch.setenv("LNTL_RUN", str(tmp_path / "none"))  # without a run, notebook 03 makes its own
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    NotebookClient(
        notebook, kernel_name="python3", timeout=600, resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    plots = [
        output for cell in get_code_cells(notebook) for output in cell.outputs if "image/png" in output.get("data", {})
    ]
    assert len(plots) >= 2
    assert list(tmp_path.iterdir()) == []  # the notebook leaves no file in its working directory
