"""Arguments that several commands share."""

from typing import Annotated

import typer

ConfigArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a ready configuration.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override keys, e.g. training.batch_size=64.")
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N or mps; instead of training.device.")]
Trust = Annotated[
    list[str] | None,
    typer.Option(metavar="MODULE", help="A module that a file from elsewhere may import; may be repeated."),
]
