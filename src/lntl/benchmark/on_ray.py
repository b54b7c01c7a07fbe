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
from types import TracebackType
from typing import Any
from uuid import uuid4

from lntl.benchmark import results, shards
from lntl.benchmark.plan import PlannedRun
from lntl.benchmark.results import BenchmarkRun, ResultLine
from lntl.benchmark.runner import POLL_SECONDS, Benchmark, BenchmarkProgress, RunProcess, failed_line
from lntl.errors import Interrupted, UserError, shorten
from lntl.runs.files import write_text
from lntl.runs.lock import hold_lock
from lntl.text import count

RETRIES = 5  # retries of a run whose worker is lost
CONNECT_SECONDS, ANSWER_SECONDS = 10.0, 60.0  # longest wait for the port of a cluster, and for its answer
SAVE_SECONDS = 60.0  # longest wait for stopped workers to save their runs
_TOKEN_FILE = ".head"  # in the scratch folder; a worker that reads the right token there shares the folder
_PROBE_SCRIPT = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False)"


@contextmanager
def cluster_connection(on: str) -> Iterator[None]:
    """Connect to a Ray cluster within the block.

    Args:
        on: ray=HOST:PORT, or ray. `ray` selects the cluster of the environment variable RAY_ADDRESS, else a cluster
            that already runs on this machine, else a new cluster of only this machine.

    Raises:
        UserError: If Ray is not installed or no cluster answers.
    """
    engine, equals, address = on.partition("=")
    if engine != "ray" or bool(equals) != bool(address):
        raise UserError(f"--on {shorten(on)}: write --on ray or --on ray=HOST:PORT")
    address = address or os.environ.get("RAY_ADDRESS", "")
    if address:
        _check_port(address)
    try:
        import ray
    except ImportError as error:
        raise UserError(f"--on ray: Ray is not installed ({error}); pip install 'lntl[ray]'") from error
    if address:
        _check_cluster(address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a new cluster sends nothing over the network
    with _StartErrors():
        ray.init(address or None, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


class _StartErrors:
    """Replace the error that Ray raises if a new cluster does not start in time; its class is exactly Exception."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is Exception:
            raise UserError(
                f"--on ray: Ray did not start on this machine ({shorten(str(error))}); run the command again when the "
                "machine is less busy, or start a cluster first with `ray start --head`"
            ) from error


def _check_port(address: str) -> None:
    """Raise UserError if nothing listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise UserError(f"--on ray={shorten(address)}: write HOST:PORT, as `ray start --head` shows it")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: the host name is invalid
        raise _no_answer_error(address, getattr(error, "strerror", None) or str(error)) from error


def _check_cluster(address: str) -> None:
    """Raise UserError if no Ray cluster answers in time: `ray.init` itself may wait much longer or end this process."""
    try:
        probe = [sys.executable, "-c", _PROBE_SCRIPT, address]
        process = subprocess.run(
            probe, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=ANSWER_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise _no_answer_error(address, f"no answer within {ANSWER_SECONDS:.0f} s") from error
    if process.returncode != 0:
        raise _no_answer_error(
            address, (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
        )


def _no_answer_error(address: str, reason: str) -> UserError:
    return UserError(
        f"--on ray={shorten(address)}: no Ray cluster answers there ({reason[:200]}); start one with "
        "`ray start --head`; this machine must be part of it"
    )


def run(bench: Benchmark, runs: list[PlannedRun], stop: Callable[[], bool]) -> Iterator[BenchmarkProgress]:
    """Make the missing runs on the connected cluster, as `Benchmark.run` does on this machine."""
    import ray
    from ray.exceptions import RayError, TaskCancelledError

    bench = replace(bench, results=bench.results.resolve())
    token, task = uuid4().hex, ray.remote(max_retries=RETRIES)(_make_run)
    with hold_lock(bench.scratch):
        waiting_runs, stopped_runs = bench.prepare(runs), list[BenchmarkRun]()
        running: dict[Any, BenchmarkRun] = {}
        gpus = ray.cluster_resources().get("GPU", 0)
        resources = {_resource_name(run, gpus) for run in waiting_runs}
        if "GPU" in resources and not gpus:
            raise UserError("--on ray: the plan trains on cuda, and the cluster has no GPU; set training.device=cpu")
        write_text(bench.scratch / _TOKEN_FILE, token)

        def submit(run: PlannedRun) -> None:
            """Submit the task of a run."""
            remote_task = task.options(num_cpus=1, num_gpus=int(_resource_name(run, gpus) == "GPU"), name=run.title)
            run_without_config = BenchmarkRun(run.name, run.label, run.overrides, run.config_hash, run.seed)
            running[remote_task.remote(bench, run_without_config, _config_dict(run), token, Path.cwd())] = (
                run_without_config
            )

        def collect_lines(references: list[Any]) -> Iterator[BenchmarkProgress]:
            """Write the lines of tasks that have ended."""
            for reference in references:
                run = running.pop(reference)
                try:
                    text = ray.get(reference)
                except TaskCancelledError:
                    text = None
                except RayError as error:
                    text = failed_line(run, _ray_failure(error)).model_dump_json(exclude_unset=True)
                if text is None:
                    stopped_runs.append(run)
                    continue
                line = ResultLine.model_validate_json(text)
                bench.add(run, line)
                yield BenchmarkProgress(list(running.values()), (run, line))

        try:
            while (waiting_runs or running) and not stop():
                capacity = max(1, int(sum(ray.cluster_resources().get(resource, 0) for resource in resources)))
                while waiting_runs and len(running) < min(capacity, bench.workers or capacity):
                    submit(waiting_runs.pop(0))
                yield from collect_lines(ray.wait(list(running), timeout=POLL_SECONDS)[0])
                yield BenchmarkProgress(list(running.values()))
        finally:
            for reference in running:
                ray.cancel(reference)
            ended_references = (
                ray.wait(list(running), num_returns=len(running), timeout=SAVE_SECONDS)[0] if running else []
            )
        yield from collect_lines(ended_references)
        shards.collect(bench.results)
        (bench.scratch / _TOKEN_FILE).unlink()
        if num_left := len(waiting_runs) + len(stopped_runs) + len(running):
            raise Interrupted(f"stopped; {count(num_left, 'run')} left")


def _resource_name(run: PlannedRun, gpus: float) -> str:
    """Return the resource of which a run needs one unit: CPU or GPU."""
    device = run.config.training.device
    return "GPU" if device.startswith("cuda") or (device == "auto" and gpus) else "CPU"


def _config_dict(run: PlannedRun) -> dict[str, Any]:
    """Return the configuration of a run as a dict. Ray chooses the GPU; the worker sees only this GPU, as cuda."""
    raw = run.config.model_dump()
    if raw["training"]["device"].startswith("cuda"):
        raw["training"]["device"] = "cuda"
    return raw


def _ray_failure(error: Exception) -> str:
    """Return the reason why Ray has no result, as one sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shorten(f"{type(error).__name__} in Ray: {lines[-1] if lines else 'no reason given'}")


def _make_run(bench: Benchmark, run: BenchmarkRun, config: dict[str, Any], token: str, cwd: Path) -> str | None:
    """Make a run in a process on this worker; return its result line as JSON, or None if the run was stopped.

    If this worker shares the folder of the benchmark, the run continues there from its checkpoint, and the worker also
    writes the line to its own file there. Otherwise the run starts anew in a temporary folder.
    """
    bench = replace(bench, command=[sys.executable, *bench.command[1:]])
    is_shared = False
    with suppress(OSError):
        is_shared = (bench.scratch / _TOKEN_FILE).read_text(encoding="utf-8") == token
    with TemporaryDirectory(prefix="lntl-benchmark-") as temporary:
        if not is_shared:
            bench = replace(bench, results=Path(temporary, bench.results.name))
            bench.scratch.mkdir(parents=True)
        try:
            process = RunProcess(run, config, bench, cwd=cwd if cwd.is_dir() else Path(temporary))
            try:
                while process.process.poll() is None:
                    time.sleep(POLL_SECONDS)
            finally:
                process.close()
            line = process.end()
            if is_shared and line is not None:
                import ray

                results.add(shards.worker_file(bench.results, ray.get_runtime_context().get_worker_id()), line)
        except UserError as error:  # a file cannot be written
            line = failed_line(run, str(error))
    return None if line is None else line.model_dump_json(exclude_unset=True)
