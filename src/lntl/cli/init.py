"""`lntl init`: create a starter project."""

from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make; it must be new or empty.")],
) -> None:
    """Write a starter project: a configuration, a table with drawn images, a Makefile, a README."""
    from lntl import starter
    from lntl.cli.configs import write_schema
    from lntl.cli.console import echo

    count = starter.write_project(folder)
    schema = write_schema(folder)
    echo(f"{folder}: config.yaml, {schema.name}, data/table.csv with {count} images, Makefile, README.md")
    echo(f"Next: cd {folder} && make train")
