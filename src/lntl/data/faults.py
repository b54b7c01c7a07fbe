"""Wrong rows of a data set, collected so that all of them are told at once, by line."""

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from lntl.errors import UserError

SHOWN = 50  # wrong rows told one a line in an error; the others are counted by kind
FEW = 5  # the same, where not one row is right: it is then a setting that is wrong


class Faults:
    """What is wrong with the n rows of `where`; `place(i)` is what row i is called, e.g. "line 7"."""

    def __init__(self, n: int, where: str, place: Callable[[int], str]) -> None:
        self.n, self.where, self.place = n, where, place
        self._kinds: dict[int, list[str]] = {}  # by row
        self._told: dict[int, list[str]] = {}

    def add(self, rows: Iterable[int], kind: str, detail: Callable[[int], str] = lambda row: "") -> None:
        """Note that rows have a fault; the kind is counted, the kind and the row's detail are told."""
        for row in rows:
            self._kinds.setdefault(row, []).append(kind)
            self._told.setdefault(row, []).append(f"{kind}{detail(row)}")

    @property
    def lines(self) -> list[str]:
        """One sentence a wrong row, in the order of the rows."""
        return [f"{self.place(row)}: {'; '.join(self._told[row])}" for row in sorted(self._told)]

    def settle(self, on_error: str) -> NDArray[np.bool_]:
        """Return which rows are right, bool (n,).

        Raises UserError with every wrong row where `on_error` is stop, and where no row is right or there is none.
        """
        if not self.n:
            raise UserError(f"{self.where}: it has no row")
        right = np.ones(self.n, dtype=np.bool_)
        right[list(self._told)] = False
        if self._told and (on_error == "stop" or not right.any()):
            some = bool(right.any())
            remedy = "mend them, or leave them out with data.on_error: skip" if some else "is `data` what you meant?"
            head = f"{self.where}: {len(self._told)} of {self.n} rows are wrong; {remedy}"
            raise UserError("\n".join([head, *(f"  {line}" for line in self._shown(SHOWN if some else FEW))]))
        return right

    def _shown(self, most: int) -> list[str]:
        lines = self.lines
        if len(lines) <= most:
            return lines
        rest = Counter(kind for row in sorted(self._kinds)[most:] for kind in self._kinds[row])
        counts = ", ".join(f"{kind} ({count})" for kind, count in rest.most_common())
        return [*lines[:most], f"and {len(lines) - most} more: {counts}"]
