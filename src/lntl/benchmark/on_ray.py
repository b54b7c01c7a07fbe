"""Make the runs of a benchmark as tasks of a Ray cluster; a run whose worker is lost is retried on another one."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from lntl.benchmark import results, shards
from lntl.benchmark.plan import PlannedRun
from lntl.benchmark.results import BenchmarkRun, ResultLine
from lntl.benchmark.runner import POLL, Benchmark, BenchmarkProgress, RunProcess, failure
from lntl.errors import Interrupted, UserError, shorten
from lntl.runs.files import write_text
from lntl.runs.lock import locked

RETRIES = 5  # of a run whose worker is lost
CONNECTING, ANSWERING, STOPPING = 10.0, 60.0, 60.0  # seconds for an address, for a cluster there, for workers to save
_TOKEN = ".head"  # in the scratch folder: a worker that reads the head's text there shares the folder with it
_PROBE = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False)"


@contextmanager
def connected(on: str) -> Iterator[None]:
    """Connect to a cluster within the block.

    Args:
        on: ray=HOST:PORT; or ray, for RAY_ADDRESS, a cluster that runs on this machine, or a new one on it alone.

    Raises:
        UserError: If Ray is not installed or nothing answers.
    """
    engine, equals, address = on.partition("=")
    if engine != "ray" or bool(equals) != bool(address):
        raise UserError(f"--on {shorten(on)}: write --on ray or --on ray=HOST:PORT")
    address = address or os.environ.get("RAY_ADDRESS", "")
    if address:
        _check_open(address)
    try:
        import ray
    except ImportError as error:
        raise UserError(f"--on ray: Ray is not installed ({error}); pip install 'lntl[ray]'") from error
    if address:
        _check_answers(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a new cluster sends nothing over the network
    ray.init(address or None, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def _check_open(address: str) -> None:
    """Raise UserError if nothing listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise UserError(f"--on ray={shorten(address)}: write HOST:PORT, as `ray start --head` shows it")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECTING).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that no host can have
        raise _no_answer(address, getattr(error, "strerror", None) or str(error)) from error


def _check_answers(address: str) -> None:
    """Raise UserError if no Ray cluster answers in time: `ray.init` itself may wait for long, or end the process."""
    try:
        probe = [sys.executable, "-c", _PROBE, address]
        done = subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ANSWERING)
    except subprocess.TimeoutExpired as error:
        raise _no_answer(address, f"no answer within {ANSWERING:.0f} s") from error
    if done.returncode != 0:
        raise _no_answer(address, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])


def _no_answer(address: str, reason: str) -> UserError:
    return UserError(
        f"--on ray={shorten(address)}: no Ray cluster answers there ({reason[:200]}); start one with "
        "`ray start --head`; this machine must be part of it"
    )


def run(bench: Benchmark, runs: list[PlannedRun], stop: Callable[[], bool]) -> Iterator[BenchmarkProgress]:
    """Make the missing runs on the cluster that is connected, as `Benchmark.run` does on this machine."""
    import ray
    from ray.exceptions import RayError, TaskCancelledError

    bench = replace(bench, results=bench.results.resolve())
    token, task = uuid4().hex, ray.remote(max_retries=RETRIES)(_make_run)
    with locked(bench.scratch):
        waiting, stopped = bench.begin(runs), list[BenchmarkRun]()
        running: dict[Any, BenchmarkRun] = {}
        gpus = ray.cluster_resources().get("GPU", 0)
        kinds = {_kind(run, gpus) for run in waiting}
        if "GPU" in kinds and not gpus:
            raise UserError("--on ray: the plan trains on cuda, and the cluster has no GPU; set training.device=cpu")
        write_text(bench.scratch / _TOKEN, token)

        def begin(run: PlannedRun) -> None:
            """Submit the task of a run."""
            options = task.options(num_cpus=1, num_gpus=int(_kind(run, gpus) == "GPU"), name=run.title)
            plain = BenchmarkRun(run.name, run.label, run.overrides, run.config_hash, run.seed)
            running[options.remote(bench, plain, _config(run), token, Path.cwd())] = plain

        def end(references: list[Any]) -> Iterator[BenchmarkProgress]:
            """Write the lines of tasks that have ended."""
            for reference in references:
                run = running.pop(reference)
                try:
                    text = ray.get(reference)
                except TaskCancelledError:
                    text = None
                except RayError as error:
                    text = failure(run, _lost(error)).model_dump_json(exclude_unset=True)
                if text is None:
                    stopped.append(run)
                    continue
                line = ResultLine.model_validate_json(text)
                bench.add(run, line)
                yield BenchmarkProgress(list(running.values()), (run, line))

        try:
            while (waiting or running) and not stop():
                room = max(1, int(sum(ray.cluster_resources().get(kind, 0) for kind in kinds)))
                while waiting and len(running) < min(room, bench.workers or room):
                    begin(waiting.pop(0))
                yield from end(ray.wait(list(running), timeout=POLL)[0])
                yield BenchmarkProgress(list(running.values()))
        finally:
            for reference in running:
                ray.cancel(reference)
            ended = ray.wait(list(running), num_returns=len(running), timeout=STOPPING)[0] if running else []
        yield from end(ended)
        shards.collect(bench.results)
        (bench.scratch / _TOKEN).unlink()
        if left := len(waiting) + len(stopped) + len(running):
            raise Interrupted(f"stopped; {left} runs are not done")


def _kind(run: PlannedRun, gpus: float) -> str:
    """Return the resource that a run takes one of: CPU or GPU."""
    device = run.config.training.device
    return "GPU" if device.startswith("cuda") or (device == "auto" and gpus) else "CPU"


def _config(run: PlannedRun) -> dict[str, Any]:
    """Return the configuration of a run as plain values; Ray chooses the GPU, which is the only one that it sees."""
    raw = run.config.model_dump()
    if raw["training"]["device"].startswith("cuda"):
        raw["training"]["device"] = "cuda"
    return raw


def _lost(error: Exception) -> str:
    """Return in one sentence why Ray has no result."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shorten(f"{type(error).__name__} in Ray: {lines[-1] if lines else 'no reason given'}")


def _make_run(bench: Benchmark, run: BenchmarkRun, config: dict[str, Any], token: str, cwd: Path) -> str | None:
    """Make a run in a process on this worker, and return its line as JSON; None if it was stopped.

    If the folder of the benchmark is shared, the run continues there from its checkpoint, and the line is also written
    to a file of this worker there; else it begins again in a temporary folder.
    """
    bench = replace(bench, command=[sys.executable, *bench.command[1:]])
    shared = False
    with suppress(OSError):
        shared = (bench.scratch / _TOKEN).read_text(encoding="utf-8") == token
    with TemporaryDirectory(prefix="lntl-benchmark-") as temporary:
        if not shared:
            bench = replace(bench, results=Path(temporary, bench.results.name))
            bench.scratch.mkdir(parents=True)
        try:
            process = RunProcess(run, config, bench, cwd=cwd if cwd.is_dir() else Path(temporary))
            try:
                while process.process.poll() is None:
                    time.sleep(POLL)
            finally:
                process.close()
            line = process.end()
            if shared and line is not None:
                import ray

                results.add(shards.worker_file(bench.results, ray.get_runtime_context().get_worker_id()), line)
        except UserError as error:  # a file cannot be written
            line = failure(run, str(error))
    return None if line is None else line.model_dump_json(exclude_unset=True)
