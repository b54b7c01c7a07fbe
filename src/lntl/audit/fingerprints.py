"""Find equal examples and similar images by fingerprints, without comparing every pair."""

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
HASHED, LOW, THUMB = 32, 8, 16  # side lengths: of the picture that is hashed, of its low frequencies, of the thumbnail
BITS, PARTS = 3, 6  # bits of 64 that may differ; parts of the hash, at least PARTS - BITS of which are then equal
ALIKE = 0.99  # smallest correlation of the thumbnails of two similar pictures
REACH = 32  # largest number of neighbours with equal parts with which a picture is compared
AT_ONCE = 2**14  # pairs whose thumbnails are compared at once


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of n examples.

    Attributes:
        digest: Hash of all bytes, (n,).
        phash: Perceptual hash of each picture, (n,); None for vectors.
        thumb: Grey thumbnail of each picture, (n, THUMB^2) uint8; None for vectors.
    """

    digest: Hashes
    phash: Hashes | None = None
    thumb: NDArray[np.uint8] | None = None


NO_IMAGES = Fingerprints(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty((0, THUMB**2), np.uint8))


def vector_fingerprints(x: Tensor) -> Fingerprints:
    """Return the fingerprints of vectors (N, ...); equal bytes have equal fingerprints."""
    return Fingerprints(_digests(x))


def image_fingerprints(pixels: Tensor) -> Fingerprints:
    """Return the fingerprints of pictures (N, 3, H, W) uint8.

    phash tells which of the 8 x 8 lowest frequencies (DCT-II) of the grey picture are above their median. The constant
    frequency is left out of the median.

    Source: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010.
    """
    grey = torch.einsum("nchw,c->nhw", pixels.float(), torch.tensor(LUMA))[:, None]
    small = adaptive_avg_pool2d(grey, HASHED)[:, 0].double()
    k, position = torch.arange(LOW, dtype=torch.float64), torch.arange(HASHED, dtype=torch.float64)
    waves = torch.cos(math.pi / HASHED * (position + 0.5) * k[:, None])  # (LOW, HASHED)
    frequencies = (waves @ small @ waves.T).flatten(1)
    above = frequencies > frequencies[:, 1:].median(dim=1, keepdim=True).values
    phash = np.packbits(above.numpy(), axis=1).view(np.uint64)[:, 0]
    thumb = adaptive_avg_pool2d(grey, THUMB).round().to(torch.uint8).flatten(1)
    return Fingerprints(_digests(pixels), phash, thumb.numpy())


def _digests(x: Tensor) -> Hashes:
    """Return 8 bytes of BLAKE2b of each example; a collision in a million examples has a probability of about 3e-8."""
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
    """Return the index of the set of equal examples to which each example belongs, (n,); IGNORE if it has no equal."""
    _, number, count = np.unique(digest, return_inverse=True, return_counts=True)
    several = count > 1
    return np.asarray(np.where(several, several.cumsum() - 1, IGNORE)[number])


def near_pairs(prints: Fingerprints) -> Ints:
    """Return the pairs (m, 2) of similar pictures, smaller position first; of equal pictures only the first counts.

    Two pictures are similar if their phashes differ in at most BITS bits and the correlation of their thumbnails is at
    least ALIKE. This finds copies with other compression, size or brightness, not rotations or crops.

    Two hashes that differ in at most BITS bits agree in at least PARTS - BITS of their PARTS parts. Sorting by each
    choice of PARTS - BITS parts therefore puts candidates side by side. A picture is compared with at most REACH
    neighbours that agree in these parts, and with no more once it has REACH similar pictures, so that thousands of
    similar pictures do not give all pairs.
    """
    if prints.phash is None or prints.thumb is None:
        return np.empty((0, 2), dtype=np.int64)
    first = np.sort(np.unique(prints.digest, return_index=True)[1])
    phash, thumb, n = prints.phash[first], prints.thumb[first], len(first)
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
    """Return a bit mask for each choice of PARTS - BITS parts of a hash."""
    edges = [round(64 * part / PARTS) for part in range(PARTS + 1)]
    parts = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    return [np.uint64(sum(choice)) for choice in combinations(parts, PARTS - BITS)]


def _candidates(phash: Hashes, mask: np.uint64) -> Ints:
    """Return the pairs i < j (m, 2) whose hashes (n,) agree in the bits of the mask and differ in at most BITS."""
    order = np.argsort(phash & mask, kind="stable")
    key, pairs = (phash & mask)[order], [np.empty((0, 2), dtype=np.int64)]
    for step in range(1, min(REACH, len(order) - 1) + 1):
        start = np.flatnonzero(key[step:] == key[:-step])
        pair = np.stack([order[start], order[start + step]], axis=1)  # i < j, because the sort is stable
        pairs.append(pair[np.bitwise_count(phash[pair[:, 0]] ^ phash[pair[:, 1]]) <= BITS])
    return np.concatenate(pairs)


def _correlation(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return Pearson's correlation of the rows of two arrays (m, P); 0 if a row is constant."""
    a, b = (rows.astype(np.float32) - rows.mean(axis=1, keepdims=True, dtype=np.float32) for rows in (first, second))
    scale = np.sqrt(np.einsum("mp,mp->m", a, a) * np.einsum("mp,mp->m", b, b))
    shared = np.einsum("mp,mp->m", a, b)
    return np.asarray(np.divide(shared, scale, out=np.zeros_like(shared), where=scale > 0))
