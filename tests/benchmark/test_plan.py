"""The plan of a benchmark: its runs, invalid plans, and the settings that change the hash of a run."""

import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_runs import ROOT, write_config

from lntl.benchmark import plan as plans
from lntl.benchmark import results
from lntl.benchmark.plan import PlannedRun
from lntl.benchmark.runner import Benchmark
from lntl.errors import UserError

ROWS: list[dict[str, Any]] = [
    {"name": "erm", "config": "tiny.yaml", "grid": {"data.color_var": [0.02, 0.05], "training.ema": [0.9, None]}},
    {"name": "lntl", "config": "tiny.yaml", "overrides": ["training.phases.2.mu=0.5"], "seeds": [12, 10]},
]


@pytest.fixture
def write_plan(tmp_path: Path) -> Any:
    """A function that writes plan.yaml beside tiny.yaml, with the given keys replaced, and returns its path."""
    write_config(tmp_path)

    def write_plan(**keys: Any) -> Path:
        path = tmp_path / "plan.yaml"
        path.write_text(yaml.safe_dump({"name": "try", "seeds": [10, 11], "runs": ROWS} | keys), encoding="utf-8")
        return path

    return write_plan


def get_runs(path: Path) -> list[PlannedRun]:
    return plans.planned_runs(plans.read(path), path)


def test_all_cells_of_the_first_seed_come_first(write_plan: Any) -> None:
    cells = [{"data.color_var": v, "training.ema": e} for v, e in product([0.02, 0.05], [0.9, None])]
    first_runs = [("erm", cell, 10) for cell in cells] + [("lntl", {}, 12)]
    second_runs = [("erm", cell, 11) for cell in cells] + [("lntl", {}, 10)]
    assert [(run.name, run.overrides, run.seed) for run in get_runs(write_plan())] == first_runs + second_runs


def test_the_configuration_of_a_run_has_the_overrides_of_plan_and_row(write_plan: Any) -> None:
    path = write_plan(overrides=["training.batch_size=16", "training.phases.2.mu=0.3"])
    by_key = {(run.name, run.overrides.get("data.color_var"), run.seed): run.config for run in get_runs(path)}
    lntl, erm = by_key["lntl", None, 12], by_key["erm", 0.05, 11]
    # Overrides of a row replace those of the plan.
    assert (lntl.training.batch_size, lntl.training.phases[2].mu) == (
        16,
        0.5,
    )
    assert (lntl.project.seed, lntl.data.seed) == (12, 12)
    assert (erm.training.phases[2].mu, erm.data.color_var, erm.project.seed) == (0.3, 0.05, 11)


def test_runs_make_no_erm_run_no_tensorboard_files_and_one_checkpoint(write_plan: Any) -> None:
    path = write_plan(overrides=["evaluation.erm_epochs=3", "logging.use_tensorboard=true"])
    for run in get_runs(path):
        assert run.config.evaluation.erm_epochs == 0
        assert not run.config.logging.use_tensorboard
        assert run.config.logging.checkpoint_interval_epochs >= 1000


def test_a_row_may_name_a_ready_configuration(write_plan: Any) -> None:
    (run,) = get_runs(write_plan(seeds=[1], runs=[{"name": "a", "config": "colored_mnist_default"}]))
    assert run.config.training.phases[-1].method == "lntl"


def test_seed_keys_are_the_keys_that_get_the_seed(write_plan: Any) -> None:
    assert {run.config.data.seed for run in get_runs(write_plan(seed_keys=["project.seed"]))} == {0}


def get_hash(write_plan: Any, *overrides: str, **keys: Any) -> str:
    (run,) = get_runs(
        write_plan(seeds=[1], runs=[{"name": "a", "config": "tiny.yaml"}], overrides=list(overrides), **keys)
    )
    return run.config_hash


@pytest.mark.parametrize(
    "override",
    [
        "data.color_var=0.031",
        "data.max_images=101",
        "training.batch_size=31",
        "training.phases.2.lam=0.5",
        "training.phases.0.epochs=2",
        "training.optimizer_fg.lr=0.01",
        "training.ema=null",
        "model.name=lenet",
    ],
)
def test_a_setting_that_affects_results_changes_the_hash(write_plan: Any, override: str) -> None:
    assert get_hash(write_plan, override) != get_hash(write_plan)


@pytest.mark.parametrize(
    "override",
    [
        "project.name=other",
        "project.description=other",
        "logging.output_dir=other",
        "logging.log_interval_batches=7",
        "logging.checkpoint_minutes=1",
        "training.device=auto",
        "training.devices=2",
        "training.num_nodes=2",
        "evaluation.batch_size=7",
        "training.clip_grad_norm=null",  # null is the default
    ],
)
def test_a_setting_that_does_not_affect_results_keeps_the_hash(write_plan: Any, override: str) -> None:
    assert get_hash(write_plan, override) == get_hash(write_plan)


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (
            {"data.color_var": [0.02, 0.03, 0.020]},
            "erm data.color_var=0.02 seed=10 and erm data.color_var=0.02 seed=10",
        ),
        ({"evaluation.batch_size": [7, 8]}, "erm evaluation.batch_size=7 .* and erm evaluation.batch_size=8"),
        ({"training.device": ["cpu", "auto"]}, "erm training.device=cpu .* and erm training.device=auto"),
    ],
)
def test_two_cells_that_give_the_same_run_are_refused(write_plan: Any, grid: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=rf"plan\.yaml: {expected} .*are the same run: .*; remove one"):
        get_runs(write_plan(runs=[ROWS[0] | {"grid": grid}]))


@pytest.mark.full
@pytest.mark.parametrize(
    "path",
    sorted(path for name in ("plan", "tuning") for path in ROOT.glob(f"benchmarks/**/{name}.yaml")),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_every_line_of_the_benchmarks_of_the_repository_counts_as_done(path: Path) -> None:
    plan = plans.read(path)
    planned_runs, bench = get_runs(path), Benchmark(path.parent / plan.results, (), 1, split=plan.split)
    lines = {line.key for line in results.read(bench.results)}
    assert {run.key for run in bench.missing_runs(planned_runs)} == {run.key for run in planned_runs} - lines


def test_seeds_share_a_hash_and_cells_do_not(write_plan: Any) -> None:
    planned_runs = get_runs(write_plan())
    assert len({run.config_hash for run in planned_runs}) == 5  # four cells of erm and one of lntl
    assert len({run.key for run in planned_runs}) == len({run.id for run in planned_runs}) == len(planned_runs) == 10


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"sedes": [1]}, "sedes: unknown key; did you mean 'seeds'?"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "one seed is given twice"),
        ({"seeds": [-1]}, "seeds.0: -1 should be greater than or equal to 0"),
        ({"seeds": ["1"]}, "seeds.0"),
        ({"runs": []}, "runs"),
        ({"runs": [{"name": "a"}]}, "runs.0.config: missing"),
        (
            {"runs": [{"name": "a", "confg": "tiny.yaml", "config": "x"}]},
            "runs.0.confg: unknown key; did you mean 'con",
        ),
        ({"runs": [{"name": "a b", "config": "tiny.yaml"}]}, "runs.0.name"),
        ({"runs": [ROWS[0], ROWS[0]]}, "the name 'erm' twice"),
        ({"runs": [ROWS[0] | {"grid": {"data.seed": [1]}}]}, "data.seed is set by the seeds"),
        ({"runs": [ROWS[0] | {"grid": {"data.color_var": []}}]}, "runs.0.grid.data.color_var"),
        (
            {"runs": [ROWS[0] | {"grid": {"data.colour_var": [0.1]}}]},
            "colour_var: unknown key; did you mean 'color_",
        ),
        ({"runs": [ROWS[0] | {"config": "missing.yaml"}]}, "erm: .*missing.yaml: cannot read the configuration"),
        ({"runs": [ROWS[0] | {"config": "colored_mnist_defualt"}]}, "erm: .*did you mean 'colored_mnist_default'"),
        ({"overrides": ["training.batch_size"]}, "write it as key=value"),
    ],
)
def test_an_invalid_plan_is_refused_with_the_reason(write_plan: Any, keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected) as error:
        get_runs(write_plan(**keys))
    assert "plan.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("[1]", r"(?s)plan.yaml: 1 error in.*\[1\] should be a mapping of keys to values"), ("a: [", "not valid YAML")],
)
def test_a_file_that_is_not_a_plan_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(UserError, match=expected):
        plans.read(tmp_path / "plan.yaml")


def test_a_missing_plan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.yaml: cannot read the plan: No such file"):
        plans.read(tmp_path / "no.yaml")


@pytest.mark.parametrize(
    ("texts", "num_selected"),
    [
        ([], 10),
        (["erm"], 8),
        (["er*"], 8),
        (["erm", "lntl"], 10),
        (["seed=10"], 5),
        (["erm", "seed=10"], 4),
        (["seed=10", "seed=12"], 6),
        (["data.color_var=0.020"], 4),
        (["training.ema=null", "data.color_var=0.05"], 2),
    ],
)
def test_runs_are_selected_by_name_and_setting(write_plan: Any, texts: list[str], num_selected: int) -> None:
    assert len(plans.select(get_runs(write_plan()), texts)) == num_selected


@pytest.mark.parametrize("text", ["ern", "seed=13", "data.color_var=0.3", "lam=1"])
def test_a_selection_that_matches_no_run_is_refused(write_plan: Any, text: str) -> None:
    with pytest.raises(UserError, match=f"--only {text}: the plan has no such run"):
        plans.select(get_runs(write_plan()), [text])


def test_the_plan_in_the_docs_is_valid(tmp_path: Path) -> None:
    docs = (ROOT / "docs/BENCHMARK.md").read_text(encoding="utf-8")
    text, published = re.findall(r"^```yaml\n(.*?)^```", docs, re.M | re.S)
    path = tmp_path / "plan.yaml"
    path.write_text(text + published, encoding="utf-8")
    assert len(get_runs(path)) == 5 * 3 + 3 * 3
