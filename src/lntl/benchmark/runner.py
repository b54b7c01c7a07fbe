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
from lntl.runs.lock import hold_lock
from lntl.text import count
from lntl.yaml_file import dump

DEAD_END_CODE = 3  # exit code of a worker whose run cannot be resumed from its checkpoint
STOPPED_CODE = 130  # exit code of a worker that was stopped
_DEAD_END_FILE = ".dead_end"  # in the folder of a run that cannot be resumed
POLL_SECONDS = 0.2  # seconds between two checks of the workers
# The layers are small: two runs with one thread each finish sooner than one run after the other with two threads.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class BenchmarkProgress:
    """The runs in progress; `ended_run` is a run that has just ended, with its line, reported once for each run."""

    running_runs: Sequence[BenchmarkRun]
    ended_run: tuple[BenchmarkRun, ResultLine] | None = None


@dataclass(frozen=True)
class Benchmark:
    """Files, command and workers of a benchmark: `command CONFIG SPLIT` trains or resumes a run, and evaluates it.

    `workers` is the number of runs at the same time; on a cluster, 0 means as many as the cluster can hold. A shard
    writes its own file of results.
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
        """The folder of the unfinished runs, beside the results."""
        return self.results.parent / "runs" / self.own_results.stem

    def missing_runs(self, runs: list[PlannedRun]) -> list[PlannedRun]:
        """Return the runs that have no scores on the split."""
        lines = shards.read(self.results)
        done_keys = {line.key for line in lines if not line.failed and line.split == self.split}
        return [run for run in runs if run.key not in done_keys]

    def prepare(self, runs: list[PlannedRun]) -> list[PlannedRun]:
        """Clean the scratch folder; unless this is a shard, merge the shards' files. Return the missing runs."""
        write_text(self.scratch / ".gitignore", "*\n")
        if self.shard is None:
            shards.collect(self.results)
        missing_runs = self.missing_runs(runs)
        self._clean_scratch(runs, missing_runs)
        return missing_runs

    def run(self, runs: list[PlannedRun], stop: Callable[[], bool] = lambda: False) -> Iterator[BenchmarkProgress]:
        """Make the missing runs, in order; yields a few times a second. Raises Interrupted if `stop()` returns true."""
        with hold_lock(self.scratch) as lock:
            waiting_runs, processes, stopped_runs = self.prepare(runs), list[RunProcess](), list[BenchmarkRun]()
            try:
                while (waiting_runs or processes) and not stop():
                    while waiting_runs and len(processes) < self.workers:
                        run = waiting_runs.pop(0)
                        processes.append(RunProcess(run, run.config.model_dump(), self, lock))
                    yield from self._collect_ended(processes, stopped_runs)
                    yield BenchmarkProgress([process.run for process in processes])
                    time.sleep(POLL_SECONDS)
            finally:
                _stop_processes(processes)
            yield from self._collect_ended(processes, stopped_runs, stopping=True)
            if num_left := len(waiting_runs) + len(stopped_runs):
                raise Interrupted(f"stopped; {count(num_left, 'run')} left")

    def _collect_ended(
        self, processes: "list[RunProcess]", stopped_runs: list[BenchmarkRun], *, stopping: bool = False
    ) -> Iterator[BenchmarkProgress]:
        """Remove the processes that have ended from `processes`, and write their lines; a stopped run has no line."""
        for process in [p for p in processes if p.process.poll() is not None]:
            processes.remove(process)
            if (line := process.end(stopping)) is None:
                stopped_runs.append(process.run)
                continue
            self.add(process.run, line)
            yield BenchmarkProgress([p.run for p in processes], (process.run, line))

    def add(self, run: BenchmarkRun, line: ResultLine) -> None:
        """Write the line of a run, and remove the files of the run unless it failed."""
        results.add(self.own_results, line)
        if not line.failed:
            self._remove_files(run)

    def _clean_scratch(self, runs: list[PlannedRun], missing_runs: list[PlannedRun]) -> None:
        """Remove the folders of runs that cannot be resumed, and files of finished runs, left by killed processes."""
        for run in runs:
            if run not in missing_runs:
                self._remove_files(run)
            elif (self.scratch / run.id / _DEAD_END_FILE).exists():
                shutil.rmtree(self.scratch / run.id, ignore_errors=True)

    def _remove_files(self, run: BenchmarkRun) -> None:
        """Remove the files of a run."""
        if not self.keep_runs:
            shutil.rmtree(self.scratch / run.id, ignore_errors=True)
            for suffix in (".yaml", ".log"):
                (self.scratch / f"{run.id}{suffix}").unlink(missing_ok=True)


class TimeLeft:
    """Estimates the time left from the durations of finished runs, if possible of runs with the same name."""

    def __init__(self, workers: int, waiting: list[PlannedRun], lines: list[ResultLine]) -> None:
        self._workers = workers
        self._waiting = {run.id: run for run in waiting}
        self._start_times: dict[str, float] = {}
        self._seconds: dict[str, list[float]] = {}
        for line in lines:
            self._record(line)

    def _record(self, line: ResultLine) -> None:
        seconds = line.wall_seconds or line.seconds
        if seconds is not None:
            self._seconds.setdefault(line.name, []).append(seconds)

    def update(self, progress: BenchmarkProgress) -> str:
        """Record the progress and return the time left as text; it is unknown until the first run has ended."""
        now = time.monotonic()
        for run in progress.running_runs:
            self._start_times.setdefault(run.id, now)
        if progress.ended_run is not None:
            self._waiting.pop(progress.ended_run[0].id)
            self._record(progress.ended_run[1])
        if not self._seconds:
            return "time left: known after the first run"
        remaining = [
            self._estimate(run) - min(now - self._start_times.get(run_id, now), 0.9 * self._estimate(run))
            for run_id, run in self._waiting.items()
        ]
        seconds = max([sum(remaining) / (self._workers or max(1, len(progress.running_runs))), *remaining], default=0)
        return f"about {timedelta(seconds=round(seconds))} left" if remaining else ""

    def _estimate(self, run: PlannedRun) -> float:
        all_seconds = [seconds for values in self._seconds.values() for seconds in values]
        return statistics.fmean(self._seconds.get(run.name, all_seconds))


class RunProcess:
    """A process that makes one run.

    Args:
        run: The run.
        config: Configuration of the run as a dict; its folder is replaced by one in the scratch folder.
        bench: The benchmark.
        lock: File descriptor of a lock, which the process keeps open; None if there is no lock.
        cwd: Working directory of the process; None: the current working directory.
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
        write_text(path, _config_yaml(config, run, scratch))
        self.resumed = self.folder.last.exists()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*bench.command, str(path), bench.split],
                stdin=subprocess.PIPE,  # the pipe closes when this process dies, and then the worker stops
                stdout=log,
                stderr=log,
                env=os.environ | _ONE_THREAD,
                cwd=cwd,
                pass_fds=() if lock is None else (lock,),
                start_new_session=True,  # Ctrl-C reaches only this process, which then stops the workers
            )

    def close(self) -> None:
        """Close the pipe, so that a running process saves its state and stops, and wait until it has ended."""
        with self.process:
            pass

    def end(self, stopping: bool = False) -> ResultLine | None:
        """Return the line of the run, whose process has ended; None if it was stopped."""
        self.close()
        code = self.process.returncode
        if code == STOPPED_CODE or (stopping and code != 0):
            return None
        if code == DEAD_END_CODE:
            (self.folder.path / _DEAD_END_FILE).touch()  # the folder stays until the next call
        try:
            return self._line()
        except UserError as error:  # a file of the run is damaged
            return failed_line(self.run, str(error), code)

    def _line(self) -> ResultLine:
        seconds = round(time.monotonic() - self.began, 1)
        if self.process.returncode != 0:
            return failed_line(self.run, self._reason(), self.process.returncode)
        result, epochs = self.folder.read_result(), self.folder.read_metrics()
        if result is None or not epochs:
            return failed_line(self.run, "result.json or metrics.jsonl is missing", 0)
        last = epochs[-1]
        *earlier, origin = map(_make_origin, read_json(self.folder.environment, Environment).parts())
        origin.hardware.runs_at_once = self.bench.workers or None
        earlier_origins: dict[str, Any] = {"earlier": earlier} if earlier else {}
        return ResultLine(
            **_identity(self.run),
            split=self.bench.split,
            metrics=_nan_to_none(result.last.test if self.bench.split == "test" else result.last.val),
            val=_nan_to_none({k.removeprefix("val/"): v for k, v in last.metrics.items() if k.startswith("val/")}),
            epochs=last.total_epoch,
            data=result.data,
            seconds=result.training_seconds,
            wall_seconds=None if self.resumed else seconds,  # of a resumed run, only the last part is measured
            **dict(origin),
            **earlier_origins,
            date=_now(),
        )

    def _reason(self) -> str:
        code = self.process.returncode
        if code < 0:
            memory = "; was there too little memory?" if code == -signal.SIGKILL else ""
            return f"killed by {signal.Signals(-code).name}{memory}"
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1].removeprefix("Error: ") if lines else f"exit code {code}"


def failed_line(run: BenchmarkRun, error: str, exit_code: int | None = None) -> ResultLine:
    """Return the result line of a run that has failed."""
    return ResultLine(**_identity(run), error=error, exit_code=exit_code, date=_now())


def _identity(run: BenchmarkRun) -> dict[str, Any]:
    return {"name": run.name, "config_hash": run.config_hash, "overrides": run.overrides, "seed": run.seed}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _stop_processes(processes: list[RunProcess]) -> None:
    """Ask the processes to save and stop, and wait until they have ended."""
    for process in processes:
        process.process.terminate()
    for process in processes:
        process.process.wait()
        process.close()


def _config_yaml(config: Mapping[str, Any], run: BenchmarkRun, scratch: Path) -> str:
    """Return the configuration of a run as YAML; its folder is in `scratch`."""
    project = config["project"] | {"experiment_name": run.id}
    logging = config["logging"] | {"output_dir": str(scratch)}
    return dump({**config, "project": project, "logging": logging})


def _nan_to_none(values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the values with None instead of NaN and infinity, which JSON does not have."""
    return {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}


def _make_origin(part: Machine) -> Origin:
    """Return commit, hardware and versions of a part of a run."""
    commit = part.git_commit
    hardware = part.model_dump(include={"processor", "cores", "threads", "memory_gib", "cuda"})
    return Origin(
        git_commit=commit and commit.removesuffix("-dirty"),
        git_dirty=None if commit is None else commit.endswith("-dirty"),
        hardware=Hardware(**hardware, torch=part.packages.get("torch")),
        lntl=part.lntl,
    )
