"""L_c, the loss that teaches the label: cross-entropy, or the bias product in its place."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lntl.methods.posterior import BiasPosterior
from lntl.plugins import Settings
from lntl.types import Batch, DataSpec

Task = Literal["cross_entropy", "bias_product"]


def smoothing_field() -> Any:
    """Return the setting `smoothing` of the bias product."""
    return Field(
        0.01,
        ge=0,
        le=1,
        description="Share s of the uniform distribution mixed into p(y | bias): where the bias rules a class out, g "
        "is still asked to, up to about log(K / s) nats for K classes; `bias_product` only.",
    )


class TaskSettings(Settings):
    """Settings of a method that lets its L_c be chosen."""

    task: Task = Field(
        "cross_entropy",
        description="L_c; bias_product: cross-entropy on g's logits + log p(y | bias), which leaves to g only what the "
        "bias does not already tell (see the method bias_product).",
    )
    smoothing: float = smoothing_field()


class TaskLoss(nn.Module):
    """L_c of the logits (N, classes) on y, in nats."""

    def __init__(self, kind: Task, smoothing: float, spec: DataSpec) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.posterior = BiasPosterior(spec) if kind == "bias_product" else None

    def fit(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Fit p(y | bias) where the loss has it."""
        if self.posterior is not None:
            self.posterior.fit(batches(), seed)
            self.posterior.smooth(self.smoothing)

    def forward(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return CE(softmax(logits), y), or CE(softmax(logits + log p(y | bias)), y)."""
        if self.posterior is not None:
            logits = logits + self.posterior.log_p[batch.row]
        return cross_entropy(logits, batch.y)
