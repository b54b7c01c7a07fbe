"""Run the jobs of a plan in processes of their own, several at once, and write a line of results for each."""

import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lntl import config as configuration
from lntl.benchmark import results
from lntl.benchmark.plan import Job
from lntl.benchmark.results import Line
from lntl.errors import Interrupted
from lntl.runs.files import read_json, write_text
from lntl.runs.folder import RunFolder
from lntl.runs.formats import Environment, Machine
from lntl.runs.lock import locked

DEAD_END, STOPPED = 3, 130  # exit codes of a worker: its run cannot go on from its checkpoint; it was told to stop
_DEAD = ".dead_end"  # in the folder of a run that cannot go on
_POLL = 0.2  # seconds between two looks at the workers
# Two runs of one thread each are faster than two threads for one: the layers are small.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Progress:
    """How far the benchmark is: the runs under way and, once each, the line of a run that has just ended."""

    running: list[Job]
    ended: tuple[Job, Line] | None = None


@dataclass(frozen=True)
class Benchmark:
    """Where the runs are made and how: `command` with a configuration's path and the split that scores it trains it,
    or takes it up again.
    """

    results: Path
    command: Sequence[str]
    workers: int
    keep_runs: bool = False
    split: str = "test"

    @property
    def scratch(self) -> Path:
        """The folder of the runs under way, beside the results."""
        return self.results.parent / "runs" / self.results.stem

    def missing(self, jobs: list[Job]) -> list[Job]:
        """Return the jobs without a line that tells of success on the split."""
        done = {results.key(line) for line in results.read(self.results) if results.split(line) == self.split}
        return [job for job in jobs if job.key not in done]

    def run(self, jobs: list[Job], stop: Callable[[], bool] = lambda: False) -> Iterator[Progress]:
        """Run what is missing, in order; yields a few times a second. Where `stop()` says yes, raises Interrupted."""
        with locked(self.scratch) as lock:
            write_text(self.scratch / ".gitignore", "*\n")
            waiting, running, stopped = self.missing(jobs), list[_Worker](), list[Job]()
            self._tidy(jobs, waiting)
            try:
                while (waiting or running) and not stop():
                    while waiting and len(running) < self.workers:
                        running.append(_Worker(waiting.pop(0), self, lock))
                    yield from self._ended(running, stopped)
                    yield Progress([worker.job for worker in running])
                    time.sleep(_POLL)
            finally:
                _stop(running)
            yield from self._ended(running, stopped, stopping=True)
            if left := len(waiting) + len(stopped):
                raise Interrupted(f"stopped; {left} runs are not done")

    def _ended(self, running: "list[_Worker]", stopped: list[Job], *, stopping: bool = False) -> Iterator[Progress]:
        """Take the workers that are over out of `running` and write their lines; a run that was stopped has none."""
        for worker in [w for w in running if w.process.poll() is not None]:
            running.remove(worker)
            worker.close()
            if worker.process.returncode == STOPPED or (stopping and worker.process.returncode != 0):
                stopped.append(worker.job)
                continue
            if worker.process.returncode == DEAD_END:
                (worker.folder.path / _DEAD).touch()  # to be looked at, until the next call
            line = worker.line()
            results.add(self.results, line)
            if not results.failed(line):
                self._clear(worker.job)
            yield Progress([w.job for w in running], (worker.job, line))

    def _tidy(self, jobs: list[Job], waiting: list[Job]) -> None:
        """Remove what a kill left of finished runs, and runs that cannot go on from their checkpoint."""
        for job in jobs:
            if job not in waiting:
                self._clear(job)
            elif (self.scratch / job.id / _DEAD).exists():
                shutil.rmtree(self.scratch / job.id, ignore_errors=True)

    def _clear(self, job: Job) -> None:
        """Remove what the run of a job has left."""
        if not self.keep_runs:
            shutil.rmtree(self.scratch / job.id, ignore_errors=True)
            for suffix in (".yaml", ".log"):
                (self.scratch / f"{job.id}{suffix}").unlink(missing_ok=True)


class _Worker:
    """A process that makes one run."""

    def __init__(self, job: Job, bench: Benchmark, lock: int) -> None:
        scratch = bench.scratch
        self.job, self.bench, self.folder, self.began = job, bench, RunFolder(scratch / job.id), time.monotonic()
        self.log = scratch / f"{job.id}.log"
        path = scratch / f"{job.id}.yaml"
        write_text(path, _yaml(job, scratch))
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
        """Close what is open for a process that is over."""
        with self.process:
            pass

    def line(self) -> Line:
        """Return the line of the run, which is over."""
        seconds = round(time.monotonic() - self.began, 1)
        job, now = self.job, datetime.now(UTC).isoformat(timespec="seconds")
        head = {"name": job.name, "config_hash": job.hash, "overrides": job.cell, "seed": job.seed}
        if self.process.returncode != 0:
            return head | {"error": self._reason(), "exit_code": self.process.returncode, "date": now}
        result, last = self.folder.read_result(), self.folder.read_metrics()[-1]
        assert result is not None
        scores = result.last.test if self.bench.split == "test" else result.last.val
        return head | {
            "split": self.bench.split,
            "metrics": _finite(scores),
            "val": _finite({k.removeprefix("val/"): v for k, v in last.metrics.items() if k.startswith("val/")}),
            "epochs": last.total_epoch,
            "data": result.data,
            "seconds": result.training_seconds,
            "wall_seconds": None if self.resumed else seconds,  # from the start of the process
            **self._place(),
            "date": now,
        }

    def _place(self) -> dict[str, Any]:
        """Return commit, hardware and versions; those of earlier parts as well where the run went on elsewhere."""
        *earlier, last = [_place(part) for part in read_json(self.folder.environment, Environment).parts()]
        last["hardware"]["runs_at_once"] = self.bench.workers
        return last | ({"earlier": earlier} if earlier else {})

    def _reason(self) -> str:
        code = self.process.returncode
        if code < 0:
            memory = "; was there too little memory?" if code == -signal.SIGKILL else ""
            return f"killed by {signal.Signals(-code).name}{memory}"
        said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return said[-1].removeprefix("Error: ") if said else f"exit code {code}"


def _stop(running: list[_Worker]) -> None:
    """Ask the workers to save and stop, and wait until they have."""
    for worker in running:
        worker.process.terminate()
    for worker in running:
        worker.process.wait()
        worker.close()


def _yaml(job: Job, scratch: Path) -> str:
    """Return the configuration of a job's run in its folder in `scratch`."""
    config = job.config
    project = config.project.model_copy(update={"experiment_name": job.id})
    logging = config.logging.model_copy(update={"output_dir": str(scratch)})
    return configuration.to_yaml(config.model_copy(update={"project": project, "logging": logging}))


def _finite(values: dict[str, Any]) -> dict[str, float | None]:
    """Return the values, undefined ones as None: JSON has no NaN."""
    return {name: value if value is not None and math.isfinite(value) else None for name, value in values.items()}


def _place(part: Machine) -> dict[str, Any]:
    """Return commit, hardware and versions."""
    commit = part.git_commit
    hardware = part.model_dump(include={"processor", "cores", "threads", "memory_gib", "cuda"})
    return {
        "git_commit": commit and commit.removesuffix("-dirty"),
        "git_dirty": commit and commit.endswith("-dirty"),
        "hardware": hardware | {"torch": part.packages["torch"]},
        "lntl": part.lntl,
    }
