"""Results in several files: shards divide the runs, and reading merges their lines."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_benchmark import ERM_TRAINING, bench, jobs, write_plan  # noqa: F401 - fixtures
from tiny_runs import ROOT, lntl, write_config

from lntl.benchmark import plan as plans
from lntl.benchmark import results, shards
from lntl.benchmark.plan import PlannedRun
from lntl.benchmark.runner import Benchmark
from lntl.benchmark.shards import Shard
from lntl.errors import UserError

LINE: dict[str, Any] = {"name": "a", "config_hash": "1", "overrides": {}, "seed": 1, "metrics": {"accuracy": 0.5}}
FAILED_LINE: dict[str, Any] = {
    "name": "a",
    "config_hash": "1",
    "overrides": {},
    "seed": 1,
    "error": "why",
    "exit_code": 2,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the common file, which does not exist yet."""
    return tmp_path / "results.jsonl"


def write_lines(path: Path, *lines: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def read_scores(path: Path) -> list[tuple[int, float | str]]:
    """Return the seed and the accuracy (or the error) of each line that `shards.read` returns."""
    return [(x.seed, x.metrics["accuracy"] or 0 if x.metrics else x.error) for x in shards.read(path)]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_every_run_is_in_one_shard(count: int) -> None:
    shards_of_runs = [Shard(index, count).select(range(7)) for index in range(1, count + 1)]
    assert sorted(run for shard_runs in shards_of_runs for run in shard_runs) == list(range(7))
    assert max(map(len, shards_of_runs)) - min(map(len, shards_of_runs)) <= 1


@pytest.mark.parametrize(
    "text", ["0/3", "4/3", "a/b", "", "1", "1/", "/3", "-1/3", "1/2/3", "1.0/3", "٣/٣", "9" * 5000]
)
def test_an_invalid_shard_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^--shard .*: write it as i/n with i from 1 to n, e\.g\. --shard 1/3$"):
        Shard.parse(text)


def test_lines_of_all_files_are_read_in_a_fixed_order(path: Path) -> None:
    assert not shards.exist(path)
    assert shards.read(path) == []
    write_lines(Shard(2, 2).file(path), LINE | {"seed": 2})
    assert shards.exist(path)
    write_lines(path, LINE | {"seed": 4}, LINE | {"seed": 5})
    write_lines(shards.worker_file(path, "0a"), LINE | {"seed": 3})
    write_lines(Shard(1, 2).file(path), LINE)
    write_lines(path.with_name("results-of-others.jsonl"), LINE | {"seed": 9})
    write_lines(path.with_name("other-1-of-2.jsonl"), LINE | {"seed": 9})
    assert [seed for seed, _ in read_scores(path)] == [4, 5, 1, 2, 3]


@pytest.mark.parametrize(
    ("common_lines", "first_lines", "second_lines", "expected"),
    [
        ([LINE], [LINE | {"metrics": {"accuracy": 0.7}}], [FAILED_LINE], [(1, 0.5)]),
        ([], [LINE | {"metrics": {"accuracy": 0.7}}], [LINE], [(1, 0.7)]),
        ([FAILED_LINE], [FAILED_LINE | {"error": "again"}], [LINE], [(1, 0.5)]),
        ([FAILED_LINE], [FAILED_LINE | {"error": "again"}], [], [(1, "why")]),
        ([], [FAILED_LINE], [LINE], [(1, 0.5)]),
        ([LINE, LINE], [], [LINE], [(1, 0.5), (1, 0.5)]),  # duplicate lines of the common file are kept
        ([LINE], [LINE | {"split": "val"}], [LINE | {"split": "val"}], [(1, 0.5), (1, 0.5)]),
        ([LINE], [LINE | {"config_hash": "2"}], [LINE | {"name": "b"}], [(1, 0.5), (1, 0.5), (1, 0.5)]),
    ],
)
def test_the_first_successful_line_of_a_run_counts(
    path: Path, common_lines: list[Any], first_lines: list[Any], second_lines: list[Any], expected: list[Any]
) -> None:
    write_lines(path, *common_lines)
    write_lines(Shard(1, 2).file(path), *first_lines)
    write_lines(Shard(2, 2).file(path), *second_lines)
    assert read_scores(path) == expected


def test_the_error_for_a_damaged_line_names_its_file(path: Path) -> None:
    file = Shard(1, 2).file(path)
    write_lines(file, LINE)
    with file.open("a") as out:
        out.write("{\n")
    with pytest.raises(UserError, match=r"results-1-of-2\.jsonl, line 2: not the result of a run \(.*restore the file"):
        shards.read(path)


def test_collecting_keeps_common_lines_and_removes_the_files_of_workers(path: Path) -> None:
    original_bytes = (ROOT / "benchmarks/authors/results.jsonl").read_bytes()
    path.write_bytes(original_bytes)
    shards.collect(path)
    assert path.read_bytes() == original_bytes
    shard_file, worker_file = Shard(1, 2).file(path), shards.worker_file(path, "0a")
    write_lines(shard_file, LINE)
    write_lines(worker_file, LINE, LINE | {"seed": 2})
    shards.collect(path)
    assert path.read_bytes() == original_bytes + f"{json.dumps(LINE)}\n{json.dumps(LINE | {'seed': 2})}\n".encode()
    assert shard_file.exists()
    assert not worker_file.exists()


@pytest.mark.usefixtures("jobs")
def test_shards_make_all_runs_once_and_the_benchmark_collects_them(bench: Benchmark, jobs: list[PlannedRun]) -> None:  # noqa: F811
    shard_benches = [Benchmark(bench.results, bench.command, 2, shard=Shard(index, 2)) for index in (1, 2)]
    for shard_bench in shard_benches:
        list(shard_bench.run(shard_bench.shard.select(jobs)))  # type: ignore[union-attr]
    assert not bench.results.exists()
    assert [line.seed for line in results.read(Shard(1, 2).file(bench.results))] == [1, 3, 5]
    for shard_bench in (*shard_benches, bench):
        assert shard_bench.missing_runs(jobs) == []
    assert list(bench.run(jobs)) == []
    assert sorted(line.seed for line in results.read(bench.results)) == [1, 2, 3, 4, 5]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan of two seeds of erm, in the working directory."""
    write_config(tmp_path, training=ERM_TRAINING)
    monkeypatch.chdir(tmp_path)
    return write_plan(tmp_path, {"name": "erm"}, seeds=[1, 2])


def test_benchmark_and_compare_use_the_lines_of_shards(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first_line, second_line = (
        LINE | {"name": "erm", "config_hash": run.config_hash, "seed": run.seed} for run in read_planned_runs(plan)
    )
    write_lines(Path("results-2-of-2.jsonl"), second_line)
    assert lntl("benchmark", "plan.yaml", "--shard", "1/2", "--dry-run") == 0
    assert "1 of 1 runs are missing" in capsys.readouterr().out
    assert lntl("benchmark", "plan.yaml", "--shard", "2/2") == 0
    assert "1 of 1 runs are done: results-2-of-2.jsonl" in capsys.readouterr().out
    assert lntl("compare", "results.jsonl") == 0  # the common file does not exist yet
    assert "1 of 2 runs are not made yet" in " ".join(capsys.readouterr().out.split())
    assert not Path("results.jsonl").exists()
    write_lines(Path("results-1-of-2.jsonl"), first_line)
    assert lntl("benchmark", "plan.yaml") == 0
    assert [line.seed for line in results.read(Path("results.jsonl"))] == [1, 2]


def read_planned_runs(plan: Path) -> list[PlannedRun]:
    return plans.planned_runs(plans.read(plan), plan)


def test_a_bad_shard_gives_one_sentence(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lntl("benchmark", "plan.yaml", "--shard", "4/3") == 2
    message = "--shard '4/3': write it as i/n with i from 1 to n, e.g. --shard 1/3"
    assert capsys.readouterr().err == f"Error: {message}\n"
