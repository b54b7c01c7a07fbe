"""`lntl probe`: measure how much of the bias the features contain."""

from typing import Annotated

import typer

from lntl.cli.arguments import DeviceOption, RunArgument, TrustOption


def probe(
    target: RunArgument,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A module of f or g, or penultimate; may be repeated. Default: f (z) and penultimate."
        ),
    ] = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1, help="Number of random splits of the test images into halves; fresh probes are trained on each."
        ),
    ] = 2,
    shift: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Change test images in steps and count the predictions that change: brightness or color; may be "
            "repeated. Default: the biases that are computed from the images.",
        ),
    ] = None,
    device: DeviceOption = None,
    trust: TrustOption = None,
) -> None:
    """Measure how much of the bias is left: fresh probes on frozen features, and changed test images."""
    from lntl import probing
    from lntl.cli.console import echo, log_to_console, out
    from lntl.cli.train import keep_freed_memory
    from lntl.reporting import tables
    from lntl.reporting.verdict import probe_sentences
    from lntl.runs.folder import RunFolder

    log_to_console()
    keep_freed_memory()
    result = probing.probe_checkpoint(RunFolder.resolve(target), layer, seeds, device, trust or [], shift or [])
    for table in tables.probe_tables(result.probe):
        out.print(table)
    for sentence in probe_sentences(result.probe, result.recoloring, result.image_shift):
        echo(sentence)
