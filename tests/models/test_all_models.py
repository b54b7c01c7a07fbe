"""Properties of all models: shapes, memory layout and seeds."""

from typing import Any

import pytest
import torch
from torch import nn

from lntl import plugins
from lntl.models import load_model
from lntl.types import DataSpec, Networks

COLORED_SPEC = DataSpec((3, 28, 28), 10, 8, (3, 14, 14), tuple("0123456789"), tuple("abcdefghij"), 100)
GRAY_SPEC = DataSpec((1, 28, 28), 4, 5, (2, 14, 14), tuple("abcd"), tuple("uvwxy"), 100)
ONE_LABEL_SPEC = DataSpec((3, 28, 28), 10, 6, (), tuple("0123456789"), tuple("abcdef"), 100)
TWO_LABELS_SPEC = DataSpec((3, 28, 28), 4, 5, (2,), tuple("abcd"), tuple("uvwxy"), 100)
MAP_SPECS = [pytest.param(COLORED_SPEC, id="colored"), pytest.param(GRAY_SPEC, id="gray")]
LABEL_SPECS = [pytest.param(ONE_LABEL_SPEC, id="one_label"), pytest.param(TWO_LABELS_SPEC, id="two_labels")]
VARIANTS = {
    "torchvision": "torchvision arch=shufflenet_v2_x0_5 split=stage2",
    "timm": "timm arch=test_resnet split=layer2",
}
MODELS = [*(VARIANTS.get(name, name) for name in plugins.names("lntl.models")), "convnet bias_head=pooled"]
MODELS += ["timm arch=test_resnet split=global_pool"]  # z is a vector


def build_networks(model: str, spec: DataSpec, seed: int = 0, **settings: Any) -> Networks:
    torch.manual_seed(seed)
    name, *variant = model.split()
    plugin: Any = load_model(name)
    networks: Networks = plugin(spec, plugin.Config(**dict(pair.split("=") for pair in variant) | settings))
    return networks


@pytest.mark.parametrize("model", MODELS)
def test_shapes_follow_from_the_data(model: str) -> None:
    layouts = {
        COLORED_SPEC: torch.channels_last,
        GRAY_SPEC: torch.contiguous_format,
        ONE_LABEL_SPEC: torch.channels_last,
    }
    for spec, layout in (layouts | {TWO_LABELS_SPEC: torch.contiguous_format}).items():
        networks = build_networks(model, spec).to(memory_format=layout)
        z = networks.f(torch.randn(5, *spec.input_shape))
        assert networks.g(z).shape == (5, spec.num_classes)
        assert networks.h(z).shape == (5, spec.num_bins, *spec.bias_shape)
        (networks.g(z).sum() + networks.h(z).sum()).backward()
        assert all(p.grad is not None for p in networks.parameters())


@pytest.mark.parametrize("model", MODELS)
def test_the_memory_layout_does_not_change_the_outputs(model: str) -> None:
    networks, channels_last_networks = (
        build_networks(model, COLORED_SPEC).double(),
        build_networks(model, COLORED_SPEC).double().to(memory_format=torch.channels_last),
    )
    x = torch.randn(3, *COLORED_SPEC.input_shape, dtype=torch.float64)
    for head in ("g", "h"):
        torch.testing.assert_close(getattr(channels_last_networks, head)(channels_last_networks.f(x)), getattr(networks, head)(networks.f(x)), rtol=1e-4, atol=1e-5)  # fmt: skip # noqa: E501


@pytest.mark.parametrize("model", MODELS)
def test_h_at_positions_gives_the_logits_of_the_map_at_these_positions(model: str) -> None:
    networks = build_networks(model, COLORED_SPEC).eval()
    z, where = networks.f(torch.randn(3, *COLORED_SPEC.input_shape)), torch.rand(3, 14, 14) < 0.2
    maps = networks.h(z)
    expected = torch.stack([maps[n, :, :, i, j] for n, i, j in where.nonzero().tolist()])
    torch.testing.assert_close(networks.h(z, where), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("spec", LABEL_SPECS)
@pytest.mark.parametrize("model", MODELS)
def test_h_for_some_images_gives_their_logits(model: str, spec: DataSpec) -> None:
    networks = build_networks(model, spec).eval()
    z, where = networks.f(torch.randn(4, *spec.input_shape)), torch.tensor([True, False, True, True])
    torch.testing.assert_close(networks.h(z, where), networks.h(z)[[0, 2, 3]])
    assert networks.h(z, where & False).shape == (0, spec.num_bins, *spec.bias_shape)


@pytest.mark.parametrize("spec", MAP_SPECS)
@pytest.mark.parametrize("model", MODELS)
def test_g_has_a_head_for_each_bias_value(model: str, spec: DataSpec) -> None:
    """g(z, value) uses the head of each image's value; g(z) sums all logits or averages all probabilities."""
    networks = build_networks(model, spec, heads="per_bias").eval()
    z = networks.f(torch.randn(5, *spec.input_shape))
    logits_by_value = [networks.g(z, torch.full((5,), value)) for value in range(spec.num_bias_values)]
    assert networks.g.num_bias_values == spec.num_bias_values
    assert all(logits.shape == (5, spec.num_classes) for logits in logits_by_value)
    assert not torch.allclose(logits_by_value[0], logits_by_value[1])
    mixed_logits = networks.g(z, torch.tensor([4, 0, 1, 2, 0]))
    torch.testing.assert_close(
        mixed_logits, torch.stack([logits_by_value[value][n] for n, value in enumerate([4, 0, 1, 2, 0])])
    )
    torch.testing.assert_close(networks.g(z), sum(logits_by_value))
    averaging_networks = build_networks(model, spec, heads="per_bias", heads_sum="probabilities").eval()
    averaging_networks.load_state_dict(networks.state_dict())
    mean_probabilities = sum(logits.softmax(dim=1) for logits in logits_by_value) / spec.num_bias_values
    torch.testing.assert_close(averaging_networks.g(z).softmax(dim=1), mean_probabilities)
    assert not torch.allclose(mean_probabilities, sum(logits_by_value).softmax(dim=1))


@pytest.mark.parametrize("model", MODELS)
def test_the_submodules_are_f_g_and_h(model: str) -> None:
    assert [name for name, _ in build_networks(model, COLORED_SPEC).named_children()] == ["f", "g", "h"]


@pytest.mark.parametrize("model", MODELS)
def test_the_start_weights_follow_from_the_seed(model: str) -> None:
    state, same_seed_state, other_seed_state = (
        build_networks(model, COLORED_SPEC, seed).state_dict() for seed in (0, 0, 1)
    )
    assert all(torch.equal(state[key], same_seed_state[key]) for key in state)
    for name in ("f", "g", "h"):
        assert any(not torch.equal(state[key], other_seed_state[key]) for key in state if key.startswith(f"{name}."))


@pytest.mark.parametrize("model", MODELS)
def test_in_evaluation_mode_a_prediction_does_not_depend_on_the_batch(model: str) -> None:
    networks = build_networks(model, COLORED_SPEC)
    networks.f.train()(torch.randn(8, *COLORED_SPEC.input_shape))  # changes the running statistics
    networks.eval()
    x = torch.randn(4, *COLORED_SPEC.input_shape)
    single_logits = torch.cat([networks.g(networks.f(x[n : n + 1])) for n in range(4)])
    torch.testing.assert_close(networks.g(networks.f(x)), single_logits, rtol=1e-4, atol=1e-5)


def test_lenet_has_a_vector_of_features() -> None:
    plugin = load_model("lenet")
    networks = plugin(COLORED_SPEC, plugin.Config(feature_dim=17, hidden_dim=6))
    z = networks.f(torch.randn(2, 3, 28, 28))
    assert z.shape == (2, 17)
    assert networks.h(z).shape == (2, 8, 3, 14, 14)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in networks.f.modules())
