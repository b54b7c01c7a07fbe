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
    metric: Annotated[
        str | None, typer.Option(help="Metric to compare; default: that of the plan, or accuracy.")
    ] = None,
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
    lines = shards.read(results)
    if (path := plan or plans.plan_beside(results)) is None:
        result = comparison.compare(lines, metric=metric or "accuracy", by=by)
    else:
        trusted = None if plan else trust or []  # another person may have written the plan beside the results
        the_plan = plans.read(path)
        planned = plans.runs_in_table_order(the_plan, path, trusted)
        published = the_plan.published if metric in (None, the_plan.metric) else []
        result = comparison.compare(lines, planned, metric or the_plan.metric, by, published)
    prefix = "" if results.stem == "results" else f"{results.stem}_"  # a folder may have results of several plans
    files = comparison.write(result, out or results.parent, prefix, escape_formulas)
    console.out.print(comparison.to_table(result))
    console.echo_paths(files)
