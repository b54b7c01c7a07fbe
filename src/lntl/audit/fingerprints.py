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
HASH_IMAGE_SIDE, LOW_FREQUENCIES = 32, 8  # side lengths of the gray image that is hashed, and of its low frequencies
THUMB_SIDE = 16  # side length of the thumbnail
# Mixtures of red, green and blue, with positive weights as those of random colors.
MIXTURES = ((2 / 3, 1 / 6, 1 / 6), (1 / 6, 2 / 3, 1 / 6), (1 / 6, 1 / 6, 2 / 3))
MAX_DIFFERENT_BITS = 3  # of the 64 bits of the hashes of similar images
EPSILON = 1e-3  # added to a standard deviation, of pixels in [0, 255]
NUM_PARTS = 6  # parts of a hash; similar images have at least NUM_PARTS - MAX_DIFFERENT_BITS equal parts
MIN_CORRELATION = 0.99  # of the thumbnails of two similar images
MAX_NEIGHBOURS = 32  # largest number of images to which an image is compared for each choice of equal parts
PAIRS_PER_CHUNK = 2**14  # pairs whose thumbnails are compared at once


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of n examples.

    Attributes:
        digest: Hash of all bytes, (n,).
        phash: Perceptual hash of each image, (n,); None for vectors.
        thumb: Gray thumbnail of each image, (n, THUMB_SIDE^2) uint8; None for vectors.
        color: Mean red, green and blue of each image, (n, 3) in [0, 255]; None for vectors.
        contrast: How much brighter the middle of each image is than the whole, in standard deviations, in each of the
            MIXTURES of its channels, (n, 3); None for vectors.
    """

    digest: Hashes
    phash: Hashes | None = None
    thumb: NDArray[np.uint8] | None = None
    color: NDArray[np.float32] | None = None
    contrast: NDArray[np.float32] | None = None


NO_IMAGES = Fingerprints(
    np.empty(0, np.uint64),
    np.empty(0, np.uint64),
    np.empty((0, THUMB_SIDE**2), np.uint8),
    np.empty((0, 3), np.float32),
    np.empty((0, 3), np.float32),
)


def vector_fingerprints(x: Tensor) -> Fingerprints:
    """Return the fingerprints of vectors (N, ...); equal bytes have equal fingerprints."""
    return Fingerprints(_digests(x))


def image_fingerprints(pixels: Tensor) -> Fingerprints:
    """Return the fingerprints of images (N, 3, H, W) uint8.

    phash has a bit for each of the 8 x 8 lowest frequencies (DCT-II) of the gray image: is its coefficient above the
    median of the coefficients? The median does not include the constant frequency.

    Source: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010.
    """
    gray = torch.einsum("nchw,c->nhw", pixels.float(), torch.tensor(LUMA))[:, None]
    hash_image = adaptive_avg_pool2d(gray, HASH_IMAGE_SIDE)[:, 0].double()
    k, position = torch.arange(LOW_FREQUENCIES, dtype=torch.float64), torch.arange(HASH_IMAGE_SIDE, dtype=torch.float64)
    cosines = torch.cos(math.pi / HASH_IMAGE_SIDE * (position + 0.5) * k[:, None])  # (LOW_FREQUENCIES, HASH_IMAGE_SIDE)
    frequencies = (cosines @ hash_image @ cosines.T).flatten(1)
    is_above_median = frequencies > frequencies[:, 1:].median(dim=1, keepdim=True).values
    phash = np.packbits(is_above_median.numpy(), axis=1).view(np.uint64)[:, 0]
    thumb = adaptive_avg_pool2d(gray, THUMB_SIDE).round().to(torch.uint8).flatten(1)
    color = pixels.float().mean(dim=(2, 3))
    return Fingerprints(_digests(pixels), phash, thumb.numpy(), color.numpy(), _contrasts(pixels).numpy())


def _contrasts(pixels: Tensor) -> Tensor:
    """Return the contrast of the middle of images (N, 3, H, W) uint8, (N, 3); 0 for an image of one color."""
    mixed = torch.einsum("mc,nchw->nmhw", torch.tensor(MIXTURES), pixels.float())
    top, left = (side // 4 for side in pixels.shape[2:])
    middle = mixed[:, :, top : pixels.shape[2] - top, left : pixels.shape[3] - left].mean(dim=(2, 3))
    std, mean = torch.std_mean(mixed, dim=(2, 3), correction=0)
    return (middle - mean) / (std + EPSILON)


def _digests(x: Tensor) -> Hashes:
    """Return 8 bytes of BLAKE2b of each example; a collision in a million examples has a probability of about 3e-8."""
    rows = x.contiguous().flatten(1).numpy()
    return np.array([int.from_bytes(blake2b(row.tobytes(), digest_size=8).digest()) for row in rows], dtype=np.uint64)


def join(parts: Sequence[Fingerprints]) -> Fingerprints:
    """Return the fingerprints of all parts, in order."""
    digest = np.concatenate([part.digest for part in parts])
    hashes = [part.phash for part in parts if part.phash is not None]
    thumbs = [part.thumb for part in parts if part.thumb is not None]
    colors = [part.color for part in parts if part.color is not None]
    contrasts = [part.contrast for part in parts if part.contrast is not None]
    if not hashes:
        return Fingerprints(digest)
    return Fingerprints(
        digest, np.concatenate(hashes), np.concatenate(thumbs), np.concatenate(colors), np.concatenate(contrasts)
    )


def equal_sets(digest: Hashes) -> Ints:
    """Return for each example the index of its set of equal examples, (n,); IGNORE if no other example is equal."""
    _, digest_index, count = np.unique(digest, return_inverse=True, return_counts=True)
    is_repeated = count > 1
    return np.asarray(np.where(is_repeated, is_repeated.cumsum() - 1, IGNORE)[digest_index])


def near_pairs(prints: Fingerprints) -> Ints:
    """Return the pairs (m, 2) of similar images, smaller position first.

    Two images are similar if their phashes differ in at most MAX_DIFFERENT_BITS bits and the correlation of their
    thumbnails is at least MIN_CORRELATION. This finds copies with other compression, size or brightness, not rotations
    or crops. Of several equal images only the first is compared.

    Two hashes that differ in at most MAX_DIFFERENT_BITS bits have at least NUM_PARTS - MAX_DIFFERENT_BITS equal parts.
    For each choice of so many parts, the hashes are sorted by these parts, and each image is compared to at most
    MAX_NEIGHBOURS next images that agree in them. An image that has MAX_NEIGHBOURS similar images is not compared any
    more: thousands of similar images would give millions of pairs.
    """
    if prints.phash is None or prints.thumb is None:
        return np.empty((0, 2), dtype=np.int64)
    first = np.sort(np.unique(prints.digest, return_index=True)[1])
    phash, thumb, n = prints.phash[first], prints.thumb[first], len(first)
    compared, similar = np.empty(0, dtype=np.int64), np.empty((0, 2), dtype=np.int64)  # codes of pairs, and pairs
    num_similar = np.zeros(n, dtype=np.int64)  # for each image
    for mask in _masks():
        candidates = np.flatnonzero(num_similar < MAX_NEIGHBOURS)
        pairs = candidates[_candidates(phash[candidates], mask)]
        codes = pairs[:, 0] * n + pairs[:, 1]
        is_new = np.isin(codes, compared, assume_unique=True, invert=True, kind="sort")
        compared, pairs = np.concatenate([compared, codes[is_new]]), pairs[is_new]
        parts = np.array_split(pairs, 1 + len(pairs) // PAIRS_PER_CHUNK)
        similar = np.concatenate([similar, *(part[_correlation(*thumb[part.T]) >= MIN_CORRELATION] for part in parts)])
        num_similar = np.bincount(similar.ravel(), minlength=n)
    return np.asarray(first[similar[np.lexsort(similar.T[::-1])]])


def _masks() -> list[np.uint64]:
    """Return a bit mask for each choice of NUM_PARTS - MAX_DIFFERENT_BITS parts of a hash."""
    edges = [round(64 * part / NUM_PARTS) for part in range(NUM_PARTS + 1)]
    parts = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    return [np.uint64(sum(choice)) for choice in combinations(parts, NUM_PARTS - MAX_DIFFERENT_BITS)]


def _candidates(phash: Hashes, mask: np.uint64) -> Ints:
    """Return pairs i < j (m, 2) of hashes that are equal in the bits of the mask; at most MAX_DIFFERENT_BITS differ."""
    order = np.argsort(phash & mask, kind="stable")
    key, pairs = (phash & mask)[order], [np.empty((0, 2), dtype=np.int64)]
    for step in range(1, min(MAX_NEIGHBOURS, len(order) - 1) + 1):
        start = np.flatnonzero(key[step:] == key[:-step])
        pair = np.stack([order[start], order[start + step]], axis=1)  # i < j, because the sort is stable
        pairs.append(pair[np.bitwise_count(phash[pair[:, 0]] ^ phash[pair[:, 1]]) <= MAX_DIFFERENT_BITS])
    return np.concatenate(pairs)


def _correlation(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return Pearson's correlation of the rows of two arrays (m, P); 0 if a row is constant."""
    a, b = (rows.astype(np.float32) - rows.mean(axis=1, keepdims=True, dtype=np.float32) for rows in (first, second))
    scale = np.sqrt(np.einsum("mp,mp->m", a, a) * np.einsum("mp,mp->m", b, b))
    covariance = np.einsum("mp,mp->m", a, b)
    return np.asarray(np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0))
