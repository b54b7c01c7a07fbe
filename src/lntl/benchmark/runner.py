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

from lntl.benchmark import results, shards
from lntl.benchmark.plan import PlannedRun
from lntl.benchmark.results import BenchmarkRun, Hardware, Origin, ResultLine
from lntl.benchmark.shards import Shard
from lntl.errors import Interrupted, UserError
from lntl.runs.files import read_json, write_text
from lntl.runs.folder import RunFolder
from lntl.runs.formats import Environment, Machine
from lntl.runs.lock import locked
from lntl.yaml_file import dump

DEAD_END, STOPPED = 3, 130  # exit codes of a worker: its run cannot be resumed from its checkpoint; it was stopped
_DEAD = ".dead_end"  # in the folder of a run that cannot be resumed
POLL = 0.2  # seconds between two checks of the workers
# Two runs of one thread each are faster than two threads for one: the layers are small.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class BenchmarkProgress:
    """The runs under way and, once for each run, the line of the one that has just ended."""

    running: Sequence[BenchmarkRun]
    ended: tuple[BenchmarkRun, ResultLine] | None = None


@dataclass(frozen=True)
class Benchmark:
    """Where and how the runs are made: `command` CONFIG SPLIT trains a run, or resumes it, and evaluates it.

    `workers` runs are made at once; on a cluster, 0 is as many as it has room for. A shard has results of its own.
    """

    results: Path
    command: Sequence[str]
    workers: int
    keep_runs: bool = False
    split: Literal["test", "val"] = "test"
    shard: Shard | None = None

    @property
    def own_results(self) -> Path:
        """The file that the lines are written to."""
        return self.results if self.shard is None else self.shard.file(self.results)

    @property
    def scratch(self) -> Path:
        """The folder of the runs under way, beside the results."""
        return self.results.parent / "runs" / self.own_results.stem

    def missing(self, runs: list[PlannedRun]) -> list[PlannedRun]:
        """Return the runs that have no scores on the split."""
        lines = shards.read(self.results)
        done = {line.key for line in lines if not line.failed and line.split == self.split}
        return [run for run in runs if run.key not in done]

    def begin(self, runs: list[PlannedRun]) -> list[PlannedRun]:
        """Return the missing runs, with the lines of shards in the common file, unless this is one, and tidy up."""
        write_text(self.scratch / ".gitignore", "*\n")
        if self.shard is None:
            shards.collect(self.results)
        missing = self.missing(runs)
        self._tidy(runs, missing)
        return missing

    def run(self, runs: list[PlannedRun], stop: Callable[[], bool] = lambda: False) -> Iterator[BenchmarkProgress]:
        """Make the missing runs, in order; yields a few times a second. Raises Interrupted where `stop()` is true."""
        with locked(self.scratch) as lock:
            waiting, running, stopped = self.begin(runs), list[RunProcess](), list[BenchmarkRun]()
            try:
                while (waiting or running) and not stop():
                    while waiting and len(running) < self.workers:
                        run = waiting.pop(0)
                        running.append(RunProcess(run, run.config.model_dump(), self, lock))
                    yield from self._ended(running, stopped)
                    yield BenchmarkProgress([process.run for process in running])
                    time.sleep(POLL)
            finally:
                _stop(running)
            yield from self._ended(running, stopped, stopping=True)
            if left := len(waiting) + len(stopped):
                raise Interrupted(f"stopped; {left} runs are not done")

    def _ended(
        self, running: "list[RunProcess]", stopped: list[BenchmarkRun], *, stopping: bool = False
    ) -> Iterator[BenchmarkProgress]:
        """Remove the processes that have ended from `running`, and write their lines; a stopped run has none."""
        for process in [p for p in running if p.process.poll() is not None]:
            running.remove(process)
            if (line := process.end(stopping)) is None:
                stopped.append(process.run)
                continue
            self.add(process.run, line)
            yield BenchmarkProgress([p.run for p in running], (process.run, line))

    def add(self, run: BenchmarkRun, line: ResultLine) -> None:
        """Write the line of a run, and remove the files of the run unless it failed."""
        results.add(self.own_results, line)
        if not line.failed:
            self._clear(run)

    def _tidy(self, runs: list[PlannedRun], missing: list[PlannedRun]) -> None:
        """Remove what a kill left of finished runs, and runs that cannot be resumed from their checkpoint."""
        for run in runs:
            if run not in missing:
                self._clear(run)
            elif (self.scratch / run.id / _DEAD).exists():
                shutil.rmtree(self.scratch / run.id, ignore_errors=True)

    def _clear(self, run: BenchmarkRun) -> None:
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
        seconds = max([sum(needs) / (self._workers or max(1, len(progress.running))), *needs], default=0)
        return f"about {timedelta(seconds=round(seconds))} left" if needs else ""

    def _estimate(self, run: PlannedRun) -> float:
        of_all = [seconds for values in self._seconds.values() for seconds in values]
        return statistics.fmean(self._seconds.get(run.name, of_all))


class RunProcess:
    """A process that makes one run, in the working directory `cwd`.

    Args:
        run: The run.
        config: Its configuration as plain values, but for the folder.
        bench: The benchmark.
        lock: Descriptor of a lock that the process holds on to; None for none.
        cwd: Its working directory; None for that of this process.
    """

    def __init__(
        self,
        run: BenchmarkRun,
        config: Mapping[str, Any],
        bench: Benchmark,
        lock: int | None = None,
        cwd: Path | None = None,
    ) -> None:
        scratch = bench.scratch
        self.run, self.bench, self.folder, self.began = run, bench, RunFolder(scratch / run.id), time.monotonic()
        self.log = scratch / f"{run.id}.log"
        path = scratch / f"{run.id}.yaml"
        write_text(path, _yaml(config, run, scratch))
        self.resumed = self.folder.last.exists()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*bench.command, str(path), bench.split],
                stdin=subprocess.PIPE,  # closes when this process dies, which the other one notices
                stdout=log,
                stderr=log,
                env=os.environ | _ONE_THREAD,
                cwd=cwd,
                pass_fds=() if lock is None else (lock,),
                start_new_session=True,  # Ctrl-C reaches this process alone, which then stops the others
            )

    def close(self) -> None:
        """Close the pipe of the process, at which it saves and stops if it has not ended, and wait for its end."""
        with self.process:
            pass

    def end(self, stopping: bool = False) -> ResultLine | None:
        """Return the line of the run, whose process has ended; None if it was stopped."""
        self.close()
        code = self.process.returncode
        if code == STOPPED or (stopping and code != 0):
            return None
        if code == DEAD_END:
            (self.folder.path / _DEAD).touch()  # the folder stays until the next call
        try:
            return self._line()
        except UserError as error:  # a file of the run is damaged
            return failure(self.run, str(error), code)

    def _line(self) -> ResultLine:
        seconds = round(time.monotonic() - self.began, 1)
        if self.process.returncode != 0:
            return failure(self.run, self._reason(), self.process.returncode)
        result, epochs = self.folder.read_result(), self.folder.read_metrics()
        if result is None or not epochs:
            return failure(self.run, "result.json or metrics.jsonl is missing", 0)
        last = epochs[-1]
        *earlier, origin = map(_origin, read_json(self.folder.environment, Environment).parts())
        origin.hardware.runs_at_once = self.bench.workers or None
        resumed: dict[str, Any] = {"earlier": earlier} if earlier else {}
        return ResultLine(
            **_identity(self.run),
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


def failure(run: BenchmarkRun, error: str, exit_code: int | None = None) -> ResultLine:
    """Return the line of a run that has failed."""
    return ResultLine(**_identity(run), error=error, exit_code=exit_code, date=_now())


def _identity(run: BenchmarkRun) -> dict[str, Any]:
    return {"name": run.name, "config_hash": run.config_hash, "overrides": run.overrides, "seed": run.seed}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _stop(running: list[RunProcess]) -> None:
    """Ask the processes to save and stop, and wait until they have."""
    for process in running:
        process.process.terminate()
    for process in running:
        process.process.wait()
        process.close()


def _yaml(config: Mapping[str, Any], run: BenchmarkRun, scratch: Path) -> str:
    """Return the configuration of a run in its folder in `scratch`."""
    project = config["project"] | {"experiment_name": run.id}
    logging = config["logging"] | {"output_dir": str(scratch)}
    return dump({**config, "project": project, "logging": logging})


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
