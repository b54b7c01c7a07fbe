"""g(f(x)) equals the network that was split, for all architectures; an impossible split is an error with a reason."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lanes import first_is_fast
from torch import Tensor, nn

from lntl.models import load_model
from lntl.models.splitting import SplitError, split_at, split_points, split_with_shape

# Library, architecture, layer, image side. In vgg11 and densenet121, g starts with an in-place ReLU.
FAST_SPLITS = [
    ("torchvision", "resnet18", "layer2", 32),
    ("torchvision", "resnet18", "bn1", 32),
    ("torchvision", "mobilenet_v3_small", "classifier.0", 32),
    ("torchvision", "densenet121", "features", 32),
    ("torchvision", "squeezenet1_1", "features.6", 32),
    ("timm", "test_resnet", "layer2", 32),
    ("timm", "vit_tiny_patch16_224", "blocks.1", 64),
    ("timm", "test_convnext", "stages.1", 32),
]
FULL_SPLITS = [
    ("torchvision", "resnet50", "layer3.1", 32),
    ("torchvision", "vgg11", "features.3", 32),
    ("torchvision", "densenet121", "features.denseblock2", 32),
    ("torchvision", "mobilenet_v3_small", "features.5", 32),
    ("torchvision", "convnext_tiny", "features.3", 32),
    ("torchvision", "vit_b_16", "encoder.layers.encoder_layer_1", 32),
    ("torchvision", "swin_t", "features.3", 64),
    ("torchvision", "googlenet", "inception3b", 64),
    ("timm", "test_efficientnet", "blocks.2", 32),
]
SPLITS = [*FAST_SPLITS, *(pytest.param(*split, marks=pytest.mark.full) for split in FULL_SPLITS)]


def make_classifier(library: str, arch: str, side: int, seed: int = 0) -> nn.Module:
    """Return a classifier of 7 classes; its 1-d parameters are random, so that no layer is zero or the identity."""
    torch.manual_seed(seed)
    plugin: Any = load_model(library)
    network: nn.Module = plugin.create(arch, (3, side, side), 7)
    for parameter in network.parameters():
        if parameter.dim() < 2:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return network


def compute_gradients(out: Tensor, parameters: Iterator[nn.Parameter]) -> list[Tensor | None]:
    return list(torch.autograd.grad(out.square().sum(), list(parameters), allow_unused=True))


@pytest.mark.parametrize(("library", "arch", "split", "side"), SPLITS)
def test_g_of_f_equals_the_network(library: str, arch: str, split: str, side: int) -> None:
    """The outputs are equal in evaluation mode and, with equal seeds for dropout, in training mode."""
    network = make_classifier(library, arch, side)
    original_network = copy.deepcopy(network)
    f, g, shape = split_with_shape(network, split, torch.zeros(1, 3, side, side))
    x = torch.randn(4, 3, side, side)
    for train in (False, True):
        original_network.train(train)
        torch.manual_seed(1)
        expected = original_network(x)
        torch.manual_seed(1)
        z = f.train(train)(x)
        z_copy = z.clone()
        output = g.train(train)(z)
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
        assert torch.equal(z, z_copy)  # h reads z, too, so g must not change z in place
        assert z.shape[1:] == shape


@pytest.mark.parametrize(
    ("library", "arch", "split", "side"),
    first_is_fast([FAST_SPLITS[0], FAST_SPLITS[3], FAST_SPLITS[5], FAST_SPLITS[6], FULL_SPLITS[3]]),
)
def test_the_gradients_equal_those_of_the_network(library: str, arch: str, split: str, side: int) -> None:
    network = make_classifier(library, arch, side).double()
    original_network = copy.deepcopy(network).eval()
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    f, g, _ = split_with_shape(network, split, x[:1])
    parameters = dict(f.named_parameters()) | dict(g.named_parameters())
    actual = compute_gradients(
        g.eval()(f.eval()(x)), iter(parameters[name] for name, _ in original_network.named_parameters())
    )
    torch.testing.assert_close(actual, compute_gradients(original_network(x), original_network.parameters()))


@pytest.mark.parametrize(("library", "arch", "split", "side"), SPLITS)
def test_the_layers_keep_their_names_and_are_in_f_or_in_g(library: str, arch: str, split: str, side: int) -> None:
    with torch.device("meta"):
        network = make_classifier(library, arch, side)
        f, g, _ = split_with_shape(network, split, torch.zeros(1, 3, side, side))
    assert sorted([*f.state_dict(), *g.state_dict()]) == sorted(network.state_dict())
    assert split in dict(f.named_modules())
    assert list(f.named_modules())[-1][0].startswith(split)  # the split layer is the last layer of f


@pytest.mark.parametrize(
    ("library", "arch", "split", "side", "shape"),
    [
        ("torchvision", "resnet18", "layer2", 64, (128, 8, 8)),
        # The ViT has 4 x 4 patches and the class token.
        ("torchvision", "vit_b_16", "encoder.layers.encoder_layer_0", 64, (768, 17)),
        ("torchvision", "swin_t", "features.3", 64, (192, 8, 8)),
        ("torchvision", "vgg11", "classifier.0", 64, (4096,)),
    ],
)
def test_the_first_dimension_of_features_is_the_channel(
    library: str, arch: str, split: str, side: int, shape: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        assert split_with_shape(make_classifier(library, arch, side), split, torch.zeros(1, 3, side, side))[2] == shape


@pytest.mark.parametrize(
    ("split", "reason"),
    [
        ("layer9", "there is no such layer"),
        ("", "there is no such layer"),
        ("layer2.0.conv1", "a branch of the network bypasses it"),
        ("layer2.0.downsample", "a branch of the network bypasses it"),
        ("layer2.0.relu", "it is run 2 times in a pass"),
        ("fc", "it leaves no layer for g"),
    ],
)
def test_a_layer_that_cannot_be_the_split_layer_is_refused_with_the_reason(split: str, reason: str) -> None:
    with pytest.raises(SplitError, match=reason):
        split_at(make_classifier("torchvision", "resnet18", 32), split)


class BranchingNetwork(nn.Module):
    """A network whose code branches on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4)), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        z = self.first(x)
        out: Tensor = self.last(self.inner(z) if z.sum() > 0 else z)
        return out


def test_code_that_cannot_be_traced_is_refused() -> None:
    with pytest.raises(SplitError, match=r"the code around it cannot be traced \(symbolically traced"):
        split_at(BranchingNetwork(), "first")


def test_images_that_are_too_small_are_refused() -> None:
    with torch.device("meta"), pytest.raises(SplitError, match=r"images of 3 x 8 x 8 cannot be processed"):
        split_with_shape(make_classifier("torchvision", "vgg11", 32), "features", torch.zeros(1, 3, 8, 8))


def make_small_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5)),
        nn.BatchNorm1d(5),
        nn.ReLU(inplace=True),
        nn.Linear(5, 2),
    )


def test_frozen_layers_stay_in_evaluation_mode() -> None:
    f, _ = split_at(make_small_network(), "1")
    f.freeze(("0",))
    f.train()
    assert [name for name, module in f.named_modules() if module.training] == ["", "1"]
    assert [name for name, p in f.named_parameters() if p.requires_grad] == ["1.weight", "1.bias"]
    initial_state = {name: value.clone() for name, value in f.state_dict().items()}
    f(torch.randn(6, 4) + 3)
    changed_names = [name for name, value in f.state_dict().items() if not torch.equal(value, initial_state[name])]
    assert changed_names == ["1.running_mean", "1.running_var", "1.num_batches_tracked"]


def test_all_of_f_can_be_frozen() -> None:
    f, _ = split_at(make_small_network(), "1")
    f.freeze(("",))
    assert not any(module.training for module in f.train().modules())
    assert not any(p.requires_grad for p in f.parameters())


def test_a_copy_is_another_network_with_the_same_function() -> None:
    f, _ = split_at(make_small_network(), "1")
    f.freeze(("0",))
    x = torch.randn(3, 4)
    f_copy = copy.deepcopy(f)
    assert torch.equal(f_copy.eval()(x), f.eval()(x))
    next(f_copy.parameters()).data.add_(1)
    assert not torch.equal(f_copy(x), f(x))
    assert not f_copy.train().get_submodule("0").training


@pytest.mark.full
def test_split_points_lists_all_layers_at_which_a_split_succeeds() -> None:
    with torch.device("meta"):
        network, x = make_classifier("torchvision", "resnet18", 64), torch.zeros(1, 3, 64, 64)
    points = {point.name: point for point in split_points(network, x)}
    blocks = [name for n in "1234" for name in (f"layer{n}", f"layer{n}.0", f"layer{n}.1")]
    assert list(points) == ["conv1", "bn1", "relu", "maxpool", *blocks, "avgpool"]
    assert points["layer2"].shape == (128, 8, 8)
    assert points["layer2"].kind == "Sequential"
    assert points["conv1"].share == 3 * 64 * 49 / sum(p.numel() for p in network.parameters())
