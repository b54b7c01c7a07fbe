"""`lntl explain`: where a trained model looks in images, or which numbers of vectors it uses."""

from pathlib import Path
from typing import Annotated

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


def explain(
    run: TrainedArgument,
    images: ImagesArgument,
    out: Annotated[Path, typer.Option(help="Folder to write; it must not exist.")],
    limit: Annotated[
        int, typer.Option(min=1, max=10_000, help="Number of examples to explain, from the first on.")
    ] = 50,
    steps: Annotated[
        int, typer.Option(min=1, max=1000, help="Points of the integral; more points take longer and are more exact.")
    ] = 32,
    column: ColumnOption = None,
    root: RootOption = None,
    delimiter: DelimiterOption = None,
    device: DeviceOption = None,
    trust: TrustOption = None,
) -> None:
    """Show where a trained model and plain training look, as integrated gradients (needs lntl[explain])."""
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
        written = write_explanations(explanation, out, str(run), explanation.num_given, steps, advance)
    echo(
        f"{n} of {explanation.num_given} examples are explained"
        + ("; use --limit to explain more" if n < explanation.num_given else "")
    )
    echo_paths(written)
