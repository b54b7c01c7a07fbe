"""EnD: disentangle images with the same bias value, entangle images of one class (Tartaglione et al., CVPR 2021)."""

from collections.abc import Iterator

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from lntl.methods.base import Method, Objective, minimise
from lntl.ops import mean_over_positions
from lntl.plugins import Settings, Weight
from lntl.types import IGNORE, Batch

__all__ = ["EnD"]


class EnD(Method):
    """Tartaglione et al., CVPR 2021: min_{f,g} L_c(f, g) + alpha * R_disentangle + beta * R_entangle.

    G (N, N) contains the cosines of the features of two examples, without unit. Over pairs i < j of the batch,

        R_disentangle = sum_v |sum of G_ij over pairs with b_i = b_j = v| / number of pairs with b_i = b_j, in [0, 1]
        R_entangle    = mean of (1 - G_ij) / 2 over pairs with y_i = y_j and b_i != b_j, in [0, 1]

    b = group % num_bias_values; examples whose bias is unknown are in no pair; a term without pairs is 0. Both terms
    are defined as in the authors' code.
    Deviation: the features are z, averaged over its positions if it is a map. The paper uses the input of the last
    layer (there after average pooling), which is z if f ends there (`split: last` of convnet).
    Deviation: the authors' code leaves out about half of the entangled pairs, depending on their order in the batch.
    """

    trains = ("f", "g")
    sees_bias = True

    class Config(Settings):
        """Settings of a phase with `method: end`."""

        alpha: Weight = Field(
            0.1, description="Weight of disentangling; 0.1 in the authors' example; they searched from 0 to 1."
        )
        beta: Weight = Field(
            0.1, description="Weight of entangling; 0.1 in the authors' example; they searched from 0 to 1."
        )

    config: Config

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield the task loss and both terms over f and g."""
        z = self.f(batch.x)
        task = cross_entropy(self.g(z), batch.y)
        u = normalize(mean_over_positions(z), dim=1)
        members = find_members(batch.group, self.spec.num_bias_values).type_as(u)
        disentangle = compute_disentangling(u @ u.T, members)
        entangle = compute_entangling(u @ u.T, members, batch.y)
        loss = task + self.config.alpha * disentangle + self.config.beta * entangle
        yield minimise(loss, over=(self.f, self.g), task=task, disentangle=disentangle, entangle=entangle)


def find_members(group: Tensor, num_bias_values: int) -> Tensor:
    """Return whether each example has each bias value, bool (N, num_bias_values); False if its value is unknown."""
    bias = torch.where(group == IGNORE, IGNORE, group % num_bias_values)
    return bias[:, None] == torch.arange(num_bias_values, device=group.device)


def compute_disentangling(cosines: Tensor, members: Tensor) -> Tensor:
    """Return R_disentangle of cosines (N, N) and members (N, num_bias_values)."""
    others = cosines - torch.diag(cosines.diagonal())
    sums = ((others @ members) * members).sum(dim=0) / 2
    sizes = members.sum(dim=0)
    return sums.abs().sum() / (sizes * (sizes - 1) / 2).sum().clamp(min=1)


def compute_entangling(cosines: Tensor, members: Tensor, y: Tensor) -> Tensor:
    """Return R_entangle of cosines (N, N), members (N, num_bias_values) and classes (N,)."""
    known = members.sum(dim=1)
    pairs = (y[:, None] == y) * (known[:, None] * known - members @ members.T)  # both (i, j) and (j, i)
    return (pairs * (1 - cosines)).sum() / (2 * pairs.sum().clamp(min=1))
