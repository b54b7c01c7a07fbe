"""`lntl explain`: where a trained model looks in images, or which numbers of vectors it uses."""

from pathlib import Path
from typing import Annotated

import typer

from lntl.cli.arguments import DeviceOption, TrustOption


def explain(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", readable=False, help="A run folder (its best model), a .pth file, or a .safetensors export."
        ),
    ],
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGES...",
            readable=False,
            help="Image files, folders of them (with subfolders), tables (.csv, .tsv, .parquet) with a column of "
            "paths; or one .npz file of images or vectors.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write; it must not exist.")],
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Examples to explain: the first ones.")] = 50,
    steps: Annotated[
        int, typer.Option(min=1, max=1000, help="Points of the integral; more are slower and more exact.")
    ] = 32,
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
    device: DeviceOption = None,
    trust: TrustOption = None,
) -> None:
    """Show where a trained model looks, beside plain training: integrated gradients (needs lntl[explain])."""
    from lntl.cli.console import echo, echo_paths, log_to_console, progress_bar
    from lntl.deploy import explaining
    from lntl.deploy.inputs import Layout
    from lntl.reporting.explanations import check_new_folder, write_explanations

    log_to_console()
    check_new_folder(out)
    layout = Layout(column, root, delimiter)
    explanation = explaining.explain(run, images, layout, limit, steps, device or "auto", trust or [])
    n = len(explanation.inputs.names)
    with progress_bar("examples", n) as advance:
        written = write_explanations(explanation, out, str(run), explanation.given, steps, advance)
    echo(
        f"{n} of {explanation.given} examples are explained"
        + ("; --limit changes that" if n < explanation.given else "")
    )
    echo_paths(written)
