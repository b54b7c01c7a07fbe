"""Weights & Biases (pip install 'lntl[wandb]').

Run `wandb login` once, or set WANDB_MODE=offline and run `wandb sync` later.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from lntl.errors import UserError
from lntl.trackers import TrackedRun, Tracker

__all__ = ["WandB"]

_INIT_TIMEOUT = 30  # seconds to wait for the server


class WandB(Tracker):
    """A run at Weights & Biases; its project there is WANDB_PROJECT or, by default, `project` of the tracked run."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        super().__init__(run)
        with _convert_errors():
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or run.project,
                name=run.name,
                id=run.id or None,
                resume="allow" if run.id else None,
                dir=run.folder.path,
                config=dict(run.settings),
                reinit="create_new",  # a run that the user has open stays open
                settings=wandb.Settings(console="off", silent=True, init_timeout=_INIT_TIMEOUT),
            )
            self._run.define_metric("*", step_metric="step")  # a resumed run may begin before the last step it logged
        self.id = self._run.id

    @classmethod
    def check(cls) -> None:
        """Raise UserError if wandb is not installed, or has neither a key nor the mode offline."""
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                f"logging.trackers: wandb is not installed ({error}); pip install 'lntl[wandb]', or leave it out"
            ) from error
        if wandb.setup().settings.mode != "online":
            return
        try:
            has_key = wandb.login(prompt=False)
        except wandb.Error:  # the server does not answer, or refuses the key; `init` will say so
            return
        if not has_key:
            raise UserError(
                "logging.trackers: wandb has no key of an account; run `wandb login`, or set WANDB_MODE=offline"
            )

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log the values."""
        with _convert_errors():
            self._run.log({**values, "step": step})

    def results(self, scores: Mapping[str, float], step: int) -> None:
        """Write the final metrics into the summary, which the table of runs shows."""
        with _convert_errors():
            self._run.summary.update(dict(scores))

    def files(self, paths: Sequence[Path]) -> None:
        """Store each file or folder as an artefact."""
        import wandb

        with _convert_errors():
            for path in paths:
                artefact = wandb.Artifact(f"{self.id}-{path.name}", type="lntl")
                if path.is_dir():
                    artefact.add_dir(str(path))
                else:
                    artefact.add_file(str(path))
                self._run.log_artifact(artefact)

    def close(self, finished: bool) -> None:
        """Send the remaining values, and end the run."""
        with _convert_errors():
            self._run.finish(0 if finished else 1)


@contextmanager
def _convert_errors() -> Iterator[None]:
    """Convert the errors of the client within the block to UserError."""
    import wandb

    try:
        yield
    except (wandb.Error, RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{type(error).__name__}: {error}") from error
