"""The digits of MNIST, which ship with the package, and the base classes of the data sets made of them.

Source: LeCun, Cortes and Burges, MNIST: 60,000 training and 10,000 test images.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from lntl.data.image_settings import RandomColors, RandomInvert, check_random_colors
from lntl.data.transforms import RANDOM_COLORS, random_colors
from lntl.plugins import Settings
from lntl.seeding import derive, permutation, uniforms
from lntl.types import IGNORE, Batch, DataSpec, ImageSplit, RecolorableSplit

CLASSES = tuple("0123456789")
TRAINING_IMAGES = 60_000


@cache
def read(split: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
    """Return the images (n, 28, 28) uint8, 0 is background, and the labels (n,) int64."""
    with files("lntl.data").joinpath("mnist.npz").open("rb") as file, np.load(file) as arrays:
        images, labels = (arrays[f"{split}_{name}"] for name in ("images", "labels"))
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images.

    Attributes:
        rotation: Largest angle, in degrees.
        random_colors: Share of the images in random colors.
        random_invert: Share of the channels of these images that are inverted.
    """

    rotation: float
    random_colors: float
    random_invert: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.rotation or self.random_colors)

    def __call__(self, x: Tensor, rows: Tensor, seed: int) -> Tensor:
        """Return changed images.

        Args:
            x: Images (N, 3, H, W), normalised.
            rows: Row of each image in the data set, (N,) int64. Row and seed determine the change.
            seed: Seed of the epoch or of the batch.
        """
        numbers = uniforms(seed, rows, 1 + RANDOM_COLORS)
        if self.rotation:
            x = rotate(x, (2 * numbers[:, 0] - 1).to(x) * math.radians(self.rotation))
        if self.random_colors:
            x = random_colors(x, self.random_colors, self.random_invert, numbers[:, 1:])
        return x


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Return images (N, C, H, W) rotated by an angle (N,) in radians; border pixels are repeated outside the image."""
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    matrix = torch.stack([torch.stack([cos, -sin, zero], dim=1), torch.stack([sin, cos, zero], dim=1)], dim=1)
    grid = affine_grid(matrix, list(x.shape), align_corners=False)
    return grid_sample(x, grid, padding_mode="border", align_corners=False)


@dataclass(frozen=True, kw_only=True)
class DigitSplit(RecolorableSplit):
    """A split of colored digits. Every tensor has one entry per image; all are on the same device."""

    y: Tensor
    group: Tensor
    row: Tensor
    augmentation: Augmentation = Augmentation(rotation=0.0, random_colors=0.0)
    augmentation_seed: int | None = None

    def augmented(self, seed: int) -> Self:
        """Return the split with the augmentation of a seed."""
        return replace(self, augmentation_seed=seed) if self.augmentation else self

    def augment(self, x: Tensor, index: Tensor) -> Tensor:
        """Return normalised images (N, 3, 28, 28) at `index`, augmented if the split has an augmentation seed."""
        return x if self.augmentation_seed is None else self.augmentation(x, self.row[index], self.augmentation_seed)

    def to(self, device: torch.device) -> Self:
        """Return the split with its tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device))

    def take(self, index: Tensor) -> Self:
        """Return the split reduced to the images at `index`."""
        return self._map(lambda tensor: tensor[index])

    def _map(self, change: Callable[[Tensor], Tensor]) -> Self:
        tensors: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **tensors)


class UnannotatedDigits(ImageSplit):
    """A split of colored digits without bias labels, as if nobody had annotated the color."""

    def __init__(self, digits: DigitSplit) -> None:
        self.digits, self.y, self.row = digits, digits.y, digits.row
        self.group = torch.full_like(digits.group, IGNORE)

    def to(self, device: torch.device) -> "UnannotatedDigits":
        """Return the split with its tensors on `device`."""
        return UnannotatedDigits(self.digits.to(device))

    def augmented(self, seed: int) -> "UnannotatedDigits":
        """Return the split with the augmentation of a seed."""
        digits = self.digits.augmented(seed)
        return self if digits is self.digits else UnannotatedDigits(digits)

    def pixels(self, index: Tensor) -> Tensor:
        """Return the images at `index` as uint8 (N, 3, 28, 28)."""
        return self.digits.pixels(index)

    def batch(self, index: Tensor) -> Batch:
        """Return the images at `index`, normalised, with one bias label, IGNORE."""
        batch, group = self.digits.batch(index), self.group[index]
        return replace(batch, bias=group, group=group, bias_features=torch.zeros(len(group), 1, device=group.device))


def select_bias(
    splits: Mapping[str, DigitSplit], spec: DataSpec, bias: Sequence[str]
) -> tuple[Mapping[str, ImageSplit], DataSpec]:
    """Return splits and spec of colored digits, without bias labels if `bias` is empty."""
    if bias:
        return splits, spec
    unannotated = {name: UnannotatedDigits(split) for name, split in splits.items()}
    return unannotated, replace(spec, num_bins=1, bias_shape=(), bias_value_names=("unknown",), aligned=(), biases=())


def _to_list(value: object) -> object:
    return [] if value is None else [value] if isinstance(value, str) else value


ColorBias = Annotated[
    list[Literal["color"]],
    BeforeValidator(_to_list),
    Field(max_length=1, description="The bias: [color], or [] for data without bias labels."),
]


Rotation = Annotated[
    float,
    Field(ge=0, le=180, description="Training images are rotated by a random angle of up to this many degrees."),
]


class DigitSettings(Settings):
    """Settings that the data sets with a fixed share of aligned images have in common."""

    bias: ColorBias = Field(["color"])
    val_split_ratio: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the 60,000 training digits that is held out as val; 0: train contains all of them, as "
        "published, and val contains a tenth of them again, in new colors.",
    )
    val_coloring: Literal["biased", "random"] = Field(
        "random", description="Colors of val: `random` as in the test set, or `biased` as in training."
    )
    rotation: Rotation = 0.0
    random_colors: RandomColors = 0.0
    random_invert: RandomInvert = 0.0
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the colors and of the train/val split.")
    max_images: int | None = Field(
        None, ge=100, le=1_000_000_000, description="Use only the first images of train and of test, for a quick try."
    )

    @model_validator(mode="after")
    def _check_colors(self) -> Self:
        check_random_colors(False, self.random_colors, self.random_invert)
        return self


class Digits(NamedTuple):
    """The digits of a split before they are colored: images (n, 28, 28) uint8, labels and rows (n,) int64."""

    images: Tensor
    y: Tensor
    row: Tensor
    biased: bool  # whether the color indicates the label, as in training


def read_splits(settings: DigitSettings) -> tuple[dict[str, Digits], str]:
    """Return the digits of train, val and test in the order of their rows, and a note on val.

    `max_images` is applied after the colors are drawn, not here.
    """
    (images, y), (test_images, test_y) = read("train"), read("test")
    order = permutation(len(y), derive(settings.seed, "val"))
    held_out = min(round((settings.val_split_ratio or 0.1) * len(y)), len(y) - 1)
    val = order[:held_out].sort().values
    if settings.val_split_ratio:
        train, note = (
            order[held_out:].sort().values,
            f"{held_out} held-out training images, {settings.val_coloring} colors",
        )
    else:
        train = torch.arange(len(y))
        note = f"{held_out} training images in other, {settings.val_coloring} colors; no digit is held out"
    splits = {
        "train": Digits(images[train], y[train], train, biased=True),
        "val": Digits(images[val], y[val], val, biased=settings.val_coloring == "biased"),
        "test": Digits(test_images, test_y, torch.arange(len(test_y)), biased=False),
    }
    return splits, note


def first_images(split: DigitSplit, count: int | None) -> DigitSplit:
    """Return the images of a split whose row is below `count`, or all images if it is None."""
    return split if count is None else split.take((split.row < count).nonzero()[:, 0])
