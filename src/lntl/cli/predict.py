"""`lntl predict`: predict the classes of images or vectors."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from lntl.cli.arguments import (
    ColumnOption,
    DelimiterOption,
    DeviceOption,
    ImagesArgument,
    RootOption,
    TrainedArgument,
    TrustOption,
)


def predict(
    run: TrainedArgument,
    images: ImagesArgument,
    out: Annotated[Path, typer.Option(help="CSV file to write: path, prediction, and p_CLASS for each class.")],
    column: ColumnOption = None,
    root: RootOption = None,
    delimiter: DelimiterOption = None,
    features: Annotated[Path | None, typer.Option(help="An .npz file for the features z of each image.")] = None,
    on_error: Annotated[
        Literal["stop", "skip"],
        typer.Option(help="Images that cannot be read: stop with a list of them and write nothing, or skip them."),
    ] = "stop",
    escape_formulas: Annotated[
        bool,
        typer.Option(
            "--escape-formulas",
            help="Put an apostrophe before names that spreadsheets read as formulas (= + - @).",
        ),
    ] = False,
    device: DeviceOption = None,
    trust: TrustOption = None,
) -> None:
    """Predict the classes of images or vectors with a trained model."""
    from lntl.cli.console import echo, echo_paths, progress_bar
    from lntl.deploy.inputs import Layout
    from lntl.deploy.loading import load
    from lntl.deploy.predicting import predict_files

    classifier = load(run, device or "auto", trust or [])
    layout = Layout(column, root, delimiter)
    prediction = predict_files(classifier, images, out, features, layout, on_error, escape_formulas, progress_bar)
    echo(f"{len(prediction.predicted_indices)} predictions")
    echo_paths(filter(None, (out, features)))
    if prediction.unreadable:
        echo(f"{len(prediction.unreadable)} images cannot be read and are left out:", style="yellow")
    for line in prediction.unreadable:
        echo(f"  {line}")
