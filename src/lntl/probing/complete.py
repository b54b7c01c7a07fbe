"""Make what the report of a run shows and the run folder lacks."""

from collections.abc import Callable, Sequence
from pathlib import Path

from lntl.errors import UserError
from lntl.experiment.evaluate import evaluate_checkpoint
from lntl.probing.checkpoint import probe_checkpoint
from lntl.probing.samples import write_samples
from lntl.runs.folder import RunFolder


def complete(folder: RunFolder, device: str | None = None, trust: Sequence[str] = ()) -> list[str]:
    """Make the missing parts of a run's report; return why, for each part that could not be made."""
    folder.check_links()
    chosen = folder.best_or_last
    parts: dict[Path, Callable[[], object]] = {
        folder.samples: lambda: write_samples(folder, trust),
        folder.evaluation_of(chosen): lambda: evaluate_checkpoint(chosen, device=device, trust=trust).write(),
        folder.probe: lambda: probe_checkpoint(chosen, device=device, trust=trust),
    }
    faults = []
    for path, make in parts.items():
        if path.exists():
            continue
        try:
            make()
        except UserError as error:
            faults.append(f"{path.name} could not be made: {error}")
    return faults
