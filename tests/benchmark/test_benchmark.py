"""Many runs in processes of their own: what is missing is made, once; kills and failures cost one run at most."""

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
from tiny_runs import begin, ended, lntl, run, write_config

from lntl.benchmark import plan as plans
from lntl.benchmark import results
from lntl.benchmark.plan import PlannedRun
from lntl.benchmark.runner import DEAD_END, Benchmark
from lntl.errors import Interrupted
from lntl.runs.folder import RunFolder

ERM = {"phases": [{"method": "erm", "epochs": 1}]}
SUICIDE = '''
import os, signal
from lntl.methods.base import Method
from lntl.plugins import Settings

class Suicide(Method):
    """Dies as a process does that the system takes for its memory."""

    trains = ("f", "g")
    sees_bias = False

    class Config(Settings):
        pass

    def objectives(self, batch, progress):
        os.kill(os.getpid(), signal.SIGKILL)
'''
# A worker that trains nothing: it leaves what a run leaves, and a mark: seed, begin, end, threads.
STAND_IN = """
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
    """Write plan.yaml of rows (config: tiny.yaml) and keys."""
    path, rows = folder / "plan.yaml", tuple({"config": "tiny.yaml"} | row for row in rows)
    path.write_text(yaml.safe_dump({"name": "try", "seeds": [1], "runs": list(rows)} | keys), encoding="utf-8")
    return path


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    """A benchmark of two workers that train nothing."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")  # the benchmark gives each worker one
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    return Benchmark(tmp_path / "results.jsonl", [sys.executable, str(tmp_path / "stand_in.py")], workers=2)


@pytest.fixture
def jobs(tmp_path: Path) -> list[PlannedRun]:
    """Five jobs: seeds 1 to 5."""
    write_config(tmp_path)
    path = write_plan(tmp_path, {"name": "a"}, seeds=[1, 2, 3, 4, 5])
    return plans.planned_runs(plans.read(path), path)


def marks(bench: Benchmark) -> list[Any]:
    return [json.loads(text) for text in (bench.scratch.parent / "marks").read_text().splitlines()]


def test_two_at_once_in_order_with_a_thread_each(bench: Benchmark, jobs: list[PlannedRun]) -> None:
    seen = [len(progress.running) for progress in bench.run(jobs)]
    rows = sorted(marks(bench), key=lambda row: row[1])
    assert max(seen) == 2
    assert {tuple(sorted(row[0] for row in rows[i : i + 2])) for i in (0, 2)} == {(1, 2), (3, 4)}
    assert {row[3] for row in rows} == {"1"}
    for _, began, _, _ in rows:
        assert sum(start <= began < end for _, start, end, _ in rows) <= 2


def test_a_line_says_what_where_and_how_well(bench: Benchmark, jobs: list[PlannedRun]) -> None:
    list(bench.run(jobs[:1]))
    (line,) = results.read(bench.results)
    assert line.key == jobs[0].key
    assert line.metrics == {"accuracy": 0.01, "f1": None}  # JSON has no NaN
    assert line.val == {"accuracy": 0.5}
    assert (line.git_commit, line.git_dirty) == ("0a1b", True)
    assert (line.epochs, line.seconds, line.hardware.runs_at_once) == (3, 0.3, 2)
    assert (line.wall_seconds or 0) >= 0.3
    assert line.earlier == []


def test_a_line_names_the_machine_of_each_part_of_a_run(bench: Benchmark, jobs: list[PlannedRun]) -> None:
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
def test_a_finished_run_with_a_damaged_file_has_failed(
    bench: Benchmark, jobs: list[PlannedRun], name: str, content: str
) -> None:
    (script,) = (Path(part) for part in bench.command[1:])
    script.write_text(f"{script.read_text()}(folder / {name!r}).write_text({content!r})\n")
    list(bench.run(jobs[:1]))
    (line,) = results.read(bench.results)
    assert line.failed
    assert name in line.error


def test_what_has_a_line_is_not_run_again(bench: Benchmark, jobs: list[PlannedRun]) -> None:
    list(bench.run(jobs[:2]))
    list(bench.run(jobs))
    assert sorted(row[0] for row in marks(bench)) == [1, 2, 3, 4, 5]
    assert bench.missing(jobs) == []
    assert list(bench.run(jobs)) == []


def test_a_line_of_another_hash_name_or_seed_counts_for_nothing(bench: Benchmark, jobs: list[PlannedRun]) -> None:
    list(bench.run(jobs[:1]))
    (line,) = results.read(bench.results)
    for change in ({"config_hash": "0"}, {"name": "b"}, {"seed": 9}):
        results.add(bench.results, line.model_copy(update={"seed": 2} | change))
    assert [job.seed for job in bench.missing(jobs)] == [2, 3, 4, 5]


def test_a_line_of_another_split_counts_for_nothing(bench: Benchmark, jobs: list[PlannedRun]) -> None:
    list(bench.run(jobs[:2]))
    lines = results.read(bench.results)
    texts = [json.loads(text) for text in bench.results.read_text().splitlines()]
    del texts[0]["split"]  # a line from before there was a choice of split
    texts[1]["split"] = "val"
    bench.results.write_text("".join(json.dumps(text) + "\n" for text in texts))
    missing = [job.seed for job in bench.missing(jobs[:2])]
    assert missing == [lines[1].seed]
    assert [job.seed for job in replace(bench, split="val").missing(jobs[:2])] == [lines[0].seed]


@pytest.mark.parametrize("keep", [False, True])
def test_a_run_s_folder_goes_with_its_line_unless_it_is_kept(
    bench: Benchmark, jobs: list[PlannedRun], keep: bool
) -> None:
    list(Benchmark(bench.results, bench.command, 2, keep_runs=keep).run(jobs[:1]))
    assert (bench.scratch / jobs[0].id / "result.json").exists() is keep
    assert (bench.scratch / ".gitignore").read_text() == "*\n"


def test_what_a_kill_left_of_a_finished_run_is_removed(bench: Benchmark, jobs: list[PlannedRun]) -> None:
    list(bench.run(jobs[:1]))
    (bench.scratch / jobs[0].id).mkdir()
    list(bench.run(jobs[:1]))
    assert not (bench.scratch / jobs[0].id).exists()


def half_a_run(bench: Benchmark, job: PlannedRun) -> Path:
    """Leave what a stopped run leaves; return its checkpoint."""
    half = RunFolder(bench.scratch / job.id)
    half.checkpoints.mkdir(parents=True)
    half.last.touch()
    return half.last


def test_half_a_run_goes_on_though_its_configuration_is_written_in_another_way(
    bench: Benchmark, jobs: list[PlannedRun]
) -> None:
    last = half_a_run(bench, jobs[0])
    text = bench.scratch / f"{jobs[0].id}.yaml"
    text.write_text("logging: {output_dir: elsewhere}\n")  # as from another working directory
    list(Benchmark(bench.results, bench.command, 2, keep_runs=True).run(jobs[:1]))
    assert last.exists()
    assert "elsewhere" not in text.read_text()


@pytest.mark.parametrize(("code", "stays"), [(1, True), (2, True), (143, True), (DEAD_END, False)])
def test_a_failed_run_begins_anew_only_where_it_cannot_go_on(
    bench: Benchmark, jobs: list[PlannedRun], code: int, stays: bool
) -> None:
    """The disk may have been full, which is code 2."""
    last = half_a_run(bench, jobs[0])
    list(Benchmark(bench.results, [sys.executable, "-c", f"raise SystemExit({code})"], 1).run(jobs[:1]))
    assert [line.exit_code for line in results.read(bench.results)] == [code]
    assert last.exists()  # to be looked at, until the next call
    stopped = [sys.executable, "-c", "raise SystemExit(130)"]
    with pytest.raises(Interrupted):
        list(Benchmark(bench.results, stopped, 1).run(jobs[:1]))
    assert last.exists() is stays
    last.parent.mkdir(parents=True, exist_ok=True)
    last.touch()  # of the run made anew, which was stopped
    list(Benchmark(bench.results, bench.command, 2, keep_runs=True).run(jobs[:1]))
    assert last.exists()


def test_a_worker_that_was_stopped_has_not_failed(bench: Benchmark, jobs: list[PlannedRun]) -> None:
    last = half_a_run(bench, jobs[0])
    with pytest.raises(Interrupted, match="2 runs are not done"):
        list(Benchmark(bench.results, [sys.executable, "-c", "raise SystemExit(130)"], 1).run(jobs[:2]))
    assert results.read(bench.results) == []
    list(Benchmark(bench.results, bench.command, 2, keep_runs=True).run(jobs[:1]))
    assert last.exists()


def test_stopped_on_request(bench: Benchmark, jobs: list[PlannedRun]) -> None:
    polls: Iterator[bool] = iter([False, True])
    with pytest.raises(Interrupted, match="5 runs are not done"):
        list(bench.run(jobs, lambda: next(polls)))
    assert results.read(bench.results) == []


# From here on with the real command line, in real processes.


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a benchmark ran, of which one row cannot be trained and one is killed by the system."""
    folder = tmp_path_factory.mktemp("made")
    write_config(folder, training=ERM)
    (folder / "suicide.py").write_text(SUICIDE)
    write_plan(
        folder,
        {"name": "diverges", "overrides": ["training.optimizer_fg.lr=1.0e+30"]},
        {"name": "dies", "overrides": ["training.phases.0.method=suicide.Suicide"]},
        {"name": "erm", "grid": {"data.color_var": [0.02, 0.05]}},
    )
    assert run("benchmark", "plan.yaml", "--workers", "2", folder=folder, prepare=_see_suicide) == 1
    return folder


def _see_suicide() -> None:
    """Let this process and its workers import suicide.py from the working directory."""
    sys.path.insert(0, str(Path.cwd()))
    os.environ["PYTHONPATH"] = os.pathsep.join((str(Path.cwd()), os.environ.get("PYTHONPATH", "")))


@pytest.mark.full
def test_failing_runs_are_reported_and_the_others_are_made(made: Path) -> None:
    lines = {line.name: line for line in results.read(made / "results.jsonl")}
    assert "the loss is not finite" in lines["diverges"].error
    assert lines["diverges"].exit_code == DEAD_END
    assert lines["dies"].error == "killed by SIGKILL; was there too little memory?"
    stderr = (made / "stderr").read_text().splitlines()[-2:]
    assert {text.partition(" seed=1: ")[0] for text in stderr} == {"failed: diverges", "failed: dies"}
    assert "2 of 4 runs are done" in (made / "stdout").read_text()
    assert sum(line.name == "erm" for line in results.read(made / "results.jsonl")) == 2


@pytest.mark.full
def test_the_line_holds_what_the_single_run_gives(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(tmp_path, training=ERM)
    monkeypatch.chdir(tmp_path)
    assert lntl("train", "tiny.yaml", "data.color_var=0.05", "project.seed=1", "data.seed=1") == 0
    line = next(x for x in results.read(made / "results.jsonl") if x.overrides == {"data.color_var": 0.05})
    assert line.metrics == json.loads(Path("results/tiny/result.json").read_text())["last"]["test"]
    assert line.hardware.threads == 1


@pytest.mark.full
def test_a_plan_for_tuning_leaves_the_test_set_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(tmp_path, training=ERM)
    write_plan(tmp_path, {"name": "erm"}, split="val", keep_runs=True)
    monkeypatch.chdir(tmp_path)
    assert lntl("benchmark", "plan.yaml") == 0
    (line,) = results.read(Path("results.jsonl"))
    assert line.split == "val"
    assert line.metrics == line.val
    assert {path.stem for path in Path().glob("runs/**/evaluation/*")} == {"val", "val_last"}


@pytest.mark.full
def test_dry_run_shows_the_state_and_runs_nothing(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    write_plan(tmp_path, {"name": "diverges", "overrides": ["training.optimizer_fg.lr=1.0e+30"]}, {"name": "new"})
    monkeypatch.chdir(tmp_path)
    before = Path("results.jsonl").read_bytes()
    assert lntl("benchmark", "plan.yaml", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "2 of 2 runs are missing" in out
    assert [word for word in ("failed", "missing") if word in out] == ["failed", "missing"]
    assert Path("results.jsonl").read_bytes() == before


@pytest.mark.full
def test_nothing_is_left_to_do(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    write_plan(tmp_path, {"name": "erm", "grid": {"data.color_var": [0.02, 0.05]}})
    monkeypatch.chdir(tmp_path)
    before = Path("results.jsonl").read_bytes()
    assert lntl("benchmark", "plan.yaml") == 0
    assert Path("results.jsonl").read_bytes() == before


@pytest.mark.full
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_stopped_in_the_middle_it_goes_on_there(tmp_path: Path, number: signal.Signals, code: int) -> None:
    undisturbed, stopped = tmp_path / "undisturbed", tmp_path / "stopped"
    for folder in (undisturbed, stopped):
        folder.mkdir()
        write_config(folder, training=ERM | {"phases": [{"method": "erm", "epochs": 8}]})
    write_plan(stopped, {"name": "erm"}, seed_keys=["project.seed"])
    process = begin("benchmark", "plan.yaml", folder=stopped)
    _wait(lambda: list(stopped.glob("runs/results/*/metrics.jsonl")))
    assert process.pid is not None
    os.kill(process.pid, number)
    assert ended(process) == code
    assert not (stopped / "results.jsonl").exists()
    if number == signal.SIGINT:
        assert "To continue, run the same command." in (stopped / "stderr").read_text()
    (log,) = stopped.glob("runs/results/*.log")
    _wait(lambda: "saved in" in log.read_text())  # the worker noticed that it is alone, and stopped
    assert run("benchmark", "plan.yaml", folder=stopped) == 0
    (line,) = results.read(stopped / "results.jsonl")
    assert line.wall_seconds is None  # the run had two processes
    assert run("train", "tiny.yaml", "project.seed=1", folder=undisturbed) == 0
    result = json.loads((undisturbed / "results/tiny/result.json").read_text())
    assert line.metrics == result["last"]["test"]
    assert line.epochs == 8


def _wait(condition: Any) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
