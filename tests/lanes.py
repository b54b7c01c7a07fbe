"""Which cases of a parametrised test the fast lane runs."""

from collections.abc import Iterable

import pytest
from _pytest.mark import ParameterSet


def first_is_fast(cases: Iterable[object]) -> list[ParameterSet]:
    """Return the cases as parameters. The fast lane runs only the first; the full suite runs all of them."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=[pytest.mark.full] if position else [])
        for position, case in enumerate(cases)
    ]
