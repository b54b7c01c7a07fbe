"""DFR: the layer that it fits, the rows that it uses, and the data that it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lntl import config as configuration
from lntl.errors import UserError
from lntl.experiment import Experiment, build
from lntl.methods.last_layer import fit_logistic, independence_weights
from lntl.types import IGNORE

COUNTS = {"train": (40, 4, 4, 40), "val": (20, 6, 6, 20), "test": (20, 20, 20, 20)}  # rows of each group (y, bias)
MakeExperiment = Callable[..., Experiment]


def write_vectors(path: Path, counts: dict[str, tuple[int, ...]], num_unknown: int = 0) -> None:
    """Write vectors (n, 4) in which the bias is clearer than the class; the first `num_unknown` rows have no bias."""
    rng = np.random.default_rng(0)
    group = np.concatenate([np.repeat(range(4), sizes) for sizes in counts.values()])
    y, bias = group // 2, group % 2
    means = np.stack([y, -y, 3 * bias, -3 * bias], axis=1) * 1.5
    bias[:num_unknown] = -1
    split = np.repeat([*counts], [sum(sizes) for sizes in counts.values()])
    np.savez(path, x=means + rng.normal(size=means.shape), y=y, bias=bias, split=split)


@pytest.fixture
def make_experiment(tmp_path: Path) -> MakeExperiment:
    """A function that builds an experiment with the given phases on the vectors of write_vectors."""

    def build_experiment(
        *phases: dict[str, Any], counts: Any = COUNTS, num_unknown: int = 0, **model: Any
    ) -> Experiment:
        write_vectors(tmp_path / "v.npz", counts, num_unknown)
        raw = {
            "project": {"experiment_name": "vectors"},
            "data": {"name": "arrays", "path": str(tmp_path / "v.npz"), "split": "split"},
            "model": {"name": "mlp", "hidden": [8], "head_dim": 6} | model,
            "training": {"device": "cpu", "batch_size": 16, "phases": [{"epochs": 1} | phase for phase in phases]},
        }
        return build(configuration.validate(raw, "test"))

    return build_experiment


def compute_accuracy_by_group(experiment: Experiment) -> list[float]:
    p = experiment.predict(experiment.networks, "test")
    return [float(p.correct[p.group == group].float().mean()) for group in range(4)]


def test_fit_logistic_minimises_the_penalised_loss() -> None:
    """At the optimum the gradient of C * sum of CE is -sign(w) where w is not 0, and within [-1, 1] elsewhere."""
    rng = torch.Generator().manual_seed(0)
    z, y, c = torch.randn(120, 6, generator=rng, dtype=torch.float64), torch.arange(120) % 3, 0.2
    z[:, 0] += y
    parameters = fit_logistic(z, y, c=c, l1=True, seed=0)
    weight, bias = (value.clone().requires_grad_() for value in parameters)
    loss = c * cross_entropy(z @ weight.T + bias, y, reduction="sum")
    weight_gradient, bias_gradient = torch.autograd.grad(loss, (weight, bias))
    nonzero = weight != 0
    assert 0 < nonzero.sum() < nonzero.numel()
    torch.testing.assert_close(weight_gradient[nonzero], -weight.sign()[nonzero], rtol=0, atol=0.02)
    assert weight_gradient[~nonzero].abs().max() < 1.02
    assert bias_gradient.abs().max() < 0.02


def test_independence_weights_make_bias_and_label_independent() -> None:
    group = torch.tensor([0] * 30 + [1] * 5 + [2] * 2 + [3] * 13)
    weight = independence_weights(group, 2)
    table = torch.stack([weight[group == k].sum() for k in range(4)]).view(2, 2) / weight.sum()
    torch.testing.assert_close(table, table.sum(dim=1, keepdim=True) * table.sum(dim=0))
    torch.testing.assert_close(table.sum(dim=1), torch.tensor([35, 15], dtype=torch.float64) / 50)


def test_the_worst_group_improves_and_only_the_last_layer_changes(make_experiment: MakeExperiment) -> None:
    erm = {"method": "erm", "epochs": 8, "optimizer_fg": {"lr": 0.02}}
    counts = {"train": (100, 5, 5, 100), "val": (40, 40, 40, 40), "test": (100, 100, 100, 100)}
    erm_experiment, dfr_experiment = (
        make_experiment(erm, counts=counts),
        make_experiment(erm, {"method": "dfr"}, counts=counts),
    )
    for experiment in (erm_experiment, dfr_experiment):
        list(experiment.trainer)
    states = [experiment.networks.state_dict() for experiment in (erm_experiment, dfr_experiment)]
    changed_names = {key for key in states[0] if not torch.equal(states[0][key], states[1][key])}
    assert changed_names == {"g.2.weight", "g.2.bias"}
    worst_accuracies = [min(compute_accuracy_by_group(experiment)) for experiment in (erm_experiment, dfr_experiment)]
    assert worst_accuracies[0] < 0.6
    assert worst_accuracies[1] > worst_accuracies[0] + 0.15, worst_accuracies
    metrics = dfr_experiment.trainer.record.metrics  # type: ignore[union-attr]
    assert set(metrics) == {"train/task", "train/zeros"}


@pytest.mark.parametrize("rows", ["val", "train"])
def test_dfr_is_fitted_on_balanced_rows_of_the_configured_split(
    make_experiment: MakeExperiment, rows: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[tuple[Tensor, Tensor]] = []

    def record_fit(z: Tensor, y: Tensor, **settings: Any) -> tuple[Tensor, Tensor]:
        fits.append((z, y))
        return fit_logistic(z, y, **settings)

    monkeypatch.setattr("lntl.methods.dfr.fit_logistic", record_fit)
    experiment = make_experiment({"method": "dfr", "rows": rows, "draws": 3})
    list(experiment.trainer)
    smallest_group = {"val": 3, "train": 4}[rows]
    assert [y.bincount().tolist() for _, y in fits] == [[2 * smallest_group, 2 * smallest_group]] * 3
    assert not torch.equal(fits[0][0], fits[1][0])  # each draw has other rows
    second_experiment = make_experiment({"method": "dfr", "rows": rows, "draws": 3})
    list(second_experiment.trainer)
    assert torch.equal(second_experiment.networks.g[2].weight, experiment.networks.g[2].weight)  # type: ignore[index,union-attr]


def test_the_half_of_val_that_dfr_is_fitted_on_is_not_used_for_selection(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment({"method": "dfr"})
    fit_loader, val_loader = experiment.trainer.held_out, experiment.loader("val")
    assert fit_loader is not None
    rows = [set(loader.split.row.tolist()) for loader in (fit_loader, val_loader)]
    assert not rows[0] & rows[1]
    assert rows[0] | rows[1] == set(experiment.data.splits["val"].row.tolist())
    for loader in (fit_loader, val_loader):
        assert loader.split.group.bincount().tolist() == [10, 3, 3, 10]
    assert len(experiment.predict(experiment.networks, "val").y) == 26
    assert "dfr is fitted on one half of it, and val means the other half" in experiment.val_note
    assert len(make_experiment({"method": "dfr", "rows": "train"}).loader("val").split) == 52


def test_an_epoch_that_trains_nothing_reads_one_batch(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment({"method": "erm"}, {"method": "dfr"})
    trainer = experiment.trainer
    steps = [[(step.index, step.total) for step in trainer.epoch()] for _ in range(2)]
    assert len(steps[0]) == len(trainer.loader) > 1
    assert steps[1] == [(1, 1)]


def test_rows_without_a_bias_label_are_left_out(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment({"method": "dfr", "rows": "train"}, num_unknown=30)
    assert (experiment.data.splits["train"].group == IGNORE).sum() == 30
    list(experiment.trainer)


def test_an_empty_group_is_an_error_before_training(make_experiment: MakeExperiment) -> None:
    for counts, rows, group in (
        (COUNTS | {"val": (20, 0, 6, 20)}, "the half of val that dfr is fitted on", "class 0 with bias value 1"),
        (COUNTS | {"val": (20, 6, 0, 20)}, "the half of val that dfr is fitted on", "class 1 with bias value 0"),
    ):
        with pytest.raises(
            UserError,
            match=rf"training\.phases\.1\.method: dfr: 1 of 4 groups have no row in {rows}, the first is {group}; ",
        ):
            make_experiment({"method": "erm"}, {"method": "dfr"}, counts=counts)
    make_experiment({"method": "dfr", "rows": "train"}, counts=COUNTS | {"val": (20, 0, 6, 20)})


def test_dfr_with_one_head_per_bias_value_is_an_error(make_experiment: MakeExperiment) -> None:
    with pytest.raises(UserError, match="g does not end with a linear layer that gives the 2 logits"):
        list(make_experiment({"method": "dfr"}, heads="per_bias").trainer)
