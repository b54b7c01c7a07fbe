"""The posterior p(y | bias), the loss that uses it, and the weights that make label and bias independent."""

import math
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lntl.methods.posterior import (
    MIN_PROBABILITY,
    BiasPosterior,
    TaskLoss,
    TaskSettings,
    balancing_weights,
    effective_share,
)
from lntl.training.trainer import Trainer
from lntl.types import Batch, DataSpec

N = 3000
SPEC = DataSpec((1, 4, 4), 3, 2, (), ("a", "b", "c"), ("u", "v"), N + 50)


def make_biased_rows(batch: Batch, is_informative: bool) -> tuple[Batch, Tensor]:
    """Return N rows of three classes with two one-hot bias values, and the true p(y | bias), (2, 3)."""
    rng = torch.Generator().manual_seed(3)
    p = torch.tensor(
        [[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]] if is_informative else [[0.2, 0.3, 0.5]] * 2, dtype=torch.float64
    )
    bias = torch.randint(0, 2, (N,), generator=rng)
    y = torch.multinomial(p[bias], 1, generator=rng)[:, 0]
    features = torch.nn.functional.one_hot(bias, 2).float()
    row = torch.randperm(N + 50, generator=rng)[:N]
    return replace(batch, y=y, bias=bias, group=y * 2 + bias, bias_features=features, row=row), p


@pytest.fixture(params=[True, False], ids=["informative bias", "uninformative bias"])
def fitted_posterior(request: pytest.FixtureRequest, batch: Batch) -> tuple[BiasPosterior, Batch, Tensor]:
    all_rows, p = make_biased_rows(batch, request.param)
    posterior = BiasPosterior(SPEC)
    posterior.fit([all_rows], seed=1)
    return posterior, all_rows, p


def test_the_posterior_estimates_the_true_probabilities(fitted_posterior: tuple[BiasPosterior, Batch, Tensor]) -> None:
    posterior, rows, p = fitted_posterior
    estimated_p = posterior.log_p[rows.row].exp().double()
    assert (estimated_p.sum(dim=1) - 1).abs().max() < 1e-3
    assert (estimated_p - p[rows.bias]).abs().max() < 0.08
    unused_rows = sorted(set(range(N + 50)) - set(rows.row.tolist()))
    assert not posterior.log_p[unused_rows].any()


def test_no_row_is_predicted_by_a_model_that_was_fitted_on_it(batch: Batch) -> None:
    """The bias features identify the row, so a model that was fitted on a row would know its label."""
    rows, _ = make_biased_rows(batch, is_informative=False)
    noise = torch.rand(N, 20, generator=torch.Generator().manual_seed(0))
    posterior = BiasPosterior(SPEC)
    posterior.fit([replace(rows, bias_features=noise)], seed=0)
    likelihood = posterior.log_p[rows.row, rows.y].exp().mean().item()
    assert likelihood < 0.2**2 + 0.3**2 + 0.5**2 + 0.02  # no better than the shares of the classes


@pytest.mark.parametrize("n", [2, 3, 200])
def test_the_posterior_is_finite_if_a_class_has_one_row(batch: Batch, n: int) -> None:
    """A fold without this row has only one class, whose probability is then 1."""
    y = torch.zeros(n, dtype=torch.int64)
    y[1] = 1
    bias = torch.arange(n) % 2
    rows = replace(
        batch,
        y=y,
        bias=bias,
        group=y * 2 + bias,
        bias_features=torch.nn.functional.one_hot(bias, 2).float(),
        row=torch.arange(n),
    )
    posterior = BiasPosterior(SPEC)
    posterior.fit([rows], seed=0)
    p = posterior.log_p[:n].exp()
    assert p.isfinite().all()
    # The model that scores row 1 was fitted on class 0 only.
    assert p[1].tolist() == pytest.approx([1, MIN_PROBABILITY, MIN_PROBABILITY], abs=1e-6)
    weights = balancing_weights(posterior, [rows], 100.0)
    assert weights.isfinite().all()
    assert weights[:n].mean() == pytest.approx(1, abs=1e-5)


def test_a_class_without_rows_in_a_fold_has_a_finite_log_probability(batch: Batch) -> None:
    rows, _ = make_biased_rows(batch, is_informative=True)
    rows_with_a_rare_class = replace(rows, y=torch.where(torch.arange(N) == 7, 2, rows.y % 2))
    posterior = BiasPosterior(SPEC)
    posterior.fit([rows_with_a_rare_class], seed=0)
    assert posterior.log_p.isfinite().all()
    assert posterior.log_p[rows_with_a_rare_class.row[7], 2].item() == pytest.approx(math.log(MIN_PROBABILITY))


def test_the_bias_product_equals_a_slow_loop(fitted_posterior: tuple[BiasPosterior, Batch, Tensor]) -> None:
    posterior, rows, _ = fitted_posterior
    loss = TaskLoss(TaskSettings(task="bias_product", smoothing=0.1), SPEC)
    loss.fit(lambda: [rows], seed=1)
    logits = torch.randn(N, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    total = 0.0
    for i in range(N):
        log_p = posterior.log_p[rows.row[i]].tolist()
        joint = [math.exp(logits[i, k].item()) * (0.9 * math.exp(log_p[k]) + 0.1 / 3) for k in range(3)]
        total -= math.log(joint[rows.y[i]] / sum(joint)) / N
    assert loss(logits, rows).item() == pytest.approx(total, rel=1e-6)


def test_with_the_weights_label_and_bias_are_independent(fitted_posterior: tuple[BiasPosterior, Batch, Tensor]) -> None:
    posterior, rows, _ = fitted_posterior
    weights = balancing_weights(posterior, [rows], max_weight=100.0)
    mass: Counter[tuple[int, int]] = Counter()
    for row, y, bias in zip(rows.row.tolist(), rows.y.tolist(), rows.bias.tolist(), strict=True):
        mass[y, bias] += weights[row].item() / N
    for y in range(3):
        for bias in range(2):
            p_y = mass[y, 0] + mass[y, 1]
            p_bias = sum(mass[k, bias] for k in range(3))
            assert mass[y, bias] == pytest.approx(p_y * p_bias, abs=0.02)
    assert sum(mass.values()) == pytest.approx(1, abs=1e-5)


def test_weights_are_clipped(fitted_posterior: tuple[BiasPosterior, Batch, Tensor]) -> None:
    posterior, rows, _ = fitted_posterior
    weights = balancing_weights(posterior, [rows], max_weight=1.0)
    assert weights.max() / weights[weights > 0].min() <= 1 / 0.05
    assert (weights[rows.row] > 0).all()


def test_the_effective_share_equals_the_formula_of_kish() -> None:
    assert effective_share(torch.tensor([2.0, 2.0, 0.0])).item() == pytest.approx(1)
    assert effective_share(torch.tensor([1.0, 3.0])).item() == pytest.approx(16 / (2 * 10))


def test_resample_draws_with_the_weights_of_reweight(make_trainer: Callable[..., Trainer]) -> None:
    trainers = [
        make_trainer("reweight"),
        make_trainer("resample"),
        make_trainer({"method": "lntl", "task": "resample"}),
    ]
    for trainer in trainers:
        next(trainer.epoch())
    weights = trainers[0].method.weights
    assert trainers[0].method.sampling_weights() is None
    for trainer in trainers[1:]:
        assert torch.equal(trainer.method.sampling_weights(), weights)


def test_the_loss_of_reweight_equals_a_slow_loop(make_trainer: Callable[..., Trainer], batch: Batch) -> None:
    trainer = make_trainer("reweight")
    trainer._prepare()
    trainer.networks.eval()
    (objective,) = trainer.method.objectives(batch, 0.0)
    p = torch.softmax(trainer.networks.g(trainer.networks.f(batch.x)), dim=1)
    terms = [-math.log(p[i, batch.y[i]].item()) * trainer.method.weights[batch.row[i]].item() for i in range(24)]
    assert objective.loss.item() == pytest.approx(sum(terms) / 24, rel=1e-4)


def test_smoothing_goes_from_the_posterior_to_uniform_probabilities(
    fitted_posterior: tuple[BiasPosterior, Batch, Tensor],
) -> None:
    posterior, rows, _ = fitted_posterior
    original_p, unsmoothed_posterior, uniform_posterior = (
        posterior.log_p[rows.row].exp(),
        deepcopy(posterior),
        deepcopy(posterior),
    )
    unsmoothed_posterior.smooth(0)
    uniform_posterior.smooth(1)
    torch.testing.assert_close(unsmoothed_posterior.log_p[rows.row].exp(), original_p)
    torch.testing.assert_close(uniform_posterior.log_p[rows.row].exp(), torch.full_like(original_p, 1 / 3))
    torch.testing.assert_close(posterior.log_p[rows.row].exp(), original_p)  # only the copies were smoothed
