"""A picture of z: two dimensions in which neighbours stay neighbours."""

import torch
from torch import Tensor

from lntl.seeding import derive, permutation

MAX_IMAGES = 2000
_COMPONENTS, _PERPLEXITY = 30, 30.0  # scikit-learn's default perplexity


def chosen(n: int, seed: int) -> Tensor:
    """Return the places of at most 2000 of n images, in order; a function of the seed."""
    return permutation(n, derive(seed, "embedding"))[:MAX_IMAGES].sort().values


def embed(z: Tensor, seed: int) -> Tensor:
    """Return z (n, ...) in two dimensions, float32 (n, 2): PCA to 30, then t-SNE; zeros where all rows are equal."""
    from sklearn.decomposition import PCA  # here, for they are slow to import
    from sklearn.manifold import TSNE

    flat = z.flatten(1).double()
    if not bool((flat != flat[:1]).any()):
        return torch.zeros(len(flat), 2)
    state = derive(seed, "t-SNE") % 2**32
    parts = PCA(min(_COMPONENTS, *flat.shape), svd_solver="randomized", random_state=state).fit_transform(flat.numpy())
    perplexity = min(_PERPLEXITY, (len(flat) - 1) / 3)
    start = "pca" if parts.shape[1] > 1 else "random"
    return torch.from_numpy(TSNE(perplexity=perplexity, init=start, random_state=state).fit_transform(parts)).float()
