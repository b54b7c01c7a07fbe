"""Trackers: services that get metrics, settings and files of a run. Each tracker is one file of this package.

If a tracker fails, a warning is logged, the tracker is not used any more, and the run continues.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from lntl import plugins
from lntl.errors import UserError
from lntl.plugins import Settings
from lntl.runs.files import read_json, write_json
from lntl.runs.folder import RunFolder
from lntl.runs.formats import TrackerIds

if TYPE_CHECKING:  # these modules import torch; the configuration reads the names of trackers without torch
    from torch import Tensor

    from lntl.evaluation.predict import Predictions
    from lntl.types import Dataset

log = logging.getLogger("lntl")
_FAILURES = (UserError, OSError)


class Embedding(NamedTuple):
    """Vectors z (n, D) of some test images, their classes and bias values, and the images (n, C, H, W), if any."""

    z: "Tensor"
    labels: list[tuple[str, str]]
    images: "Tensor | None"


@dataclass(frozen=True)
class TrackedRun:
    """The run that a tracker opens.

    Args:
        folder: The run folder.
        project: Name of the project.
        name: Name of the run.
        settings: The configuration, by dotted path.
        step: Updates done so far; 0 for a new run.
        training: Whether the run will be trained; otherwise only results or files are added.
        id: `Tracker.id` of the run if the tracker already has the run; empty for a new run.
    """

    folder: RunFolder
    project: str = ""
    name: str = ""
    settings: Mapping[str, object] = field(default_factory=dict)
    step: int = 0
    training: bool = True
    id: str = ""


class Tracker:
    """Base class of trackers; its methods do nothing. Creating a tracker opens a run in its service, or continues one.

    The methods of trackers raise UserError or OSError if they fail.

    Args:
        run: The run.
    """

    class Config(Settings):
        """No settings: the libraries read their own environment variables."""

    id: str = ""  # identifier with which the tracker finds the run again; empty if it needs none

    def __init__(self, run: TrackedRun) -> None:
        self.run = run

    @classmethod
    def check(cls) -> None:
        """Raise UserError if the library or the credentials are missing; called before the run begins."""

    def data(self, data: "Dataset") -> None:
        """Show the data of a new run."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Log each value under its name; `step` is the number of updates."""

    def confusion(self, predictions: "Predictions", class_names: tuple[str, ...], step: int) -> None:
        """Log the confusion matrix of val."""

    def features(self, embed: Callable[[], Embedding], step: int) -> None:
        """Log the features of test images that `embed` returns."""

    def results(self, scores: Mapping[str, float], step: int) -> None:
        """Log the final metrics, such as test/accuracy, of a finished run."""

    def files(self, paths: Sequence[Path]) -> None:
        """Store files or folders of the run."""

    def close(self, finished: bool) -> None:
        """Send the remaining values; `finished` is False if the run was stopped."""


class Trackers:
    """The open trackers of a run.

    Args:
        names: Names of the trackers.
        run: The run, without `id`: the ids are read from trackers.json in its folder.
    """

    def __init__(self, names: Sequence[str], run: TrackedRun) -> None:
        path, self._open = run.folder.trackers, dict[str, Tracker]()
        saved = _read_ids(path) or TrackerIds(project=run.project, name=run.name, ids={})
        for name in names:
            plugin = plugins.load("lntl.trackers", name, Tracker)
            tracked_run = replace(
                run, project=run.project or saved.project, name=run.name or saved.name, id=saved.ids.get(name, "")
            )
            try:
                plugin.check()
                self._open[name] = plugin(tracked_run)
            except _FAILURES as error:
                _warn(name, error)
        if ids := {name: tracker.id for name, tracker in self._open.items() if tracker.id}:
            write_json(path, TrackerIds(project=saved.project, name=saved.name, ids=saved.ids | ids))

    def send(self, call: Callable[[Tracker], None]) -> None:
        """Call a function with every tracker; a tracker that fails is not used any more."""
        for name, tracker in list(self._open.items()):
            try:
                call(tracker)
            except _FAILURES as error:
                del self._open[name]
                _warn(name, error)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.send(lambda tracker: tracker.close(finished=kind is None))


def _read_ids(path: Path) -> TrackerIds | None:
    """Return the content of trackers.json; None if there is no such file, or it is damaged."""
    if not path.exists():
        return None
    try:
        return read_json(path, TrackerIds)
    except UserError as error:
        log.warning("%s; until then, trackers do not find the run again", error)
        return None


def _warn(name: str, error: Exception) -> None:
    reason = " ".join(str(error).split())[:500] or type(error).__name__
    log.warning("the tracker %s failed and is left out from now on: %s", name, reason)


def check(names: Sequence[str]) -> None:
    """Raise UserError if a tracker lacks its library or credentials."""
    for name in names:
        plugins.load("lntl.trackers", name, Tracker).check()


def add_files(folder: RunFolder, paths: Sequence[Path]) -> None:
    """Store files, such as a report, at the trackers that have the run, if there are any."""
    if (saved := _read_ids(folder.trackers)) is not None:
        names = [name for name in saved.ids if name in plugins.modules("lntl.trackers")]
        with Trackers(names, TrackedRun(folder, training=False)) as trackers:
            trackers.send(lambda tracker: tracker.files(paths))
