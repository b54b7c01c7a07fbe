"""Integrated gradients, compared with the closed form for a linear network, and heat maps."""

import pytest
import torch
from torch import Tensor, nn

from lntl.errors import UserError
from lntl.evaluation import saliency
from lntl.evaluation.saliency import heat_maps, integrated_gradients


def make_mlp(inputs: int, classes: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, classes)).eval()


def test_attributions_of_a_linear_network_with_two_classes_are_weight_times_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(saliency, "BATCH_SIZE", 8)  # batches of two
    network, x = nn.Linear(5, 2), torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
    result = integrated_gradients(network, x, 4)
    logits = network(x).detach()
    weight = network.weight.detach()
    predicted = logits.argmax(dim=1)
    expected = torch.stack([(weight[k] - weight[1 - k]) * row for k, row in zip(predicted, x, strict=True)])
    torch.testing.assert_close(result.values, expected)
    torch.testing.assert_close(result.predicted, predicted)
    torch.testing.assert_close(result.probability, logits.softmax(dim=1).amax(dim=1))


def test_attributions_sum_up_to_the_log_odds_difference_for_each_example() -> None:
    network, x = make_mlp(6, 4), torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    result = integrated_gradients(network, x, 32)
    p, p0 = network(x).softmax(dim=1).detach(), network(torch.zeros(1, 6)).softmax(dim=1).detach()[0]
    for i, k in enumerate(result.predicted.tolist()):
        expected = torch.logit(p[i, k]) - torch.logit(p0[k])
        torch.testing.assert_close(result.values[i].sum(), expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(integrated_gradients(network, x[2:3], 32).values, result.values[2:3])
    with torch.inference_mode():  # callers may be in inference mode
        torch.testing.assert_close(integrated_gradients(network, x.clone(), 32).values, result.values)


class InPlaceDoubling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)


class NotDifferentiable(nn.Module):
    """A network whose output has no gradient; if `custom`, it uses an autograd function without `backward`."""

    def __init__(self, custom: bool) -> None:
        super().__init__()
        self.custom = custom

    def forward(self, x: Tensor) -> Tensor:
        return NoDerivative.apply(x) if self.custom else (x > 0).float()


class NoDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return x.round()


def test_a_network_may_change_its_input_in_place() -> None:
    x = torch.ones(2, 3)
    integrated_gradients(nn.Sequential(InPlaceDoubling(), nn.Linear(3, 2)), x, 2)
    assert (x == 1).all()


@pytest.mark.parametrize("custom", [False, True])
def test_a_network_without_derivative_gives_one_sentence(custom: bool) -> None:
    with pytest.raises(UserError, match=r"cannot be differentiated \(.+\), so lntl cannot show where it looks: avoid"):
        integrated_gradients(NotDifferentiable(custom), torch.ones(2, 3), 2)


def test_without_captum_the_error_gives_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saliency, "captum_installed", lambda: False)
    with pytest.raises(UserError, match=r"pip install 'lntl\[explain\]'"):
        integrated_gradients(nn.Linear(3, 2), torch.ones(2, 3), 2)


def test_a_heat_map_is_highest_at_the_attribution_and_0_without_attributions() -> None:
    values = torch.zeros(2, 3, 40, 40)
    values[0, 1, 10, 30] = -5.0
    heat = heat_maps(values)
    assert heat.shape == (2, 40, 40)
    assert heat.dtype == torch.float32
    assert (heat[1] == 0).all()
    assert heat[0].max() == 1
    assert heat[0].argmax() == 10 * 40 + 30 or heat[0, 10, 30] == 1
    assert heat[0, 30, 10] == 0
