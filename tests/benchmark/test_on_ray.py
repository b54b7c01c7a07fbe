"""The runs of a benchmark as tasks of a Ray cluster, with a fake module `ray` and with a real cluster."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType, SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from test_benchmark import ERM_TRAINING, bench, jobs, write_plan  # noqa: F401 - fixtures
from tiny_runs import lntl, run, start_process, wait_for_exit_code, write_config

from lntl.benchmark import on_ray, results
from lntl.benchmark.plan import PlannedRun
from lntl.benchmark.results import ResultLine
from lntl.benchmark.runner import Benchmark
from lntl.errors import Interrupted, UserError


class FakeRayError(Exception):
    """A worker was lost too often."""


class FakeTaskCancelledError(FakeRayError):
    """A task was cancelled."""


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A fake module `ray`, in which a task runs when its result is requested."""
    cancelled_references: list[Any] = []

    def get(reference: Any) -> Any:
        if reference in cancelled_references:
            raise FakeTaskCancelledError
        function, arguments = reference
        return function(*arguments)

    def remote(**_: Any) -> Callable[[Any], Any]:
        def submit(function: Any, **options: Any) -> Any:
            module.options.append(options)
            return SimpleNamespace(remote=lambda *arguments: (function, _Arguments(arguments)))

        return lambda function: SimpleNamespace(options=lambda **options: submit(function, **options))

    module: Any = ModuleType("ray")
    module.exceptions = ModuleType("ray.exceptions")
    module.exceptions.RayError, module.exceptions.TaskCancelledError = FakeRayError, FakeTaskCancelledError  # type: ignore[attr-defined]
    module.options, module.resources = [], {"CPU": 2.0}
    module.remote, module.get, module.cancel = remote, get, cancelled_references.append
    module.wait = lambda references, num_returns=1, timeout=0: (references[:num_returns], references[num_returns:])
    module.cluster_resources = lambda: module.resources
    module.get_runtime_context = lambda: SimpleNamespace(get_worker_id=lambda: "0a1b")
    monkeypatch.setitem(sys.modules, "ray", module)
    monkeypatch.setitem(sys.modules, "ray.exceptions", module.exceptions)
    return module


class _Arguments(tuple[Any, ...]):
    """Arguments of a task, compared by identity, so that they can be keys."""

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


def test_each_run_is_a_task_and_the_head_writes_the_lines(
    ray: SimpleNamespace,
    bench: Benchmark,  # noqa: F811
    jobs: list[PlannedRun],  # noqa: F811
) -> None:
    assert max(len(progress.running_runs) for progress in on_ray.run(bench, jobs, lambda: False)) <= 2
    lines = results.read(bench.results)
    assert [line.seed for line in lines] == [1, 2, 3, 4, 5]
    assert [line.failed for line in lines] == [False] * 5
    assert not list(bench.results.parent.glob("results-*"))  # the files of workers are removed after they are collected
    assert [path.name for path in bench.scratch.iterdir()] == [".gitignore"]
    assert {(x["num_cpus"], x["num_gpus"]) for x in ray.options} == {(1, 0)}
    assert list(on_ray.run(bench, jobs, lambda: False)) == []


def test_a_line_that_only_a_worker_has_written_is_not_lost(
    ray: SimpleNamespace,
    bench: Benchmark,  # noqa: F811
    jobs: list[PlannedRun],  # noqa: F811
) -> None:
    progress = on_ray.run(bench, jobs[:1], lambda: False)
    assert next(progress).ended_run is not None
    progress.close()  # the head dies
    bench.results.unlink()  # before it could write the line
    assert [line.seed for line in results.read(bench.results.with_name("results-worker-0a1b.jsonl"))] == [1]
    assert bench.missing_runs(jobs[:1]) == []
    assert list(on_ray.run(bench, jobs[:1], lambda: False)) == []
    assert [line.seed for line in results.read(bench.results)] == [1]


def test_without_a_shared_folder_a_run_restarts_on_another_machine(
    bench: Benchmark,  # noqa: F811
    jobs: list[PlannedRun],  # noqa: F811
) -> None:
    text = on_ray._make_run(bench, jobs[0], jobs[0].config.model_dump(), "of another head", Path("/no/such/folder"))
    assert ResultLine.model_validate_json(text or "").key == jobs[0].key
    assert not bench.scratch.exists()
    assert [path.name for path in bench.results.parent.glob("*.jsonl")] == []


def test_a_run_that_ray_loses_counts_as_failed(
    ray: SimpleNamespace,
    bench: Benchmark,  # noqa: F811
    jobs: list[PlannedRun],  # noqa: F811
) -> None:
    def raise_lost_worker(_: Any) -> None:
        raise FakeRayError("a traceback\n  the node died\n")

    ray.get = raise_lost_worker
    list(on_ray.run(bench, jobs[:1], lambda: False))
    (line,) = results.read(bench.results)
    assert line.error == "'FakeRayError in Ray: the node died'"
    assert bench.missing_runs(jobs[:1]) == jobs[:1]


@pytest.mark.usefixtures("ray")
def test_a_benchmark_that_stops_on_request_cancels_its_tasks(
    bench: Benchmark,  # noqa: F811
    jobs: list[PlannedRun],  # noqa: F811
) -> None:
    answers = iter([False, True])
    with pytest.raises(Interrupted, match="4 runs left"):
        list(on_ray.run(bench, jobs, lambda: next(answers)))
    assert [line.seed for line in results.read(bench.results)] == [1]


def test_a_run_on_cuda_requests_a_gpu(
    ray: SimpleNamespace,
    bench: Benchmark,  # noqa: F811
    tmp_path: Path,
) -> None:
    from lntl.benchmark import plan as plans

    write_config(tmp_path, training=ERM_TRAINING | {"device": "cuda:1"})
    path = write_plan(tmp_path, {"name": "a"})
    cuda_runs = plans.planned_runs(plans.read(path), path)
    with pytest.raises(UserError, match="the plan trains on cuda, and the cluster has no GPU"):
        list(on_ray.run(bench, cuda_runs, lambda: False))
    ray.resources = {"CPU": 4.0, "GPU": 1.0}
    list(on_ray.run(Benchmark(bench.results, bench.command, 0, keep_runs=True), cuda_runs, lambda: False))
    assert [x["num_gpus"] for x in ray.options] == [1]
    (config,) = bench.scratch.glob("*.yaml")
    assert "device: cuda\n" in config.read_text()  # the worker sees only the GPU that Ray assigns


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan of one run, in the working directory."""
    write_config(tmp_path, training=ERM_TRAINING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return write_plan(tmp_path, {"name": "erm"})


@pytest.mark.parametrize(
    ("on", "message"),
    [
        ("spark", "--on 'spark': write --on ray or --on ray=HOST:PORT"),
        ("ray=", "--on 'ray=': write --on ray or --on ray=HOST:PORT"),
        ("ray=head", "--on ray='head': write HOST:PORT, as `ray start --head` shows it"),
        ("ray=ray://head:10001", "--on ray='ray://head:10001': write HOST:PORT, as `ray start --head` shows it"),
        ("ray=head:70000", "--on ray='head:70000': write HOST:PORT, as `ray start --head` shows it"),
        ("ray=127.0.0.1:1", "--on ray='127.0.0.1:1': no Ray cluster answers there (Connection refused); start one"),
        ("ray=" + 70 * "a" + ":1", "no Ray cluster answers there ("),
    ],
)
def test_a_bad_address_gives_one_sentence(
    plan: Path, capsys: pytest.CaptureFixture[str], on: str, message: str
) -> None:
    assert lntl("benchmark", "plan.yaml", "--on", on) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: --on ")
    assert message in line


def test_a_missing_extra_gives_one_sentence(
    plan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert lntl("benchmark", "plan.yaml", "--on", "ray") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; pip install 'lntl[ray]'")


def test_a_cluster_that_does_not_start_gives_one_sentence(
    plan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def init(*_args: object, **_settings: object) -> None:
        raise Exception("The current node timed out during startup.")  # as Ray does

    fake = ModuleType("ray")
    fake.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "ray", fake)
    assert lntl("benchmark", "plan.yaml", "--on", "ray") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: --on ray: Ray did not start on this machine ('The current node timed out")


def test_an_address_that_does_not_answer_gives_one_sentence(
    plan: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    monkeypatch.setattr(on_ray, "ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert lntl("benchmark", "plan.yaml", "--on", f"ray=127.0.0.1:{port}") == 2
    assert f"'127.0.0.1:{port}': no Ray cluster answers there (no answer within 0 s)" in capsys.readouterr().err


# The following test uses a real cluster on this machine.


def _find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def run_node(folder: Path, name: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a node of a cluster with one processor, in its own process group; kill the group at the end."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
    command += ["--no-monitor", "--include-log-monitor=false"]  # to start fewer processes
    path = folder / f"{name}.log"
    for _ in range(5):  # on a busy machine, Ray may fail after 30 s
        with path.open("wb") as log:
            process = subprocess.Popen([*command, *options], stdout=log, stderr=log, start_new_session=True)
        _wait_until(lambda process=process: process.poll() is not None or "Ray runtime started" in path.read_text())
        if process.poll() is None:
            break
        _kill(process)
    try:
        yield process
    finally:
        _kill(process)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a node and its workers; processes that the workers started continue."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait_until(condition: Callable[[], object], seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_a_run_whose_worker_is_killed_continues_on_another_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", uuid4().hex * 2)
    monkeypatch.setenv("RAY_worker_niceness", "0")  # so that other processes of the tests do not slow the workers down
    write_config(tmp_path, training={"phases": [{"method": "erm", "epochs": 60}]})
    write_plan(tmp_path, {"name": "erm"}, seeds=[1, 2], seed_keys=["project.seed"])
    port = _find_free_port()
    ray_folder = TemporaryDirectory(prefix="ray")  # in a short path, because paths of sockets are limited
    head = ("--head", f"--port={port}", "--include-dashboard=false", f"--temp-dir={ray_folder.name}")
    with ray_folder, run_node(tmp_path, "head", *head):
        address = next(line for line in (tmp_path / "head.log").read_text().splitlines() if f":{port}" in line)
        address = address.partition("--address='")[2].partition("'")[0]
        with run_node(tmp_path, "worker", f"--address={address}") as worker:
            head_process = start_process("benchmark", "plan.yaml", "--on", f"ray={address}", folder=tmp_path)
            _wait_until(lambda: len(list(tmp_path.glob("runs/results/*/metrics.jsonl"))) == 2)
            _kill(worker)
            assert wait_for_exit_code(head_process) == 0, (tmp_path / "stderr").read_text()
    lines = results.read(tmp_path / "results.jsonl")
    assert sorted(line.seed for line in lines) == [1, 2]
    (resumed_line,) = (line for line in lines if line.wall_seconds is None)  # two processes trained this run
    assert not list(tmp_path.glob("results-*"))
    uninterrupted_folder = tmp_path / "uninterrupted"
    uninterrupted_folder.mkdir()
    write_config(uninterrupted_folder, training={"phases": [{"method": "erm", "epochs": 60}]})
    assert run("train", "tiny.yaml", f"project.seed={resumed_line.seed}", folder=uninterrupted_folder) == 0
    result = json.loads((uninterrupted_folder / "results/tiny/result.json").read_text())
    assert resumed_line.metrics == result["last"]["test"]
