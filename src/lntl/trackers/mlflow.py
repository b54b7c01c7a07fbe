"""MLflow (pip install 'lntl[mlflow]'): MLFLOW_TRACKING_URI names a folder, a database or a server."""

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

_SEND_INTERVAL = 30  # seconds between two requests with metrics
_MAX_METRICS, _MAX_PARAMETERS, _MAX_LENGTH = 1000, 100, 6000  # limits of MLflow per request, and of a value's length
# By default, the client of MLflow tries for minutes to reach a server that does not answer.
_TIMEOUTS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}


class MLflow(Tracker):
    """A run at MLflow; its experiment is MLFLOW_EXPERIMENT_NAME or, by default, `project` of the tracked run."""

    def __init__(self, run: TrackedRun) -> None:
        from mlflow import MlflowClient

        super().__init__(run)
        self._queue, self._last_send = list["Metric"](), time.monotonic()
        with _convert_errors():
            self._client = MlflowClient()
            self.id = run.id or self._create()
            if run.training:
                self._client.update_run(self.id, status="RUNNING")

    @classmethod
    def check(cls) -> None:
        """Raise UserError if MLflow is not installed."""
        for name, value in _TIMEOUTS.items():
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
        experiment_id = self._client.create_experiment(name) if experiment is None else experiment.experiment_id
        run_id: str = self._client.create_run(experiment_id, run_name=self.run.name).info.run_id
        parameters = [Param(key, str(value)[:_MAX_LENGTH]) for key, value in self.run.settings.items()]
        for begin in range(0, len(parameters), _MAX_PARAMETERS):
            self._client.log_batch(run_id, params=parameters[begin : begin + _MAX_PARAMETERS])
        return run_id

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log the values; those of several steps are sent in one request."""
        from mlflow.entities import Metric

        now = round(time.time() * 1000)
        self._queue += [Metric(name, value, now, step) for name, value in values.items()]
        if len(self._queue) >= _MAX_METRICS or time.monotonic() - self._last_send > _SEND_INTERVAL:
            self._send()

    def _send(self) -> None:
        queue, self._queue, self._last_send = self._queue, [], time.monotonic()
        with _convert_errors():
            for begin in range(0, len(queue), _MAX_METRICS):
                self._client.log_batch(self.id, metrics=queue[begin : begin + _MAX_METRICS])

    def results(self, scores: Mapping[str, float], step: int) -> None:
        """Log the final metrics."""
        self.scalars(scores, step)

    def files(self, paths: Sequence[Path]) -> None:
        """Store files, and folders under their name, as artefacts."""
        with _convert_errors():
            for path in paths:
                if path.is_dir():
                    self._client.log_artifacts(self.id, str(path), path.name)
                else:
                    self._client.log_artifact(self.id, str(path))

    def close(self, finished: bool) -> None:
        """Send the remaining metrics, and set the status of the run."""
        self._send()
        with _convert_errors():
            self._client.set_terminated(self.id, "FINISHED" if finished else "KILLED")


@contextmanager
def _convert_errors() -> Iterator[None]:
    """Convert the errors of the client of MLflow within the block to UserError."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, ImportError, RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{type(error).__name__}: {error}") from error
