"""`lntl data`: describe, audit or write the data of a configuration."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lntl.cli import data_make
from lntl.cli.arguments import ConfigArgument, Group, Overrides

if TYPE_CHECKING:
    from torch import Tensor

app = typer.Typer(cls=Group, help="Describe, audit or write the data of a configuration.", no_args_is_help=True)
app.add_typer(data_make.app, name="make")


@app.command()
def info(config: ConfigArgument = "colored_mnist_default", overrides: Overrides = None) -> None:
    """Show source, sizes and bias of the data."""
    import torch
    from rich.table import Table

    from lntl.cli.console import echo, out
    from lntl.types import IGNORE

    dataset = data_make.load_data(config, overrides or [])
    echo(f"{dataset.source}\nval: {dataset.val_note}")
    table = Table("split", "images", "classes", "groups with images", "label predicted from the bias")
    for name, split in dataset.splits.items():
        known_groups = split.group[split.group != IGNORE]
        counts = torch.bincount(known_groups, minlength=dataset.spec.num_groups).view(dataset.spec.num_classes, -1)
        accuracy = "undefined"  # of the best rule from bias value to class
        if len(known_groups):
            accuracy = f"{float(counts.amax(dim=0).sum() / counts.sum()):.1%}"
        nonempty = f"{int((counts > 0).sum())} of {counts.numel()}"
        table.add_row(name, str(len(split)), str(dataset.spec.num_classes), nonempty, accuracy)
    out.print(table)


@app.command()
def check(
    config: ConfigArgument,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the page and check.json; default: results/checks/EXPERIMENT_NAME.")
    ] = None,
    images: Annotated[
        bool,
        typer.Option("--images/--no-images", help="Open every image, to find unreadable, equal and similar images."),
    ] = True,
) -> None:
    """Audit the data before training; the exit code is 1 if results on these data cannot be trusted."""
    from lntl import config as configuration
    from lntl.audit import audit
    from lntl.cli import console
    from lntl.reporting.pages import write_check
    from lntl.reporting.tables import check_tables

    settings = configuration.read_for_data(config, overrides or [])
    folder = out or Path(settings.logging.output_dir) / "checks" / settings.project.experiment_name
    result = audit(settings, images, _with_progress)
    files = write_check(result.check, result.similar_images, folder)
    console.echo(result.check.source)
    for part in check_tables(result.check):
        console.out.print(part, highlight=False, soft_wrap=isinstance(part, str))  # lines of YAML are not wrapped
    console.echo_paths(files)
    if not result.check.trustworthy:
        raise typer.Exit(1)


def _with_progress(parts: "Sequence[Tensor]", name: str) -> "Iterable[Tensor]":
    """Yield the parts and show a progress bar of images."""
    from lntl.cli.console import progress_bar

    with progress_bar(f"{name}: images", sum(map(len, parts))) as advance:
        for part in parts:
            yield part
            advance(len(part))


@app.command("clear-cache")
def clear_cache(
    folder: Annotated[Path, typer.Argument(readable=False, help="The folder that data.cache_dir names.")] = Path(
        "data/image_cache"
    ),
) -> None:
    """Remove the decoded images that `data.cache: disk` stored; later runs decode their images again."""
    from lntl.cli.console import echo
    from lntl.data import cache
    from lntl.errors import UserError

    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; name the folder in data.cache_dir")
    files, size = cache.clear(folder)
    echo(f"{folder}: {files} decoded images removed, {size / 2**20:.1f} MiB")
