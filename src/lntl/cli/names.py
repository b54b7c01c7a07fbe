"""Commands that list and describe what a YAML can name: methods, models, ready configurations."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
configs_app = typer.Typer(help="List the ready configurations, copy one, or print the JSON Schema.")
app.add_typer(configs_app, name="configs")


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Show this method's equation and settings.")] = None,
) -> None:
    """List the training methods, or describe one."""
    from lntl import describe

    describe.methods(name)


@app.command()
def models(
    name: Annotated[
        str | None,
        typer.Argument(help="Show a model's settings; LIBRARY/ARCHITECTURE, e.g. torchvision/resnet18: its layers."),
    ] = None,
    size: Annotated[int, typer.Option(min=1, help="Sides in pixels of the images that go through the layers.")] = 224,
) -> None:
    """List the models, or describe one: its settings, its architectures, the layers where f may end."""
    from lntl import describe

    describe.models(name, size)


@configs_app.callback(invoke_without_command=True)
def configs(context: typer.Context) -> None:
    """List the ready configurations, copy one, or print the JSON Schema."""
    if context.invoked_subcommand is None:
        from lntl import recipes

        recipes.show()


@configs_app.command()
def copy(
    name: Annotated[str, typer.Argument(help="Name of a ready configuration.")],
    folder: Annotated[Path, typer.Argument(help="Where to put the copy.")] = Path(),
) -> None:
    """Copy a ready configuration, to change it."""
    from lntl import recipes

    recipes.copy(name, folder)


@configs_app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    from lntl import describe

    describe.schema()
