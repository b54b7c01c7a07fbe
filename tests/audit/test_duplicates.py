"""Equal examples and similar images, compared with a loop over all pairs."""

import io
import math
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lntl.audit import fingerprints as duplicates
from lntl.audit.fingerprints import Fingerprints, equal_sets, image_fingerprints, join, near_pairs, vector_fingerprints
from lntl.types import IGNORE


def make_images(n: int, side: int = 48) -> np.ndarray:
    """Return n different images (n, side, side, 3) of smooth blots."""
    rng = np.random.default_rng(1)
    coarse_images = rng.integers(0, 256, (n, 6, 6, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side), 3)) for image in coarse_images])


def to_tensor(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)


def test_equal_examples_are_in_one_set() -> None:
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    x[7], x[3], x[8] = x[1], x[1], x[5]
    sets = equal_sets(vector_fingerprints(x).digest)
    for i, j in combinations(range(9), 2):
        assert (sets[i] == sets[j] != IGNORE) == torch.equal(x[i], x[j]), (i, j)
    assert set(sets.tolist()) == {IGNORE, 0, 1}


def test_the_contrast_of_the_middle_equals_a_slow_formula() -> None:
    """The mean of the central half of each side minus that of the image, in standard deviations of the image."""
    images = to_tensor(make_images(3, 22))
    contrasts = image_fingerprints(images).contrast
    assert contrasts is not None
    for image, contrast in zip(images.double().numpy(), contrasts, strict=True):
        for weights, value in zip([(4, 1, 1), (1, 4, 1), (1, 1, 4)], contrast, strict=True):
            mixed = (np.array(weights)[:, None, None] / 6 * image).sum(axis=0)
            middle = [mixed[y, x] for y in range(5, 17) for x in range(5, 17)]
            assert value == pytest.approx((np.mean(middle) - mixed.mean()) / mixed.std(), abs=1e-4)


def test_an_image_of_one_color_has_no_contrast() -> None:
    contrast = image_fingerprints(torch.full((1, 3, 8, 8), 7, dtype=torch.uint8)).contrast
    assert contrast is not None
    np.testing.assert_allclose(contrast, 0, atol=1e-2)


def test_the_hash_equals_a_slow_formula() -> None:
    images = to_tensor(make_images(3, 64))
    hashes = image_fingerprints(images).phash
    assert hashes is not None
    for image, bits in zip(images.double().numpy(), hashes, strict=True):
        gray = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        small_image = gray.reshape(32, 2, 32, 2).mean(axis=(1, 3))
        values = []
        for u in range(8):
            for v in range(8):
                wave = [
                    [
                        math.cos(math.pi * (2 * i + 1) * u / 64) * math.cos(math.pi * (2 * j + 1) * v / 64)
                        for j in range(32)
                    ]
                    for i in range(32)
                ]
                values.append(float((small_image * np.array(wave)).sum()))
        median = sorted(values[1:])[31]
        expected = [value > median for value in values]
        assert np.unpackbits(np.array([bits]).view(np.uint8)).astype(bool).tolist() == expected


def test_recompressed_resized_and_darkened_images_are_near_pairs() -> None:
    images = list(make_images(40))
    file = io.BytesIO()
    Image.fromarray(images[3]).save(file, "JPEG", quality=60)
    images.append(np.asarray(Image.open(file)))
    images.append(np.asarray(Image.fromarray(images[5]).resize((20, 20)).resize((48, 48))))
    images.append((0.8 * images[9]).astype(np.uint8))
    images.append(images[11])  # an equal image is no near pair
    pairs = near_pairs(image_fingerprints(to_tensor(np.stack(images))))
    assert pairs.tolist() == [[3, 40], [5, 41], [9, 42]]


def test_near_pairs_finds_every_pair_within_the_limit_of_bits() -> None:
    rng = np.random.default_rng(2)
    phash = rng.integers(0, 2**64, 60, dtype=np.uint64)
    for k in range(30, 60):  # the second half equals the first except for 0 to 5 flipped bits
        flipped_bits = rng.choice(64, k % 6, replace=False)
        phash[k] = phash[k - 30] ^ np.uint64(sum(1 << int(bit) for bit in flipped_bits))
    thumb = np.tile(np.arange(256, dtype=np.uint8), (60, 1))  # all thumbnails are correlated
    expected = []
    for i, j in combinations(range(60), 2):
        if (int(phash[i]) ^ int(phash[j])).bit_count() <= duplicates.MAX_DIFFERENT_BITS:
            expected.append([i, j])
    assert len(expected) >= 20
    assert near_pairs(Fingerprints(np.arange(60, dtype=np.uint64), phash, thumb)).tolist() == expected


def test_images_of_one_color_are_in_no_near_pair() -> None:
    flat_images = torch.arange(0, 250, 10, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)
    assert near_pairs(image_fingerprints(flat_images)).tolist() == []


def test_thousands_of_similar_images_give_a_limited_number_of_pairs() -> None:
    n = 3000
    thumb = np.tile(np.arange(256, dtype=np.uint8), (n, 1))
    phash = np.zeros(n, dtype=np.uint64)
    pairs = near_pairs(Fingerprints(np.arange(n, dtype=np.uint64), phash, thumb))
    assert near_pairs(Fingerprints(phash, phash, thumb)).tolist() == []  # equal images are no near pairs
    assert len(pairs) <= n * duplicates.MAX_NEIGHBOURS
    assert np.unique(pairs).tolist() == list(range(n))


@pytest.mark.parametrize("n", [1, 2])
def test_one_or_two_images_give_no_pairs(n: int) -> None:
    fingerprints = image_fingerprints(to_tensor(make_images(n, 4)))
    assert near_pairs(fingerprints).shape == (0, 2)
    assert equal_sets(fingerprints.digest).tolist() == [IGNORE] * n


def test_joined_fingerprints_equal_those_of_all_images() -> None:
    images = to_tensor(make_images(5))
    fingerprints, joined_prints = (
        image_fingerprints(images),
        join([image_fingerprints(images[:2]), image_fingerprints(images[2:])]),
    )
    assert fingerprints.phash is not None
    assert fingerprints.thumb is not None
    assert (joined_prints.digest == fingerprints.digest).all()
    assert (joined_prints.phash == fingerprints.phash).all()
    assert (joined_prints.thumb == fingerprints.thumb).all()
    assert join([vector_fingerprints(torch.ones(2, 3))]).phash is None
