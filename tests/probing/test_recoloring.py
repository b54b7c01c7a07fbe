"""Recoloring: flips and changes equal slow loops, intervals equal those of SciPy."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from lntl.data.colored_mnist import COLORS, ColoredMNIST
from lntl.data.loader import Loader
from lntl.probing.recoloring import RecoloredPredictions, mean_interval, predict_recolored
from lntl.types import Networks, RecolorableSplit

CPU = torch.device("cpu")


@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**31), st.floats(0.01, 5))
def test_flips_and_changes_equal_slow_loops(n: int, values: int, classes: int, seed: int, spread: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    shared_logits = torch.randn(n, 1, classes, generator=rng)
    p = (shared_logits + spread * torch.randn(n, values, classes, generator=rng)).softmax(dim=2)
    y = torch.randint(0, classes, (n,), generator=rng)
    predictions, flips, changes, hits = RecoloredPredictions(p, y), [], [], [0] * values
    for i in range(n):
        predicted = [row.index(max(row)) for row in p[i].tolist()]
        flips.append(len(set(predicted)) > 1)
        mean = [sum(p[i, v, k].item() for v in range(values)) / values for k in range(classes)]
        distances = [sum(abs(p[i, v, k].item() - mean[k]) for k in range(classes)) / 2 for v in range(values)]
        changes.append(sum(distances) / values)
        hits = [count + (predicted[v] == y[i].item()) for v, count in enumerate(hits)]
    assert predictions.flipped.tolist() == flips
    assert predictions.change.tolist() == pytest.approx(changes, abs=1e-6)
    assert predictions.accuracy == pytest.approx([count / n for count in hits])


class ColorNetworks(Networks):
    """Networks that predict the channel with the highest value, or, if `color_blind`, only the size of the stroke."""

    def __init__(self, color_blind: bool) -> None:
        super().__init__()
        self.f = _ColorFeatures(color_blind)
        self.g = nn.Identity()


class _ColorFeatures(nn.Module):
    def __init__(self, color_blind: bool) -> None:
        super().__init__()
        self.color_blind = color_blind

    def forward(self, x: Tensor) -> Tensor:
        if not self.color_blind:
            return x.amax(dim=(2, 3))
        is_lit = (x > x.amin(dim=(2, 3), keepdim=True)).any(dim=1)
        return is_lit.sum(dim=(1, 2))[:, None] / torch.tensor([100.0, 200, 300])


@pytest.mark.parametrize(("color_blind", "flip_share"), [(True, 0.0), (False, 1.0)])
def test_only_networks_that_use_the_color_flip_their_predictions(
    digits: ColoredMNIST, color_blind: bool, flip_share: float
) -> None:
    split = digits.splits["test"]
    predictions = predict_recolored(
        ColorNetworks(color_blind), (Loader(split.recolored(v), 30, CPU) for v in range(len(COLORS)))
    )
    assert predictions.probabilities.shape == (100, 10, 3)
    assert torch.equal(predictions.y, split.y)
    assert predictions.flipped.double().mean() == flip_share
    assert (predictions.change.max() < 1e-6) == color_blind
    if not color_blind:  # the prediction is the channel with the largest value
        assert (predictions.predicted == predictions.predicted[:1]).all()
        assert predictions.predicted[0, 0] == 0  # red is the largest channel of crimson


def test_test_digits_can_be_recolored(digits: ColoredMNIST) -> None:
    assert isinstance(digits.splits["test"], RecolorableSplit)


def test_the_interval_of_a_mean_equals_the_normal_interval() -> None:
    values = torch.rand(2000, generator=torch.Generator().manual_seed(0)).double()
    interval, standard_error = mean_interval(values, 0), values.std().item() / len(values) ** 0.5
    low, high = stats.norm.interval(0.95, values.mean().item(), standard_error)
    assert interval.value == pytest.approx(values.mean().item())
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.15 * standard_error * 2)


def test_the_interval_of_a_share_depends_only_on_the_seed() -> None:
    flips = torch.arange(100) < 30
    interval = mean_interval(flips, 3)
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.3, 0.21, 0.39), abs=0.02)
    assert interval == mean_interval(flips, 3)
    assert interval != mean_interval(flips, 4)
    zero_interval = mean_interval(torch.zeros(50, dtype=torch.bool), 0)
    assert (zero_interval.value, zero_interval.low, zero_interval.high) == (0, 0, 0)
