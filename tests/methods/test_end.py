"""EnD equals its definition in slow loops over pairs of examples."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, cross_entropy

from lntl.methods.end import compute_disentangling, compute_entangling, find_members
from lntl.training.trainer import Trainer
from lntl.types import IGNORE, Batch

MakeTrainer = Callable[..., Trainer]
NUM_BIAS_VALUES = 10


def slow_terms(features: Tensor, y: list[int], group: list[int]) -> tuple[float, float]:
    """Return both terms for features (N, C), computed in a loop over the pairs."""
    cosine_sums, num_pairs, entangling_terms = dict.fromkeys(range(NUM_BIAS_VALUES), 0.0), 0, []
    for i, j in combinations(range(len(y)), 2):
        cosine = float(cosine_similarity(features[i], features[j], dim=0))
        if group[i] == IGNORE or group[j] == IGNORE:
            continue
        if group[i] % NUM_BIAS_VALUES == group[j] % NUM_BIAS_VALUES:
            cosine_sums[group[i] % NUM_BIAS_VALUES] += cosine
            num_pairs += 1
        elif y[i] == y[j]:
            entangling_terms.append((1 - cosine) / 2)
    return sum(map(abs, cosine_sums.values())) / max(num_pairs, 1), sum(entangling_terms) / max(
        len(entangling_terms), 1
    )


@pytest.fixture
def few_class_batch(batch: Batch) -> Batch:
    """24 images of three classes and three random bias values; two bias values are unknown."""
    y = torch.arange(24) % 3
    bias = torch.randint(0, 3, (24,), generator=torch.Generator().manual_seed(0))
    group = y * NUM_BIAS_VALUES + bias
    group[[4, 17]] = IGNORE
    return replace(batch, x=batch.x.double(), y=y, group=group)


@pytest.mark.parametrize("model", ["convnet", "lenet"])
def test_the_objective_equals_slow_loops(make_trainer: MakeTrainer, few_class_batch: Batch, model: str) -> None:
    settings = {"method": "end", "alpha": 0.3, "beta": 0.7}
    trainer = make_trainer(settings, precision="64-true", model={"name": model})
    (objective,) = trainer.method.objectives(few_class_batch, 0.0)
    networks = trainer.networks.train()
    z = networks.f(few_class_batch.x).detach()
    features = torch.stack([z[:, c].reshape(24, -1).mean(dim=1) for c in range(z.shape[1])], dim=1)
    task = cross_entropy(networks.g(z), few_class_batch.y).item()
    expected_disentangle, expected_entangle = slow_terms(
        features, few_class_batch.y.tolist(), few_class_batch.group.tolist()
    )
    assert expected_disentangle > 0.01
    assert expected_entangle > 0
    terms = {name: float(term) for name, term in objective.terms.items()}
    assert terms == pytest.approx(
        {"task": task, "disentangle": expected_disentangle, "entangle": expected_entangle}, rel=1e-6
    )
    assert objective.loss.item() == pytest.approx(task + 0.3 * expected_disentangle + 0.7 * expected_entangle, rel=1e-6)


def test_the_terms_of_random_features_equal_slow_loops(few_class_batch: Batch) -> None:
    """The term has the absolute value of the sum over the pairs of a bias value, not the sum of absolute values."""
    features = torch.randn(24, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    unit = features / features.norm(dim=1, keepdim=True)
    is_member = find_members(few_class_batch.group, NUM_BIAS_VALUES).double()
    terms = (
        compute_disentangling(unit @ unit.T, is_member),
        compute_entangling(unit @ unit.T, is_member, few_class_batch.y),
    )
    assert [float(term) for term in terms] == pytest.approx(
        slow_terms(features, few_class_batch.y.tolist(), few_class_batch.group.tolist()), rel=1e-9
    )


def test_without_a_pair_both_terms_are_0() -> None:
    is_member = find_members(
        torch.tensor([3, IGNORE, 15]), NUM_BIAS_VALUES
    ).double()  # the bias values are 3, unknown and 5
    cosines = torch.full((3, 3), 0.5, dtype=torch.float64)
    assert float(compute_disentangling(cosines, is_member)) == 0
    assert float(compute_entangling(cosines, is_member, torch.tensor([0, 0, 1]))) == 0


def test_minimising_the_terms_separates_equal_biases_and_joins_equal_classes() -> None:
    """Two classes, each with two bias values: at the end z depends on the class and not on the bias."""
    y, bias = torch.tensor([0, 0, 1, 1] * 3), torch.tensor([0, 1, 0, 1] * 3)
    z = torch.randn(12, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    is_member = find_members(y * 2 + bias, 2).float()
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(200):
        unit = torch.nn.functional.normalize(z, dim=1)
        optimizer.zero_grad()
        (compute_disentangling(unit @ unit.T, is_member) + compute_entangling(unit @ unit.T, is_member, y)).backward()
        optimizer.step()
    cosines = cosine_similarity(z[:, None], z[None], dim=2).detach()
    same_class, same_bias = y[:, None] == y, bias[:, None] == bias
    assert cosines[same_class & ~same_bias].min() > 0.95
    assert cosines[~same_class & same_bias].mean() < 0


def test_disentangling_sums_the_pairs_of_a_bias_value_before_the_absolute_value() -> None:
    """Bias 0 has two equal vectors (|1|), bias 1 two opposite vectors (|-1|), bias 2 three pairs of both signs."""
    cosine, root = 0.5, 0.75**0.5
    three_vectors = [[1.0, 0.0], [-cosine, root], [0.0, 1.0]]
    unit = torch.tensor([[1, 0], [1, 0], [0, 1], [0, -1], *three_vectors], dtype=torch.float64)
    is_member = find_members(torch.tensor([0, 0, 1, 1, 2, 2, 2]), 3).double()
    assert float(compute_disentangling(unit @ unit.T, is_member)) == pytest.approx(
        (1 + 1 + abs(-cosine + 0 + root)) / 5
    )
