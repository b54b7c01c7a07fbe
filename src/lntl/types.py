"""The words that every module shares: a batch, what data look like, the three networks, an epoch's record."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor, nn

IGNORE = -100  # an unknown label: torch's own default `ignore_index`


@dataclass(frozen=True, slots=True)
class Batch:
    """N examples.

    Shapes: x (N, C, H, W) or (N, D) float, normalised; y (N,) int64; bias (N, *bias_shape) int64, IGNORE where unknown;
    group (N,) int64 = y * num_bias_values + bias value, IGNORE where a bias is unknown; row (N,) int64, the index in
    the whole data set; bias_features (N, A) float, the bias in numbers on [0, 1], from which p(y | bias) is told.
    """

    x: Tensor
    y: Tensor
    bias: Tensor
    group: Tensor
    row: Tensor
    bias_features: Tensor

    @property
    def labelled(self) -> Tensor:
        """Where a bias label is known: bool (N,), or (N, H, W) of a map (N, biases, H, W)."""
        known = self.bias != IGNORE
        return known.any(dim=1) if known.dim() > 1 else known

    def bias_at(self, where: Tensor | None) -> Tensor:
        """Return the bias labels at `where`, (M,) or (M, biases); all of them, as they are, without it."""
        if where is None:
            return self.bias
        return (self.bias.movedim(1, -1) if self.bias.dim() > 1 else self.bias)[where]

    def without_bias(self) -> "Batch":
        """Return the batch with everything that tells the bias blanked out."""
        return replace(
            self,
            bias=torch.full_like(self.bias, IGNORE),
            group=torch.full_like(self.group, IGNORE),
            bias_features=torch.zeros_like(self.bias_features),
        )


@dataclass(frozen=True, slots=True)
class BiasSpec:
    """One of several biases: its name, the names of its values, and which of them each joint bias value has."""

    name: str
    values: tuple[str, ...]
    value_of_joint: tuple[int, ...]  # of each of DataSpec.bias_value_names
    aligned: tuple[int, ...] = ()  # as DataSpec.aligned


@dataclass(frozen=True, slots=True)
class DataSpec:
    """What a model must know of the data: shape (C, H, W) of an image or (D,) of a vector, counts, names, and the shape
    of one image's bias label.
    """

    input_shape: tuple[int, ...]
    num_classes: int
    num_bins: int  # values that one bias label can take
    bias_shape: tuple[int, ...]  # () for one label an image, (B,) for B, (3, 14, 14) for a map of three colours
    class_names: tuple[str, ...]
    bias_value_names: tuple[str, ...]  # one name for each of the num_bias_values values that make up the groups
    num_rows: int  # rows of the whole data set; every Batch.row is below
    aligned: tuple[int, ...] = ()  # of each class the bias value that tells it in training; () where none does
    biases: tuple[BiasSpec, ...] = ()  # of several biases, whose joint values bias_value_names are; () for one

    @property
    def num_bias_values(self) -> int:
        """Number of bias values that make up the groups."""
        return len(self.bias_value_names)

    @property
    def num_values_per_bias(self) -> tuple[int, ...]:
        """Number of values of each of several biases, of which num_bins is the largest; () for one bias."""
        return tuple(len(one.values) for one in self.biases)

    @property
    def num_groups(self) -> int:
        """Number of (class, bias value) cells."""
        return self.num_classes * self.num_bias_values


class Networks(nn.Module):
    """Feature extractor f, task head g and bias head h.

    f: x -> z; g: z -> logits (N, num_classes); h: z -> bias logits (N, num_bins, *bias_shape).
    """

    f: nn.Module
    g: nn.Module
    h: nn.Module
    num_features: int  # channels C of z: (N, C), (N, C, T) or (N, C, H, W)
    lr_factors: Mapping[str, float] = MappingProxyType({})  # learning rate of layers of f, in units of optimizer_fg's


class Split(Protocol):
    """One split of a data set (train, val or test): it makes batches of the rows asked for."""

    @property
    def row(self) -> Tensor:
        """The row of each example in the whole data set, (n,) int64."""
        ...

    def __len__(self) -> int: ...

    def batch(self, index: Tensor) -> Batch:
        """Return the examples at `index` (int64, in [0, len)) as one batch on the split's device."""
        ...

    def to(self, device: torch.device) -> "Split":
        """Return the split with its tensors on `device`."""
        ...


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """What one epoch of training left to tell: phase and epochs count from 1; metrics carry their log names."""

    phase: int
    method: str
    epoch: int  # within the phase
    total_epoch: int  # within the run
    step: int  # updates of the whole run so far
    metrics: dict[str, float]
    images_per_second: float
    seconds: float
