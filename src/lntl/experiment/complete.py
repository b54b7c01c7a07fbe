"""Make what the report of a run shows and the run folder lacks."""

from lntl.errors import UserError
from lntl.experiment.samples import write_samples
from lntl.runs.folder import RunFolder


def complete(folder: RunFolder) -> list[str]:
    """Make the missing parts of a run's report; return why, for each part that could not be made."""
    faults = []
    for path, make in ((folder.samples, write_samples),):
        if path.exists():
            continue
        try:
            make(folder)
        except UserError as error:
            faults.append(f"{path.name} could not be made: {error}")
    return faults
