"""The digits of MNIST, which ship with the package, and what the data sets made of them share.

Source: LeCun, Cortes and Burges, MNIST: 60,000 training and 10,000 test images.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from lntl.plugins import Settings
from lntl.seeding import derive, permutation, uniforms
from lntl.types import RecolorableSplit

CLASSES = tuple("0123456789")
TRAINING_IMAGES = 60_000


@cache
def read(split: Literal["train", "test"]) -> tuple[Tensor, Tensor]:
    """Return the images (n, 28, 28) uint8, 0 is background, and the labels (n,) int64."""
    with files("lntl.data").joinpath("mnist.npz").open("rb") as file, np.load(file) as arrays:
        images, labels = (arrays[f"{split}_{name}"] for name in ("images", "labels"))
    return torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))


# RGB to luma and two axes of color, and the inverse, (3, 3). Source: YIQ of the NTSC standard, 1953.
YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
RGB = torch.linalg.inv(YIQ)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images: rotation in degrees, and the strength of a color jitter in [0, 1]."""

    rotation: float
    color_jitter: float

    def __call__(self, x: Tensor, numbers: Tensor) -> Tensor:
        """Return changed images.

        Args:
            x: Images (N, 3, H, W) on the [0, 1] scale.
            numbers: Uniform random numbers in [0, 1), (N, 5).
        """
        symmetric = (2 * numbers - 1).to(x)  # in [-1, 1)
        if self.rotation:
            x = rotate(x, symmetric[:, 0] * math.radians(self.rotation))
        if self.color_jitter:
            brightness, contrast, saturation = (1 + self.color_jitter * symmetric[:, 1:4]).unbind(dim=1)
            x = jitter(x, brightness, contrast, saturation, symmetric[:, 4] * self.color_jitter * math.pi)
        return x


def rotate(x: Tensor, angle: Tensor) -> Tensor:
    """Return images (N, C, H, W) turned by an angle (N,) in radians; outside of an image its border goes on."""
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    turn = torch.stack([torch.stack([cos, -sin, zero], dim=1), torch.stack([sin, cos, zero], dim=1)], dim=1)
    grid = affine_grid(turn, list(x.shape), align_corners=False)
    return grid_sample(x, grid, padding_mode="border", align_corners=False)


def jitter(x: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Return RGB images (N, 3, H, W) on the [0, 1] scale in other colors.

    Args:
        x: The images.
        brightness: Factor of all pixels (N,).
        contrast: Factor of the distance to the mean luma of the image (N,).
        saturation: Factor of the distance to gray of the same luma (N,).
        hue: Angle in the plane of colors of one luma, in radians (N,).
    """
    one, zero, cos, sin = torch.ones_like(hue), torch.zeros_like(hue), hue.cos(), hue.sin()
    turn = torch.stack(
        [one, zero, zero, zero, saturation * cos, -saturation * sin, zero, saturation * sin, saturation * cos], dim=1
    )
    matrix = brightness[:, None, None] * contrast[:, None, None] * (RGB.to(x) @ turn.view(-1, 3, 3) @ YIQ.to(x))
    luma = torch.einsum("nchw,c->n", x, YIQ[0].to(x)) / (x.shape[2] * x.shape[3])
    shift = brightness * (1 - contrast) * luma
    return (torch.einsum("ndc,nchw->ndhw", matrix, x) + shift[:, None, None, None]).clamp_(0, 1)


@dataclass(frozen=True, kw_only=True)
class DigitSplit(RecolorableSplit):
    """A split of coloured digits: every field that is a tensor has an entry per image, on one device."""

    y: Tensor
    group: Tensor
    row: Tensor
    augmentation: Augmentation | None = None
    augmentation_seed: int | None = None

    def augmented(self, seed: int) -> Self:
        """Return the split with the augmentation of a seed."""
        return self if self.augmentation is None else replace(self, augmentation_seed=seed)

    def unit_scale(self, index: Tensor) -> Tensor:
        """Return the images at `index` as float32 (N, 3, 28, 28) on the [0, 1] scale, augmented where a seed is set."""
        x = self.pixels(index).float().div_(255)
        if self.augmentation is None or self.augmentation_seed is None:
            return x
        return self.augmentation(x, uniforms(self.augmentation_seed, self.row[index].cpu(), 5))

    def to(self, device: torch.device) -> Self:
        """Return the split with its tensors on `device`."""
        return self._each(lambda tensor: tensor.to(device))

    def take(self, index: Tensor) -> Self:
        """Return the split reduced to the images at `index`."""
        return self._each(lambda tensor: tensor[index])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        tensors: dict[str, Any] = {
            name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **tensors)


class DigitSettings(Settings):
    """Settings that the data sets with a fixed share of aligned images have in common."""

    val_split_ratio: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="Share of the 60,000 training digits that is held out as val; 0: train has all of them, as "
        "published, and val shows a tenth of them again in new colors.",
    )
    val_coloring: Literal["biased", "random"] = Field(
        "random", description="Colors of val: `random` as in the test set, or `biased` as in training."
    )
    rotation: float = Field(
        0.0, ge=0, le=180, description="Training images are turned by a random angle of up to this many degrees."
    )
    color_jitter: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Strength s of a random change of the colors of training images: brightness, contrast and "
        "saturation by a factor in [1 - s, 1 + s], hue by an angle of up to s * 180 degrees.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the colors and of the train/val split.")
    max_images: int | None = Field(
        None, ge=100, le=1_000_000_000, description="Use only the first images of train and of test, to try things out."
    )

    @property
    def augmentation(self) -> Augmentation | None:
        """Random changes of training images, where there are any."""
        return Augmentation(self.rotation, self.color_jitter) if self.rotation or self.color_jitter else None


class Digits(NamedTuple):
    """The digits of a split before they are colored: images (n, 28, 28) uint8, labels and rows (n,) int64."""

    images: Tensor
    y: Tensor
    row: Tensor
    biased: bool  # whether the color goes with the label, as in training


def read_splits(settings: DigitSettings) -> tuple[dict[str, Digits], str]:
    """Return the digits of train, val and test, rows ascending, and a note on val; `max_images` is not applied yet."""
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
    """Return the images of a split whose row is below `count`; all where it is None."""
    return split if count is None else split.take((split.row < count).nonzero()[:, 0])
