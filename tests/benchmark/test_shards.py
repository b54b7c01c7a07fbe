"""Results in several files: shards part the runs, and reading merges what they wrote."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_benchmark import ERM, bench, jobs, write_plan  # noqa: F401 - fixtures
from tiny_runs import ROOT, lntl, write_config

from lntl.benchmark import plan as plans
from lntl.benchmark import results, shards
from lntl.benchmark.plan import PlannedRun
from lntl.benchmark.runner import Benchmark
from lntl.benchmark.shards import Shard
from lntl.errors import UserError

LINE: dict[str, Any] = {"name": "a", "config_hash": "1", "overrides": {}, "seed": 1, "metrics": {"accuracy": 0.5}}
FAILED: dict[str, Any] = {"name": "a", "config_hash": "1", "overrides": {}, "seed": 1, "error": "why", "exit_code": 2}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The common file, which is not there."""
    return tmp_path / "results.jsonl"


def write(path: Path, *lines: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def scores(path: Path) -> list[tuple[int, float | str]]:
    """Return seed and accuracy, or error, of each line that counts."""
    return [(x.seed, x.metrics["accuracy"] or 0 if x.metrics else x.error) for x in shards.read(path)]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_shards_part_the_runs(count: int) -> None:
    parts = [Shard(index, count).of(range(7)) for index in range(1, count + 1)]
    assert sorted(run for part in parts for run in part) == list(range(7))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    "text", ["0/3", "4/3", "a/b", "", "1", "1/", "/3", "-1/3", "1/2/3", "1.0/3", "٣/٣", "9" * 5000]
)
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"^--shard .*: write it as i/n with i from 1 to n, e\.g\. --shard 1/3$"):
        Shard.parse(text)


def test_lines_of_all_files_are_read_in_the_same_order_always(path: Path) -> None:
    assert not shards.exist(path)
    assert shards.read(path) == []
    write(Shard(2, 2).file(path), LINE | {"seed": 2})
    assert shards.exist(path)
    write(path, LINE | {"seed": 4}, LINE | {"seed": 5})
    write(shards.worker_file(path, "0a"), LINE | {"seed": 3})
    write(Shard(1, 2).file(path), LINE)
    write(path.with_name("results-of-others.jsonl"), LINE | {"seed": 9})
    write(path.with_name("other-1-of-2.jsonl"), LINE | {"seed": 9})
    assert [seed for seed, _ in scores(path)] == [4, 5, 1, 2, 3]


@pytest.mark.parametrize(
    ("common", "first", "second", "expected"),
    [
        ([LINE], [LINE | {"metrics": {"accuracy": 0.7}}], [FAILED], [(1, 0.5)]),
        ([], [LINE | {"metrics": {"accuracy": 0.7}}], [LINE], [(1, 0.7)]),
        ([FAILED], [FAILED | {"error": "again"}], [LINE], [(1, 0.5)]),
        ([FAILED], [FAILED | {"error": "again"}], [], [(1, "why")]),
        ([], [FAILED], [LINE], [(1, 0.5)]),
        ([LINE, LINE], [], [LINE], [(1, 0.5), (1, 0.5)]),  # the common file is read as it is
        ([LINE], [LINE | {"split": "val"}], [LINE | {"split": "val"}], [(1, 0.5), (1, 0.5)]),
        ([LINE], [LINE | {"config_hash": "2"}], [LINE | {"name": "b"}], [(1, 0.5), (1, 0.5), (1, 0.5)]),
    ],
)
def test_of_several_lines_of_a_run_the_first_that_succeeded_counts(
    path: Path, common: list[Any], first: list[Any], second: list[Any], expected: list[Any]
) -> None:
    write(path, *common)
    write(Shard(1, 2).file(path), *first)
    write(Shard(2, 2).file(path), *second)
    assert scores(path) == expected


def test_a_damaged_line_is_named_with_its_file(path: Path) -> None:
    file = Shard(1, 2).file(path)
    write(file, LINE)
    with file.open("a") as out:
        out.write("{\n")
    with pytest.raises(UserError, match=r"results-1-of-2\.jsonl, line 2: not the result of a run \(.*restore the file"):
        shards.read(path)


def test_collecting_leaves_the_common_lines_byte_for_byte_and_removes_the_files_of_workers(path: Path) -> None:
    before = (ROOT / "benchmarks/authors/results.jsonl").read_bytes()
    path.write_bytes(before)
    shards.collect(path)
    assert path.read_bytes() == before
    shard, worker = Shard(1, 2).file(path), shards.worker_file(path, "0a")
    write(shard, LINE)
    write(worker, LINE, LINE | {"seed": 2})
    shards.collect(path)
    assert path.read_bytes() == before + f"{json.dumps(LINE)}\n{json.dumps(LINE | {'seed': 2})}\n".encode()
    assert shard.exists()
    assert not worker.exists()


@pytest.mark.usefixtures("jobs")
def test_shards_make_all_runs_once_and_the_head_collects(bench: Benchmark, jobs: list[PlannedRun]) -> None:  # noqa: F811
    parts = [Benchmark(bench.results, bench.command, 2, shard=Shard(index, 2)) for index in (1, 2)]
    for part in parts:
        list(part.run(part.shard.of(jobs)))  # type: ignore[union-attr]
    assert not bench.results.exists()
    assert [line.seed for line in results.read(Shard(1, 2).file(bench.results))] == [1, 3, 5]
    for part in (*parts, bench):
        assert part.missing(jobs) == []
    assert list(bench.run(jobs)) == []
    assert sorted(line.seed for line in results.read(bench.results)) == [1, 2, 3, 4, 5]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan of two seeds of erm, in the working directory."""
    write_config(tmp_path, training=ERM)
    monkeypatch.chdir(tmp_path)
    return write_plan(tmp_path, {"name": "erm"}, seeds=[1, 2])


def test_the_command_line_knows_shards(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (LINE | {"name": "erm", "config_hash": run.config_hash, "seed": run.seed} for run in planned(plan))
    write(Path("results-2-of-2.jsonl"), second)
    assert lntl("benchmark", "plan.yaml", "--shard", "1/2", "--dry-run") == 0
    assert "1 of 1 runs are missing" in capsys.readouterr().out
    assert lntl("benchmark", "plan.yaml", "--shard", "2/2") == 0
    assert "1 of 1 runs are done: results-2-of-2.jsonl" in capsys.readouterr().out
    assert lntl("compare", "results.jsonl") == 0  # the common file is not there yet
    assert "1 of 2 runs are not made yet" in " ".join(capsys.readouterr().out.split())
    assert not Path("results.jsonl").exists()
    write(Path("results-1-of-2.jsonl"), first)
    assert lntl("benchmark", "plan.yaml") == 0
    assert [line.seed for line in results.read(Path("results.jsonl"))] == [1, 2]


def planned(plan: Path) -> list[PlannedRun]:
    return plans.planned_runs(plans.read(plan), plan)


def test_a_bad_shard_is_one_sentence(plan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lntl("benchmark", "plan.yaml", "--shard", "4/3") == 2
    message = "--shard '4/3': write it as i/n with i from 1 to n, e.g. --shard 1/3"
    assert capsys.readouterr().err == f"Error: {message}\n"
