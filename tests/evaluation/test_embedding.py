"""The embedding separates clusters, depends only on the seed, and works for few or equal features."""

import pytest
import torch
from torch import Tensor

from lntl.evaluation.predict import MAX_EMBEDDED_IMAGES, draw_embedded_images, embed


def make_clusters(n: int, features: int) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    return torch.randn(n, features, generator=rng) + 10 * torch.nn.functional.one_hot(labels, features), labels


def test_clusters_stay_separate() -> None:
    z, labels = make_clusters(120, 40)
    xy = embed(z.view(120, 10, 2, 2), 0)
    assert (xy.shape, xy.dtype) == ((120, 2), torch.float32)
    nearest_index = (torch.cdist(xy, xy) + torch.eye(120) * 1e9).argmin(dim=1)
    assert (labels[nearest_index] == labels).double().mean() > 0.95
    assert torch.equal(xy, embed(z, 0))


@pytest.mark.parametrize("shape", [(5, 40), (20, 1), (4, 2)])
def test_few_images_and_few_features_give_finite_points(shape: tuple[int, int]) -> None:
    assert embed(torch.randn(shape, generator=torch.Generator().manual_seed(0)), 0).isfinite().all()


def test_equal_features_give_points_at_the_origin() -> None:
    assert torch.equal(embed(torch.ones(50, 8), 0), torch.zeros(50, 2))


def test_embedded_images_are_a_sorted_random_subset() -> None:
    assert torch.equal(draw_embedded_images(100, 0), torch.arange(100))
    index = draw_embedded_images(10_000, 0)
    assert len(index) == len(index.unique()) == MAX_EMBEDDED_IMAGES
    assert torch.equal(index, index.sort().values)
    assert torch.equal(index, draw_embedded_images(10_000, 0))
    assert not torch.equal(index, draw_embedded_images(10_000, 1))
