"""`lntl export`: export f and g to one file."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lntl.cli.arguments import RunArgument, TrustOption


def export(
    run: RunArgument,
    format: Annotated[
        Literal["safetensors", "torch_export", "onnx"],
        typer.Option(help="Weights for lntl.load, or a graph for torch.export.load or for ONNX runtimes."),
    ],
    out: Annotated[Path, typer.Option(help="File to write.")],
    trust: TrustOption = None,
) -> None:
    """Export f and g of a trained model, with class names, transform and normalisation; checked on test images."""
    from lntl.cli.console import echo
    from lntl.deploy import exporting

    check = exporting.export(run, format, out, trust or [])
    difference = f"{check.difference:.1e}, over {check.n} {check.origin}"
    echo(f"{format}: probabilities differ from the original by at most {difference}")
    echo(f"  {out}")
