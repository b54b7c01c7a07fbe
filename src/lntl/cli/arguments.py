"""Arguments that several verbs share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigArgument = Annotated[
    str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a ready configuration.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Override keys, e.g. training.batch_size=64.")
]
RunArgument = Annotated[
    Path,
    typer.Argument(metavar="RUN_OR_CHECKPOINT", readable=False, help="A run folder (its best model) or a .pth file."),
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
TrustOption = Annotated[
    list[str] | None,
    typer.Option("--trust", metavar="MODULE", help="A module that a file from elsewhere may import; may be repeated."),
]
