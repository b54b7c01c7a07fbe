"""LEACE: the properties that the theorem states, in float64."""

import doctest
import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from lntl import erasure
from lntl.erasure import Eraser, LeaceFit
from lntl.errors import UserError
from lntl.types import IGNORE

N, C = 600, 12


@pytest.fixture
def rows() -> tuple[Tensor, Tensor, Tensor]:
    """Features (N, C), of which one is constant and two are equal; two biases (N, 2) of 3 and 2 values; weights."""
    rng = torch.Generator().manual_seed(0)
    bias = torch.stack([torch.randint(3, (N,), generator=rng), torch.randint(2, (N,), generator=rng)], dim=1)
    z = torch.randn(N, C, generator=rng, dtype=torch.float64)
    z[:, 0] += 2 * bias[:, 0]
    z[:, 1] += bias[:, 1] - 0.5 * (bias[:, 0] == 1)
    z[:, 2], z[:, 4] = 7, z[:, 3]
    return z, bias, torch.rand(N, generator=rng, dtype=torch.float64)


def compute_covariance(z: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted covariance of z with the indicators of labels (n,), in slow loops."""
    columns = []
    for value in labels.unique():
        b = (labels == value).double()
        mean_b = float((weight * b).sum() / weight.sum())
        terms = [weight[i] * (z[i] - weight @ z / weight.sum()) * (b[i] - mean_b) for i in range(len(z))]
        columns.append(sum(terms) / weight.sum())
    return torch.stack(columns)


def fit_eraser(
    z: Tensor, bias: Tensor, values: tuple[int, ...], weight: Tensor | None = None, size: int = 50
) -> Eraser:
    fit = LeaceFit(z.shape[1], values)
    for batch in torch.arange(len(z)).split(size):
        fit.update(z[batch], bias[batch], None if weight is None else weight[batch])
    return fit.eraser()


def test_the_covariance_with_each_bias_is_0(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    z, bias, weight = rows
    erased_z = fit_eraser(z, bias, (3, 2), weight)(z)
    for k in range(2):
        assert compute_covariance(z, bias[:, k], weight).abs().max() > 0.1
        assert compute_covariance(erased_z, bias[:, k], weight).abs().max() < 1e-10


@pytest.mark.parametrize("is_weighted", [False, True])
def test_no_linear_classifier_of_the_bias_is_better_than_a_constant(
    rows: tuple[Tensor, Tensor, Tensor], is_weighted: bool
) -> None:
    z, bias, weight = rows
    weight, bias = (weight if is_weighted else torch.ones_like(weight)), bias[:, 0]
    erased_z = fit_eraser(z, bias, (3,), weight)(z)
    losses = {}
    for name, x in (("z", z), ("erased", erased_z)):
        x = x - x.mean(dim=0)  # then the constant feature is 0 and does not act as a second intercept
        model = LogisticRegression(C=math.inf, solver="newton-cg", tol=1e-12, max_iter=1000)
        model.fit(x.numpy(), bias.numpy(), sample_weight=weight.numpy())
        log_p = torch.from_numpy(model.predict_log_proba(x.numpy()))
        losses[name] = float(weight @ -log_p[torch.arange(N), bias] / weight.sum())
    shares = torch.stack([weight[bias == value].sum() for value in range(3)]) / weight.sum()
    constant_loss = float(-(shares * shares.log()).sum())
    assert abs(model.coef_).max() < 1e-5
    assert losses["erased"] == pytest.approx(constant_loss, abs=1e-9)
    assert losses["z"] < constant_loss - 0.3


def test_the_eraser_is_the_smallest_affine_change(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    """The mean stays; erasing twice equals erasing once; any other affine map that erases changes z more."""
    z, bias, _ = rows
    eraser = fit_eraser(z, bias[:, 0], (3,))
    erased_z = eraser(z)
    torch.testing.assert_close(erased_z.mean(dim=0), z.mean(dim=0))
    torch.testing.assert_close(eraser(erased_z), erased_z)
    torch.testing.assert_close(erased_z[:, 2], z[:, 2])
    means = torch.stack([z[bias[:, 0] == value].mean(dim=0) for value in range(3)])
    shifted_z = z - means[bias[:, 0]] + z.mean(dim=0)  # not affine in z: it uses the bias
    plane, _ = torch.linalg.qr((means - means.mean(dim=0)).T)
    projected_z = z - (z - z.mean(dim=0)) @ plane[:, :2] @ plane[:, :2].T
    assert compute_covariance(projected_z, bias[:, 0], torch.ones(N, dtype=torch.float64)).abs().max() < 1e-10
    assert (erased_z - z).square().sum() < (projected_z - z).square().sum()
    assert (shifted_z - z).square().sum() < (erased_z - z).square().sum()


def test_batches_of_any_size_give_the_same_eraser(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    z, bias, weight = rows
    torch.testing.assert_close(fit_eraser(z, bias, (3, 2), weight, 1)(z), fit_eraser(z, bias, (3, 2), weight, N)(z))


def test_rows_without_a_bias_label_are_left_out(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    z, bias, _ = rows
    incomplete_bias = torch.where(torch.arange(N)[:, None] < 100, torch.tensor([IGNORE, 0]), bias)
    torch.testing.assert_close(fit_eraser(z, incomplete_bias, (3, 2))(z), fit_eraser(z[100:], bias[100:], (3, 2))(z))


def test_a_constant_bias_is_refused(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    z = rows[0]
    with pytest.raises(UserError, match="the bias is constant"):
        fit_eraser(z, torch.zeros(N, dtype=torch.int64), (3,))
    with pytest.raises(UserError, match="the bias is constant"):
        fit_eraser(z, torch.full((N,), IGNORE), (3,))


def test_an_eraser_is_the_identity_until_it_is_fitted(rows: tuple[Tensor, Tensor, Tensor]) -> None:
    z, bias, _ = rows
    eraser = Eraser(C, 3)
    assert torch.equal(eraser(z.float()), z.float())
    eraser.copy_(fit_eraser(z, bias[:, 0], (3,)))
    torch.testing.assert_close(eraser(z.float()), fit_eraser(z, bias[:, 0], (3,))(z).float(), rtol=1e-4, atol=1e-4)
    eraser.reset()
    assert torch.equal(eraser(z.float()), z.float())


def test_the_example_in_the_docstring_is_correct() -> None:
    assert doctest.testmod(erasure, extraglobs={"torch": torch}).failed == 0
