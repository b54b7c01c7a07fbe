"""Plain training (empirical risk minimisation); as a first phase it pre-trains f and g."""

from collections.abc import Iterator

from torch.nn.functional import cross_entropy

from lntl.methods.base import Method, Objective, minimise
from lntl.types import Batch

__all__ = ["ERM"]


class ERM(Method):
    """min_{f,g} L_c(g(f(x)), y), with L_c the cross-entropy in nats."""

    trains = ("f", "g")
    mean_over_images = True

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield the task loss over f and g."""
        task = cross_entropy(self.g(self.f(batch.x)), batch.y)
        yield minimise(task, over=(self.f, self.g), task=task)
