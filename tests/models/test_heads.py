"""The grouped head for a map of biases is three separate networks; at chosen places it is the same head."""

import pytest
import torch
from torch import Tensor, nn

from lntl.models.heads import MapHead, PooledHead
from lntl.ops import MASKED_LOGIT


def separate(head: MapHead, biases: int, channels: int, bins: int) -> nn.ModuleList:
    """Return the authors' nets, one per bias, with the weights and statistics of the grouped head."""
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


def test_a_bias_depends_only_on_its_net(head: MapHead) -> None:
    """A change in the second net's last kernel does not change the predictions of the other biases."""
    z = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    before = head.eval()(z)
    kernel = [p for p in head.parameters() if p.dim() == 4][-1]
    kernel.data.chunk(3)[1].add_(1)
    changed = (head(z) != before).flatten(3).any(dim=3).any(dim=1).any(dim=0)
    assert changed.tolist() == [False, True, False]


def at_places(head: MapHead, z: Tensor, where: Tensor) -> Tensor:
    """Return the logits at the places, from whole maps: the norm's statistics are over the places within one step."""
    first = head.first(z)
    near = torch.zeros_like(where)
    for n, i, j in where.nonzero().tolist():
        near[n, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2] = True
    if head.training:
        seen = first.movedim(1, -1)[near]
        mean, variance = seen.mean(dim=0), seen.var(dim=0, correction=0)
    else:
        mean, variance = head.norm.running_mean, head.norm.running_var
    scaled = (first.movedim(1, -1) - mean) / (variance + head.norm.eps).sqrt() * head.norm.weight + head.norm.bias
    maps = head.last(scaled.movedim(-1, 1).relu())
    logits = maps.view(len(z), 3, 8, *maps.shape[2:])
    return torch.stack([logits[n, :, :, i, j].T for n, i, j in where.nonzero().tolist()])


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("train", [True, False])
def test_the_head_at_places_is_the_map_there(head: MapHead, train: bool, share: float) -> None:
    z = torch.randn(4, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    where = torch.rand(4, 5, 7) < share
    head.train()(z + 1)  # running statistics of its own
    head.train(train)
    fast, slow = head(z, where), at_places(head, z, where)
    assert fast.shape == (where.sum(), 8, 3)
    torch.testing.assert_close(fast, slow)
    weights = torch.randn_like(slow)
    got, want = (torch.autograd.grad((out * weights).sum(), [z, *head.parameters()]) for out in (fast, slow))
    torch.testing.assert_close(got, want)


def test_the_head_at_no_place_gives_no_logits(head: MapHead) -> None:
    z = torch.randn(2, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    logits = head(z, torch.zeros(2, 5, 7, dtype=torch.bool))
    assert logits.shape == (0, 8, 3)
    logits.sum().backward()
    assert not z.grad.any()


@pytest.mark.parametrize("train", [True, False])
def test_the_pooled_head_has_one_prediction_per_image(train: bool) -> None:
    torch.manual_seed(0)
    head = PooledHead((6, 5, 7), bins=8, bias_shape=(3, 5, 7)).train(train)
    maps = head(torch.randn(4, 6, 5, 7))
    assert maps.shape == (4, 8, 3, 5, 7)
    assert maps.flatten(3).std(dim=3).max() == 0
    assert maps[:, :, :, 0, 0].std(dim=0).min() > 0


def test_the_pooled_head_repeats_its_prediction_at_each_position() -> None:
    torch.manual_seed(0)
    head = PooledHead((6, 5, 7), bins=8, bias_shape=(3, 5, 7))
    z, where = torch.randn(4, 6, 5, 7), torch.rand(4, 5, 7) < 0.3
    where[2] = False  # an image without a label
    maps = head(z)
    torch.testing.assert_close(head(z, where), torch.stack([maps[n, :, :, i, j] for n, i, j in where.nonzero()]))


def test_the_pooled_head_can_count_active_places() -> None:
    """One or three marks, far apart: a head with small neighbourhoods predicts the same at each, this one does not."""
    torch.manual_seed(0)
    head = PooledHead((1, 14, 14), bins=4, bias_shape=(1, 14, 14)).eval()
    once, thrice = torch.zeros(1, 1, 14, 14), torch.zeros(1, 1, 14, 14)
    once[0, 0, 2, 2] = 1
    thrice[0, 0, [2, 2, 10], [2, 10, 2]] = 1
    assert not torch.allclose(head(once)[..., 2, 2], head(thrice)[..., 2, 2])
    near = MapHead(channels=1, bins=4, biases=1).eval()
    torch.testing.assert_close(near(once)[..., 2, 2], near(thrice)[..., 2, 2])


def test_the_pooled_head_never_predicts_a_value_that_a_bias_does_not_have() -> None:
    torch.manual_seed(0)
    head = PooledHead((6,), bins=5, bias_shape=(2,), sizes=(5, 2)).eval()
    logits = head(torch.randn(8, 6))
    assert (logits[:, 2:, 1] == MASKED_LOGIT).all()
    assert torch.softmax(logits, dim=1)[:, :2, 1].sum(dim=1).tolist() == pytest.approx([1] * 8)
    assert (logits[:, :, 0] > MASKED_LOGIT).all()
    even = PooledHead((6,), bins=5, bias_shape=(2,)).eval()
    even.load_state_dict(head.state_dict())  # what a bias does not have is no weight
    z = torch.randn(3, 6)
    torch.testing.assert_close(even(z)[:, :2], head(z)[:, :2])
