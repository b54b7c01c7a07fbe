"""What the command line does with the ready configurations: list them, copy one. Imports little, so it is instant."""

import shutil
from pathlib import Path

from rich.table import Table

from lntl import plugins
from lntl.cli.console import out, tell
from lntl.config import ready as ready_configs
from lntl.errors import UserError
from lntl.yaml_file import read_yaml


def show() -> None:
    """Print the ready configurations."""
    table = Table("configuration", "what it is")
    for name in ready_configs.names():
        table.add_row(name, read_yaml(ready_configs.find(name))["project"].get("description", ""))
    out.print(table)
    out.print("Run one: lntl train NAME. Change one: lntl configs copy NAME .")


def copy(name: str, folder: Path) -> None:
    """Copy a ready configuration into a folder; raises UserError rather than replace a file."""
    if name not in ready_configs.names():
        raise UserError(f"no ready configuration {name!r}{plugins.did_you_mean(name, ready_configs.names())}")
    source = ready_configs.find(name)
    target = folder / source.name
    if target.exists():
        raise UserError(f"{target} exists already; move it away first")
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise UserError(f"{target}: cannot write it: {error.strerror}") from error
    tell(target)
