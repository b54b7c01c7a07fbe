"""The words that every module shares: a batch, what data look like, the three networks, an epoch's record."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from lntl.plugins import Settings

SPLITS = ("train", "val", "test")  # of every data set, in this order
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


class Split(ABC):
    """One split of a data set (train, val or test): n labelled examples, from which it makes batches.

    Attributes:
        y: Class of each example, (n,) int64.
        group: Group of each example, y * num_bias_values + bias value, (n,) int64; IGNORE where a bias is unknown.
        row: Index of each example in the whole data set, (n,) int64.

    These three are at hand without reading a single x.
    """

    y: Tensor
    group: Tensor
    row: Tensor

    @property
    def workers(self) -> int:
        """Number of threads that read ahead; above 0, `batch` is called from another thread."""
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
        """Return the split with its tensors on `device`."""

    def bias_labels(self, index: Tensor) -> Tensor:
        """Return the bias labels of the examples at `index`, (N, *bias_shape) int64; override it to skip reading x."""
        return self.batch(index).bias

    def augmented(self, seed: int) -> Self:
        """Return the split with augmentation, a function of (seed, row) alone; without augmentation the split itself.

        The loader calls it once for each training epoch.
        """
        return self


class ImageSplit(Split):
    """A split whose examples are images that can be shown."""

    @abstractmethod
    def pixels(self, index: Tensor) -> Tensor:
        """Return the images at `index`, not augmented, as uint8 (N, 3, H, W)."""


class RecolorableSplit(ImageSplit):
    """A split whose images can be given any bias value; `lntl probe` measures how predictions change."""

    @abstractmethod
    def recolored(self, value: int) -> Self:
        """Return the split with bias value number `value` on every image and all else unchanged."""


class InputTransform(nn.Module):
    """Map images or vectors, as a user passes them to a trained model, to the input x of the networks."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return plain values from which the transform can be built again; checkpoints store them."""


class Dataset(ABC):
    """Base class of data sets: the splits, and what models and reports need to know of them.

    A data set of your own derives from it, has a `Config` and sets at least `splits` and `spec` in `__init__(config)`.

    Attributes:
        splits: train, val and test by name.
        spec: Shapes, counts and names.
        source: Where the data come from, one line for logs and reports.
        val_note: Where the validation split comes from.
        label_kind: What the classes are values of, such as "species".
        bias_kind: What the bias values are values of, such as "background".
        transform: From user input to x, used by `lntl predict`, `lntl export` and `lntl.load`; None where these take x
            itself.
        skipped_rows: One sentence for each row that was left out because it is wrong.

    Example:
        >>> class Mine(Dataset):
        ...     class Config(Settings):
        ...         path: str
        ...
        ...     def __init__(self, config: "Mine.Config") -> None:
        ...         self.splits = {name: MySplit(config.path, name) for name in ("train", "val", "test")}
        ...         self.spec = DataSpec(...)
    """

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
        """Return the name of a row, such as its file. It identifies the row in checkpoints, so it must not change."""
        return str(row)


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
