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


def uniforms(seed: int, places: torch.Tensor, count: int) -> torch.Tensor:
    """Return `count` numbers in [0, 1) for each of the places (N,) int64: float64 (N, count), on the CPU.

    Number k of a place depends on (seed, place, k) alone. SplitMix64 as a counter (Steele, Lea and Flood, 2014).
    """
    base = _mix(torch.tensor(derive(seed, "uniforms")) + places * _GOLDEN)
    return _shift(_mix(base[:, None] + torch.arange(1, count + 1) * _GOLDEN), 11).double() / 2**53


_GOLDEN, _FIRST, _SECOND = (c - 2**64 for c in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))  # int64


def _mix(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift int64 to the right as if it had no sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
