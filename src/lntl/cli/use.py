"""Commands that put a trained run to use: predict, export, card."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lntl.cli.arguments import Trust

app = typer.Typer()

Run = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", readable=False, help="A run folder (its best model), a .pth file, or a .safetensors export."
    ),
]
Device = Annotated[str | None, typer.Option(help="auto (the default), cpu, cuda, cuda:N or mps.")]


@app.command()
def predict(
    run: Run,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGES...",
            readable=False,
            help="Image files, folders of them (with all below), tables (.csv, .tsv, .parquet) with a column of paths; "
            "or one .npz file of images or vectors.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="CSV file to write: path, prediction, and p_CLASS for each class.")],
    column: Annotated[
        str | None,
        typer.Option(
            help="Column of the paths in a table, or name of the array in an .npz: the run's own, else image or x."
        ),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder of the paths in a table: the run's own data.root, else the table's.")
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Between the fields of CSV: the run's own, else a comma, a tab in .tsv.")
    ] = None,
    features: Annotated[Path | None, typer.Option(help="An .npz file for the features z of each image.")] = None,
    on_error: Annotated[
        Literal["stop", "skip"],
        typer.Option(help="Images that cannot be read: name them and write nothing, or leave them out."),
    ] = "stop",
    device: Device = None,
    trust: Trust = None,
) -> None:
    """Predict the classes of images, or of vectors, with a trained model."""
    from lntl import using
    from lntl.deploy.inputs import Layout

    layout = Layout(column, root, delimiter)
    using.predict(
        run, images, out, layout=layout, features=features, on_error=on_error, device=device, trust=trust or []
    )


@app.command()
def export(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN_OR_CHECKPOINT", readable=False, help="A run folder (its best model), a .pth file."),
    ],
    format: Annotated[
        Literal["safetensors", "torch_export", "onnx"],
        typer.Option(help="Weights for lntl.load, a graph for torch.export.load, or one for ONNX runtimes."),
    ],
    out: Annotated[Path, typer.Option(help="File to write.")],
    trust: Trust = None,
) -> None:
    """Export f and g of a trained model, with class names, transform and normalisation; checked on test images."""
    from lntl import using

    using.export(run, format, out, trust or [])


@app.command()
def card(
    run: Annotated[Path, typer.Argument(metavar="RUN", readable=False, help="A run folder.")],
) -> None:
    """Write MODEL_CARD.md into a run folder: what the model is, what was measured of it, and what was not."""
    from lntl import using

    using.card(run)
