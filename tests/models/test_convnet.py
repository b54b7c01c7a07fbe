"""The authors' network: shapes, sizes, and the equality of our faster form and theirs."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from lntl.data.colored_mnist import ColoredMNIST
from lntl.models.convnet import ConvNet
from lntl.types import Batch


def net(digits: ColoredMNIST) -> ConvNet:
    torch.manual_seed(0)
    return ConvNet(digits.spec, ConvNet.Config())


def authors_f() -> nn.Sequential:
    """f in the authors' order: BatchNorm, conv, ReLU, pool, conv, ReLU."""
    return nn.Sequential(
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
    )


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_numbers_of_parameters_are_the_authors(digits: ColoredMNIST) -> None:
    """Counted by hand: kernel x kernel x in x out + out per convolution, 2 per channel of a BatchNorm."""
    networks = net(digits)
    assert count(networks.f) == 2 * 3 + (25 * 3 * 32 + 32) + (9 * 32 * 32 + 32)
    assert count(networks.g) == (9 * 32 * 64 + 64) + (9 * 64 * 64 + 64) + (64 * 10 + 10)
    assert count(networks.h) == 3 * ((9 * 32 * 32 + 32) + 2 * 32 + (9 * 32 * 8 + 8))


def test_batch_norm_follows_each_convolution_of_f_and_g(digits: ColoredMNIST, batch: Batch) -> None:
    torch.manual_seed(0)
    networks, plain = ConvNet(digits.spec, ConvNet.Config(batch_norm=True)), net(digits)
    assert count(networks.f) == count(plain.f) + 2 * (32 + 32)
    assert count(networks.g) == count(plain.g) + 2 * (64 + 64)
    norms = [module for module in networks.g.modules() if isinstance(module, nn.BatchNorm2d)]
    seen: list[Tensor] = []
    for norm in norms:
        norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    networks.g(networks.f(batch.x))
    for output in seen:
        torch.testing.assert_close(output.mean(dim=(0, 2, 3)), torch.zeros(64), atol=1e-5, rtol=0)
        torch.testing.assert_close(output.var(dim=(0, 2, 3), correction=0), torch.ones(64), atol=0.01, rtol=0)
    assert len(seen) == 2


def test_shapes(digits: ColoredMNIST, batch: Batch) -> None:
    networks = net(digits)
    z = networks.f(batch.x)
    assert z.shape == (24, 32, 14, 14)
    assert z.min() >= 0
    assert networks.g(z).shape == (24, 10)
    assert networks.h(z).shape == (24, 8, 3, 14, 14)


def outcome(f: nn.Module, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
    """Return z, the gradients of a random linear function of it, and the running statistics afterwards."""
    z = f(x)
    gradients = torch.autograd.grad((z * weights).sum(), list(f.parameters()))
    running = [b for name, b in f.named_buffers() if "running" in name]
    return {"z": z} | {f"gradient {i}": g for i, g in enumerate(gradients)} | {f"running {i}": b for i, b in enumerate(running)}  # fmt: skip # noqa: E501


def test_f_is_the_authors_function_with_relu_before_the_pool(digits: ColoredMNIST, batch: Batch) -> None:
    """In training mode, then in evaluation mode with the statistics from training; BatchNorm has random weights."""
    ours, theirs = net(digits).f.double(), authors_f().double()
    nn.init.uniform_(next(ours.parameters()), 0.5, 2)
    for mine, authors in zip(ours.parameters(), theirs.parameters(), strict=True):
        nn.init.normal_(mine, std=0.2) if mine.dim() == 1 else None
        authors.data.copy_(mine)
    x, weights = batch.x.double(), torch.randn(24, 32, 14, 14, dtype=torch.float64)
    for train in (True, True, False):
        got, want = (outcome(f.train(train), x, weights) for f in (ours, theirs))
        torch.testing.assert_close(got, want)


def test_split_last_is_the_same_network_cut_in_front_of_its_last_layer(digits: ColoredMNIST, batch: Batch) -> None:
    torch.manual_seed(0)
    late = ConvNet(digits.spec, ConvNet.Config(split="last")).eval()
    early = net(digits).eval()
    early.f.load_state_dict(late.f[0].state_dict())
    early.g.load_state_dict({**late.f[1].state_dict(), **{f"6.{name}": p for name, p in late.g[0].named_parameters()}})
    z = late.f(batch.x)
    assert z.shape == (24, late.num_features) == (24, 64)
    assert late.h(z).shape == (24, 8, 3, 14, 14)
    torch.testing.assert_close(late.g(z), early.g(early.f(batch.x)))


def test_the_network_uses_all_pixels_of_an_image_that_is_not_square(digits: ColoredMNIST) -> None:
    spec = replace(digits.spec, input_shape=(3, 48, 64))
    networks = ConvNet(spec, ConvNet.Config(bias_head="pooled")).eval()
    x = torch.randn(1, 3, 48, 64, requires_grad=True)
    (gradient,) = torch.autograd.grad(networks.g(networks.f(x)).square().sum(), x)
    assert gradient.abs().amax(dim=(0, 1, 2)).min() > 0
    assert gradient.abs().amax(dim=(0, 1, 3)).min() > 0
