"""The convnet has the shapes and sizes of the authors' network and gives equal outputs and gradients."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from lntl.data.colored_mnist import ColoredMNIST
from lntl.models.convnet import ConvNet
from lntl.types import Batch


def make_convnet(digits: ColoredMNIST) -> ConvNet:
    torch.manual_seed(0)
    return ConvNet(digits.spec, ConvNet.Config())


def make_authors_f() -> nn.Sequential:
    """f in the authors' order: BatchNorm, conv, ReLU, pool, conv, ReLU."""
    return nn.Sequential(
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
    )


def count_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_the_numbers_of_parameters_equal_the_authors_network(digits: ColoredMNIST) -> None:
    """A convolution has kernel x kernel x in x out + out parameters, a BatchNorm 2 per channel."""
    networks = make_convnet(digits)
    assert count_parameters(networks.f) == 2 * 3 + (25 * 3 * 32 + 32) + (9 * 32 * 32 + 32)
    assert count_parameters(networks.g) == (9 * 32 * 64 + 64) + (9 * 64 * 64 + 64) + (64 * 10 + 10)
    assert count_parameters(networks.h) == 3 * ((9 * 32 * 32 + 32) + 2 * 32 + (9 * 32 * 8 + 8))


def test_batch_norm_follows_each_convolution_of_f_and_g(digits: ColoredMNIST, batch: Batch) -> None:
    torch.manual_seed(0)
    networks, networks_without_norms = ConvNet(digits.spec, ConvNet.Config(batch_norm=True)), make_convnet(digits)
    assert count_parameters(networks.f) == count_parameters(networks_without_norms.f) + 2 * (32 + 32)
    assert count_parameters(networks.g) == count_parameters(networks_without_norms.g) + 2 * (64 + 64)
    norms = [module for module in networks.g.modules() if isinstance(module, nn.BatchNorm2d)]
    outputs: list[Tensor] = []
    for norm in norms:
        norm.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    networks.g(networks.f(batch.x))
    for output in outputs:
        torch.testing.assert_close(output.mean(dim=(0, 2, 3)), torch.zeros(64), atol=1e-5, rtol=0)
        torch.testing.assert_close(output.var(dim=(0, 2, 3), correction=0), torch.ones(64), atol=0.01, rtol=0)
    assert len(outputs) == 2


def test_features_and_logits_have_the_expected_shapes(digits: ColoredMNIST, batch: Batch) -> None:
    networks = make_convnet(digits)
    z = networks.f(batch.x)
    assert z.shape == (24, 32, 14, 14)
    assert z.min() >= 0
    assert networks.g(z).shape == (24, 10)
    assert networks.h(z).shape == (24, 8, 3, 14, 14)


def compute_outputs_and_gradients(f: nn.Module, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Return z, the gradients of a linear function of z with these weights, and the running statistics afterwards."""
    z = f(x)
    gradients = torch.autograd.grad((z * weights).sum(), list(f.parameters()))
    running_statistics = [b for name, b in f.named_buffers() if "running" in name]
    return {"z": z} | {f"gradient {i}": g for i, g in enumerate(gradients)} | {f"running {i}": b for i, b in enumerate(running_statistics)}  # fmt: skip # noqa: E501


def test_f_equals_the_authors_f_with_relu_before_the_pool(digits: ColoredMNIST, batch: Batch) -> None:
    """The test compares in training mode, then in evaluation mode; BatchNorm has random weights."""
    our_f, authors_f = make_convnet(digits).f.double(), make_authors_f().double()
    nn.init.uniform_(next(our_f.parameters()), 0.5, 2)
    for parameter, authors_parameter in zip(our_f.parameters(), authors_f.parameters(), strict=True):
        nn.init.normal_(parameter, std=0.2) if parameter.dim() == 1 else None
        authors_parameter.data.copy_(parameter)
    x, weights = batch.x.double(), torch.randn(24, 32, 14, 14, dtype=torch.float64)
    for train in (True, True, False):
        actual, expected = (compute_outputs_and_gradients(f.train(train), x, weights) for f in (our_f, authors_f))
        torch.testing.assert_close(actual, expected)


def test_split_last_is_the_same_network_cut_in_front_of_its_last_layer(digits: ColoredMNIST, batch: Batch) -> None:
    torch.manual_seed(0)
    late_split = ConvNet(digits.spec, ConvNet.Config(split="last")).eval()
    early_split = make_convnet(digits).eval()
    early_split.f.load_state_dict(late_split.f[0].state_dict())
    early_split.g.load_state_dict(
        {**late_split.f[1].state_dict(), **{f"6.{name}": p for name, p in late_split.g[0].named_parameters()}}
    )
    z = late_split.f(batch.x)
    assert z.shape == (24, late_split.num_features) == (24, 64)
    assert late_split.h(z).shape == (24, 8, 3, 14, 14)
    torch.testing.assert_close(late_split.g(z), early_split.g(early_split.f(batch.x)))


def test_the_network_uses_all_pixels_of_an_image_that_is_not_square(digits: ColoredMNIST) -> None:
    spec = replace(digits.spec, input_shape=(3, 48, 64))
    networks = ConvNet(spec, ConvNet.Config(bias_head="pooled")).eval()
    x = torch.randn(1, 3, 48, 64, requires_grad=True)
    (gradient,) = torch.autograd.grad(networks.g(networks.f(x)).square().sum(), x)
    assert gradient.abs().amax(dim=(0, 1, 2)).min() > 0
    assert gradient.abs().amax(dim=(0, 1, 3)).min() > 0
