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
    """Repair a finished run in seconds: write a new run, made from its best checkpoint, and evaluate it."""
    from lntl.cli import console
    from lntl.cli.train import show_training
    from lntl.errors import UserError, shorten
    from lntl.experiment.repairs import repair as repaired
    from lntl.reporting import tables
    from lntl.yaml_file import parse

    own: dict[str, object] = {}
    for setting in settings or []:
        key, equals, text = setting.partition("=")
        if not (key and equals and text.strip()):
            raise UserError(f"{shorten(setting)}: write a setting as key=value, e.g. rows=val")
        own[key] = parse(text, f"setting {shorten(setting)}")
    console.log_to_console()
    run, result = repaired(target, method, out, own, device=device, trust=trust or [], watch=show_training)
    console.out.print(tables.result_table(result, None))
    console.echo(result.selection, style="dim")
    console.echo(f"  {run.folder.path}/")
    console.echo(f"lntl report {target} {run.folder.path} compares the two runs")
