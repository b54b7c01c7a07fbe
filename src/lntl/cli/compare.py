"""`lntl compare`: compare methods by the results of a benchmark."""

from pathlib import Path
from typing import Annotated

import typer

from lntl.cli.arguments import TrustOption


def compare(
    results: Annotated[Path, typer.Argument(metavar="RESULTS.jsonl", readable=False, help="Results of a benchmark.")],
    plan: Annotated[
        Path | None,
        typer.Option(readable=False, help="Plan whose runs are shown, in order; default: the plan beside RESULTS."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; default: the folder of RESULTS.")] = None,
    metric: Annotated[str, typer.Option(help="Metric of the test set to compare.")] = "accuracy",
    by: Annotated[str | None, typer.Option(metavar="KEY", help="Key of the grid whose values are the columns.")] = None,
    trust: TrustOption = None,
    escape_formulas: Annotated[
        bool,
        typer.Option(
            "--escape-formulas",
            help="In table.csv put an apostrophe before names that spreadsheets read as formulas (= + - @).",
        ),
    ] = False,
) -> None:
    """Show mean and spread of each method, with published numbers; write table.* and figure.*."""
    from lntl.benchmark import comparison, shards
    from lntl.benchmark import plan as plans
    from lntl.cli import console
    from lntl.errors import UserError

    if not shards.exist(results):
        raise UserError(f"{results}: there is no file of results; make it with: lntl benchmark PLAN.yaml")
    planned = None
    if plan is not None:
        planned = plans.runs_in_table_order(plan)
    elif (found_plan := plans.plan_beside(results)) is not None:
        planned = plans.runs_in_table_order(found_plan, trust or [])  # another person may have written this plan
    result = comparison.compare(shards.read(results), planned, metric, by)
    prefix = "" if results.stem == "results" else f"{results.stem}_"  # a folder may have results of several plans
    files = comparison.write(result, out or results.parent, prefix, escape_formulas)
    console.out.print(comparison.to_table(result))
    console.echo_paths(files)
