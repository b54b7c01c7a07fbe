"""`lntl compare`: methods side by side, from the results of a benchmark."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lntl.benchmark.comparison import Comparison
    from lntl.benchmark.plan import PlannedRun


def compare(
    results: Annotated[Path, typer.Argument(metavar="RESULTS.jsonl", readable=False, help="Lines of a benchmark.")],
    plan: Annotated[
        Path | None,
        typer.Option(readable=False, help="Plan whose runs count, in its order; default: the plan beside RESULTS."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: that of RESULTS.")] = None,
    metric: Annotated[str, typer.Option(help="Metric of the test set to compare.")] = "accuracy",
    by: Annotated[str | None, typer.Option(metavar="KEY", help="Key of the grid whose values are the columns.")] = None,
) -> None:
    """Show mean and spread of each method beside the published figures; write table.* and figure.*."""
    from lntl.benchmark import comparison, comparison_tables
    from lntl.benchmark.results import read
    from lntl.cli import console
    from lntl.errors import UserError

    if not results.is_file():
        raise UserError(f"{results}: there are no such results; make them with: lntl benchmark PLAN.yaml")
    plan = plan or _plan_beside(results)
    table = comparison.compare(read(results), None if plan is None else _planned(plan), metric, by)
    prefix = "" if results.stem == "results" else f"{results.stem}_"  # results of several plans may lie in a folder
    files = _write(table, out or results.parent, prefix)
    console.out.print(comparison_tables.terminal(table))
    for file in files:
        console.echo(f"  {file}")


def _plan_beside(results: Path) -> Path | None:
    """Return the plan that lies beside its results; None where there is none."""
    from lntl.benchmark.plan import BenchmarkPlan
    from lntl.yaml_file import read_yaml

    default = BenchmarkPlan.model_fields["results"].default
    for path in sorted(results.parent.glob("*.yaml")):
        raw = read_yaml(path)
        if isinstance(raw, dict) and "runs" in raw and raw.get("results", default) == results.name:
            return path
    return None


def _planned(path: Path) -> "list[PlannedRun]":
    """Return the runs of a plan in the order of its rows."""
    from lntl.benchmark import plan as plans

    plan = plans.read(path)
    order = [method.name for method in plan.runs]
    return sorted(plans.planned_runs(plan, path), key=lambda run: order.index(run.name))


def _write(table: "Comparison", folder: Path, prefix: str) -> list[Path]:
    """Write table.md, .csv, .tex and figure.png, .svg; return their paths."""
    from functools import partial

    from matplotlib import rc_context

    from lntl.benchmark import comparison_tables
    from lntl.benchmark.comparison_figure import comparison_figure
    from lntl.errors import UserError
    from lntl.runs.files import write_atomic, write_text

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot make the folder: {error.strerror}; choose another with --out") from error
    texts = {
        f"{prefix}table.md": comparison_tables.markdown(table),
        f"{prefix}table.csv": comparison_tables.to_csv(table),
        f"{prefix}table.tex": comparison_tables.latex(table),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    figure, figures = comparison_figure(table), [f"{prefix}figure.png", f"{prefix}figure.svg"]
    with rc_context({"svg.hashsalt": "lntl"}):  # with no date, the same file for the same results
        for name, date in zip(figures, ("Software", "Date"), strict=True):
            save = partial(figure.savefig, format=Path(name).suffix[1:], dpi=150, metadata={date: None})
            write_atomic(folder / name, save)
    return [folder / name for name in (*texts, *figures)]
