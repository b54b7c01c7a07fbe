"""Bias heads and task heads.

A bias head is called as h(z), or as h(z, where) for the logits at the labelled positions only. A task head is called as
g(z). A task head with a head for each bias value is also called as g(z, value), for the logits of that head.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lntl.ops import MASKED_LOGIT
from lntl.plugins import Settings
from lntl.types import DataSpec


def select_positions(logits: Tensor, where: Tensor) -> Tensor:
    """Return logits (N, bins, biases, H, W) at the M positions `where` (N, H, W) as (M, bins, biases)."""
    return logits.permute(0, 3, 4, 1, 2)[where]


class MapHead(nn.Module):
    """h for bias maps: z (N, C, H, W) -> logits (N, bins, biases, H, W), or (M, bins, biases) at M positions.

    One grouped network computes `biases` separate networks, each conv 3x3 C->C, BatchNorm, ReLU, conv 3x3 C->bins.
    Source: the authors' code.

    With `where`, only the neighbourhoods of these positions are computed, because most of a map of strokes is
    background without labels. Deviation: in training, the statistics of the norm are then taken over these
    neighbourhoods only.
    """

    def __init__(self, channels: int, bins: int, biases: int) -> None:
        super().__init__()
        self.biases = biases
        self.first = nn.Conv2d(channels, biases * channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(biases * channels)
        self.last = nn.Conv2d(biases * channels, biases * bins, 3, padding=1, groups=biases)

    def forward(self, z: Tensor, where: Tensor | None = None) -> Tensor:
        """Return the logits, bins in dimension 1."""
        if where is not None and where.any():
            logits = self._compute_at(z, where)
        else:
            logits = self.last(F.relu(self.norm(self.first(z))))
        logits = logits.unflatten(1, (self.biases, -1)).transpose(1, 2)
        return select_positions(logits, where) if where is not None and logits.dim() == 5 else logits

    def _compute_at(self, z: Tensor, where: Tensor) -> Tensor:
        """Return the outputs of `last` at `where`; each convolution is a matrix product over gathered neighbours."""
        pixels_around, rows_around = _find_neighbours(where)
        pixels = F.pad(z.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).flatten(0, 2)
        rows = F.linear(F.embedding(pixels_around, pixels).flatten(1), _make_matrix(self.first), self.first.bias)
        rows = F.relu(self.norm(rows[:, :, None, None]))[:, :, 0, 0]
        rows = torch.cat([rows, rows.new_zeros(1, rows.shape[1])])  # the last row stands for positions outside the map
        return F.linear(F.embedding(rows_around, rows).flatten(1), _make_matrix(self.last), self.last.bias)


def _find_neighbours(where: Tensor) -> tuple[Tensor, Tensor]:
    """Return two tables of neighbours for `where` (N, H, W).

    R is the number of positions that are at most one step away from a position of `where`. The first table lists the 9
    pixels around each of the R positions, as indices (R, 9) into the maps padded by one. The second table lists which 9
    of the R positions are around each of the M positions of `where`, as indices (M, 9); the index R stands for a
    position outside of the map.
    """
    is_near = F.max_pool2d(where[:, None].float(), 3, stride=1, padding=1)[:, 0] > 0
    rows = F.pad(is_near, (1, 1, 1, 1)).flatten().nonzero()[:, 0]
    positions = F.pad(where, (1, 1, 1, 1)).flatten().nonzero()[:, 0]
    width = where.shape[2] + 2
    steps = torch.arange(-1, 2, device=where.device)
    offsets = (steps[:, None] * width + steps).flatten()
    row_index = torch.full((where.shape[0] * (where.shape[1] + 2) * width,), len(rows), device=where.device)
    row_index[rows] = torch.arange(len(rows), device=where.device)
    return rows[:, None] + offsets, row_index[positions[:, None] + offsets]


def _make_matrix(conv: nn.Conv2d) -> Tensor:
    """Return the weights of a convolution as a matrix (out_channels, 9 * in_channels), block-diagonal for groups."""
    # (groups, outputs per group, 3, 3, inputs per group)
    kernels = conv.weight.unflatten(0, (conv.groups, -1)).permute(0, 1, 3, 4, 2)
    blocks = torch.eye(conv.groups, device=kernels.device)[:, None, None, None, :, None]
    matrix: Tensor = (kernels[:, :, :, :, None, :] * blocks).flatten(2).flatten(0, 1)
    return matrix


class PooledHead(nn.Module):
    """h on the whole of z: one prediction per example, repeated at each position if the labels are a map.

    z (N, C), (N, C, T) or (N, C, H, W) -> logits (N, bins, *bias_shape). With `where`, only the logits of the M labels:
    (M, bins) for bias_shape (), otherwise (M, bins, biases).

    Maps: conv 3x3 stride 2 C->64, BatchNorm, ReLU, conv 3x3 64->64, BatchNorm, ReLU, mean and maximum over positions.
    Tokens: the same in one dimension. Vectors: linear C->128, BatchNorm, ReLU. Then linear 128->64, BatchNorm, ReLU,
    linear to bins * biases. This is the architecture of the authors' g, so that h can use the same features as g.
    It is for biases that are the same everywhere in an image; f can hide these from a head with small neighbourhoods.

    Args:
        shape: Shape of z for one example.
        bins: Number of outputs per bias label.
        bias_shape: Shape of one example's bias label.
        sizes: Number of values of each bias, if they differ; the logits of bins that a bias lacks are MASKED_LOGIT.
    """

    missing_bins: Tensor  # (bins, biases) bool

    def __init__(
        self, shape: tuple[int, ...], bins: int, bias_shape: tuple[int, ...], sizes: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        self.bias_shape, self.has_missing_bins = bias_shape, len(set(sizes)) > 1
        missing_bins = torch.arange(bins)[:, None] >= torch.tensor(sizes or (bins,))
        self.register_buffer("missing_bins", missing_bins, persistent=False)
        biases = bias_shape[0] if bias_shape else 1
        self.body = _make_body(shape[0], len(shape) - 1)
        self.last = nn.Sequential(
            nn.Linear(128, 64, bias=False),
            nn.BatchNorm1d(64),
            nn.ReLU(),
            nn.Linear(64, bins * biases),
            nn.Unflatten(1, (bins, biases)),
        )

    def forward(self, z: Tensor, where: Tensor | None = None) -> Tensor:
        """Return the logits, bins in dimension 1."""
        x = self.body(z)
        if x.dim() > 2:
            x = torch.cat([x.flatten(2).mean(dim=2), x.flatten(2).amax(dim=2)], dim=1)
        logits: Tensor = self.last(x)
        if self.has_missing_bins:
            logits = logits.masked_fill(self.missing_bins, MASKED_LOGIT)
        if not self.bias_shape:
            logits = logits[..., 0]
        if where is not None:
            return logits.repeat_interleave(where.reshape(len(where), -1).sum(dim=1), dim=0)
        map_shape = self.bias_shape[1:]
        return logits[(..., *[None] * len(map_shape))].expand(*logits.shape, *map_shape)


def _make_body(channels: int, dims: int) -> nn.Sequential:
    """Return the layers from z to a map or tokens of 64 channels, or from a vector z to a vector of 128."""
    if dims == 0:
        return nn.Sequential(nn.Linear(channels, 128, bias=False), nn.BatchNorm1d(128), nn.ReLU())
    conv, norm = ((nn.Conv1d, nn.BatchNorm1d), (nn.Conv2d, nn.BatchNorm2d))[dims - 1]
    return nn.Sequential(
        conv(channels, 64, 3, stride=2, padding=1, bias=False),
        norm(64),
        nn.ReLU(),
        conv(64, 64, 3, padding=1, bias=False),
        norm(64),
        nn.ReLU(),
    )


class VectorHead(nn.Module):
    """h from a feature vector: z (N, C) -> logits (N, bins, biases, H, W), or (M, bins, biases) at M positions."""

    def __init__(self, features: int, hidden: int, bins: int, bias_shape: tuple[int, ...]) -> None:
        super().__init__()
        biases, height, width = bias_shape
        self.body = nn.Sequential(
            nn.Linear(features, hidden * (height // 2) * (width // 2)),
            nn.ReLU(),
            nn.Unflatten(1, (hidden, height // 2, width // 2)),
            nn.ConvTranspose2d(hidden, hidden, 2, stride=2),
            nn.ReLU(),
            nn.Conv2d(hidden, bins * biases, 3, padding=1),
            nn.Unflatten(1, (bins, biases)),
        )

    def forward(self, z: Tensor, where: Tensor | None = None) -> Tensor:
        """Return the logits, bins in dimension 1."""
        logits: Tensor = self.body(z)
        return logits if where is None else select_positions(logits, where)


class TaskHeadSettings(Settings):
    """Settings of a model that has a task head."""

    heads: Literal["single", "per_bias"] = Field(
        "single",
        description="Number of task heads, which share all of g except its last layer: single, or one per bias value. "
        "Heads per bias value are summed if the bias value is not given, as in evaluation.",
    )
    heads_sum: Literal["logits", "probabilities"] = Field(
        "logits",
        description="What is summed over the heads of `heads: per_bias`. Use probabilities if many groups of class and "
        "bias value have no image, because the logit of a class that never occurs decreases without limit.",
    )


def task_head(body: nn.Sequential, features: int, spec: DataSpec, config: TaskHeadSettings) -> nn.Module:
    """Return g: the body (z to (N, features)) and a last linear layer that gives the logits of each class."""
    if config.heads == "single":
        return body.append(nn.Linear(features, spec.num_classes))
    body.append(nn.Linear(features, spec.num_bias_values * spec.num_classes))
    return HeadPerBias(body, spec.num_bias_values, config.heads_sum)


class HeadPerBias(nn.Module):
    """g with a head for each bias value: z -> logits (N, classes), of all heads combined or of one head per image.

    With logits s_d of head d, the combined logits are the sum over d of s_d, or the logarithm of the sum over d of
    softmax(s_d). The softmax of the latter is the mean of the heads' probabilities. Source: Wang et al., "Towards
    Fairness in Visual Recognition", CVPR 2020, which recommends the former, and the authors' code, which has both.
    """

    def __init__(self, body: nn.Module, num_bias_values: int, heads_sum: str) -> None:
        super().__init__()
        self.body, self.num_bias_values, self.heads_sum = body, num_bias_values, heads_sum

    def forward(self, z: Tensor, value: Tensor | None = None) -> Tensor:
        """Return the combined logits of all heads, or those of the head of each image's bias value (N,) int64."""
        logits: Tensor = self.body(z).unflatten(1, (self.num_bias_values, -1))
        if value is not None:
            return logits[torch.arange(len(logits), device=logits.device), value]
        return logits.sum(dim=1) if self.heads_sum == "logits" else logits.log_softmax(dim=2).logsumexp(dim=1)
