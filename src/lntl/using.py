"""What the commands predict, export and card do."""

from pathlib import Path
from typing import Literal

from lntl.cli.console import counting, tell
from lntl.deploy.exporting import Format
from lntl.deploy.exporting import export as export_to
from lntl.deploy.inputs import Layout, read
from lntl.deploy.loading import load
from lntl.deploy.predicting import Prediction
from lntl.errors import UserError
from lntl.reporting.card import write_card


def predict(
    run: Path,
    images: list[Path],
    table: Path,
    *,
    layout: Layout,
    features: Path | None,
    on_error: Literal["stop", "skip"],
    device: str | None,
    trust: list[str],
) -> None:
    """Write the predictions of images into a table; name the images that were left out."""
    for path in (table, features):
        if path is not None and path.resolve() in [image.resolve() for image in images]:
            raise UserError(f"{path}: is to be read and written; name another file to write")
    classifier = load(run, device or "auto", trust)
    given = read(images, classifier.described.get("data", {}), layout)
    with counting("images", len(given.names)) as advance:
        prediction = Prediction(classifier, given, on_error, advance)
        prediction.write(table, features)
    tell(f"{len(prediction.places)} predictions")
    for path in filter(None, (table, features)):
        tell(f"  {path}")
    if prediction.unreadable:
        tell(f"{len(prediction.unreadable)} images cannot be read and are left out:", style="yellow")
    for line in prediction.unreadable:
        tell(f"  {line}")


def export(run: Path, kind: Format, path: Path, trust: list[str]) -> None:
    """Export a run's classifier; tell how near it is to the original."""
    check = export_to(run, kind, path, trust)
    tell(
        f"{kind}: probabilities differ from the original by at most {check.difference:.1e}, over {check.n} "
        f"{check.origin}"
    )
    tell(f"  {path}")


def card(run: Path) -> None:
    """Write the model card of a run."""
    tell(f"  {write_card(run)}")
