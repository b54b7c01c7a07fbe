"""Arguments that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class Group(TyperGroup):
    """A group of commands whose help shows the whole first sentence of each command."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write name and summary of each command that is not hidden."""
        commands = [(name, command) for name, command in self.commands.items() if not command.hidden]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(limit=1000)) for name, command in commands])


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
TrainedArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", readable=False, help="A run folder (its best model), a .pth file, or a .safetensors export."
    ),
]
ImagesArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGES...",
        readable=False,
        help="Image files, folders of them (with subfolders), tables (.csv, .tsv, .parquet) with a column of "
        "paths; or one .npz file of images or vectors.",
    ),
]
ColumnOption = Annotated[
    str | None,
    typer.Option(
        help="Column of the paths in a table, or name of the array in an .npz; default: as in the run's data, "
        "otherwise image or x."
    ),
]
RootOption = Annotated[
    Path | None,
    typer.Option(help="Folder of the paths in a table; default: data.root of the run, otherwise the table's folder."),
]
DelimiterOption = Annotated[
    str | None,
    typer.Option(help="Delimiter of CSV fields; default: as in the run's data, otherwise a comma, or a tab in .tsv."),
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
TrustOption = Annotated[
    list[str] | None,
    typer.Option(
        "--trust", metavar="MODULE", help="A module that a file from another person may import; may be repeated."
    ),
]


def configured_run(config_name: str, overrides: list[str]) -> Path:
    """Return the folder of the run that a configuration names; raises UserError if it was not trained."""
    from lntl import config as configuration
    from lntl import experiment
    from lntl.errors import UserError

    path = experiment.run_folder(configuration.read(config_name, overrides)).path
    if not path.is_dir():
        raise UserError(f"{path}: there is no such run folder; train first: lntl train {config_name}")
    return path
