"""The command that begins a project."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make; it must be new or empty.")],
) -> None:
    """Write a starter project: a configuration, a table with drawn pictures, a Makefile, a README."""
    from lntl import starter

    count = starter.begin(folder)
    print(f"{folder}: config.yaml, data/table.csv with {count} pictures, Makefile, README.md")
    print(f"Next: cd {folder} && make train")
