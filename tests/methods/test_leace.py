"""LEACE as the last phase: the erased features, the fit of g, and the data that it refuses."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from lntl import config as configuration
from lntl.errors import UserError
from lntl.experiment import Experiment, build
from lntl.methods.last_layer import independence_weights

MakeExperiment = Callable[..., Experiment]
N = 200


@pytest.fixture
def make_experiment(tmp_path: Path) -> MakeExperiment:
    """A function that builds an experiment on vectors from phases; the bias indicates the class in 90 % of the rows.

    sky: a function that returns the bias of the training rows for y; second_bias: whether there is a second bias.
    """

    def build_experiment(
        *phases: dict[str, Any], sky: Any = None, second_bias: bool = False, **model: Any
    ) -> Experiment:
        rng, index = np.random.default_rng(0), np.arange(3 * N)
        y, is_train = index % 2, index < N
        bias = np.where(rng.random(3 * N) < np.where(is_train, 0.9, 0.5), y, 1 - y)
        if sky is not None:
            bias = np.where(is_train, sky(y), bias)
        second_values = index // 2 % 3
        x = np.stack([y, 2 * bias, y - bias, (second_values == 1) + y, bias * (second_values == 2)], axis=1)
        split = np.repeat(["train", "val", "test"], N)
        arrays = {
            "x": x + 0.5 * rng.normal(size=x.shape),
            "y": y,
            "sky": bias,
            "other": second_values,
            "split": split,
        }
        np.savez(tmp_path / "v.npz", **arrays)
        bias_names = ["sky", "other"] if second_bias else ["sky"]
        raw = {
            "project": {"experiment_name": "vectors"},
            "data": {"name": "arrays", "path": str(tmp_path / "v.npz"), "split": "split", "bias": bias_names},
            "model": {"name": "mlp", "hidden": [8], "head_dim": 6, "eraser": "leace"} | model,
            "training": {"device": "cpu", "batch_size": 16, "phases": [{"epochs": 1} | phase for phase in phases]},
        }
        return build(configuration.validate(raw, "test"))

    return build_experiment


def get_train_rows(experiment: Experiment) -> tuple[Tensor, Tensor, Tensor]:
    """Return z, class and bias value of the training rows."""
    batches = list(experiment.loader("train").batches())
    with torch.no_grad():
        z = torch.cat([experiment.networks.eval().f(batch.x) for batch in batches]).double()
    y, group = (torch.cat([getattr(batch, name) for batch in batches]) for name in ("y", "group"))
    return z, y, group % experiment.data.spec.num_bias_values


def compute_covariance(z: Tensor, values: Tensor, weight: Tensor) -> Tensor:
    b, weight = one_hot(values).double(), weight / weight.sum()
    return ((z - weight @ z) * weight[:, None]).T @ (b - weight @ b)


@pytest.mark.parametrize("second_bias", [False, True])
def test_z_has_no_covariance_with_any_bias(make_experiment: MakeExperiment, second_bias: bool) -> None:
    erm = {"method": "erm", "epochs": 3}
    erm_experiment, leace_experiment = (
        make_experiment(erm, second_bias=second_bias),
        make_experiment(erm, {"method": "leace"}, second_bias=second_bias),
    )
    largest_covariance = {}
    for name, experiment in (("erm", erm_experiment), ("leace", leace_experiment)):
        list(experiment.trainer)
        spec = experiment.data.spec
        z, y, joint_values = get_train_rows(experiment)
        weight = independence_weights(y * spec.num_bias_values + joint_values, spec.num_bias_values)
        biases = [torch.tensor(bias.value_of_joint)[joint_values] for bias in spec.biases] or [joint_values]
        largest_covariance[name] = max(float(compute_covariance(z, values, weight).abs().max()) for values in biases)
    assert largest_covariance["erm"] > 1e-2
    assert largest_covariance["leace"] < 1e-6
    assert leace_experiment.trainer.record is not None
    assert leace_experiment.trainer.record.metrics["train/directions"] == (3 if second_bias else 1)


def test_g_is_fitted_on_the_erased_features(make_experiment: MakeExperiment) -> None:
    """The gradient of C * sum(w * CE) + |W|^2 / 2 with respect to W, on standardised features, is 0."""
    experiment = make_experiment({"method": "erm"}, {"method": "leace", "c": 0.5})
    list(experiment.trainer)
    z, y, bias = get_train_rows(experiment)
    weight = independence_weights(y * 2 + bias, 2)
    mean = weight @ z / weight.sum()
    std = (weight @ (z - mean).square() / weight.sum()).sqrt()
    g = experiment.networks.g
    assert isinstance(g, nn.Linear)
    w = (g.weight.double() * std).detach().requires_grad_()
    logits = (z - mean) / std @ w.T + (g.bias.double() + g.weight.double() @ mean).detach()
    # For two classes scikit-learn fits one row v; here the rows are -v / 2 and v / 2, so |v|^2 = 2 |W|^2.
    loss = 0.5 * (weight * cross_entropy(logits, y, reduction="none")).sum() + w.square().sum()
    (gradient,) = torch.autograd.grad(loss, w)
    assert gradient.abs().max() < 0.05


def test_f_ends_before_the_last_layer(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment({"method": "erm"})
    networks = experiment.networks.eval()
    names = [name for name, _ in networks.f.named_children()]
    assert names == ["features", "hidden", "eraser"]
    assert networks.num_features == 6
    x = next(iter(experiment.loader("train").batches())).x
    assert networks.f(x).shape == (len(x), 6)
    assert networks.h(networks.f(x)).shape == (len(x), 2)
    assert torch.equal(networks.f(x), networks.f[1](networks.f[0](x)))  # type: ignore[index]
    list(experiment.trainer)  # with ERM the eraser is the identity


def test_a_bias_that_cannot_be_erased_is_an_error_before_training(make_experiment: MakeExperiment) -> None:
    erm, leace = {"method": "erm"}, {"method": "leace"}
    with pytest.raises(UserError, match=r"training\.phases\.1\.method: leace: the bias is 1 on every row of train"):
        make_experiment(erm, leace, sky=np.ones_like)
    with pytest.raises(UserError, match="leace: the bias determines the class of every row of train"):
        make_experiment(erm, leace, sky=lambda y: y)
    list(make_experiment(leace | {"rows": "val"}, sky=lambda y: y).trainer)
    with pytest.raises(UserError, match=r"leace: f has no eraser at its end; set model\.eraser: leace"):
        make_experiment(leace, eraser="none")
    with pytest.raises(UserError, match="g does not end with a linear layer that gives the 2 logits"):
        make_experiment(leace, heads="per_bias")
