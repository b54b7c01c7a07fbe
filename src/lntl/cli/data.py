"""Commands about data."""

from pathlib import Path
from typing import Annotated

import typer

from lntl.cli import make
from lntl.cli.arguments import ConfigArgument, Overrides

app = typer.Typer(help="Look at the data of a configuration, or write them to a file.", no_args_is_help=True)
app.add_typer(make.app, name="make")


@app.command()
def info(config: ConfigArgument = "colored_mnist_default", overrides: Overrides = None) -> None:
    """Show source, sizes and bias of the data."""
    from lntl import describe

    describe.data(config, overrides or [])


@app.command()
def check(
    config: ConfigArgument,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the page and check.json go; default: results/checks/EXPERIMENT_NAME.")
    ] = None,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Open every image, to find unreadable, equal and alike ones.")
    ] = True,
) -> None:
    """Audit the data before any training: exit code 1 where results could not be trusted."""
    from lntl import checking

    if not checking.check(config, overrides or [], out, images):
        raise typer.Exit(1)


@app.command("clear-cache")
def clear_cache(
    folder: Annotated[Path, typer.Argument(readable=False, help="The folder that data.cache_dir names.")] = Path(
        "data/image_cache"
    ),
) -> None:
    """Remove the decoded images that `data.cache: disk` keeps; later runs decode their own anew."""
    from lntl import describe

    describe.clear_cache(folder)
