"""Randomness as a function of a seed and a path of names and numbers, so that there is no generator state to save."""

import hashlib

import torch


def derive(seed: int, *path: int | str) -> int:
    """Return a seed for one purpose.

    Args:
        seed: Seed of the run.
        path: Purpose of the random numbers, e.g. `derive(seed, "order", phase, epoch)`.

    Returns:
        A 63-bit integer that depends only on `seed` and `path`.
    """
    digest = hashlib.blake2b(repr((seed, *path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def draw_with_replacement(weights: torch.Tensor, seed: int) -> torch.Tensor:
    """Draw n indices in proportion to `weights` (n,), with replacement.

    Returns:
        Indices (n,) int64 on the CPU, a function of (weights, seed).
    """
    edges = weights.double().cumsum(0)
    positions = torch.rand(len(weights), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * edges[-1]
    return torch.searchsorted(edges, positions, right=True).clamp(max=len(weights) - 1)


def permutation(n: int, seed: int) -> torch.Tensor:
    """Return a random order of range(n), (n,) int64 on the CPU, a function of (n, seed)."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def uniforms(seed: int, index: torch.Tensor, count: int) -> torch.Tensor:
    """Return `count` uniform random numbers for each example.

    Args:
        seed: Seed of the draw.
        index: Examples (N,) int64, such as rows of a data set.
        count: Numbers for each example.

    Returns:
        Numbers in [0, 1), (N, count) float64, on the device of `index` (on the CPU for MPS, which has no float64).
        Number k of example i depends only on (seed, i, k).

    Source:
        SplitMix64 as a counter: Steele, Lea and Flood, OOPSLA 2014.
    """
    index = index.cpu() if index.device.type == "mps" else index
    base = _mix(derive(seed, "uniforms") + index * _GOLDEN_GAMMA)
    counter = torch.arange(1, count + 1, device=index.device)
    return _shift(_mix(base[:, None] + counter * _GOLDEN_GAMMA), 11).double() / 2**53


_GOLDEN_GAMMA, _MULTIPLIER_1, _MULTIPLIER_2 = (  # of SplitMix64, as int64
    constant - 2**64 for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def _mix(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ _shift(x, 30)) * _MULTIPLIER_1
    x = (x ^ _shift(x, 27)) * _MULTIPLIER_2
    return x ^ _shift(x, 31)


def _shift(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift int64 to the right and fill with zeros (not with the sign bit)."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)
