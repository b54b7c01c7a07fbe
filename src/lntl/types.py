"""Types used by all modules: batches, splits, data sets, the networks f, g, h, and the record of an epoch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import (
    NotRequired,  # pydantic accepts TypedDict and NotRequired of `typing` only from Python 3.12 on
    Self,
)

import torch
from pydantic import NonNegativeInt
from torch import Tensor, nn
from typing_extensions import TypedDict

from lntl.plugins import Settings

SPLITS = ("train", "val", "test")  # the splits of every data set, in this order
IGNORE = -100  # an unknown label: torch's own default `ignore_index`


@dataclass(frozen=True, slots=True)
class LabelCounts:
    """Divisors of the losses on a part of a batch: numbers of known bias labels.

    Each count is the number in the whole batch times the part's share of the images. The sum of the parts' losses,
    weighted by these shares, is then the loss of the whole batch, for any distribution of known labels over the parts.

    Attributes:
        known: Known labels of each bias, (B,), or a scalar for one bias.
        positions: Positions with a known label (`Batch.labelled`), a scalar.
        groups: Images whose group is known, a scalar.
    """

    known: Tensor
    positions: Tensor
    groups: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """N examples.

    Attributes:
        x: Normalised input, (N, C, H, W) or (N, D) float.
        y: Class, (N,) int64.
        bias: Bias label, (N, *bias_shape) int64; IGNORE if unknown.
        group: y * num_bias_values + bias value, (N,) int64; IGNORE if a bias is unknown.
        row: Index in the whole data set, (N,) int64.
        bias_features: The bias as A numbers in [0, 1], from which p(y | bias) is estimated, (N, A) float.
        counts: Divisors of the losses if this is a part of a batch; None for a whole batch.
    """

    x: Tensor
    y: Tensor
    bias: Tensor
    group: Tensor
    row: Tensor
    bias_features: Tensor
    counts: LabelCounts | None = None

    @property
    def labelled(self) -> Tensor:
        """Positions with a known bias label: (N,) bool, or (N, H, W) for maps (N, biases, H, W)."""
        known = self.bias != IGNORE
        return known.any(dim=1) if known.dim() > 1 else known

    def bias_at(self, where: Tensor | None) -> Tensor:
        """Return the bias labels at some positions.

        Args:
            where: Mask of positions, bool with the shape of `labelled` and M true values; None for all positions.

        Returns:
            Labels (M,), or (M, biases) for several biases; the attribute `bias` if `where` is None.
        """
        if where is None:
            return self.bias
        return (self.bias.movedim(1, -1) if self.bias.dim() > 1 else self.bias)[where]

    @property
    def known_count(self) -> Tensor | None:
        """Argument `count` of `ops.bias_cross_entropy`: divisor of the losses of each bias; None for a whole batch."""
        return None if self.counts is None else self.counts.known

    def position_count(self, where: Tensor | None) -> Tensor | None:
        """Return the argument `count` of `ops.entropy`: the divisor of losses at the positions `where`.

        Args:
            where: `labelled`, or None for all positions.

        Returns:
            A scalar; None if the divisor is the number of positions.
        """
        return None if self.counts is None or where is None else self.counts.positions

    def part(self, where: slice) -> "Batch":
        """Return some consecutive examples, without counts."""
        return Batch(
            self.x[where],
            self.y[where],
            self.bias[where],
            self.group[where],
            self.row[where],
            self.bias_features[where],
        )

    def label_counts(self) -> Tensor:
        """Return the numbers of LabelCounts in this batch as one float64 vector: positions, groups, then known."""
        known = self.bias != IGNORE
        known_per_bias = known.sum(dim=[axis for axis in range(known.dim()) if axis != 1])
        counts = (self.labelled.sum(), (self.group != IGNORE).sum(), known_per_bias)
        return torch.cat([count.reshape(-1).double() for count in counts])

    def without_bias(self) -> "Batch":
        """Return the batch for a method that must not see the bias.

        Returns:
            A copy whose `bias` and `group` are IGNORE and whose `bias_features` are 0.
        """
        return replace(
            self,
            bias=torch.full_like(self.bias, IGNORE),
            group=torch.full_like(self.group, IGNORE),
            bias_features=torch.zeros_like(self.bias_features),
        )


@dataclass(frozen=True, slots=True)
class BiasSpec:
    """One of several biases.

    Attributes:
        name: Name of the bias.
        values: Names of its values.
        value_of_joint: The value of this bias for each joint value of all biases in DataSpec.bias_value_names.
        aligned: Like DataSpec.aligned, for this bias.
    """

    name: str
    values: tuple[str, ...]
    value_of_joint: tuple[int, ...]
    aligned: tuple[int, ...] = ()

    def labels(self, joint: Tensor) -> Tensor:
        """Return the values of this bias.

        Args:
            joint: Joint values of all biases (n,) int64, as in DataSpec.bias_value_names.

        Returns:
            Values (n,) int64, on the device of `joint`.
        """
        return torch.tensor(self.value_of_joint, device=joint.device)[joint]


@dataclass(frozen=True, slots=True)
class DataSpec:
    """Shapes, counts and names of a data set.

    Attributes:
        input_shape: Shape of one x: (C, H, W) of an image, (D,) of a vector.
        num_classes: Number of classes.
        num_bins: Number of values that one bias label can take: the number of outputs of h per bias label.
        bias_shape: Shape of one example's bias label: () for one bias, (B,) for B biases, (B, H, W) for maps.
        class_names: Name of each class.
        bias_value_names: Names of the bias values that, with the classes, form the groups.
        num_rows: Number of rows of the whole data set; every Batch.row is below it.
        aligned: For each class, the bias value that indicates it in training; () if there is none.
        biases: Each bias, if there are several; bias_value_names are then their joint values. () for one bias.
    """

    input_shape: tuple[int, ...]
    num_classes: int
    num_bins: int
    bias_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    bias_value_names: tuple[str, ...]
    num_rows: int
    aligned: tuple[int, ...] = ()
    biases: tuple[BiasSpec, ...] = ()

    @property
    def num_bias_values(self) -> int:
        """Number of bias values that, with the classes, form the groups."""
        return len(self.bias_value_names)

    @property
    def num_values_per_bias(self) -> tuple[int, ...]:
        """Number of values of each bias if there are several (num_bins is the largest); () for a single bias."""
        return tuple(len(bias.values) for bias in self.biases)

    @property
    def num_groups(self) -> int:
        """Number of groups, the pairs of class and bias value."""
        return self.num_classes * self.num_bias_values


class Networks(nn.Module):
    """Feature extractor f, task head g and bias head h; the base class of models.

    To write a model, derive a class from this one, give it a `Config`, and set f, g, h and `num_features` in
    `__init__(spec, config)`.

    Attributes:
        f: x -> z, which is (N, C), (N, C, T) or (N, C, H, W).
        g: z -> logits (N, num_classes).
        h: z -> bias logits (N, num_bins, *bias_shape); h(z, where) returns only the logits at the positions `where`.
        num_features: Channels C of z.
        lr_factors: Factors of optimizer_fg.lr for layers of f, by the layer's name ('' for all of f).
        has_given_weights: Whether training starts from pretrained weights.
        rebuild: Function that builds the model again, with pretrained weights or with random ones (global generator).

    Example:
        >>> class Linear(Networks):
        ...     class Config(Settings):
        ...         units: int = Field(8, ge=1, description="Length of z.")
        ...
        ...     def __init__(self, spec: DataSpec, config: "Linear.Config") -> None:
        ...         super().__init__(spec, config)
        ...         self.num_features = config.units
        ...         self.f = nn.Linear(spec.input_shape[0], config.units)
        ...         self.g = nn.Linear(config.units, spec.num_classes)
        ...         self.h = PooledHead((config.units,), spec.num_bins, spec.bias_shape, spec.num_values_per_bias)
    """

    class Config(Settings):
        """Settings of the section `model`."""

    f: nn.Module
    g: nn.Module
    h: nn.Module
    num_features: int
    lr_factors: Mapping[str, float] = MappingProxyType({})
    has_given_weights: bool = False
    rebuild: "Callable[[], Networks] | None" = None

    def __init__(self, spec: DataSpec | None = None, config: Settings | None = None) -> None:
        super().__init__()


class Split(ABC):
    """One split of a data set (train, val or test): n labelled examples; `batch` returns some of them.

    Attributes:
        y: Class of each example, (n,) int64.
        group: Group of each example, y * num_bias_values + bias value, (n,) int64; IGNORE if a bias is unknown.
        row: Index of each example in the whole data set, (n,) int64.

    These three are available without reading any x.
    """

    y: Tensor
    group: Tensor
    row: Tensor

    @property
    def workers(self) -> int:
        """Number of threads that read ahead; if it is not 0, `batch` is called from another thread."""
        return 0

    def __len__(self) -> int:
        return len(self.y)

    @abstractmethod
    def batch(self, index: Tensor) -> Batch:
        """Return examples as one batch.

        Args:
            index: Positions in the split, (N,) int64 in [0, n).

        Returns:
            The batch, on the device of the split.
        """

    @abstractmethod
    def to(self, device: torch.device) -> Self:
        """Move the tensors to a device.

        Args:
            device: The device.

        Returns:
            The split with its tensors on `device`; it may be the same object.
        """

    def bias_labels(self, index: Tensor) -> Tensor:
        """Return the bias labels of some examples; override it to skip reading x.

        Args:
            index: Positions in the split, (N,) int64 in [0, n).

        Returns:
            Bias labels (N, *bias_shape) int64, IGNORE if unknown.
        """
        return self.batch(index).bias

    def augmented(self, seed: int) -> Self:
        """Return the split with augmentation for one training epoch, or for one batch of rows drawn with replacement.

        The loader calls it once per epoch; with sampling weights, once per batch.

        Args:
            seed: Seed of the epoch or batch. The augmentation of an example depends only on (seed, row).

        Returns:
            The augmented split; the split itself, if it has no augmentation.
        """
        return self


class PartOfSplit(Split):
    """Selected examples of a split.

    Args:
        split: The split.
        index: Positions of the examples in the split, (n,) int64, in the order of this part.
    """

    def __init__(self, split: Split, index: Tensor) -> None:
        self._split, self._index = split, index.to(split.y.device)
        self.y, self.group, self.row = (labels[self._index] for labels in (split.y, split.group, split.row))

    @property
    def workers(self) -> int:
        """Number of threads that read ahead."""
        return self._split.workers

    def batch(self, index: Tensor) -> Batch:
        """Return examples as one batch."""
        return self._split.batch(self._index[index])

    def to(self, device: torch.device) -> "PartOfSplit":
        """Return the part with its tensors on `device`."""
        return PartOfSplit(self._split.to(device), self._index)

    def bias_labels(self, index: Tensor) -> Tensor:
        """Return the bias labels of the examples at `index`."""
        return self._split.bias_labels(self._index[index])

    def augmented(self, seed: int) -> "PartOfSplit":
        """Return the part with augmentation."""
        return PartOfSplit(self._split.augmented(seed), self._index)


class ImageSplit(Split):
    """A split whose examples are images that can be shown."""

    @abstractmethod
    def pixels(self, index: Tensor) -> Tensor:
        """Return images for figures and reports.

        Args:
            index: Positions in the split, (N,) int64 in [0, n).

        Returns:
            The images, not augmented, uint8 (N, 3, H, W) in RGB.
        """


class RecolorableSplit(ImageSplit):
    """A split whose images can be given any bias value; `lntl probe` measures how predictions change."""

    @abstractmethod
    def recolored(self, value: int) -> Self:
        """Return the split with every image changed to one bias value and otherwise unchanged.

        Args:
            value: Index into DataSpec.bias_value_names.

        Returns:
            A new split with the same examples in the same order.
        """


class InputTransform(nn.Module):
    """Map the images or vectors that a user passes to a trained model to the input x of the networks."""

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """Return the settings of the transform that are stored in checkpoints.

        Returns:
            Plain values (numbers, strings, lists, dicts) from which the transform can be built again.
        """


class Dataset(ABC):
    """Base class of data sets: the splits, and the facts about them that models and reports need.

    To write a data set, derive a class from this one, give it a `Config`, and set at least `splits` and `spec` in
    `__init__(config)`.

    Attributes:
        splits: train, val and test by name.
        spec: Shapes, counts and names.
        source: Where the data come from, one line for logs and reports.
        val_note: Where the validation split comes from.
        label_kind: Name of the property that the classes describe, such as "species".
        bias_kind: Name of the property that the bias values describe, such as "background".
        transform: Maps user input to x in `lntl predict`, `lntl export` and `lntl.load`; None if the input is x itself.
        skipped_rows: One sentence for each invalid row that was left out.

    Example:
        >>> class MyDataset(Dataset):
        ...     class Config(Settings):
        ...         path: str
        ...
        ...     def __init__(self, config: "MyDataset.Config") -> None:
        ...         self.splits = {name: MySplit(config.path, name) for name in ("train", "val", "test")}
        ...         self.spec = DataSpec(...)
    """

    class Config(Settings):
        """Settings of the section `data`."""

    splits: Mapping[str, Split]
    spec: DataSpec
    source: str = "unknown source"
    val_note: str = "the data set's own split"
    label_kind: str = "class"
    bias_kind: str = "bias value"
    transform: InputTransform | None = None
    skipped_rows: Sequence[str] = ()

    @abstractmethod
    def __init__(self, config: Settings) -> None:
        """Read the data that `config`, an instance of the class's own `Config`, describes."""

    def row_name(self, row: int) -> str:
        """Return the name of a row, such as its file.

        Args:
            row: Index in the whole data set, as Batch.row.

        Returns:
            The name. It identifies the row in checkpoints, so it must not change.
        """
        return str(row)


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """Metrics of one training epoch.

    Attributes:
        phase: Number of the phase, from 1.
        method: Name of its method.
        epoch: Number of the epoch within the phase, from 1.
        total_epoch: Number of the epoch within the run, from 1.
        step: Updates of the whole run so far.
        metrics: Mean terms and learning rates by name, such as `train/task`.
        images_per_second: Training speed.
        seconds: Duration of the epoch, s.
    """

    phase: int
    method: str
    epoch: int
    total_epoch: int
    step: int
    metrics: dict[str, float]
    images_per_second: float
    seconds: float


class TrainerState(TypedDict):
    """The complete state of a training run; `Trainer.state_dict` returns it, and checkpoints store it."""

    phase: NonNegativeInt  # counted from 0, like the epoch in the phase and the step in the epoch
    epoch: NonNegativeInt
    step: NonNegativeInt
    networks: dict[str, Tensor]
    method: dict[str, object]
    optimizers: dict[str, dict[str, object]]
    average: dict[str, Tensor] | None  # the moving average of the weights
    terms: list[str]  # names of the loss terms
    pending: list[Tensor]  # terms of each step since they were last added to `sums`, (terms,) each
    sums: Tensor | None  # sums of the terms over the earlier steps of the epoch, (terms,)
    seconds: NotRequired[float]  # time since the epoch began
