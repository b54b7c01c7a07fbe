"""Group DRO: minimise the loss of the worst (class, bias value) group, found online (Sagawa et al., ICLR 2020)."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from lntl.errors import UserError
from lntl.methods.base import Method, Objective, minimise
from lntl.plugins import Settings, Weight
from lntl.types import IGNORE, Batch, DataSpec, Networks

__all__ = ["GroupDRO"]


class GroupDRO(Method):
    """Sagawa et al., ICLR 2020, algorithm 1: min_{f,g} max_{q in simplex} sum_k q_k (L_k + C / sqrt(n_k)).

    k runs over the groups (class, bias value) that occur in train. L_k is the mean cross-entropy in nats of the images
    of group k in the batch, n_k the number of images of group k in train. On each batch, first q_k becomes
    q_k * exp(eta * (L_k + C / sqrt(n_k))) for the groups in the batch, and q (num_groups,) is normalised (log q is
    stored). Then f and g minimise sum_k q_k L_k. Source: "Distributionally Robust Neural Networks for Group Shifts: On
    the Importance of Regularization for Worst-Case Generalization", ICLR 2020, and the authors' code.

    Deviation: the authors' code applies C / sqrt(n_k) also to groups without an image in the batch.
    Deviation: q starts uniform over the groups that occur; the authors' code includes empty groups.
    """

    trains = ("f", "g")
    sees_bias = True

    class Config(Settings):
        """Settings of a phase with `method: group_dro`."""

        eta: Weight = Field(0.01, description="Step size of log q, 1 / nat; 0.01 in the authors' code.")
        adjustment: Weight = Field(
            0.0,
            description="C of the generalisation adjustment C / sqrt(n), nats; 0 in the authors' code; they tune it "
            "together with strong regularisation.",
        )
        sampling: Literal["balanced", "natural"] = Field(
            "balanced",
            description="balanced: an epoch draws every group equally often, as the paper's algorithm does; natural: "
            "each image once.",
        )

    config: Config
    log_q: Tensor  # (num_groups,), -inf for a group without training images
    count: Tensor  # (num_groups,), images of each group in train
    row_weight: Tensor  # (num_rows,), one over the count of the row's group

    def __init__(self, networks: Networks, config: Config, spec: DataSpec) -> None:
        super().__init__(networks, config, spec)
        self.register_buffer("log_q", torch.zeros(spec.num_groups).log_softmax(dim=0))
        self.register_buffer("count", torch.zeros(spec.num_groups, dtype=torch.int64))
        self.register_buffer("row_weight", torch.zeros(spec.num_rows))

    def prepare(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Count the groups, and make q uniform."""
        group = torch.full_like(self.row_weight, IGNORE, dtype=torch.int64)
        for batch in batches():
            group[batch.row] = batch.group
        known = group != IGNORE
        if not known.any():
            raise UserError("method group_dro: no training image has a bias value; use erm")
        self.count.copy_(torch.bincount(group[known], minlength=self.spec.num_groups))
        self.log_q.copy_((self.count > 0).float().log().log_softmax(dim=0))
        self.row_weight.zero_()
        self.row_weight[known] = 1 / self.count[group[known]]

    def sampling_weights(self) -> Tensor | None:
        """Return weights with which every group is drawn equally often; None for natural sampling."""
        return self.row_weight if self.config.sampling == "balanced" else None

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Move q towards groups with a high loss, and yield the loss weighted by q."""
        losses = cross_entropy(self.g(self.f(batch.x)), batch.y, reduction="none")
        groups = torch.arange(self.spec.num_groups, device=losses.device)
        member = (batch.group[:, None] == groups).type_as(losses)  # (N, num_groups); all False for IGNORE
        batch_count = member.sum(dim=0)
        group_loss = losses @ member / batch_count.clamp(min=1)  # L_k, 0 for a group that is not in the batch
        adjusted_loss = group_loss.detach() + self.config.adjustment * self.count.clamp(min=1).rsqrt()
        self.log_q.copy_((self.log_q + self.config.eta * adjusted_loss * (batch_count > 0)).log_softmax(dim=0))
        q = self.log_q.exp()
        robust = (q * group_loss).sum()
        yield minimise(
            robust, over=(self.f, self.g), task=losses.mean(), robust=robust, worst=group_loss.max(), q_max=q.max()
        )
