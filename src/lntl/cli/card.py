"""`lntl card`: a model card."""

from pathlib import Path
from typing import Annotated

import typer

from lntl.cli.arguments import TrustOption


def card(
    run: Annotated[Path, typer.Argument(metavar="RUN", readable=False, help="A run folder.")],
    trust: TrustOption = None,
) -> None:
    """Write MODEL_CARD.md into a run folder: a description of the model, what was measured, and what was not."""
    from lntl.cli.console import echo_paths
    from lntl.reporting.pages import write_card
    from lntl.runs.folder import RunFolder
    from lntl.trackers import add_files

    path = write_card(run, trust or [])
    add_files(RunFolder(run), [path])
    echo_paths([path])
