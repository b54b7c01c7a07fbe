"""Categories, bins, combined biases and aligned bias values, compared with slow loops."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from lntl.data.labels import (
    MAX_VALUES,
    Column,
    bias_features,
    bin_numbers,
    categories,
    check_spelling,
    combine,
    find_aligned_values,
)
from lntl.errors import UserError
from lntl.types import IGNORE

NAN = float("nan")


def make_column(name: str, texts: list[str], missing: tuple[str, ...] = ()) -> Column:
    """Return a column with one text per row."""
    return categories(name, texts, np.arange(len(texts)), missing)


def get_names_by_row(column: Column) -> list[str | None]:
    return [None if code == IGNORE else column.values[code] for code in column.code.tolist()]


# --- categories ---


def test_texts_are_stripped_and_sorted() -> None:
    column = make_column("animal", ["dog", " cat", "eel", "cat ", ""])
    assert column.values == ("cat", "dog", "eel")
    assert get_names_by_row(column) == ["dog", "cat", "eel", "cat", None]


def test_numbers_are_sorted_by_value() -> None:
    assert make_column("n", ["10", "9", "-1", "9"]).values == ("-1", "9", "10")
    assert make_column("n", ["10", "9", "x"]).values == ("10", "9", "x")


def test_texts_that_mean_missing_are_no_values() -> None:
    column = make_column("n", ["NA", "a", "", " "], missing=("NA",))
    assert get_names_by_row(column) == [None, "a", None, None]
    assert get_names_by_row(make_column("n", ["NA", "a"])) == ["NA", "a"]


def test_take_drops_values_without_rows() -> None:
    column = make_column("n", ["c", "a", "b", "", "c"]).take(np.array([True, False, True, True, True]))
    assert (column.values, get_names_by_row(column)) == (("b", "c"), ["c", "b", None, "c"])


def test_numbers_returns_a_mask_of_texts_that_are_not_numbers() -> None:
    number, is_wrong = make_column("age", ["1.5", "", "old", "inf", "-2"]).numbers()
    np.testing.assert_array_equal(number, [1.5, NAN, NAN, NAN, -2])
    assert is_wrong.tolist() == [False, False, True, True, False]


@pytest.mark.parametrize(
    ("texts", "spellings"),
    [
        (["1", "2", "01"], "'01' and '1'"),
        (["1.0", "1", "2"], "'1' and '1.0'"),
        (["1", "01", "x"], None),
        (["12345678901234567", "12345678901234568"], None),
        (["1", "2", "inf"], None),
    ],
)
def test_two_spellings_of_one_number_are_an_error(texts: list[str], spellings: str | None) -> None:
    """If a value is not a number, all values are texts, so '1' and '01' are two values."""
    if spellings is None:
        check_spelling(make_column("n", texts))
        combine([make_column("n", texts)])
        return
    for check in (check_spelling, lambda column: combine([column])):
        with pytest.raises(UserError, match=f"n: {spellings} are one number in two spellings; choose one"):
            check(make_column("n", texts))


# --- bins ---


def test_each_edge_begins_a_bin() -> None:
    column = bin_numbers("age", np.array([29.9, 30, 39, 40, NAN, 90]), edges=[30, 40])
    assert get_names_by_row(column) == [
        "age below 30",
        "age 30 to 40",
        "age 30 to 40",
        "age from 40",
        None,
        "age from 40",
    ]


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60, unique=True), st.integers(2, 6))
@example([float(number) for number in range(11)], 5)  # 0.6 * 10 is not exactly 6 in floating point
def test_bins_have_equal_counts_of_distinct_numbers(numbers: list[float], bins: int) -> None:
    counts = Counter(bin_numbers("n", np.array(numbers), bins).code.tolist())
    n = len(numbers)
    assert sum(counts.values()) == n
    assert all(abs(count - n / bins) <= 1 + 1e-9 for count in counts.values())


@given(st.lists(st.integers(0, 5), min_size=2, max_size=60), st.integers(2, 6))
def test_bins_keep_order_and_never_separate_equal_numbers(numbers: list[int], bins: int) -> None:
    if len(set(numbers)) == 1:
        with pytest.raises(UserError, match="all its numbers are equal"):
            bin_numbers("n", np.array(numbers, dtype=float), bins)
        return
    column = bin_numbers("n", np.array(numbers, dtype=float), bins)
    pairs = sorted(zip(numbers, column.code.tolist(), strict=True))
    assert [code for _, code in pairs] == sorted(code for _, code in pairs)
    assert len(set(pairs)) == len(set(numbers))
    assert sorted(set(column.code.tolist())) == list(range(len(column.values)))


def test_a_rank_is_the_share_of_smaller_numbers_plus_half_of_the_equal_numbers() -> None:
    numbers = [3.0, 1.0, NAN, 1.0, 7.0]
    rank = bin_numbers("n", np.array(numbers), edges=[2]).rank
    known_numbers = [x for x in numbers if x == x]
    expected = [
        (sum(v < x for v in known_numbers) + sum(v == x for v in known_numbers) / 2) / len(known_numbers)
        if x == x
        else 0
        for x in numbers
    ]
    assert rank is not None
    np.testing.assert_allclose(rank, expected)


@pytest.mark.parametrize(
    ("edges", "names"),
    [
        ([30, 40.0], ("n below 30", "n 30 to 40", "n from 40")),
        ([0.123456, 0.2], ("n below 0.1235", "n 0.1235 to 0.2", "n from 0.2")),
        ([20230101, 20230215], ("n below 20230101", "n 20230101 to 20230215", "n from 20230215")),
        ([12345.678, 20000], ("n below 12346", "n 12346 to 20000", "n from 20000")),
        ([1.00001, 1.00002], ("n below 1.00001", "n 1.00001 to 1.00002", "n from 1.00002")),
        ([-1e300, 1e300], ("n below -1e+300", "n -1e+300 to 1e+300", "n from 1e+300")),
        ([0.1, 0.1 + 2**-54], ("n below 0.1", "n 0.1 to 0.1000000000000001", "n from 0.1000000000000001")),
    ],
)
def test_bin_names_are_distinct(edges: list[float], names: tuple[str, ...]) -> None:
    numbers = np.array([edges[0] - max(abs(edges[0]), 1), *edges])
    column = bin_numbers("n", numbers, edges=edges)
    assert column.values[: len(names)] == names
    assert len(set(column.values)) == len(column.values) == len(edges) + 1


# --- several biases ---


def test_one_bias_gives_one_label_per_image() -> None:
    bias = combine([make_column("sky", ["day", "night", "", "day"])])
    assert bias.labels.tolist() == bias.value.tolist() == [0, 1, IGNORE, 0]
    assert (bias.names, bias.num_values, bias.specs) == (("day", "night"), (2,), ())


def test_several_biases_have_a_joint_value_for_each_existing_combination() -> None:
    sky, place = ["day", "night", "day", "", "day"], ["sea", "land", "land", "sea", "sea"]
    bias = combine([make_column("sky", sky), make_column("place", place)])
    assert bias.labels.tolist() == [[0, 1], [1, 0], [0, 0], [IGNORE, 1], [0, 1]]
    assert bias.names == ("day, land", "day, sea", "night, land")  # "night, sea" does not occur
    assert [(spec.name, spec.values, spec.value_of_joint) for spec in bias.specs] == [
        ("sky", ("day", "night"), (0, 0, 1)),
        ("place", ("land", "sea"), (0, 1, 0)),
    ]
    assert [None if v == IGNORE else bias.names[v] for v in bias.value.tolist()] == [
        f"{a}, {b}" if a else None for a, b in zip(sky, place, strict=True)
    ]


def test_combinations_of_many_biases_are_numbered() -> None:
    rng = np.random.default_rng(0)
    biases = [make_column(f"b{k}", [f"value {v}" for v in rng.integers(0, 2, 50)]) for k in range(40)]
    bias = combine(biases)
    assert bias.names == tuple(f"combination {k}" for k in range(1, 51))
    assert sorted(bias.value.tolist()) == list(range(50))
    for b, spec in enumerate(bias.specs):
        assert [spec.values[spec.value_of_joint[v]] for v in bias.value.tolist()] == [
            spec.values[v] for v in bias.labels[:, b].tolist()
        ]


def test_equal_value_names_get_the_name_of_their_bias() -> None:
    bias = combine([make_column("hat", ["no", "yes"]), make_column("bag", ["yes", "no"])])
    assert bias.names == ("hat no, bag yes", "hat yes, bag no")


def test_a_bias_needs_two_values_and_not_too_many() -> None:
    with pytest.raises(UserError, match="bias sky: it has only the value 'day'"):
        combine([make_column("sky", ["day", "day", ""])])
    with pytest.raises(UserError, match=r"bias id: 1001 different values .* put numbers into bins"):
        combine([make_column("id", [str(k) for k in range(MAX_VALUES + 1)])])


def test_at_least_one_row_must_have_a_value_of_every_bias() -> None:
    with pytest.raises(UserError, match=r"no row has values of all biases \(sky, place\)"):
        combine([make_column("sky", ["a", "b", "", ""]), make_column("place", ["", "", "c", "d"])])


def test_features_are_one_hot_or_zero_if_missing_followed_by_ranks() -> None:
    ages = bin_numbers("age", np.array([20.0, 60.0, NAN]), edges=[40])
    bias = combine([make_column("sky", ["a", "", "c"]), ages])
    rows = bias_features(bias.labels, bias.num_values, bias.rank)
    assert rows.tolist() == [[1, 0, 1, 0, 0.25], [0, 0, 0, 1, 0.75], [0, 1, 0, 0, 0]]
    assert rows.dtype == torch.float32
    one_bias = combine([make_column("sky", ["a", "", "c"])])
    assert bias_features(one_bias.labels, one_bias.num_values, one_bias.rank).tolist() == [[1, 0], [0, 0], [0, 1]]


# --- aligned bias values ---


def find_aligned_values_of_counts(cells: list[list[int]]) -> tuple[int, ...]:
    """Return the result of `find_aligned_values` for counts of images by class and bias value."""
    pairs = [(y, b) for y, row in enumerate(cells) for b, n in enumerate(row) for _ in range(n)]
    y, b = (torch.tensor(values) for values in zip(*pairs, strict=True))
    return find_aligned_values(y, b, len(cells), len(cells[0]))


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([[95, 5], [5, 95]], (0, 1)),
        ([[5, 95], [95, 5]], (1, 0)),
        ([[90, 10], [60, 40]], ()),  # value 1 is more frequent in the second class, but not its majority
        ([[75, 25], [75, 25]], ()),  # the bias does not predict the class
        ([[80, 10, 10], [10, 80, 10], [10, 10, 80]], (0, 1, 2)),
        ([[80, 20, 0], [90, 10, 0], [0, 10, 90]], (0, 0, 2)),
        ([[50, 50], [0, 100]], ()),
    ],
)
def test_find_aligned_values_returns_the_bias_value_that_predicts_each_class(
    cells: list[list[int]], expected: tuple[int, ...]
) -> None:
    assert find_aligned_values_of_counts(cells) == expected


def test_find_aligned_values_ignores_unknown_biases() -> None:
    y, b = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, IGNORE, IGNORE, IGNORE, 1, IGNORE])
    assert find_aligned_values(y, b, 2, 2) == (0, 1)


# --- spellings ---


def test_unicode_forms_and_zero_width_characters_give_one_value() -> None:
    composed_name, decomposed_name = "M\u00fcnchen", "Mu\u0308nchen"
    column = make_column(
        "city", [composed_name, decomposed_name, f"\ufeff{composed_name}", "Mu\u200b\u0308nchen", "Bonn"]
    )
    assert column.values == ("Bonn", composed_name)
    assert column.code.tolist() == [1, 1, 1, 1, 0]
    assert column.notes == (
        f"city: spellings of {composed_name!r} that differ only in Unicode form or invisible characters are one value",
    )
    assert make_column("city", ["\u200b", "Bonn"]).code.tolist() == [IGNORE, 0]
    assert make_column("city", [decomposed_name, "Bonn"]).values == (
        "Bonn",
        decomposed_name,
    )  # a single spelling is not changed


def test_values_that_differ_in_case_give_a_note_and_stay_separate() -> None:
    column = make_column("animal", ["Cat", "cat", "dog"])
    assert column.values == ("Cat", "cat", "dog")
    assert column.notes == ("animal: 'Cat' and 'cat' differ only in case and are two values",)
