"""MLflow (pip install 'lntl[mlflow]'): a folder, a database or a server, which MLFLOW_TRACKING_URI names."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lntl.errors import UserError
from lntl.trackers import TrackedRun, Tracker

if TYPE_CHECKING:
    from mlflow.entities import Metric

__all__ = ["MLflow"]

_SECONDS = 30  # between two requests with metrics of steps
_MAX_METRICS, _MAX_PARAMETERS, _MAX_LENGTH = 1000, 100, 6000  # MLflow's limits on a request, and on a value's length
# Of MLflow's client, which would otherwise try for minutes to reach a server that does not answer.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}


class MLflow(Tracker):
    """A run at MLflow, in the experiment that MLFLOW_EXPERIMENT_NAME names, or in one of the project's name."""

    def __init__(self, run: TrackedRun) -> None:
        from mlflow import MlflowClient

        super().__init__(run)
        self._waiting, self._sent = list["Metric"](), time.monotonic()
        with _failing():
            self._client = MlflowClient()
            self.id = run.id or self._create()
            if run.training:
                self._client.update_run(self.id, status="RUNNING")

    @classmethod
    def check(cls) -> None:
        """Raise UserError if MLflow is not installed."""
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        try:
            import mlflow  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"logging.trackers: mlflow is not installed ({error}); pip install 'lntl[mlflow]', or leave it out"
            ) from error

    def _create(self) -> str:
        """Create the run with its settings; return its id."""
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or self.run.project
        experiment = self._client.get_experiment_by_name(name)
        number = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        created: str = self._client.create_run(number, run_name=self.run.name).info.run_id
        parameters = [Param(key, str(value)[:_MAX_LENGTH]) for key, value in self.run.settings.items()]
        for begin in range(0, len(parameters), _MAX_PARAMETERS):
            self._client.log_batch(created, params=parameters[begin : begin + _MAX_PARAMETERS])
        return created

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log the values, with those of other steps in one request."""
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        self._waiting += [Metric(name, value, now, step) for name, value in values.items()]
        if len(self._waiting) >= _MAX_METRICS or time.monotonic() - self._sent > _SECONDS:
            self._send()

    def _send(self) -> None:
        waiting, self._waiting, self._sent = self._waiting, [], time.monotonic()
        with _failing():
            for begin in range(0, len(waiting), _MAX_METRICS):
                self._client.log_batch(self.id, metrics=waiting[begin : begin + _MAX_METRICS])

    def results(self, scores: Mapping[str, float], step: int) -> None:
        """Log the final metrics."""
        self.scalars(scores, step)

    def files(self, paths: Sequence[Path]) -> None:
        """Store files, and folders under their name, as artefacts."""
        with _failing():
            for path in paths:
                if path.is_dir():
                    self._client.log_artifacts(self.id, str(path), path.name)
                else:
                    self._client.log_artifact(self.id, str(path))

    def close(self, finished: bool) -> None:
        """Send the metrics that are left, and set the run's status."""
        self._send()
        with _failing():
            self._client.set_terminated(self.id, "FINISHED" if finished else "KILLED")


@contextmanager
def _failing() -> Iterator[None]:
    """Raise UserError for what MLflow's client raises within the block."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, ImportError, RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{type(error).__name__}: {error}") from error
