"""`lntl configs`: the ready configurations, and the JSON Schema of configurations."""

from pathlib import Path
from typing import Annotated

import typer

from lntl.cli.arguments import Group

app = typer.Typer(cls=Group, help="List the ready configurations, copy one, or print the JSON Schema.")


@app.callback(invoke_without_command=True)
def configs(context: typer.Context) -> None:
    """List the ready configurations, copy one, or print the JSON Schema."""
    if context.invoked_subcommand is not None:
        return
    from rich.table import Table

    from lntl import config as configuration
    from lntl.cli.console import out
    from lntl.yaml_file import read_yaml

    table = Table("configuration", "description")
    for name in configuration.ready_names():
        project = read_yaml(configuration.find(name))["project"]
        table.add_row(name, project.get("description") if isinstance(project, dict) else "")
    out.print(table)
    out.print("Run one: lntl train NAME. Change one: lntl configs copy NAME .")


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="Name of a ready configuration.")],
    folder: Annotated[Path, typer.Argument(help="Folder for the copy.")] = Path(),
) -> None:
    """Copy a ready configuration to a folder, with the JSON Schema for editors."""
    from lntl import config as configuration
    from lntl.cli.console import echo
    from lntl.errors import UserError
    from lntl.plugins import did_you_mean
    from lntl.runs.files import write_text

    if name not in (ready_names := configuration.ready_names()):
        raise UserError(f"there is no ready configuration {name!r}{did_you_mean(name, ready_names)}")
    source = configuration.find(name)
    target = folder / source.name
    if target.exists():
        raise UserError(f"{target} exists already; move it away first")
    write_text(target, f"{SCHEMA_COMMENT}\n{source.read_text(encoding='utf-8')}")
    echo(target)
    echo(write_schema(folder))


@app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    print(_schema_text(), end="")


SCHEMA_FILE = "lntl.schema.json"
SCHEMA_COMMENT = f"# yaml-language-server: $schema={SCHEMA_FILE}"  # editors find the schema by this line


def write_schema(folder: Path) -> Path:
    """Write the JSON Schema into a folder, replacing an older file; return its path."""
    from lntl.runs.files import write_text

    path = folder / SCHEMA_FILE
    write_text(path, _schema_text())
    return path


def _schema_text() -> str:
    import json

    from lntl.config import json_schema

    return json.dumps(json_schema(), indent=2) + "\n"
