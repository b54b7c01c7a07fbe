"""Which cases of a parametrised test the fast lane runs."""

from collections.abc import Iterable

import pytest
from _pytest.mark import ParameterSet


def first_is_fast(cases: Iterable[object]) -> list[ParameterSet]:
    """Return the cases as parameters: the first runs in the fast lane, too, the others only in the full suite."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=[pytest.mark.full] if number else [])
        for number, case in enumerate(cases)
    ]
