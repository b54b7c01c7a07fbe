"""Make the runs of a plan, several processes at once, and write a line of results for each."""

import math
import os
import shutil
import signal
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from lntl import config as configuration
from lntl.benchmark import results
from lntl.benchmark.plan import PlannedRun
from lntl.benchmark.results import Hardware, Origin, ResultLine
from lntl.errors import Interrupted, UserError
from lntl.runs.files import read_json, write_text
from lntl.runs.folder import RunFolder
from lntl.runs.formats import Environment, Machine
from lntl.runs.lock import locked

DEAD_END, STOPPED = 3, 130  # exit codes of a worker: its run cannot be resumed from its checkpoint; it was stopped
_DEAD = ".dead_end"  # in the folder of a run that cannot be resumed
_POLL = 0.2  # seconds between two checks of the workers
# Two runs of one thread each are faster than two threads for one: the layers are small.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class BenchmarkProgress:
    """The runs under way and, once for each run, the line of the one that has just ended."""

    running: list[PlannedRun]
    ended: tuple[PlannedRun, ResultLine] | None = None


@dataclass(frozen=True)
class Benchmark:
    """Where and how the runs are made: `command` CONFIG SPLIT trains a run, or resumes it, and evaluates it."""

    results: Path
    command: Sequence[str]
    workers: int
    keep_runs: bool = False
    split: Literal["test", "val"] = "test"

    @property
    def scratch(self) -> Path:
        """The folder of the runs under way, beside the results."""
        return self.results.parent / "runs" / self.results.stem

    def missing(self, runs: list[PlannedRun]) -> list[PlannedRun]:
        """Return the runs that have no scores on the split."""
        lines = results.read(self.results)
        done = {line.key for line in lines if not line.failed and line.split == self.split}
        return [run for run in runs if run.key not in done]

    def run(self, runs: list[PlannedRun], stop: Callable[[], bool] = lambda: False) -> Iterator[BenchmarkProgress]:
        """Make the missing runs, in order; yields a few times a second. Raises Interrupted where `stop()` is true."""
        with locked(self.scratch) as lock:
            write_text(self.scratch / ".gitignore", "*\n")
            waiting, running, stopped = self.missing(runs), list[_Worker](), list[PlannedRun]()
            self._tidy(runs, waiting)
            try:
                while (waiting or running) and not stop():
                    while waiting and len(running) < self.workers:
                        running.append(_Worker(waiting.pop(0), self, lock))
                    yield from self._ended(running, stopped)
                    yield BenchmarkProgress([worker.run for worker in running])
                    time.sleep(_POLL)
            finally:
                _stop(running)
            yield from self._ended(running, stopped, stopping=True)
            if left := len(waiting) + len(stopped):
                raise Interrupted(f"stopped; {left} runs are not done")

    def _ended(
        self, running: "list[_Worker]", stopped: list[PlannedRun], *, stopping: bool = False
    ) -> Iterator[BenchmarkProgress]:
        """Remove the workers that have ended from `running` and write their lines; a run that was stopped has none."""
        for worker in [w for w in running if w.process.poll() is not None]:
            running.remove(worker)
            worker.close()
            if worker.process.returncode == STOPPED or (stopping and worker.process.returncode != 0):
                stopped.append(worker.run)
                continue
            if worker.process.returncode == DEAD_END:
                (worker.folder.path / _DEAD).touch()  # its folder stays until the next call
            line = worker.line()
            results.add(self.results, line)
            if not line.failed:
                self._clear(worker.run)
            yield BenchmarkProgress([w.run for w in running], (worker.run, line))

    def _tidy(self, runs: list[PlannedRun], waiting: list[PlannedRun]) -> None:
        """Remove what a kill left of finished runs, and runs that cannot be resumed from their checkpoint."""
        for run in runs:
            if run not in waiting:
                self._clear(run)
            elif (self.scratch / run.id / _DEAD).exists():
                shutil.rmtree(self.scratch / run.id, ignore_errors=True)

    def _clear(self, run: PlannedRun) -> None:
        """Remove the files of a run."""
        if not self.keep_runs:
            shutil.rmtree(self.scratch / run.id, ignore_errors=True)
            for suffix in (".yaml", ".log"):
                (self.scratch / f"{run.id}{suffix}").unlink(missing_ok=True)


class TimeLeft:
    """Time left, from the seconds of finished runs: of the same name where there are some, else of all."""

    def __init__(self, workers: int, waiting: list[PlannedRun], lines: list[ResultLine]) -> None:
        self._workers = workers
        self._waiting = {run.id: run for run in waiting}
        self._began: dict[str, float] = {}
        self._seconds: dict[str, list[float]] = {}
        for line in lines:
            self._record(line)

    def _record(self, line: ResultLine) -> None:
        seconds = line.wall_seconds or line.seconds
        if seconds is not None:
            self._seconds.setdefault(line.name, []).append(seconds)

    def update(self, progress: BenchmarkProgress) -> str:
        """Take in the progress; return the time left in words, unknown before the first run has ended."""
        now = time.monotonic()
        for run in progress.running:
            self._began.setdefault(run.id, now)
        if progress.ended is not None:
            self._waiting.pop(progress.ended[0].id)
            self._record(progress.ended[1])
        if not self._seconds:
            return "time left: known after the first run"
        needs = [
            self._estimate(run) - min(now - self._began.get(id, now), 0.9 * self._estimate(run))
            for id, run in self._waiting.items()
        ]
        return f"about {timedelta(seconds=round(max([sum(needs) / self._workers, *needs])))} left" if needs else ""

    def _estimate(self, run: PlannedRun) -> float:
        of_all = [seconds for values in self._seconds.values() for seconds in values]
        return statistics.fmean(self._seconds.get(run.name, of_all))


class _Worker:
    """A process that makes one run."""

    def __init__(self, run: PlannedRun, bench: Benchmark, lock: int) -> None:
        scratch = bench.scratch
        self.run, self.bench, self.folder, self.began = run, bench, RunFolder(scratch / run.id), time.monotonic()
        self.log = scratch / f"{run.id}.log"
        path = scratch / f"{run.id}.yaml"
        write_text(path, _yaml(run, scratch))
        self.resumed = self.folder.last.exists()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*bench.command, str(path), bench.split],
                stdin=subprocess.PIPE,  # closes when this process dies, which the worker notices
                stdout=log,
                stderr=log,
                env=os.environ | _ONE_THREAD,
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C reaches this process alone, which then stops its workers
            )

    def close(self) -> None:
        """Close the pipe of the process, which has ended."""
        with self.process:
            pass

    def line(self) -> ResultLine:
        """Return the line of the run, which has ended."""
        try:
            return self._line()
        except UserError as error:  # a file of the run is damaged
            return self._failure(str(error))

    def _failure(self, error: str) -> ResultLine:
        return ResultLine(**self._head(), error=error, exit_code=self.process.returncode, date=_now())

    def _head(self) -> dict[str, Any]:
        run = self.run
        return {"name": run.name, "config_hash": run.config_hash, "overrides": run.overrides, "seed": run.seed}

    def _line(self) -> ResultLine:
        seconds = round(time.monotonic() - self.began, 1)
        if self.process.returncode != 0:
            return self._failure(self._reason())
        result, epochs = self.folder.read_result(), self.folder.read_metrics()
        if result is None or not epochs:
            return self._failure("result.json or metrics.jsonl is missing")
        last = epochs[-1]
        *earlier, origin = map(_origin, read_json(self.folder.environment, Environment).parts())
        origin.hardware.runs_at_once = self.bench.workers
        resumed: dict[str, Any] = {"earlier": earlier} if earlier else {}
        return ResultLine(
            **self._head(),
            split=self.bench.split,
            metrics=_finite(result.last.test if self.bench.split == "test" else result.last.val),
            val=_finite({k.removeprefix("val/"): v for k, v in last.metrics.items() if k.startswith("val/")}),
            epochs=last.total_epoch,
            data=result.data,
            seconds=result.training_seconds,
            wall_seconds=None if self.resumed else seconds,  # from the start of the process
            **dict(origin),
            **resumed,
            date=_now(),
        )

    def _reason(self) -> str:
        code = self.process.returncode
        if code < 0:
            memory = "; was there too little memory?" if code == -signal.SIGKILL else ""
            return f"killed by {signal.Signals(-code).name}{memory}"
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].removeprefix("Error: ") if lines else f"exit code {code}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _stop(running: list[_Worker]) -> None:
    """Ask the workers to save and stop, and wait until they have."""
    for worker in running:
        worker.process.terminate()
    for worker in running:
        worker.process.wait()
        worker.close()


def _yaml(run: PlannedRun, scratch: Path) -> str:
    """Return the configuration of a run in its folder in `scratch`."""
    config = run.config
    project = config.project.model_copy(update={"experiment_name": run.id})
    logging = config.logging.model_copy(update={"output_dir": str(scratch)})
    return configuration.to_yaml(config.model_copy(update={"project": project, "logging": logging}))


def _finite(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the values, with None for an undefined one: JSON has no NaN."""
    return {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}


def _origin(part: Machine) -> Origin:
    """Return commit, hardware and versions of a part of a run."""
    commit = part.git_commit
    hardware = part.model_dump(include={"processor", "cores", "threads", "memory_gib", "cuda"})
    return Origin(
        git_commit=commit and commit.removesuffix("-dirty"),
        git_dirty=None if commit is None else commit.endswith("-dirty"),
        hardware=Hardware(**hardware, torch=part.packages.get("torch")),
        lntl=part.lntl,
    )
