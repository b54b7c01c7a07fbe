"""Library classifiers, adapted to the channels and classes of the data: settings and pretrained weights."""

import sys
from typing import Any

import pytest
import torch
from torch import nn

from lntl.errors import UserError
from lntl.models import load_model
from lntl.models.backbone import Backbone
from lntl.types import DataSpec

SPEC = DataSpec((3, 32, 32), 4, 5, (), tuple("abcd"), tuple("uvwxy"), 100)
GRAY_SPEC = DataSpec((1, 32, 32), 4, 5, (), tuple("abcd"), tuple("uvwxy"), 100)
SPEC_30_PIXELS = DataSpec((3, 30, 30), 4, 5, (), tuple("abcd"), tuple("uvwxy"), 100)
VECTOR_SPEC = DataSpec((12,), 4, 5, (2,), tuple("abcd"), tuple("uvwxy"), 100)


def build_networks(
    name: str = "torchvision/resnet18", split: str = "layer2", spec: DataSpec = SPEC, **settings: Any
) -> Any:
    torch.manual_seed(settings.pop("seed", 0))
    library, _, arch = name.partition("/")
    plugin: Any = load_model(library)
    return plugin(spec, plugin.Config(arch=arch, split=split, **settings))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("torchvision/resnet18", "layer1"),
        # The first convolution of SqueezeNet has a bias, and its last layer is a convolution.
        ("torchvision/squeezenet1_1", "features.3"),
        ("torchvision/vit_b_32", "encoder.layers.encoder_layer_0"),
        ("timm/test_resnet", "layer1"),
    ],
)
def test_first_and_last_layer_fit_the_data(name: str, split: str) -> None:
    networks = build_networks(name, split, GRAY_SPEC)
    z = networks.f(torch.randn(3, 1, 32, 32))
    assert z.shape[1] == networks.num_features
    assert networks.g(z).shape == (3, 4)
    assert networks.h(z).shape == (3, 5)


def test_small_images_gives_a_3_x_3_first_convolution_without_pooling() -> None:
    small_image_networks, default_networks = build_networks(small_images=True), build_networks()
    x = torch.randn(2, 3, 32, 32)
    assert small_image_networks.f(x).shape == (2, 128, 16, 16)
    assert default_networks.f(x).shape == (2, 128, 4, 4)
    assert small_image_networks.f.conv1.weight.shape == (64, 3, 3, 3)
    assert not any(isinstance(module, nn.MaxPool2d) for module in small_image_networks.modules())


def test_layers_have_their_own_learning_rate_or_are_frozen() -> None:
    networks = build_networks(frozen=["conv1", "bn1"], lr_factors={"f": 0.5, "layer2.1": 0.1})
    assert networks.lr_factors == {"": 0.5, "layer2.1": 0.1}
    frozen_names = {name for name, p in networks.named_parameters() if not p.requires_grad}
    assert frozen_names == {"f.conv1.weight", "f.bn1.weight", "f.bn1.bias"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "torchvision/resnet81"}, r"torchvision has no classifier 'resnet81'; did you mean 'resnet18'\?"),
        ({"name": "timm/rsnet18"}, r"timm has no classifier 'rsnet18'; did you mean 'resnet18'\?"),
        ({"split": "layer22"}, r"cannot be split at 'layer22': there is no such layer; did you mean 'layer2'\?"),
        ({"split": "layer2.0.conv1"}, r"a branch of the network bypasses it; `lntl models torchvision/resnet18` lists"),
        ({"frozen": ["layer4"]}, r"model\.frozen: f has no layer 'layer4'; did you mean 'layer"),
        ({"lr_factors": {"x": 0.1}}, r"model\.lr_factors: f has no layer 'x'"),
        ({"name": "torchvision/vgg11", "split": "features.3", "small_images": True}, r"is not built like a ResNet"),
        ({"spec": VECTOR_SPEC}, r"torchvision takes images, but the data are vectors \(12,\); use mlp"),
        ({"name": "torchvision/vit_b_16", "spec": SPEC_30_PIXELS},
         r"vit_b_16 cannot take images of 30 x 30: "),
        ({"name": "timm/nest_tiny", "spec": SPEC_30_PIXELS},
         r"nest_tiny cannot take images of 3 x 30 x 30: "),
    ],
)  # fmt: skip
def test_an_unsuitable_setting_is_refused_with_the_reason(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_networks(**arguments)


@pytest.mark.parametrize("name", ["convnet", "lenet"])
def test_image_models_refuse_vectors(name: str) -> None:
    plugin: Any = load_model(name)
    with pytest.raises(UserError, match=rf"{name} takes images, but the data are vectors \(12,\); use mlp"):
        plugin(VECTOR_SPEC, plugin.Config())


def test_the_mlp_takes_vectors() -> None:
    plugin: Any = load_model("mlp")
    networks = plugin(VECTOR_SPEC, plugin.Config(hidden=[9, 7], dropout=0.1))
    z = networks.f(torch.randn(6, 12))
    assert z.shape == (6, 7)
    assert networks.g(z).shape == (6, 4)
    assert networks.h(z).shape == (6, 5, 2)


def test_the_mlp_of_lff_has_no_norm_and_scales_its_input() -> None:
    plugin: Any = load_model("mlp")
    networks = plugin(VECTOR_SPEC, plugin.Config(hidden=[9, 7], batch_norm=False, input_scale=0.5))
    first, second = (module for module in networks.f if isinstance(module, torch.nn.Linear))
    x = torch.randn(6, 12)
    torch.testing.assert_close(networks.f(x), second(first(x / 2).relu()).relu())


def test_a_missing_library_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match="pip install timm, or use torchvision"):
        build_networks("timm/resnet18")


def get_classifier_state(networks: Backbone) -> dict[str, torch.Tensor]:
    body = getattr(networks.g, "body", networks.g)
    return {**networks.f.state_dict(), **body.state_dict()}


@pytest.mark.parametrize("settings", [{}, {"heads": "per_bias"}, {"small_images": True}])
def test_weights_of_a_classifier_are_loaded_into_f_and_g(settings: dict[str, Any]) -> None:
    """A last layer for other classes and a first convolution of another shape are not changed."""
    torch.manual_seed(1)
    state = load_model("torchvision").create("resnet18", (3, 32, 32), 9).state_dict()
    networks = build_networks(**settings)
    initial_state = {key: value.clone() for key, value in get_classifier_state(networks).items()}
    networks.load_whole(state)
    unchanged_prefixes = ("fc.", "conv1.") if "small_images" in settings else ("fc.",)
    for key, value in get_classifier_state(networks).items():
        assert torch.equal(value, initial_state[key] if key.startswith(unchanged_prefixes) else state[key]), key


def test_weights_of_a_model_with_two_heads_are_loaded_except_for_the_heads() -> None:
    pytest.importorskip("timm")
    plugin: Any = load_model("timm")
    spec = DataSpec((3, 32, 32), 4, 5, (), tuple("abcd"), tuple("uvwxy"), 100)
    arch = "deit_tiny_distilled_patch16_224"
    state = plugin.create(arch, (3, 32, 32), 10).state_dict()
    networks = plugin(spec, plugin.Config(arch=arch, split="blocks.5"))
    networks.load_whole(state)
    for key, value in get_classifier_state(networks).items():
        if not key.startswith(("head.", "head_dist.")):
            assert torch.equal(value, state[key]), key


def test_a_last_layer_that_fits_is_loaded() -> None:
    source_networks, networks = build_networks(seed=1), build_networks()
    networks.load_whole(get_classifier_state(source_networks))
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(networks.eval().g(networks.f(x)), source_networks.eval().g(source_networks.f(x)))


def test_auxiliary_classifiers_of_googlenet_are_ignored() -> None:
    spec = DataSpec((3, 64, 64), 4, 5, (), tuple("abcd"), tuple("uvwxy"), 100)
    networks = build_networks("torchvision/googlenet", "inception3b", spec)
    networks.load_whole(get_classifier_state(networks) | {"aux1.fc1.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer1.0.conv1.weight": None}, r"1 weights do not fit torchvision/resnet18; layer1\.0\.conv1\.weight: "
         r"missing in the file, shape \(64, 64, 3, 3\) in the model"),
        ({"layer1.0.conv1.weight": torch.zeros(2)}, r"shape \(2,\) in the file, shape \(64, 64, 3, 3\) in the model"),
        ({"classifier.weight": torch.zeros(2)}, r"classifier\.weight: shape \(2,\) in the file, missing in the model"),
    ],
)  # fmt: skip
def test_weights_of_another_architecture_are_reported(change: dict[str, Any], message: str) -> None:
    networks = build_networks()
    state = {
        key: value
        for key, value in (get_classifier_state(build_networks(seed=1)) | change).items()
        if value is not None
    }
    initial_state = {key: value.clone() for key, value in get_classifier_state(networks).items()}
    with pytest.raises(UserError, match=message):
        networks.load_whole(state)
    assert all(torch.equal(value, initial_state[key]) for key, value in get_classifier_state(networks).items())
