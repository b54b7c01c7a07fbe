"""The grouped head for a map of biases is three separate networks."""

import pytest
import torch
from torch import Tensor, nn

from lntl.models.heads import MapHead


def separate(head: MapHead, biases: int, channels: int, bins: int) -> nn.ModuleList:
    """Return the authors' nets, one a bias, with the weights and statistics of the grouped head."""
    nets = nn.ModuleList(
        nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, bins, 3, padding=1),
        ).double()
        for _ in range(biases)
    )
    for number, net in enumerate(nets):
        for mine, grouped in zip(net.parameters(), head.parameters(), strict=True):
            mine.data.copy_(grouped.chunk(biases)[number])
        for mine, grouped in zip(net.buffers(), head.buffers(), strict=True):
            mine.copy_(grouped.chunk(biases)[number] if grouped.dim() else grouped)
    return nets


@pytest.fixture
def head() -> MapHead:
    torch.manual_seed(0)
    head = MapHead(channels=6, bins=8, biases=3).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)
    return head


def together(nets: nn.ModuleList, z: Tensor) -> Tensor:
    return torch.stack([net(z) for net in nets], dim=2)


@pytest.mark.parametrize("train", [True, False])
def test_the_grouped_head_is_three_nets(head: MapHead, train: bool) -> None:
    z = torch.randn(4, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    head.train()(z + 1)  # running statistics of its own
    head.train(train)
    nets = separate(head, 3, 6, 8).train(train)
    grouped, apart = head(z), together(nets, z)
    assert grouped.shape == (4, 8, 3, 5, 7)
    torch.testing.assert_close(grouped, apart)

    weights = torch.randn_like(apart)
    got = torch.autograd.grad((grouped * weights).sum(), [z, *head.parameters()])
    want = torch.autograd.grad((apart * weights).sum(), [z, *nets.parameters()])
    torch.testing.assert_close(got[0], want[0])
    for place, gradient in enumerate(got[1:]):
        for number, chunk in enumerate(gradient.chunk(3)):
            torch.testing.assert_close(chunk, want[1 + number * len(got[1:]) + place])
    for place, buffer in enumerate(head.buffers()):
        for number, net in enumerate(nets):
            torch.testing.assert_close(buffer.chunk(3)[number] if buffer.dim() else buffer, [*net.buffers()][place])


def test_a_bias_sees_its_own_net_alone(head: MapHead) -> None:
    """A change in the second net's last kernel leaves the beliefs about the other biases as they were."""
    z = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    before = head.eval()(z)
    kernel = [p for p in head.parameters() if p.dim() == 4][-1]
    kernel.data.chunk(3)[1].add_(1)
    changed = (head(z) != before).flatten(3).any(dim=3).any(dim=1).any(dim=0)
    assert changed.tolist() == [False, True, False]
