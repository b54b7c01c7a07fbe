"""The plans for photographs are valid without the photographs, and their rows have one budget."""

from pathlib import Path

import pytest
from tiny_runs import ROOT

from lntl.benchmark import plan

PLANS = sorted((ROOT / "benchmarks/real").glob("*/*.yaml"))


@pytest.mark.parametrize("path", PLANS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_plan_is_valid_and_f_and_g_learn_for_as_many_epochs_in_each_row(path: Path) -> None:
    runs = plan.planned_runs(plan.read(path), path)
    epochs = 15 if path.parent.name in ("isic", "bar") else 5
    for run in runs:
        training = run.config.training
        assert sum(phase.epochs for phase in training.phases if phase.method != "bias_head") == epochs, run.title
        assert (run.config.data.size, training.batch_size) == (128, 64), run.title
        assert run.config.data.path.startswith("data/"), run.title
