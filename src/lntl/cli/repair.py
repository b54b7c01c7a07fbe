"""`lntl repair`: repair a finished run."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lntl.cli.arguments import DeviceOption, RunArgument, TrustOption


def repair(
    target: RunArgument,
    method: Annotated[
        Literal["dfr", "leace"],
        typer.Option(
            help="dfr: refit the last layer on group-balanced rows; leace: erase the bias from z, refit the last layer."
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings of the method, e.g. rows=val; see lntl methods NAME."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the repaired run. Default: RUN-METHOD.")] = None,
    device: DeviceOption = None,
    trust: TrustOption = None,
) -> None:
    """Repair a finished run in seconds: write a new run from its best checkpoint, and evaluate it."""
    from lntl.cli import console
    from lntl.cli.train import show_training
    from lntl.config import key_and_value
    from lntl.experiment import repairs
    from lntl.reporting import tables

    values = dict(key_and_value(setting, "setting", "rows=val") for setting in settings or [])
    console.log_to_console()
    run, result = repairs.repair(target, method, out, values, device=device, trust=trust or [], watch=show_training)
    console.out.print(tables.result_table(result, None))
    console.echo(result.selection, style="dim")
    console.echo(f"  {run.folder.path}/")
    console.echo(f"lntl report {target} {run.folder.path} compares the two runs")
