"""The plans for photographs are valid without the photographs and train f and g equally long; scores are correct."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from lanes import first_is_fast
from tiny_runs import ROOT

from lntl.benchmark import plan

PLANS = sorted((ROOT / "benchmarks/real").glob("*/*.yaml"))


@pytest.mark.parametrize("path", first_is_fast(PLANS), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_plan_is_valid_and_trains_f_and_g_for_the_planned_epochs(path: Path) -> None:
    runs = plan.planned_runs(plan.read(path), path)
    epochs = 15 if path.parent.name in ("isic", "bar") else 5
    for run in runs:
        training = run.config.training
        expected = 2 * epochs if run.name.endswith("_longer") else epochs
        assert sum(phase.epochs for phase in training.phases if phase.method not in ("bias_head", "dfr")) == expected, (
            run.title
        )
        assert (run.config.data.size, training.batch_size) == (128, 32), run.title
        assert run.config.data.path.startswith("data/"), run.title


def test_scores_agree_with_slow_loops() -> None:
    spec = importlib.util.spec_from_file_location("real_sets", ROOT / "benchmarks/real/sets.py")
    assert spec is not None
    assert spec.loader is not None
    sets = importlib.util.module_from_spec(spec)
    sys.modules["real_sets"] = sets  # dataclasses look up their module in sys.modules
    spec.loader.exec_module(sets)
    rng = np.random.default_rng(0)
    y, value, is_correct = rng.integers(0, 2, 200), rng.integers(0, 2, 200), rng.random(200) < 0.7
    split = sets.Groups(np.arange(200), 2 * y + value, y != value, ["a", "b", "c", "d"], y, value)
    scores = sets.compute_scores(split, is_correct, np.ones(200, dtype=np.int64))
    accuracies = [np.mean([r for c, r in zip(split.cell, is_correct, strict=True) if c == cell]) for cell in range(4)]
    assert scores["unbiased"] == pytest.approx(np.mean(accuracies))
    assert scores["worst"] == pytest.approx(min(accuracies))
    assert scores["own"] == pytest.approx(np.mean(is_correct[y == value]))
    assert scores["other"] == pytest.approx(np.mean(is_correct[y != value]))
    assert scores["all"] == pytest.approx(np.mean(is_correct))
    weight = sets.resample_weights(split, 3)
    assert np.bincount(split.cell, weight).tolist() == np.bincount(split.cell).tolist()
    resampled_hits = np.repeat(is_correct[y != value], weight[y != value])
    assert sets.compute_scores(split, is_correct, weight)["other"] == pytest.approx(np.mean(resampled_hits))
