"""The grouped head for a map of biases equals separate networks, for whole maps and at chosen positions."""

import pytest
import torch
from torch import Tensor, nn

from lntl.models.heads import MapHead, PooledHead
from lntl.ops import MASKED_LOGIT


def make_separate_nets(head: MapHead, biases: int, channels: int, bins: int) -> nn.ModuleList:
    """Return one network per bias, as the authors have, with the weights and statistics of the grouped head."""
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
        for value, grouped_value in zip(net.parameters(), head.parameters(), strict=True):
            value.data.copy_(grouped_value.chunk(biases)[number])
        for value, grouped_value in zip(net.buffers(), head.buffers(), strict=True):
            value.copy_(grouped_value.chunk(biases)[number] if grouped_value.dim() else grouped_value)
    return nets


@pytest.fixture
def head() -> MapHead:
    torch.manual_seed(0)
    head = MapHead(channels=6, bins=8, biases=3).double()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)
    return head


def stack_outputs(nets: nn.ModuleList, z: Tensor) -> Tensor:
    return torch.stack([net(z) for net in nets], dim=2)


@pytest.mark.parametrize("train", [True, False])
def test_the_grouped_head_equals_three_separate_nets(head: MapHead, train: bool) -> None:
    z = torch.randn(4, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    head.train()(z + 1)  # changes the running statistics
    head.train(train)
    nets = make_separate_nets(head, 3, 6, 8).train(train)
    logits, expected_logits = head(z), stack_outputs(nets, z)
    assert logits.shape == (4, 8, 3, 5, 7)
    torch.testing.assert_close(logits, expected_logits)

    weights = torch.randn_like(expected_logits)
    actual = torch.autograd.grad((logits * weights).sum(), [z, *head.parameters()])
    expected = torch.autograd.grad((expected_logits * weights).sum(), [z, *nets.parameters()])
    torch.testing.assert_close(actual[0], expected[0])
    for index, gradient in enumerate(actual[1:]):
        for number, chunk in enumerate(gradient.chunk(3)):
            torch.testing.assert_close(chunk, expected[1 + number * len(actual[1:]) + index])
    for index, buffer in enumerate(head.buffers()):
        for number, net in enumerate(nets):
            torch.testing.assert_close(buffer.chunk(3)[number] if buffer.dim() else buffer, [*net.buffers()][index])


def test_the_prediction_of_a_bias_depends_only_on_its_net(head: MapHead) -> None:
    """A change of the last kernel of the second net does not change the predictions of the other biases."""
    z = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    initial_logits = head.eval()(z)
    kernel = [p for p in head.parameters() if p.dim() == 4][-1]
    kernel.data.chunk(3)[1].add_(1)
    is_changed = (head(z) != initial_logits).flatten(3).any(dim=3).any(dim=1).any(dim=0)
    assert is_changed.tolist() == [False, True, False]


def slow_logits_at_positions(head: MapHead, z: Tensor, where: Tensor) -> Tensor:
    """Return logits at positions of whole maps; BatchNorm's statistics are over the 3 x 3 windows around positions."""
    first_maps = head.first(z)
    is_near = torch.zeros_like(where)
    for n, i, j in where.nonzero().tolist():
        is_near[n, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2] = True
    if head.training:
        near_values = first_maps.movedim(1, -1)[is_near]
        mean, variance = near_values.mean(dim=0), near_values.var(dim=0, correction=0)
    else:
        mean, variance = head.norm.running_mean, head.norm.running_var
    scaled_maps = (first_maps.movedim(1, -1) - mean) / (
        variance + head.norm.eps
    ).sqrt() * head.norm.weight + head.norm.bias
    maps = head.last(scaled_maps.movedim(-1, 1).relu())
    logits = maps.view(len(z), 3, 8, *maps.shape[2:])
    return torch.stack([logits[n, :, :, i, j].T for n, i, j in where.nonzero().tolist()])


@pytest.mark.parametrize("share", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("train", [True, False])
def test_the_head_at_positions_gives_the_logits_of_the_map_at_these_positions(
    head: MapHead, train: bool, share: float
) -> None:
    z = torch.randn(4, 6, 5, 7, dtype=torch.float64, requires_grad=True)
    where = torch.rand(4, 5, 7) < share
    head.train()(z + 1)  # changes the running statistics
    head.train(train)
    logits, expected_logits = head(z, where), slow_logits_at_positions(head, z, where)
    assert logits.shape == (where.sum(), 8, 3)
    torch.testing.assert_close(logits, expected_logits)
    weights = torch.randn_like(expected_logits)
    actual, expected = (
        torch.autograd.grad((output * weights).sum(), [z, *head.parameters()]) for output in (logits, expected_logits)
    )
    torch.testing.assert_close(actual, expected)


def test_the_head_for_an_empty_set_of_positions_gives_no_logits(head: MapHead) -> None:
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


def test_the_pooled_head_can_count_active_positions() -> None:
    """Two more, distant marks change the logits of the pooled head at the first mark, but not those of a local head."""
    torch.manual_seed(0)
    head = PooledHead((1, 14, 14), bins=4, bias_shape=(1, 14, 14)).eval()
    one_mark, three_marks = torch.zeros(1, 1, 14, 14), torch.zeros(1, 1, 14, 14)
    one_mark[0, 0, 2, 2] = 1
    three_marks[0, 0, [2, 2, 10], [2, 10, 2]] = 1
    assert not torch.allclose(head(one_mark)[..., 2, 2], head(three_marks)[..., 2, 2])
    local_head = MapHead(channels=1, bins=4, biases=1).eval()
    torch.testing.assert_close(local_head(one_mark)[..., 2, 2], local_head(three_marks)[..., 2, 2])


def test_the_pooled_head_never_predicts_a_value_that_a_bias_does_not_have() -> None:
    torch.manual_seed(0)
    head = PooledHead((6,), bins=5, bias_shape=(2,), sizes=(5, 2)).eval()
    logits = head(torch.randn(8, 6))
    assert (logits[:, 2:, 1] == MASKED_LOGIT).all()
    assert torch.softmax(logits, dim=1)[:, :2, 1].sum(dim=1).tolist() == pytest.approx([1] * 8)
    assert (logits[:, :, 0] > MASKED_LOGIT).all()
    unmasked_head = PooledHead((6,), bins=5, bias_shape=(2,)).eval()
    unmasked_head.load_state_dict(head.state_dict())  # the mask is not part of the state
    z = torch.randn(3, 6)
    torch.testing.assert_close(unmasked_head(z)[:, :2], head(z)[:, :2])
