"""The accuracy of h and its chance level, compared with slow loops over the labels."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import nn

from lntl.data.colored_mnist import ColoredMNIST
from lntl.models.convnet import ConvNet
from lntl.probing.leakage import count_head
from lntl.types import IGNORE, Networks


def test_accuracy_and_chance_for_a_map_of_labels_equal_slow_loops(digits: ColoredMNIST) -> None:
    torch.manual_seed(0)
    networks, split = ConvNet(digits.spec, ConvNet.Config()), digits.splits["val"]
    counts = count_head(networks, (split.batch(i) for i in torch.arange(10).split(4)), digits.spec.num_bins)
    index = torch.tensor([1, 4, 5])
    batch, hits, total = split.batch(index), 0, 0
    predicted = networks.h(networks.f(batch.x)).argmax(dim=1)
    values: list[Counter[int]] = [Counter(), Counter(), Counter()]
    for n, c, i, j in torch.cartesian_prod(*map(torch.arange, batch.bias.shape)).tolist():
        label = int(batch.bias[n, c, i, j])
        if label != IGNORE:
            total += 1
            hits += int(predicted[n, c, i, j]) == label
            values[c][label] += 1
    assert counts.accuracy(index) == pytest.approx(hits / total)
    assert counts.chance(index) == pytest.approx(sum(max(counter.values()) for counter in values) / total)


def test_accuracy_and_chance_for_one_label_per_image_equal_their_formulas(digits: ColoredMNIST) -> None:
    networks = Networks()
    networks.f, networks.h = nn.Flatten(), nn.Linear(3 * 28 * 28, 10)
    batch = digits.splits["test"].batch(torch.arange(50))
    bias = torch.where(torch.arange(50) % 3 == 0, IGNORE, batch.y)
    counts = count_head(networks, [replace(batch, bias=bias)], 10)
    z = batch.x.flatten(1)
    networks.f = nn.Identity()  # h cannot take the output of this f, so z must be used
    assert torch.equal(count_head(networks, [replace(batch, bias=bias)], 10, z).hits, counts.hits)
    index, is_known = torch.arange(50), bias != IGNORE
    is_correct = networks.h(batch.x.flatten(1)).argmax(dim=1) == bias
    assert counts.accuracy(index) == pytest.approx(is_correct.sum().item() / is_known.sum().item())
    assert counts.chance(index) == pytest.approx(max(Counter(bias[is_known].tolist()).values()) / is_known.sum().item())


def test_without_known_labels_accuracy_and_chance_are_zero(digits: ColoredMNIST) -> None:
    networks = Networks()
    networks.f, networks.h = nn.Flatten(), nn.Linear(3 * 28 * 28, 10)
    batch = digits.splits["test"].batch(torch.arange(5))
    counts = count_head(networks, [replace(batch, bias=torch.full((5,), IGNORE))], 10)
    assert (counts.accuracy(torch.arange(5)), counts.chance(torch.arange(5))) == (0, 0)
