"""The bias contrast equals slow loops over its pairs; images of unknown bias are in no pair."""

import math
from dataclasses import replace

import pytest
import torch
from tiny_networks import TinyNetworks
from torch.nn.functional import normalize

from lntl.methods.bias_contrastive import BiasContrastive
from lntl.types import IGNORE, Batch, DataSpec

SPEC = DataSpec((4,), 2, 2, (), ("cat", "dog"), ("day", "night"), num_rows=12)


@pytest.mark.parametrize("unknown_rows", [(), (0, 3, 7)])
def test_the_contrast_equals_slow_loops(unknown_rows: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    n = 12
    y, bias = torch.arange(n) % 2, torch.arange(n) // 2 % 2
    is_known = [i not in unknown_rows for i in range(n)]
    group = torch.where(torch.tensor(is_known), y * 2 + bias, IGNORE)
    batch = Batch(torch.randn(n, 4), y, bias, group, torch.arange(n), torch.zeros(n, 2))
    networks = TinyNetworks(SPEC, TinyNetworks.Config())
    method = BiasContrastive(networks, BiasContrastive.Config(), SPEC)
    (objective,) = method.objectives(batch, 0.0)
    v = normalize(method.k(networks.f(batch.x))).double()
    similarity = (v @ v.T / method.config.temperature).tolist()
    losses = []
    for i in range(n):
        total = sum(math.exp(similarity[i][a]) for a in range(n) if a != i)
        positives = [p for p in range(n) if is_known[i] and is_known[p] and y[p] == y[i] and bias[p] != bias[i]]
        if positives:
            losses.append(-sum(math.log(math.exp(similarity[i][p]) / total) for p in positives) / len(positives))
    assert float(objective.terms["contrast"]) == pytest.approx(sum(losses) / len(losses), rel=1e-4)


def test_without_known_bias_labels_the_contrast_is_zero() -> None:
    unlabelled_batch = Batch(*(torch.zeros(3, 4), *(torch.zeros(3, dtype=torch.int64),) * 4, torch.zeros(3, 2)))
    unlabelled_batch = replace(unlabelled_batch, group=torch.full((3,), IGNORE))
    method = BiasContrastive(TinyNetworks(SPEC, TinyNetworks.Config()), BiasContrastive.Config(), SPEC)
    (objective,) = method.objectives(unlabelled_batch, 0.0)
    assert float(objective.terms["contrast"]) == 0
