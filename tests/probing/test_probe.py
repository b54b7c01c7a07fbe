"""Probes find a bias that was planted and none that was not; halves do not overlap; chance is chance."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from lntl.errors import UserError
from lntl.probing.probes import (
    PROBES,
    Halves,
    Layer,
    linear,
    mlp,
    probe_layer,
    probe_layers,
    probe_names,
    probe_permuted,
    probe_row,
    split_warnings,
)
from lntl.runs.formats import ProbeRow

CPU = torch.device("cpu")
N, VALUES = 1000, 10


def draw(seed: int, n: int = N, values: int = VALUES) -> tuple[Tensor, Tensor]:
    """Return random classes and bias values, independent."""
    random = torch.Generator().manual_seed(seed)
    y, bias = (torch.randint(0, values, (n,), generator=random) for _ in range(2))
    return y, bias


def halves(seeds: int = 2) -> Halves:
    return Halves(*draw(0), seeds=tuple(range(seeds)))


def planted(bias: Tensor, *more: int) -> Tensor:
    """Return noise (n, 12, *more) with a bump on channel number `bias`, on a map at 2 x 2 places that are random."""
    random = torch.Generator().manual_seed(1)
    z = torch.randn(len(bias), 12, *more, generator=random)
    spots = torch.randint(0, more[0] - 1 if more else 1, (len(bias), 2), generator=random).tolist()
    for i, (value, (row, column)) in enumerate(zip(bias.tolist(), spots, strict=True)):
        z[(i, value, slice(row, row + 2), slice(column, column + 2))[: z.dim()]] += 6
    return z


def noise(bias: Tensor, *more: int) -> Tensor:
    return torch.randn(len(bias), 12, *more, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("name", "shape"), [("linear", ()), ("mlp", ()), ("conv", (8, 8))])
def test_a_planted_bias_is_found_and_noise_is_not(name: str, shape: tuple[int, ...]) -> None:
    asked = halves(1)
    found = {row.probe: row for row in probe_layer("here", planted(asked.bias, *shape), asked, CPU)}
    assert found[name].layer == "here"
    assert found[name].mean > 0.8
    assert found[name].mean > found["linear"].mean + 0.2 or not shape  # it need not know where to look
    nothing = {row.probe: row for row in probe_layer("here", noise(asked.bias, *shape), asked, CPU)}
    assert nothing[name].mean == pytest.approx(0.1, abs=0.05)  # a standard deviation of 500 guesses is 0.013


def test_permuted_labels_are_chance() -> None:
    asked = halves(4)
    row = ProbeRow(layer="here", probe="linear", mean=0, values=[])
    found = probe_permuted(row, planted(asked.bias), asked, CPU)
    assert (found.layer, found.probe, len(found.values)) == ("here", "linear", 4)
    assert found.mean == pytest.approx(0.1, abs=0.03)


def test_labels_of_the_unseen_half_are_never_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = halves(2)
    z = torch.arange(N).float()[:, None]
    seen: list[tuple[set[int], set[int]]] = []

    def spy(train: Tensor, bias: Tensor, test: Tensor, seed: int, device: torch.device) -> Tensor:
        assert torch.equal(bias, asked.bias[train[:, 0].long()])
        seen.append((set(train[:, 0].int().tolist()), set(test[:, 0].int().tolist())))
        return asked.bias[test[:, 0].long()]

    monkeypatch.setitem(PROBES, "linear", spy)
    monkeypatch.setitem(PROBES, "mlp", spy)
    assert [row.values for row in probe_layer("here", z, asked, CPU)] == [[1.0, 1.0]] * 2
    for learnt, scored in seen:
        assert not learnt & scored
        assert learnt | scored == set(range(N))
    assert seen[0] != seen[1]


@given(st.integers(2, 60), st.integers(1, 4), st.integers(0, 2**31))
def test_halves_against_counts(n: int, values: int, seed: int) -> None:
    y, bias = draw(seed, n, values)
    learn, unseen = Halves(y, bias, (0,))(seed)
    assert sorted([*learn.tolist(), *unseen.tolist()]) == list(range(n))
    assert 0 <= len(learn) - len(unseen) <= 1
    for value in range(values):
        here = [sum(bias[half] == value).item() for half in (learn, unseen)]  # type: ignore[union-attr]
        assert abs(here[0] - here[1]) <= 1
        for label in range(values):
            cell = [((bias[half] == value) & (y[half] == label)).sum().item() for half in (learn, unseen)]
            assert abs(cell[0] - cell[1]) <= 1


def test_halves_are_a_function_of_the_seed() -> None:
    asked = halves()
    assert all(torch.equal(a, b) for a, b in zip(asked(3), asked(3), strict=True))
    assert not torch.equal(asked(3)[0], asked(4)[0])
    assert not torch.equal(asked(3)[0], asked(3)[0].sort().values)


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_is_a_function_of_its_seed(name: str) -> None:
    asked = halves(1)
    z = noise(asked.bias, 2, 2)[:200]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    one, same, other = (PROBES[name](z[:100], asked.bias[:100], z[100:], seed, CPU) for seed in (5, 5, 6))
    assert torch.equal(one, same)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone
    assert (name == "linear") == torch.equal(one, other)  # logistic regression has one optimum


def test_results_depend_neither_on_the_threads_nor_on_what_is_trained_beside() -> None:
    asked, threads = halves(2), torch.get_num_threads()
    few = replace(asked, y=asked.y[:200], bias=asked.bias[:200])
    maps, wide = planted(few.bias, 4, 4), noise(few.bias).repeat(1, 100)
    torch.set_num_threads(3)
    try:
        together = probe_layers([Layer("maps", maps, few), Layer("wide", wide, few)], CPU)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    once = replace(few, seeds=few.seeds[:1])
    for name, z, rows in (("maps", maps, together[0]), ("wide", wide, together[1])):
        assert [row.layer for row in rows] == [name] * len(rows)
        assert [row.values[:1] for row in rows] == [row.values for row in probe_layer(name, z, once, CPU)]


@pytest.mark.parametrize("wide", [False, True])
def test_the_linear_probe_agrees_with_scikit_learn(wide: bool) -> None:
    asked = halves(2)
    z = planted(asked.bias) + 3 * noise(asked.bias)
    if wide:  # more numbers than images, on very different scales
        more = torch.randn(N, 700, generator=torch.Generator().manual_seed(3))
        z = torch.cat([z, more * torch.logspace(-3, 3, 700)], dim=1)
    for learn, unseen in map(asked, asked.seeds):
        found = linear(z[learn], asked.bias[learn], z[unseen], 0, CPU)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(z[learn].numpy(), asked.bias[learn].numpy())
        expected = torch.from_numpy(model.predict(z[unseen].numpy()))
        assert (found == expected).double().mean() > 0.95  # it stops a little earlier


def test_values_absent_from_training_are_not_predicted_and_others_keep_their_number() -> None:
    bias = torch.tensor([3, 900, 7] * 40)
    z = torch.nn.functional.one_hot(torch.arange(120) % 3, 3).float()
    for probe in (linear, mlp):
        assert torch.equal(probe(z[:60], bias[:60], z[60:], 0, CPU), bias[60:])


def test_constant_and_tiny_features_do_no_harm() -> None:
    asked = halves(1)
    z = torch.cat([planted(asked.bias) * 1e-8, torch.full((N, 2), 7.1), torch.zeros(N, 2)], dim=1)
    assert all(row.mean > 0.8 for row in probe_layer("here", z, asked, CPU))


def test_wide_vectors_are_reduced_to_their_components() -> None:
    asked = halves(1)
    wide = torch.cat([planted(asked.bias), torch.zeros(N, 1500)], dim=1)
    assert probe_layer("here", wide, asked, CPU)[0].mean > 0.8


def test_which_probes_suit() -> None:
    assert probe_names(torch.zeros(5, 3)) == ["linear", "mlp"]
    assert probe_names(torch.zeros(5, 3, 1, 1)) == ["linear", "mlp"]
    assert probe_names(torch.zeros(5, 3, 2, 2)) == ["linear", "mlp", "conv"]
    assert probe_names(torch.zeros(5, 3, 7)) == ["linear", "mlp"]


@given(st.integers(4, 80), st.integers(1, 4), st.integers(0, 2**31))
@settings(max_examples=30)
def test_chance_from_a_constant_and_from_the_class_against_slow_loops(n: int, values: int, seed: int) -> None:
    y, bias = draw(seed, n, values)
    asked = Halves(y, bias, (0, 1))
    slow: list[list[float]] = [[], []]
    for each in asked.seeds:
        learn, unseen = (half.tolist() for half in asked(each))
        for kind in (0, 1):
            hits = 0
            for i in unseen:
                counts = [0] * values
                for j in learn:
                    counts[bias[j]] += kind == 0 or bool(y[j] == y[i])
                hits += counts.index(max(counts)) == bias[i]
            slow[kind].append(hits / len(unseen))
    assert asked.majority == pytest.approx(sum(slow[0]) / 2)
    assert asked.from_class == pytest.approx(sum(slow[1]) / 2)


def test_mean_and_spread_over_seeds() -> None:
    row = probe_row("f", "linear", [0.5, 0.7, 0.9])
    assert row.mean == pytest.approx(0.7)
    assert row.std == pytest.approx(0.2)
    assert probe_row("f", "linear", [0.5]).std is None


NAMES = ("red", "green", "blue")


@pytest.mark.parametrize(
    ("bias", "values"),
    [([1] * 8, "green"), ([1] * 7 + [2], "green; blue"), ([0, 1, 2], "red; green; blue")],
)
def test_a_bias_that_does_not_vary_is_an_error(bias: list[int], values: str) -> None:
    labels = torch.tensor(bias, dtype=torch.int64)
    with pytest.raises(UserError, match=rf"the bias does not vary in the test set \(its values: {values}\)"):
        Halves(labels, labels, (0,)).check(NAMES)
    Halves(*[torch.tensor([0, 0, 2, 2])] * 2, seeds=(0,)).check(NAMES)


def test_images_without_a_bias_label_cannot_be_probed() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(UserError, match="no test image has a bias label, so no probe can be trained"):
        Halves(none, none, (0,)).check(("red", "green"))


def test_a_value_of_two_images_is_in_both_halves_whatever_their_classes() -> None:
    bias = torch.tensor([0] * 9 + [1, 1] + [2] * 8)
    y = torch.arange(len(bias))
    for seed in range(20):
        assert all(1 in bias[half] for half in Halves(y, bias, ())(seed))


def test_warnings() -> None:
    asked = halves()
    ten = tuple("abcdefghij")
    assert split_warnings(asked, ten, ten) == []
    eleven = (*ten, "k")
    assert split_warnings(asked, eleven, (*eleven, "l")) == [
        "no test image of class k",
        "no test image of bias value k; l",
    ]
    (warning,) = split_warnings(replace(asked, bias=asked.y), ten, ten)
    assert "the class alone predicts the bias with accuracy 1.000" in warning


def test_a_row_for_each_probe_and_a_value_for_each_seed() -> None:
    asked = Halves(*draw(0, 100), seeds=(0, 1, 2))
    rows = probe_layer("f", noise(asked.bias, 2, 2), asked, CPU)
    assert [row.probe for row in rows] == list(PROBES)
    assert all(len(row.values) == 3 for row in rows)
    assert any(a != b for row in rows for a, b in pairwise(row.values))
