"""`lntl train`: train a configuration and evaluate it."""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from lntl.cli.arguments import ConfigArgument, DeviceOption, Overrides, TrustOption

if TYPE_CHECKING:
    from lntl.experiment import Run
    from lntl.training.trainer import Step
    from lntl.types import EpochRecord


def train(
    config: ConfigArgument,
    overrides: Overrides = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|auto",
            help="Continue from a checkpoint, a run folder, or (auto) the last checkpoint of the run.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run of the same name.")] = False,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs of the last phase; each earlier phase gets at most this number.")
    ] = None,
    device: DeviceOption = None,
    trust: TrustOption = None,
) -> None:
    """Train, evaluate on the test set, and show the result."""
    from lntl import config as configuration
    from lntl import experiment, ranks
    from lntl.cli import console
    from lntl.data.colored_mnist import ColoredMNIST
    from lntl.experiment import processes
    from lntl.reporting import tables

    device_override = [] if device is None else [f"training.device={device}"]
    settings = configuration.read(config, [*(overrides or []), *device_override], epochs)
    if processes.launch(settings):
        return
    processes.join(settings)
    console.log_to_console(ranks.is_first())
    keep_freed_memory()
    watch = show_training if ranks.is_first() else experiment.exhaust
    run, result = experiment.train(settings, resume, overwrite, watch=watch, trust=trust or [])
    if not ranks.is_first():
        return
    color_var = settings.data.color_var if isinstance(settings.data, ColoredMNIST.Config) else None
    console.out.print(tables.result_table(result, color_var))
    console.echo(result.selection, style="dim")
    for path in sorted(path for path in run.folder.path.iterdir() if not path.name.startswith(".")):
        console.echo(f"  {path}{'/' if path.is_dir() else ''}")
    console.echo(f"lntl report {run.folder.path} makes a page about this run")


def show_training(run: "Run", events: "Iterator[Step | EpochRecord]") -> None:
    """Iterate over the events of a training, showing progress."""
    from lntl.cli.console import show_progress

    show_progress(events, run.experiment.trainer, run.experiment.config.training.batch_size)


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # options of mallopt in glibc's malloc.h


def keep_freed_memory() -> None:
    """Set glibc's malloc not to return large blocks to the system, which would zero their pages at each allocation.

    Without glibc (macOS, Windows, musl) nothing happens. The setting changes the whole process, so only commands that
    run networks call this function: reading many images of different sizes then needs several times the memory.
    """
    import ctypes

    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)  # no block of its own for a large tensor
        mallopt(_M_TRIM_THRESHOLD, -1)  # never
