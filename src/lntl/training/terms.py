"""The terms that a method logs: a row a step on the device, sums over the epoch on the host."""

from typing import Any

import torch
from torch import Tensor

from lntl.errors import UserError


class Terms:
    """The terms of an epoch's steps so far; none of them leaves the device before `take`."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._pending: list[Tensor] = []  # one row (terms,) a step since the last `take`
        self._sums: Tensor | None = None  # (terms,), over the steps before

    def add(self, terms: dict[str, Tensor], device: torch.device) -> None:
        """Keep the terms of a step; raises UserError where they are not those of the epoch's steps before."""
        names = tuple(terms)
        if names != self._names and (self._pending or self._sums is not None):
            raise UserError(
                f"the method logs other terms than before in this epoch: {', '.join(names)}, not "
                f"{', '.join(self._names)}; let it name the same ones at every step. If its code is not that of the "
                "checkpoint any more, put it back until the epoch is over, or train anew under another "
                "project.experiment_name"
            )
        self._names = names
        self._pending.append(torch.stack([term.to(device, torch.float32) for term in terms.values()]))

    def take(self) -> Tensor:
        """Bring the terms since the last time, (steps, terms), to the host: the loop's one synchronisation."""
        rows = torch.stack(self._pending).double().cpu()
        self._pending = []
        self._sums = rows.sum(dim=0) if self._sums is None else self._sums + rows.sum(dim=0)
        return rows

    def means(self, steps: int) -> dict[str, float]:
        """Return each term's mean over the `steps` of the epoch, all of which were taken."""
        assert self._sums is not None
        return self.named(self._sums / steps)

    def named(self, values: Tensor) -> dict[str, float]:
        """Return (terms,) values by name."""
        return dict(zip(self._names, values.tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Return what the epoch's remaining reports depend on."""
        return {"terms": list(self._names), "pending": list(self._pending), "sums": self._sums}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on where `state` was taken."""
        self._names, self._sums = tuple(state["terms"]), state["sums"]
        self._pending = [row.to(device) for row in state["pending"]]
