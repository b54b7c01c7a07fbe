"""Randomness as a function of where we are: one integer from a seed and a path of names and numbers."""

import hashlib

import torch


def derive(seed: int, *path: int | str) -> int:
    """Return a 63-bit integer that depends on seed and path alone, e.g. derive(seed, "order", phase, epoch)."""
    digest = hashlib.blake2b(repr((seed, *path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def draws(weights: torch.Tensor, seed: int) -> torch.Tensor:
    """Return len(weights) places drawn in proportion to the weights (n,), with replacement, on the CPU."""
    edges = weights.double().cumsum(0)
    spots = torch.rand(len(weights), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * edges[-1]
    return torch.searchsorted(edges, spots, right=True).clamp(max=len(weights) - 1)


def permutation(n: int, seed: int) -> torch.Tensor:
    """Return a random order of range(n) that depends on (n, seed) alone, on the CPU."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))
