"""All wrong rows are listed in one error, in their order, with their count."""

import pytest

from lntl.data.rows import MAX_LISTED_ROWS, Faults
from lntl.errors import UserError


def make_faults(n: int) -> Faults:
    return Faults(n, "table t.csv", lambda row: f"line {row + 2}")


def test_stop_lists_every_wrong_row_with_all_its_faults() -> None:
    faults = make_faults(10)
    faults.add([7, 3], "label is empty")
    faults.add([3], "missing file", lambda row: f" {row}.png")
    with pytest.raises(UserError) as error:
        faults.valid_rows_or_raise("stop")
    assert str(error.value).splitlines() == [
        "table t.csv: 2 of 10 rows are wrong; correct them, or leave them out with data.on_error: skip",
        "  line 5: label is empty; missing file 3.png",
        "  line 9: label is empty",
    ]


def test_skip_returns_the_mask_of_valid_rows() -> None:
    faults = make_faults(4)
    faults.add([2], "label is empty")
    assert faults.valid_rows_or_raise("skip").tolist() == [True, True, False, True]
    assert faults.lines == ["line 4: label is empty"]


def test_without_faults_all_rows_are_valid() -> None:
    assert make_faults(3).valid_rows_or_raise("stop").tolist() == [True, True, True]


def test_skip_is_an_error_if_all_rows_are_wrong() -> None:
    faults = make_faults(2)
    faults.add([0, 1], "label is empty")
    with pytest.raises(UserError, match="2 of 2 rows are wrong; check section `data`"):
        faults.valid_rows_or_raise("skip")


def test_more_wrong_rows_than_the_limit_are_counted_by_fault() -> None:
    faults = make_faults(1000)
    faults.add(range(900), "label is empty")
    faults.add(range(800, 810), "missing file", lambda row: f" {row}")
    with pytest.raises(UserError) as error:
        faults.valid_rows_or_raise("stop")
    lines = str(error.value).splitlines()
    assert len(lines) == MAX_LISTED_ROWS + 2
    assert (
        lines[-1] == f"  and {900 - MAX_LISTED_ROWS} more: label is empty ({900 - MAX_LISTED_ROWS}), missing file (10)"
    )
