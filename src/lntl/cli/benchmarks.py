"""Commands about many runs: benchmark, compare."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def benchmark(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.yaml", readable=False, help="Configurations, values, seeds.")],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at once, one thread each; default: the cores.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what is done and what is missing.")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="TEXT", help="A name (* for anything), KEY=VALUE of a grid, or seed=N; may be repeated."),
    ] = None,
) -> None:
    """Make the runs of a plan that are missing, several at once; the same command goes on after a stop."""
    from lntl import benchmarking

    benchmarking.benchmark(plan, workers=workers, dry_run=dry_run, only=only or [])


@app.command()
def compare(
    results: Annotated[Path, typer.Argument(metavar="RESULTS.jsonl", readable=False, help="Lines of a benchmark.")],
    plan: Annotated[
        Path | None, typer.Option(readable=False, help="What counts, and the order; default: the plan beside it.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: that of RESULTS.")] = None,
    metric: Annotated[str, typer.Option(help="Metric of the test set to compare.")] = "accuracy",
    by: Annotated[str | None, typer.Option(metavar="KEY", help="Key of the grid whose values are the columns.")] = None,
) -> None:
    """Show mean and spread of each method beside the published figures; write table.* and figure.*."""
    from lntl import benchmarking

    benchmarking.compare(results, plan=plan, folder=out, metric=metric, by=by)
