"""Probes find a bias only in features that contain it; halves do not overlap; chance levels equal slow loops."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lanes import first_is_fast
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from lntl.errors import UserError
from lntl.probing.probes import (
    PROBES,
    Halves,
    Layer,
    _Adam,
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
N, NUM_BIAS_VALUES = 1000, 10


def draw_labels(seed: int, n: int = N, values: int = NUM_BIAS_VALUES) -> tuple[Tensor, Tensor]:
    """Return independent random classes and bias values."""
    rng = torch.Generator().manual_seed(seed)
    y, bias = (torch.randint(0, values, (n,), generator=rng) for _ in range(2))
    return y, bias


def make_halves(seeds: int = 2) -> Halves:
    return Halves(*draw_labels(0), seeds=tuple(range(seeds)))


def make_features_with_bias(bias: Tensor, *map_shape: int) -> Tensor:
    """Return noise (n, 12, *map_shape), raised in channel `bias`; in maps only in a random block of 2 x 2 positions."""
    rng = torch.Generator().manual_seed(1)
    z = torch.randn(len(bias), 12, *map_shape, generator=rng)
    positions = torch.randint(0, map_shape[0] - 1 if map_shape else 1, (len(bias), 2), generator=rng).tolist()
    for i, (value, (row, column)) in enumerate(zip(bias.tolist(), positions, strict=True)):
        z[(i, value, slice(row, row + 2), slice(column, column + 2))[: z.dim()]] += 6
    return z


def make_noise(bias: Tensor, *map_shape: int) -> Tensor:
    return torch.randn(len(bias), 12, *map_shape, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("names", "shape"), first_is_fast([(("linear", "mlp"), ()), (("conv",), (8, 8))]))
def test_a_probe_finds_a_bias_in_features_and_none_in_noise(names: tuple[str, ...], shape: tuple[int, ...]) -> None:
    split_halves = make_halves(1)
    rows_by_probe = {
        row.probe: row
        for row in probe_layer("here", make_features_with_bias(split_halves.bias, *shape), split_halves, CPU)
    }
    rows_of_noise = {
        row.probe: row for row in probe_layer("here", make_noise(split_halves.bias, *shape), split_halves, CPU)
    }
    for name in names:
        assert rows_by_probe[name].layer == "here"
        assert rows_by_probe[name].mean > 0.8
        # The convolution finds the bias at every position.
        assert rows_by_probe[name].mean > rows_by_probe["linear"].mean + 0.2 or not shape
        # The standard deviation of the share of correct ones among 500 guesses is 0.013.
        assert rows_of_noise[name].mean == pytest.approx(0.1, abs=0.05)


def test_a_probe_of_permuted_labels_is_at_chance() -> None:
    split_halves = make_halves(4)
    row = ProbeRow(layer="here", probe="linear", mean=0, values=[])
    permuted_row = probe_permuted(row, make_features_with_bias(split_halves.bias), split_halves, CPU)
    assert (permuted_row.layer, permuted_row.probe, len(permuted_row.values)) == ("here", "linear", 4)
    assert permuted_row.mean == pytest.approx(0.1, abs=0.03)


def test_probes_are_never_trained_on_the_unseen_half(monkeypatch: pytest.MonkeyPatch) -> None:
    split_halves = make_halves(2)
    z = torch.arange(N).float()[:, None]
    recorded_halves: list[tuple[set[int], set[int]]] = []

    def record_halves(train: Tensor, bias: Tensor, test: Tensor, seed: int, device: torch.device) -> Tensor:
        assert torch.equal(bias, split_halves.bias[train[:, 0].long()])
        recorded_halves.append((set(train[:, 0].int().tolist()), set(test[:, 0].int().tolist())))
        return split_halves.bias[test[:, 0].long()]

    monkeypatch.setitem(PROBES, "linear", record_halves)
    monkeypatch.setitem(PROBES, "mlp", record_halves)
    assert [row.values for row in probe_layer("here", z, split_halves, CPU)] == [[1.0, 1.0]] * 2
    for train_rows, test_rows in recorded_halves:
        assert not train_rows & test_rows
        assert train_rows | test_rows == set(range(N))
    assert recorded_halves[0] != recorded_halves[1]


@given(st.integers(2, 60), st.integers(1, 4), st.integers(0, 2**31))
def test_halves_are_stratified_by_bias_and_class(n: int, values: int, seed: int) -> None:
    y, bias = draw_labels(seed, n, values)
    train_half, test_half = Halves(y, bias, (0,))(seed)
    assert sorted([*train_half.tolist(), *test_half.tolist()]) == list(range(n))
    assert 0 <= len(train_half) - len(test_half) <= 1
    for value in range(values):
        counts = [sum(bias[half] == value).item() for half in (train_half, test_half)]  # type: ignore[union-attr]
        assert abs(counts[0] - counts[1]) <= 1
        for label in range(values):
            cell_counts = [
                ((bias[half] == value) & (y[half] == label)).sum().item() for half in (train_half, test_half)
            ]
            assert abs(cell_counts[0] - cell_counts[1]) <= 1


def test_halves_depend_only_on_the_seed() -> None:
    split_halves = make_halves()
    assert all(torch.equal(a, b) for a, b in zip(split_halves(3), split_halves(3), strict=True))
    assert not torch.equal(split_halves(3)[0], split_halves(4)[0])
    assert not torch.equal(split_halves(3)[0], split_halves(3)[0].sort().values)


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_depends_only_on_its_seed(name: str) -> None:
    split_halves = make_halves(1)
    z = make_noise(split_halves.bias, 2, 2)[:200]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first_predictions, second_predictions, other_predictions = (
        PROBES[name](z[:100], split_halves.bias[:100], z[100:], seed, CPU) for seed in (5, 5, 6)
    )
    assert torch.equal(first_predictions, second_predictions)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is not used
    assert (name == "linear") == torch.equal(
        first_predictions, other_predictions
    )  # logistic regression has one optimum


def test_the_optimiser_of_probes_equals_adam_of_torch() -> None:
    weight, torch_weight = (torch.arange(3.0).requires_grad_() for _ in range(2))
    optimizer, torch_optimizer = _Adam([weight]), torch.optim.Adam([torch_weight])
    for lr in (0.001, 0.01, 0.005):
        torch_optimizer.param_groups[0].update(lr=lr, betas=(0.95 - 10 * lr, 0.999))
        for w in (weight, torch_weight):
            (w**3).sum().backward()
        optimizer.step(lr)
        torch_optimizer.step()
        torch_optimizer.zero_grad()
    assert torch.allclose(weight, torch_weight, rtol=1e-6)
    assert weight.grad is None


@pytest.mark.full
def test_results_depend_neither_on_threads_nor_on_other_layers() -> None:
    split_halves, threads = make_halves(2), torch.get_num_threads()
    small_halves = replace(split_halves, y=split_halves.y[:200], bias=split_halves.bias[:200])
    map_features, wide_features = (
        make_features_with_bias(small_halves.bias, 4, 4),
        make_noise(small_halves.bias).repeat(1, 100),
    )
    torch.set_num_threads(3)
    try:
        rows_by_layer = probe_layers(
            [Layer("maps", map_features, small_halves), Layer("wide", wide_features, small_halves)], CPU
        )
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    halves_of_one_seed = replace(small_halves, seeds=small_halves.seeds[:1])
    for name, z, rows in (("maps", map_features, rows_by_layer[0]), ("wide", wide_features, rows_by_layer[1])):
        assert [row.layer for row in rows] == [name] * len(rows)
        assert [row.values[:1] for row in rows] == [row.values for row in probe_layer(name, z, halves_of_one_seed, CPU)]


@pytest.mark.parametrize("is_wide", [False, True])
def test_the_linear_probe_agrees_with_scikit_learn(is_wide: bool) -> None:
    split_halves = make_halves(2)
    z = make_features_with_bias(split_halves.bias) + 3 * make_noise(split_halves.bias)
    if is_wide:  # more features than images, with very different scales
        further_features = torch.randn(N, 700, generator=torch.Generator().manual_seed(3))
        z = torch.cat([z, further_features * torch.logspace(-3, 3, 700)], dim=1)
    for train_half, test_half in map(split_halves, split_halves.seeds):
        predicted = linear(z[train_half], split_halves.bias[train_half], z[test_half], 0, CPU)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(z[train_half].numpy(), split_halves.bias[train_half].numpy())
        expected = torch.from_numpy(model.predict(z[test_half].numpy()))
        assert (predicted == expected).double().mean() > 0.95  # the probe stops a little earlier than scikit-learn


def test_bias_values_that_are_not_consecutive_are_predicted() -> None:
    bias = torch.tensor([3, 900, 7] * 40)
    z = torch.nn.functional.one_hot(torch.arange(120) % 3, 3).float()
    for probe in (linear, mlp):
        assert torch.equal(probe(z[:60], bias[:60], z[60:], 0, CPU), bias[60:])


def test_a_bias_in_tiny_features_is_found_if_other_features_are_constant() -> None:
    split_halves = make_halves(1)
    z = torch.cat(
        [make_features_with_bias(split_halves.bias) * 1e-8, torch.full((N, 2), 7.1), torch.zeros(N, 2)], dim=1
    )
    assert all(row.mean > 0.8 for row in probe_layer("here", z, split_halves, CPU))


def test_wide_vectors_are_reduced_to_their_components() -> None:
    split_halves = make_halves(1)
    wide_vectors = torch.cat([make_features_with_bias(split_halves.bias), torch.zeros(N, 1500)], dim=1)
    assert probe_layer("here", wide_vectors, split_halves, CPU)[0].mean > 0.8


def test_only_maps_have_a_convolutional_probe() -> None:
    assert probe_names(torch.zeros(5, 3)) == ["linear", "mlp"]
    assert probe_names(torch.zeros(5, 3, 1, 1)) == ["linear", "mlp"]
    assert probe_names(torch.zeros(5, 3, 2, 2)) == ["linear", "mlp", "conv"]
    assert probe_names(torch.zeros(5, 3, 7)) == ["linear", "mlp"]


@given(st.integers(4, 80), st.integers(1, 4), st.integers(0, 2**31))
@settings(max_examples=30)
def test_chance_levels_equal_slow_loops(n: int, values: int, seed: int) -> None:
    y, bias = draw_labels(seed, n, values)
    split_halves = Halves(y, bias, (0, 1))
    expected_shares: list[list[float]] = [[], []]
    for seed_of_halves in split_halves.seeds:
        train_half, test_half = (half.tolist() for half in split_halves(seed_of_halves))
        for kind in (0, 1):
            hits = 0
            for i in test_half:
                counts = [0] * values
                for j in train_half:
                    counts[bias[j]] += kind == 0 or bool(y[j] == y[i])
                hits += counts.index(max(counts)) == bias[i]
            expected_shares[kind].append(hits / len(test_half))
    assert split_halves.majority == pytest.approx(sum(expected_shares[0]) / 2)
    assert split_halves.accuracy_from_class == pytest.approx(sum(expected_shares[1]) / 2)


def test_a_row_has_mean_and_standard_deviation_over_seeds() -> None:
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
    no_labels = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(UserError, match="no test image has a bias label, so no probe can be trained"):
        Halves(no_labels, no_labels, (0,)).check(("red", "green"))


def test_a_bias_value_with_two_images_is_in_both_halves() -> None:
    bias = torch.tensor([0] * 9 + [1, 1] + [2] * 8)
    y = torch.arange(len(bias))
    for seed in range(20):
        assert all(1 in bias[half] for half in Halves(y, bias, ())(seed))


def test_missing_classes_and_values_give_warnings() -> None:
    split_halves = make_halves()
    ten_names = tuple("abcdefghij")
    assert split_warnings(split_halves, ten_names, ten_names) == []
    eleven_names = (*ten_names, "k")
    assert split_warnings(split_halves, eleven_names, (*eleven_names, "l")) == [
        "no test image of class k",
        "no test image of bias value k; l",
    ]
    (warning,) = split_warnings(replace(split_halves, bias=split_halves.y), ten_names, ten_names)
    assert "the class alone predicts the bias with accuracy 1.000" in warning


def test_probe_layer_gives_a_row_for_each_probe_and_a_value_for_each_seed() -> None:
    split_halves = Halves(*draw_labels(0, 100), seeds=(0, 1, 2))
    rows = probe_layer("f", make_noise(split_halves.bias, 2, 2), split_halves, CPU)
    assert [row.probe for row in rows] == list(PROBES)
    assert all(len(row.values) == 3 for row in rows)
    assert any(a != b for row in rows for a, b in pairwise(row.values))
