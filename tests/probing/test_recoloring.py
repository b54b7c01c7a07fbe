"""Recolouring: flips and changes against slow loops, intervals against statistics."""

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
def test_flips_and_changes_against_slow_loops(n: int, values: int, classes: int, seed: int, spread: float) -> None:
    random = torch.Generator().manual_seed(seed)
    base = torch.randn(n, 1, classes, generator=random)
    p = (base + spread * torch.randn(n, values, classes, generator=random)).softmax(dim=2)
    y = torch.randint(0, classes, (n,), generator=random)
    found, flips, changes, hits = RecoloredPredictions(p, y), [], [], [0] * values
    for i in range(n):
        predicted = [row.index(max(row)) for row in p[i].tolist()]
        flips.append(len(set(predicted)) > 1)
        mean = [sum(p[i, v, k].item() for v in range(values)) / values for k in range(classes)]
        distances = [sum(abs(p[i, v, k].item() - mean[k]) for k in range(classes)) / 2 for v in range(values)]
        changes.append(sum(distances) / values)
        hits = [count + (predicted[v] == y[i].item()) for v, count in enumerate(hits)]
    assert found.flipped.tolist() == flips
    assert found.change.tolist() == pytest.approx(changes, abs=1e-6)
    assert found.accuracy == pytest.approx([count / n for count in hits])


class ByColor(Networks):
    """Networks whose class is a channel's brightest value against another's, and so the colour; or the stroke alone."""

    def __init__(self, color_blind: bool) -> None:
        super().__init__()
        self.f = _Brightest(color_blind)
        self.g = nn.Identity()


class _Brightest(nn.Module):
    def __init__(self, color_blind: bool) -> None:
        super().__init__()
        self.color_blind = color_blind

    def forward(self, x: Tensor) -> Tensor:
        if not self.color_blind:
            return x.amax(dim=(2, 3))
        lit = (x > x.amin(dim=(2, 3), keepdim=True)).any(dim=1)
        return lit.sum(dim=(1, 2))[:, None] / torch.tensor([100.0, 200, 300])


@pytest.mark.parametrize(("color_blind", "flipped"), [(True, 0.0), (False, 1.0)])
def test_networks_that_see_the_colour_alone_and_none(digits: ColoredMNIST, color_blind: bool, flipped: float) -> None:
    split = digits.splits["test"]
    found = predict_recolored(ByColor(color_blind), (Loader(split.recolored(v), 30, CPU) for v in range(len(COLORS))))
    assert found.probabilities.shape == (100, 10, 3)
    assert torch.equal(found.y, split.y)
    assert found.flipped.double().mean() == flipped
    assert (found.change.max() < 1e-6) == color_blind
    if not color_blind:  # the prediction depends only on the colour: the channel with the largest mean
        assert (found.predicted == found.predicted[:1]).all()
        assert found.predicted[0, 0] == 0  # crimson is red


def test_what_can_be_recoloured(digits: ColoredMNIST) -> None:
    assert isinstance(digits.splits["test"], RecolorableSplit)


def test_interval_against_the_normal() -> None:
    values = torch.rand(2000, generator=torch.Generator().manual_seed(0)).double()
    found, error = mean_interval(values, 0), values.std().item() / len(values) ** 0.5
    low, high = stats.norm.interval(0.95, values.mean().item(), error)
    assert found.value == pytest.approx(values.mean().item())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.15 * error * 2)


def test_interval_of_shares() -> None:
    flips = torch.arange(100) < 30
    found = mean_interval(flips, 3)
    assert (found.value, found.low, found.high) == pytest.approx((0.3, 0.21, 0.39), abs=0.02)
    assert found == mean_interval(flips, 3)
    assert found != mean_interval(flips, 4)
    none = mean_interval(torch.zeros(50, dtype=torch.bool), 0)
    assert (none.value, none.low, none.high) == (0, 0, 0)
