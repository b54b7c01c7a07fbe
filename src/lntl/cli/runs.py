"""Commands about a run: train, evaluate, probe, report."""

from pathlib import Path
from typing import Annotated

import typer

from lntl.cli.arguments import ConfigArgument, DeviceOption, Overrides, TrustOption

app = typer.Typer()


@app.command()
def train(
    config: ConfigArgument,
    overrides: Overrides = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="PATH|auto", help="Continue from a checkpoint, a run folder, or the run's last one."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run of the same name.")] = False,
    epochs: Annotated[int | None, typer.Option(help="Epochs of the last phase; caps the phases before it.")] = None,
    device: DeviceOption = None,
) -> None:
    """Train, evaluate on the test set, and show the result."""
    from lntl import commands

    commands.train(config, overrides or [], resume=resume, overwrite=overwrite, epochs=epochs, device=device)


@app.command("eval")
def evaluate(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_CHECKPOINT", readable=False, help="A run folder (its best model) or a .pth file."
        ),
    ],
    device: DeviceOption = None,
    trust: TrustOption = None,
) -> None:
    """Evaluate a trained model on the test set."""
    from lntl import commands

    commands.evaluate(target, device, trust or [])


@app.command()
def probe(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_CHECKPOINT", readable=False, help="A run folder (its best model) or a .pth file in one."
        ),
    ],
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A module of f or g, or penultimate; may be repeated. Default: f (z) and that."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Halvings of the test images, with fresh probes for each.")] = 3,
    device: DeviceOption = None,
    trust: TrustOption = None,
) -> None:
    """Measure how much of the bias is left: fresh probes on frozen features, and recoloured test images."""
    from lntl import commands

    commands.probe(target, layer, seeds, device, trust or [])


@app.command()
def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="Run folders, or configurations whose runs are meant.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where the page goes: RUN/report for one run, results/report for several.")
    ] = None,
    device: DeviceOption = None,
    trust: TrustOption = None,
) -> None:
    """Make a page about a run, or one that compares several: did it unlearn, and what did that cost?"""
    from lntl import commands

    commands.report(runs, out, device, trust or [])
