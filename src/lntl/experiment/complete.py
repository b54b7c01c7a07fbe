"""Make what the report of a run shows and the run folder lacks."""

from pathlib import Path

from lntl.errors import UserError
from lntl.experiment.probing import probe_checkpoint
from lntl.experiment.result import evaluate_checkpoint
from lntl.experiment.samples import write_samples
from lntl.runs.folder import RunFolder


def complete(folder: RunFolder) -> list[str]:
    """Make the missing parts of a run's report; return why, for each part that could not be made."""
    faults = []
    for path, make in (
        (folder.samples, write_samples),
        (folder.evaluation / "test.json", _evaluate),
        (folder.probe, _probe),
    ):
        if path.exists():
            continue
        try:
            make(folder)
        except UserError as error:
            faults.append(f"{path.name} could not be made: {error}")
    return faults


def _evaluate(folder: RunFolder) -> None:
    evaluate_checkpoint(_best(folder)).write()


def _probe(folder: RunFolder) -> None:
    probe_checkpoint(_best(folder))


def _best(folder: RunFolder) -> Path:
    return folder.best if folder.best.exists() else folder.last
