"""Examples that occur twice: equal ones, and images that look alike, found without comparing every pair."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import combinations, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from lntl.types import IGNORE

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue. Source: Rec. ITU-R BT.601
HASHED, LOW, THUMB = 32, 8, 16  # sides: of what is transformed, of the low frequencies, of what is compared
BITS, PARTS = 3, 6  # bits of 64 that may differ; parts of the hash, of which PARTS - BITS must then be equal
ALIKE = 0.99  # smallest correlation of two small pictures that count as alike
REACH = 32  # neighbours that each picture is compared with where many have equal parts
AT_ONCE = 2**14  # pairs whose thumbs are compared at once


@dataclass(frozen=True)
class Fingerprints:
    """Of n examples: digest (n,) of all bytes; of pictures also phash (n,) and thumb (n, THUMB^2) uint8, grey."""

    digest: Hashes
    phash: Hashes | None = None
    thumb: NDArray[np.uint8] | None = None


NO_PICTURES = Fingerprints(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty((0, THUMB**2), np.uint8))


def of_vectors(x: Tensor) -> Fingerprints:
    """Return the fingerprints of examples (N, ...), which are equal where their bytes are."""
    return Fingerprints(_digests(x))


def of_pictures(pixels: Tensor) -> Fingerprints:
    """Return the fingerprints of pictures (N, 3, H, W) uint8.

    phash: which of the 8 x 8 lowest frequencies (DCT-II) of the grey picture are above their median. Source: Zauner,
    "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010; the constant is left out of the median.
    """
    grey = torch.einsum("nchw,c->nhw", pixels.float(), torch.tensor(LUMA))[:, None]
    small = adaptive_avg_pool2d(grey, HASHED)[:, 0].double()
    k, place = torch.arange(LOW, dtype=torch.float64), torch.arange(HASHED, dtype=torch.float64)
    waves = torch.cos(math.pi / HASHED * (place + 0.5) * k[:, None])  # (LOW, HASHED)
    frequencies = (waves @ small @ waves.T).flatten(1)
    above = frequencies > frequencies[:, 1:].median(dim=1, keepdim=True).values
    phash = np.packbits(above.numpy(), axis=1).view(np.uint64)[:, 0]
    thumb = adaptive_avg_pool2d(grey, THUMB).round().to(torch.uint8).flatten(1)
    return Fingerprints(_digests(pixels), phash, thumb.numpy())


def _digests(x: Tensor) -> Hashes:
    """Return 8 bytes of BLAKE2b of each example: of a million, two different ones have the same in 1 case of 10^7."""
    rows = x.contiguous().flatten(1).numpy()
    return np.array([int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest()) for row in rows], dtype=np.uint64)


def join(parts: Sequence[Fingerprints]) -> Fingerprints:
    """Return the fingerprints of all parts, in order."""
    digest = np.concatenate([part.digest for part in parts])
    hashes = [part.phash for part in parts if part.phash is not None]
    thumbs = [part.thumb for part in parts if part.thumb is not None]
    if not hashes:
        return Fingerprints(digest)
    return Fingerprints(digest, np.concatenate(hashes), np.concatenate(thumbs))


def equal_sets(digest: Hashes) -> Ints:
    """Return the number of the set of equal examples that each is in, (n,); IGNORE where it has no equal."""
    _, number, count = np.unique(digest, return_inverse=True, return_counts=True)
    several = count > 1
    return np.asarray(np.where(several, several.cumsum() - 1, IGNORE)[number])


def near_pairs(found: Fingerprints) -> Ints:
    """Return the pairs (m, 2) of pictures that look alike, each with the smaller place first; one of each set of equal.

    Alike: their phash differs in at most BITS bits, and their thumbs correlate by at least ALIKE, which holds after
    other compression, size or brightness, not after a turn or a cut. Two hashes that differ in BITS bits agree in
    PARTS - BITS of their PARTS parts: sorted by each choice of parts, candidates stand beside each other. A picture is
    compared with the REACH next of those that agree with it, and no more once it has REACH alike ones, so that
    thousands of them give not every pair.
    """
    if found.phash is None or found.thumb is None:
        return np.empty((0, 2), dtype=np.int64)
    first = np.sort(np.unique(found.digest, return_index=True)[1])
    phash, thumb, n = found.phash[first], found.thumb[first], len(first)
    seen, alike, degree = (np.empty(0, dtype=np.int64), np.empty((0, 2), dtype=np.int64), np.zeros(n, dtype=np.int64))
    for mask in _masks():
        free = np.flatnonzero(degree < REACH)
        pairs = free[_candidates(phash[free], mask)]
        codes = pairs[:, 0] * n + pairs[:, 1]
        new = np.isin(codes, seen, assume_unique=True, invert=True, kind="sort")
        seen, pairs = np.concatenate([seen, codes[new]]), pairs[new]
        parts = np.array_split(pairs, 1 + len(pairs) // AT_ONCE)
        alike = np.concatenate([alike, *(part[_correlation(*thumb[part.T]) >= ALIKE] for part in parts)])
        degree = np.bincount(alike.ravel(), minlength=n)
    return np.asarray(first[alike[np.lexsort(alike.T[::-1])]])


def _masks() -> list[np.uint64]:
    """Return the bits of each choice of PARTS - BITS parts of a hash."""
    edges = [round(64 * part / PARTS) for part in range(PARTS + 1)]
    parts = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    return [np.uint64(sum(choice)) for choice in combinations(parts, PARTS - BITS)]


def _candidates(phash: Hashes, mask: np.uint64) -> Ints:
    """Return the pairs i < j (m, 2) whose hashes (n,) agree in the bits of the mask and differ in at most BITS."""
    order = np.argsort(phash & mask, kind="stable")
    key, found = (phash & mask)[order], [np.empty((0, 2), dtype=np.int64)]
    for step in range(1, min(REACH, len(order) - 1) + 1):
        place = np.flatnonzero(key[step:] == key[:-step])
        pair = np.stack([order[place], order[place + step]], axis=1)  # ascending: a stable sort keeps equal keys so
        found.append(pair[np.bitwise_count(phash[pair[:, 0]] ^ phash[pair[:, 1]]) <= BITS])
    return np.concatenate(found)


def _correlation(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return Pearson's correlation of the rows of two arrays (m, P); 0 where a row has one value alone."""
    a, b = (each.astype(np.float32) - each.mean(axis=1, keepdims=True, dtype=np.float32) for each in (one, other))
    scale = np.sqrt(np.einsum("mp,mp->m", a, a) * np.einsum("mp,mp->m", b, b))
    shared = np.einsum("mp,mp->m", a, b)
    return np.asarray(np.divide(shared, scale, out=np.zeros_like(shared), where=scale > 0))
