"""Equal examples and pictures that look alike, against a loop over every pair."""

import io
import math
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lntl.audit import fingerprints as duplicates
from lntl.audit.fingerprints import Fingerprints, equal_sets, join, near_pairs, of_pictures, of_vectors
from lntl.types import IGNORE


def photographs(n: int, side: int = 48) -> np.ndarray:
    """Return n pictures (n, side, side, 3) of smooth blots, each its own."""
    random = np.random.default_rng(1)
    coarse = random.integers(0, 256, (n, 6, 6, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(each).resize((side, side), 3)) for each in coarse])


def tensor(pictures: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2)


def test_equal_examples_are_in_one_set() -> None:
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    x[7], x[3], x[8] = x[1], x[1], x[5]
    found = equal_sets(of_vectors(x).digest)
    for i, j in combinations(range(9), 2):
        assert (found[i] == found[j] != IGNORE) == torch.equal(x[i], x[j]), (i, j)
    assert set(found.tolist()) == {IGNORE, 0, 1}


def test_the_hash_is_that_of_the_slow_formula() -> None:
    pictures = tensor(photographs(3, 64))
    found = of_pictures(pictures).phash
    assert found is not None
    for picture, bits in zip(pictures.double().numpy(), found, strict=True):
        grey = 0.299 * picture[0] + 0.587 * picture[1] + 0.114 * picture[2]
        small = grey.reshape(32, 2, 32, 2).mean(axis=(1, 3))
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
                values.append(float((small * np.array(wave)).sum()))
        median = sorted(values[1:])[31]
        expected = [value > median for value in values]
        assert np.unpackbits(np.array([bits]).view(np.uint8)).astype(bool).tolist() == expected


def test_a_picture_stored_anew_is_found_and_others_are_not() -> None:
    pictures = list(photographs(40))
    file = io.BytesIO()
    Image.fromarray(pictures[3]).save(file, "JPEG", quality=60)
    pictures.append(np.asarray(Image.open(file)))
    pictures.append(np.asarray(Image.fromarray(pictures[5]).resize((20, 20)).resize((48, 48))))
    pictures.append((0.8 * pictures[9]).astype(np.uint8))
    pictures.append(pictures[11])  # equal: no near pair
    found = near_pairs(of_pictures(tensor(np.stack(pictures))))
    assert found.tolist() == [[3, 40], [5, 41], [9, 42]]


def test_every_pair_within_the_bits_is_found() -> None:
    random = np.random.default_rng(2)
    phash = random.integers(0, 2**64, 60, dtype=np.uint64)
    for k in range(30, 60):  # the second half: the first with 0 to 5 bits turned
        turned = random.choice(64, k % 6, replace=False)
        phash[k] = phash[k - 30] ^ np.uint64(sum(1 << int(bit) for bit in turned))
    thumb = np.tile(np.arange(256, dtype=np.uint8), (60, 1))  # all correlate
    expected = []
    for i, j in combinations(range(60), 2):
        if (int(phash[i]) ^ int(phash[j])).bit_count() <= duplicates.BITS:
            expected.append([i, j])
    assert len(expected) >= 20
    assert near_pairs(Fingerprints(np.arange(60, dtype=np.uint64), phash, thumb)).tolist() == expected


def test_pictures_of_one_colour_look_like_nothing() -> None:
    flat = torch.arange(0, 250, 10, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)
    assert near_pairs(of_pictures(flat)).tolist() == []


def test_thousands_of_alike_pictures_give_not_every_pair() -> None:
    n = 3000
    thumb = np.tile(np.arange(256, dtype=np.uint8), (n, 1))
    phash = np.zeros(n, dtype=np.uint64)
    found = near_pairs(Fingerprints(np.arange(n, dtype=np.uint64), phash, thumb))
    assert near_pairs(Fingerprints(phash, phash, thumb)).tolist() == []  # equal ones are no pairs
    assert len(found) <= n * duplicates.REACH
    assert np.unique(found).tolist() == list(range(n))


@pytest.mark.parametrize("n", [1, 2])
def test_few_pictures_are_no_trouble(n: int) -> None:
    found = of_pictures(tensor(photographs(n, 4)))
    assert near_pairs(found).shape == (0, 2)
    assert equal_sets(found.digest).tolist() == [IGNORE] * n


def test_parts_are_joined_in_order() -> None:
    pictures = tensor(photographs(5))
    whole, parts = of_pictures(pictures), join([of_pictures(pictures[:2]), of_pictures(pictures[2:])])
    assert whole.phash is not None
    assert whole.thumb is not None
    assert (parts.digest == whole.digest).all()
    assert (parts.phash == whole.phash).all()
    assert (parts.thumb == whole.thumb).all()
    assert join([of_vectors(torch.ones(2, 3))]).phash is None
