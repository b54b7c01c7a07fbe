"""A benchmark makes each missing run once in its own process; a kill or a failure costs at most one run."""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import lntl, run, start_process, wait_for_exit_code, write_config

from lntl.benchmark import plan as plans
from lntl.benchmark import results
from lntl.benchmark.plan import PlannedRun
from lntl.benchmark.runner import DEAD_END_CODE, Benchmark
from lntl.errors import Interrupted
from lntl.runs.folder import RunFolder

ERM_TRAINING = {"phases": [{"method": "erm", "epochs": 1}]}
KILLED_METHOD = '''
import os, signal
from lntl.methods.base import Method
from lntl.plugins import Settings

class KilledMethod(Method):
    """Kills its process, as the system does if memory is short."""

    trains = ("f", "g")
    sees_bias = False

    class Config(Settings):
        pass

    def objectives(self, batch, progress):
        os.kill(os.getpid(), signal.SIGKILL)
'''
# A worker that trains nothing: it writes the files of a run, and seed, start, end and threads to the file `marks`.
FAKE_WORKER = """
import json, os, pathlib, sys, time, yaml
config = yaml.safe_load(pathlib.Path(sys.argv[1]).read_text())
seed, path = config["project"]["seed"], pathlib.Path(config["logging"]["output_dir"])
began = time.monotonic()
time.sleep(0.3)
folder = path / config["project"]["experiment_name"]
(folder / "checkpoints").mkdir(parents=True, exist_ok=True)
scores = {"epoch": 3, "test": {"accuracy": seed / 100, "f1": float("nan")}}
result = {"experiment": "", "method": "erm", "seed": seed, "data": "none", "training_seconds": 0.3}
result |= {"last": scores, "best": scores}
(folder / "result.json").write_text(json.dumps(result))
epoch = {"phase": 1, "method": "erm", "epoch": 3, "total_epoch": 3, "val/accuracy": 0.5, "train/task": 1.0}
(folder / "metrics.jsonl").write_text(json.dumps(epoch))
environment = {"lntl": "0.2", "processor": "p", "git_commit": "0a1b-dirty", "packages": {"torch": "2"}}
(folder / "environment.json").write_text(json.dumps(environment))
with (path.parent / "marks").open("a") as marks:
    marks.write(json.dumps([seed, began, time.monotonic(), os.environ["OMP_NUM_THREADS"]]) + "\\n")
"""


def write_plan(folder: Path, *rows: dict[str, Any], **keys: Any) -> Path:
    """Write plan.yaml with the rows as `runs`, each with config: tiny.yaml, and with the other keys of a plan."""
    path, rows = folder / "plan.yaml", tuple({"config": "tiny.yaml"} | row for row in rows)
    path.write_text(yaml.safe_dump({"name": "try", "seeds": [1], "runs": list(rows)} | keys), encoding="utf-8")
    return path


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    """A benchmark with two workers that train nothing."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # the benchmark gives each worker one thread
    (tmp_path / "fake_worker.py").write_text(FAKE_WORKER)
    return Benchmark(tmp_path / "results.jsonl", [sys.executable, str(tmp_path / "fake_worker.py")], workers=2)


@pytest.fixture
def jobs(tmp_path: Path) -> list[PlannedRun]:
    """Five jobs: seeds 1 to 5."""
    write_config(tmp_path)
    path = write_plan(tmp_path, {"name": "a"}, seeds=[1, 2, 3, 4, 5])
    return plans.planned_runs(plans.read(path), path)


def read_marks(bench: Benchmark) -> list[Any]:
    return [json.loads(text) for text in (bench.scratch.parent / "marks").read_text().splitlines()]


def test_two_runs_at_a_time_have_one_thread_each(bench: Benchmark, jobs: list[PlannedRun]) -> None:
    num_running = [len(progress.running_runs) for progress in bench.run(jobs)]
    rows = sorted(read_marks(bench), key=lambda row: row[1])
    assert max(num_running) == 2
    assert {tuple(sorted(row[0] for row in rows[i : i + 2])) for i in (0, 2)} == {(1, 2), (3, 4)}
    assert {row[3] for row in rows} == {"1"}
    for _, begin, _, _ in rows:
        assert sum(start <= begin < end for _, start, end, _ in rows) <= 2


def test_a_line_has_the_configuration_the_machine_and_the_metrics(bench: Benchmark, jobs: list[PlannedRun]) -> None:
    list(bench.run(jobs[:1]))
    (line,) = results.read(bench.results)
    assert line.key == jobs[0].key
    assert line.metrics == {"accuracy": 0.01, "f1": None}  # JSON has no NaN
    assert line.val == {"accuracy": 0.5}
    assert (line.git_commit, line.git_dirty) == ("0a1b", True)
    assert (line.epochs, line.seconds, line.hardware.runs_at_once) == (3, 0.3, 2)
    assert (line.wall_seconds or 0) >= 0.3
    assert line.earlier == []


def test_a_line_has_the_machine_of_each_part_of_a_run(bench: Benchmark, jobs: list[PlannedRun]) -> None:
    (script,) = (Path(part) for part in bench.command[1:])
    script.write_text(
        script.read_text().replace('{"lntl"', '{"resumed": [{"git_commit": "2c3d", "cores": 8}], "lntl"', 1)
    )
    list(bench.run(jobs[:1]))
    (line,) = results.read(bench.results)
    assert (line.git_commit, line.git_dirty, line.hardware.cores) == ("2c3d", False, 8)
    assert (line.hardware.runs_at_once, line.earlier[0].hardware.runs_at_once) == (2, None)
    assert [(part.git_commit, part.git_dirty) for part in line.earlier] == [("0a1b", True)]


@pytest.mark.parametrize("name", ["result.json", "metrics.jsonl", "environment.json"])
@pytest.mark.parametrize("content", ["", "[1]", "{"])
def test_a_finished_run_with_a_damaged_file_counts_as_failed(
    bench: Benchmark, jobs: list[PlannedRun], name: str, content: str
) -> None:
    (script,) = (Path(part) for part in bench.command[1:])
    script.write_text(f"{script.read_text()}(folder / {name!r}).write_text({content!r})\n")
    list(bench.run(jobs[:1]))
    (line,) = results.read(bench.results)
    assert line.failed
    assert name in line.error


def test_a_run_with_a_line_is_not_made_again(bench: Benchmark, jobs: list[PlannedRun]) -> None:
    list(bench.run(jobs[:2]))
    list(bench.run(jobs))
    assert sorted(row[0] for row in read_marks(bench)) == [1, 2, 3, 4, 5]
    assert bench.missing_runs(jobs) == []
    assert list(bench.run(jobs)) == []


def test_a_line_of_another_hash_name_or_seed_is_ignored(bench: Benchmark, jobs: list[PlannedRun]) -> None:
    list(bench.run(jobs[:1]))
    (line,) = results.read(bench.results)
    for change in ({"config_hash": "0"}, {"name": "b"}, {"seed": 9}):
        results.add(bench.results, line.model_copy(update={"seed": 2} | change))
    assert [job.seed for job in bench.missing_runs(jobs)] == [2, 3, 4, 5]


def test_a_line_of_another_split_is_ignored(bench: Benchmark, jobs: list[PlannedRun]) -> None:
    list(bench.run(jobs[:2]))
    lines = results.read(bench.results)
    texts = [json.loads(text) for text in bench.results.read_text().splitlines()]
    del texts[0]["split"]  # lines of older versions have no split
    texts[1]["split"] = "val"
    bench.results.write_text("".join(json.dumps(text) + "\n" for text in texts))
    missing_seeds = [job.seed for job in bench.missing_runs(jobs[:2])]
    assert missing_seeds == [lines[1].seed]
    assert [job.seed for job in replace(bench, split="val").missing_runs(jobs[:2])] == [lines[0].seed]


@pytest.mark.parametrize("keep_runs", [False, True])
def test_the_folder_of_a_run_is_removed_unless_keep_runs_is_set(
    bench: Benchmark, jobs: list[PlannedRun], keep_runs: bool
) -> None:
    list(Benchmark(bench.results, bench.command, 2, keep_runs=keep_runs).run(jobs[:1]))
    assert (bench.scratch / jobs[0].id / "result.json").exists() is keep_runs
    assert (bench.scratch / ".gitignore").read_text() == "*\n"


def test_the_remaining_folder_of_a_finished_run_is_removed(bench: Benchmark, jobs: list[PlannedRun]) -> None:
    list(bench.run(jobs[:1]))
    (bench.scratch / jobs[0].id).mkdir()
    list(bench.run(jobs[:1]))
    assert not (bench.scratch / jobs[0].id).exists()


def make_stopped_run(bench: Benchmark, job: PlannedRun) -> Path:
    """Make the folder of a stopped run; return the path of its checkpoint."""
    folder = RunFolder(bench.scratch / job.id)
    folder.checkpoints.mkdir(parents=True)
    folder.last.touch()
    return folder.last


def test_a_stopped_run_is_resumed_if_only_its_paths_have_changed(bench: Benchmark, jobs: list[PlannedRun]) -> None:
    checkpoint_path = make_stopped_run(bench, jobs[0])
    config_path = bench.scratch / f"{jobs[0].id}.yaml"
    config_path.write_text("logging: {output_dir: other_folder}\n")  # written from another working directory
    list(Benchmark(bench.results, bench.command, 2, keep_runs=True).run(jobs[:1]))
    assert checkpoint_path.exists()
    assert "other_folder" not in config_path.read_text()


@pytest.mark.parametrize(("code", "is_kept"), [(1, True), (2, True), (143, True), (DEAD_END_CODE, False)])
def test_a_failed_run_restarts_only_after_a_dead_end(
    bench: Benchmark, jobs: list[PlannedRun], code: int, is_kept: bool
) -> None:
    """Code 2 may mean a full disk, after which the run can continue; DEAD_END_CODE means that it cannot."""
    checkpoint_path = make_stopped_run(bench, jobs[0])
    list(Benchmark(bench.results, [sys.executable, "-c", f"raise SystemExit({code})"], 1).run(jobs[:1]))
    assert [line.exit_code for line in results.read(bench.results)] == [code]
    assert checkpoint_path.exists()  # the user can inspect the folder until the next call
    stopped_command = [sys.executable, "-c", "raise SystemExit(130)"]
    with pytest.raises(Interrupted):
        list(Benchmark(bench.results, stopped_command, 1).run(jobs[:1]))
    assert checkpoint_path.exists() is is_kept
    checkpoint_path.parent.mkdir(parents=True, exist_ok=True)
    checkpoint_path.touch()  # the checkpoint of the restarted run, which was stopped
    list(Benchmark(bench.results, bench.command, 2, keep_runs=True).run(jobs[:1]))
    assert checkpoint_path.exists()


def test_a_stopped_worker_does_not_count_as_failed(bench: Benchmark, jobs: list[PlannedRun]) -> None:
    checkpoint_path = make_stopped_run(bench, jobs[0])
    with pytest.raises(Interrupted, match="2 runs left"):
        list(Benchmark(bench.results, [sys.executable, "-c", "raise SystemExit(130)"], 1).run(jobs[:2]))
    assert results.read(bench.results) == []
    list(Benchmark(bench.results, bench.command, 2, keep_runs=True).run(jobs[:1]))
    assert checkpoint_path.exists()


def test_a_benchmark_stops_on_request(bench: Benchmark, jobs: list[PlannedRun]) -> None:
    answers: Iterator[bool] = iter([False, True])
    with pytest.raises(Interrupted, match="5 runs left"):
        list(bench.run(jobs, lambda: next(answers)))
    assert results.read(bench.results) == []


# The following tests use the real command line in real processes.


@pytest.fixture(scope="module")
def benchmark_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a benchmark in which one run diverges, one is killed by the system, and two succeed."""
    folder = tmp_path_factory.mktemp("benchmark")
    write_config(folder, training=ERM_TRAINING)
    (folder / "killed.py").write_text(KILLED_METHOD)
    write_plan(
        folder,
        {"name": "diverges", "overrides": ["training.optimizer_fg.lr=1.0e+30"]},
        {"name": "dies", "overrides": ["training.phases.0.method=killed.KilledMethod"]},
        {"name": "erm", "grid": {"data.color_var": [0.02, 0.05]}},
    )
    assert run("benchmark", "plan.yaml", "--workers", "2", folder=folder, prepare=_make_killed_method_importable) == 1
    return folder


def _make_killed_method_importable() -> None:
    """Let this process and its workers import killed.py from the working directory."""
    sys.path.insert(0, str(Path.cwd()))
    os.environ["PYTHONPATH"] = os.pathsep.join((str(Path.cwd()), os.environ.get("PYTHONPATH", "")))


@pytest.mark.full
def test_failed_runs_are_reported_and_the_others_are_made(benchmark_folder: Path) -> None:
    lines = {line.name: line for line in results.read(benchmark_folder / "results.jsonl")}
    assert "the loss is not finite" in lines["diverges"].error
    assert lines["diverges"].exit_code == DEAD_END_CODE
    assert lines["dies"].error == "killed by SIGKILL; was there too little memory?"
    stderr = (benchmark_folder / "stderr").read_text().splitlines()[-2:]
    assert {text.partition(" seed=1: ")[0] for text in stderr} == {"failed: diverges", "failed: dies"}
    assert "2 of 4 runs are done" in (benchmark_folder / "stdout").read_text()
    assert sum(line.name == "erm" for line in results.read(benchmark_folder / "results.jsonl")) == 2


@pytest.mark.full
def test_a_line_has_the_metrics_of_a_single_run(
    benchmark_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(tmp_path, training=ERM_TRAINING)
    monkeypatch.chdir(tmp_path)
    assert lntl("train", "tiny.yaml", "data.color_var=0.05", "project.seed=1", "data.seed=1") == 0
    line = next(x for x in results.read(benchmark_folder / "results.jsonl") if x.overrides == {"data.color_var": 0.05})
    assert line.metrics == json.loads(Path("results/tiny/result.json").read_text())["last"]["test"]
    assert line.hardware.threads == 1


@pytest.mark.full
def test_a_plan_for_tuning_does_not_use_the_test_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(tmp_path, training=ERM_TRAINING)
    write_plan(tmp_path, {"name": "erm"}, split="val", keep_runs=True)
    monkeypatch.chdir(tmp_path)
    assert lntl("benchmark", "plan.yaml") == 0
    (line,) = results.read(Path("results.jsonl"))
    assert line.split == "val"
    assert line.metrics == line.val
    assert {path.stem for path in Path().glob("runs/**/evaluation/*")} == {"val", "val_last"}


@pytest.mark.full
def test_dry_run_shows_the_state_and_runs_nothing(
    benchmark_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(benchmark_folder, tmp_path, dirs_exist_ok=True)
    write_plan(tmp_path, {"name": "diverges", "overrides": ["training.optimizer_fg.lr=1.0e+30"]}, {"name": "new"})
    monkeypatch.chdir(tmp_path)
    results_before = Path("results.jsonl").read_bytes()
    assert lntl("benchmark", "plan.yaml", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "2 of 2 runs are missing" in out
    assert [word for word in ("failed", "missing") if word in out] == ["failed", "missing"]
    assert Path("results.jsonl").read_bytes() == results_before


@pytest.mark.full
def test_a_complete_benchmark_runs_nothing(
    benchmark_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(benchmark_folder, tmp_path, dirs_exist_ok=True)
    write_plan(tmp_path, {"name": "erm", "grid": {"data.color_var": [0.02, 0.05]}})
    monkeypatch.chdir(tmp_path)
    results_before = Path("results.jsonl").read_bytes()
    assert lntl("benchmark", "plan.yaml") == 0
    assert Path("results.jsonl").read_bytes() == results_before


@pytest.mark.full
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_benchmark_stopped_within_a_run_continues_the_run(tmp_path: Path, number: signal.Signals, code: int) -> None:
    uninterrupted_folder, stopped_folder = tmp_path / "uninterrupted", tmp_path / "stopped"
    for folder in (uninterrupted_folder, stopped_folder):
        folder.mkdir()
        write_config(folder, training=ERM_TRAINING | {"phases": [{"method": "erm", "epochs": 8}]})
    write_plan(stopped_folder, {"name": "erm"}, seed_keys=["project.seed"])
    process = start_process("benchmark", "plan.yaml", folder=stopped_folder)
    _wait_until(lambda: list(stopped_folder.glob("runs/results/*/metrics.jsonl")))
    assert process.pid is not None
    os.kill(process.pid, number)
    assert wait_for_exit_code(process) == code
    assert not (stopped_folder / "results.jsonl").exists()
    if number == signal.SIGINT:
        assert "To continue, run the same command." in (stopped_folder / "stderr").read_text()
    (log,) = stopped_folder.glob("runs/results/*.log")
    _wait_until(lambda: "saved in" in log.read_text())  # the worker noticed that the benchmark has ended, and stopped
    assert run("benchmark", "plan.yaml", folder=stopped_folder) == 0
    (line,) = results.read(stopped_folder / "results.jsonl")
    assert line.wall_seconds is None  # two processes trained the run, so the time is unknown
    assert run("train", "tiny.yaml", "project.seed=1", folder=uninterrupted_folder) == 0
    result = json.loads((uninterrupted_folder / "results/tiny/result.json").read_text())
    assert line.metrics == result["last"]["test"]
    assert line.epochs == 8


def _wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
