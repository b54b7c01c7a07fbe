"""How well the run's own h reads its bias labels, to be put beside what a fresh probe reads."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lntl.types import IGNORE, Batch, Networks


@dataclass(frozen=True, slots=True)
class HeadCounts:
    """Of each of n images: bias labels that h gets right (n,), and labels by bias and value (n, biases, bins)."""

    hits: Tensor
    labels: Tensor

    def accuracy(self, index: Tensor) -> float:
        """Return h's accuracy over the known labels of the images at `index`."""
        return int(self.hits[index].sum()) / max(1, int(self.labels[index].sum()))

    def chance(self, index: Tensor) -> float:
        """Return what the most frequent value of each bias (each colour channel) scores on the images at `index`."""
        count = self.labels[index].sum(dim=0)
        return int(count.amax(dim=1).sum()) / max(1, int(count.sum()))


@torch.inference_mode()
def judge(networks: Networks, batches: Iterable[Batch], num_bins: int) -> HeadCounts:
    """Run h over images in batches; the networks are left in eval mode."""
    networks.eval()
    hits, labels = [], []
    for batch in batches:
        known = batch.bias != IGNORE
        right = (networks.h(networks.f(batch.x)).argmax(dim=1) == batch.bias) & known
        hits.append(right.flatten(1).sum(dim=1).cpu() if right.dim() > 1 else right.long().cpu())
        biases = batch.bias.shape[1] if batch.bias.dim() > 1 else 1
        bias = torch.where(known, batch.bias, num_bins).reshape(len(known), biases, -1)  # one value more: unknown
        labels.append(F.one_hot(bias, num_bins + 1).sum(dim=2)[..., :num_bins].cpu())
    return HeadCounts(torch.cat(hits), torch.cat(labels))
