"""Random numbers depend only on the seed and on the path that names their purpose."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lntl.seeding import derive, draw_with_replacement, permutation, uniforms

path_parts = st.integers(0, 1000) | st.text(max_size=5)


def test_derive_is_the_same_on_every_machine() -> None:
    """A stored run resumes on another machine: these numbers must never change."""
    assert derive(0) == 2631537505891389924
    assert derive(0, "order", 1, 2) == 6492929615091620735


@given(st.integers(0, 2**63), st.lists(path_parts, max_size=4))
def test_torch_accepts_derived_seeds(seed: int, path: list[int | str]) -> None:
    assert 0 <= derive(seed, *path) < 2**63
    torch.Generator().manual_seed(derive(seed, *path))


@given(st.lists(path_parts, max_size=4), st.lists(path_parts, max_size=4), st.integers(0, 9), st.integers(0, 9))
def test_only_equal_seeds_and_paths_give_equal_numbers(
    first_path: list[int | str], second_path: list[int | str], first_seed: int, second_seed: int
) -> None:
    have_same_types = [*map(type, first_path)] == [*map(type, second_path)]
    are_equal = (first_seed, first_path) == (second_seed, second_path) and have_same_types
    assert (derive(first_seed, *first_path) == derive(second_seed, *second_path)) == are_equal


@given(st.integers(0, 300), st.integers(0, 2**63 - 1))
def test_a_permutation_contains_every_number_once_and_depends_only_on_the_seed(n: int, seed: int) -> None:
    torch.manual_seed(0)
    numbers = permutation(n, seed)
    torch.manual_seed(1)  # the global generator must not matter
    assert numbers.sort().values.tolist() == list(range(n))
    assert torch.equal(numbers, permutation(n, seed))


def test_permutations_of_two_seeds_differ() -> None:
    assert not torch.equal(permutation(100, 0), permutation(100, 1))


def test_draw_with_replacement_follows_the_weights() -> None:
    weights = torch.tensor([0.0, 1.0, 3.0, 0.0])
    counts = sum(torch.bincount(draw_with_replacement(weights, seed), minlength=4) for seed in range(2000))
    assert counts[[0, 3]].tolist() == [0, 0]
    assert counts[2] / counts.sum() == pytest.approx(0.75, abs=0.02)
    assert torch.equal(draw_with_replacement(weights, 5), draw_with_replacement(weights, 5))


def splitmix(state: int) -> int:
    """Return the finaliser of SplitMix64, computed with Python integers."""
    state ^= state >> 30
    state = state * 0xBF58476D1CE4E5B9 % 2**64
    state ^= state >> 27
    state = state * 0x94D049BB133111EB % 2**64
    return state ^ state >> 31


@given(st.integers(0, 2**63), st.lists(st.integers(0, 2**40), min_size=1, max_size=5), st.integers(1, 6))
def test_uniforms_equal_splitmix_computed_with_python_integers(seed: int, index: list[int], count: int) -> None:
    golden_gamma = 0x9E3779B97F4A7C15
    expected = []
    for i in index:
        base = splitmix((derive(seed, "uniforms") + i * golden_gamma) % 2**64)
        expected.append([(splitmix((base + k * golden_gamma) % 2**64) >> 11) / 2**53 for k in range(1, count + 1)])
    assert uniforms(seed, torch.tensor(index), count).tolist() == expected


def test_uniforms_are_the_same_on_every_machine() -> None:
    """A stored run resumes on another machine: these numbers must never change."""
    assert uniforms(0, torch.tensor([0, 7]), 2).tolist() == [
        [0.8528041190110008, 0.9210947396770767],
        [0.689400127904042, 0.09417279344121676],
    ]


def test_uniforms_fill_the_unit_square_evenly() -> None:
    numbers = uniforms(3, torch.arange(40_000), 2)
    cells = (numbers * 10).long()
    counts = torch.bincount(cells[:, 0] * 10 + cells[:, 1], minlength=100).double()
    assert (counts - 400).abs().max() < 5 * 20
    correlation = torch.corrcoef(torch.stack([numbers[:-1, 0], numbers[1:, 0]]))[0, 1]
    assert abs(correlation) < 0.02
