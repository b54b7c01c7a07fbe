"""Features are the outputs of a layer, also if a later layer changes them; the names of the layers."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lntl.data.colored_mnist import ColoredMNIST
from lntl.errors import UserError
from lntl.models.convnet import ConvNet
from lntl.models.lenet import LeNet
from lntl.probing.features import (
    MAX_VALUES,
    check_layers,
    default_layers,
    features,
    layer_names,
    layer_outputs,
    pool_maps,
)
from lntl.types import Networks


@pytest.fixture
def convnet(digits: ColoredMNIST) -> ConvNet:
    torch.manual_seed(0)
    return ConvNet(digits.spec, ConvNet.Config())


@pytest.fixture
def images(digits: ColoredMNIST) -> list[Tensor]:
    """100 test images in batches of 30."""
    return [digits.splits["test"].batch(index).x for index in torch.arange(100).split(30)]


def test_features_equal_the_outputs_of_the_layers(convnet: ConvNet, images: list[Tensor]) -> None:
    x = torch.cat(images)
    convnet.eval()
    with torch.no_grad():
        z = convnet.f(x)
        expected = {"f": z, "g.0": convnet.g[0](z), "g.1": convnet.g[:2](z), "penultimate": convnet.g[:-1](z)}
    all_features = layer_outputs(convnet, images, expected)
    for layer, expected_features in expected.items():
        layer_features = features(convnet, images, layer)
        assert torch.equal(layer_features, all_features[layer])  # computed in one pass for all layers
        assert layer_features.dtype == torch.float32
        assert not layer_features.requires_grad
        assert not layer_features.is_inference()
        torch.testing.assert_close(layer_features, expected_features.contiguous(), rtol=1e-4, atol=1e-5)


def test_reading_features_changes_no_weight_and_leaves_no_hook(convnet: ConvNet, images: list[Tensor]) -> None:
    initial_state = copy.deepcopy(convnet.state_dict())
    features(convnet.train(), images, "f")
    check_layers(["penultimate"], convnet, images[0])
    assert all(torch.equal(initial_state[key], value) for key, value in convnet.state_dict().items())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in convnet.modules())
    assert all(parameter.grad is None for parameter in convnet.parameters())


class InPlaceNetworks(Networks):
    """Networks in which a layer overwrites the output of the previous layer in place."""

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.ReLU(inplace=True))
        self.g = nn.Linear(4, 2)
        self.h = nn.Linear(4, 2)


def test_features_are_copied_before_a_later_layer_overwrites_them() -> None:
    torch.manual_seed(0)
    networks, x = InPlaceNetworks(), torch.randn(20, 3, 1, 1)
    z = features(networks, [x], "f.1")
    assert (z < 0).any()
    torch.testing.assert_close(z, F.linear(x.flatten(1), networks.f[1].weight, networks.f[1].bias).detach())  # type: ignore[index]


def test_layer_names_lists_all_layers_that_are_called(convnet: ConvNet, images: list[Tensor]) -> None:
    # f.norm and g.first are not called, only their weights are used; h is not on the path to the prediction
    rest_layers = [f"f.rest.{i}" for i in range(4)]
    expected = ["f", "f.rest", *rest_layers, "g", *(f"g.{i}" for i in range(7)), "penultimate"]
    assert layer_names(convnet, images[0]) == expected


def test_an_unknown_layer_is_an_error_with_the_valid_names(convnet: ConvNet, images: list[Tensor]) -> None:
    for name in ("f.rest.9", "f.norm", "h", "", "g.first"):
        with pytest.raises(UserError, match=r"no such layer; valid: f, f\.rest, .*, g\.6, penultimate$"):
            check_layers(["f", name], convnet, images[0])


def test_default_layers_are_f_and_the_layer_before_the_logits(convnet: ConvNet, digits: ColoredMNIST) -> None:
    assert default_layers(convnet) == ("f", "penultimate")
    assert default_layers(LeNet(digits.spec, LeNet.Config())) == ("f", "penultimate")
    assert default_layers(InPlaceNetworks()) == ("f",)  # g is linear, so f is the layer before the logits
    networks = InPlaceNetworks()
    networks.g = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten())
    assert default_layers(networks) == ("f",)


def test_pooled_averages_equal_slow_means() -> None:
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(pool_maps(x, 3 * 64), x)
    averaged_maps = pool_maps(x, 3 * 16)
    assert averaged_maps.shape == (2, 3, 4, 4)
    for n, c, i, j in torch.cartesian_prod(*map(torch.arange, averaged_maps.shape)).tolist():
        torch.testing.assert_close(averaged_maps[n, c, i, j], x[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean())
    assert pool_maps(x, 1).shape == (2, 3, 1, 1)
    vector = torch.randn(2, 100)
    assert pool_maps(vector, 10) is vector


def test_large_maps_are_averaged(images: list[Tensor]) -> None:
    networks = InPlaceNetworks()
    networks.f, networks.g = nn.Conv2d(3, 64, 1), nn.Sequential(nn.Flatten(), nn.Linear(64 * 784, 2))
    z = features(networks, images, "f")
    assert z.shape == (100, 64, 7, 7)
    assert z[0].numel() <= MAX_VALUES


def test_features_that_are_not_finite_are_an_error(images: list[Tensor], convnet: ConvNet) -> None:
    with torch.no_grad():
        next(convnet.g.parameters()).fill_(float("nan"))
    assert features(convnet, images, "f").isfinite().all()
    with pytest.raises(UserError, match="layer penultimate: some outputs are NaN or infinite"):
        features(convnet, images, "penultimate")
