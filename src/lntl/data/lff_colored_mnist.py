"""Colored MNIST of "Learning from Failure": digits in a noisy color that indicates the label in training."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lntl.data.eval_transform import ArrayTransform
from lntl.data.mnist import (
    CLASSES,
    TRAINING_IMAGES,
    Augmentation,
    DigitSettings,
    DigitSplit,
    first_images,
    read_splits,
    select_bias,
)
from lntl.seeding import derive
from lntl.types import Batch, Dataset, DataSpec

__all__ = ["LfFColoredMNIST"]

# Mean color (R, G, B) by class on the [0, 1] scale. Source: alinlab/LfF, data/resource/colors.th.
MEANS = {
    "red": (0.98368, 0.31252, 0.16858),
    "yellow": (0.99053, 0.91561, 0.35151),
    "gray": (0.67296, 0.46107, 0.57981),
    "khaki": (0.78325, 0.83156, 0.60133),
    "sky blue": (0.08802, 0.77796, 0.98181),
    "green": (0.32139, 0.96105, 0.44645),
    "teal": (0.02462, 0.23565, 0.75867),
    "purple": (0.55525, 0.10158, 0.76176),
    "brown": (0.20772, 0.39295, 0.01870),
    "crimson": (0.83366, 0.20241, 0.26694),
}
COLORS = len(MEANS)
# Standard deviation of the noise of severity 1 to 5. Source: data/colored_mnist_protocol.py.
STDS = (0.05, 0.02, 0.01, 0.005, 0.002)


@dataclass(frozen=True, kw_only=True)
class TintedDigits(DigitSplit):
    """Gray digits (n, 28, 28) uint8 times a color (n, 3) float32 on [0, 1]; batches are made on the tensors' device."""

    gray: Tensor
    color: Tensor
    bias: Tensor  # (n,) int64, index of the mean color

    def pixels(self, index: Tensor) -> Tensor:
        """Return the images at `index` as uint8 (N, 3, 28, 28)."""
        return (self.gray[index][:, None].float() * self.color[index][:, :, None, None]).to(torch.uint8)

    def bias_labels(self, index: Tensor) -> Tensor:
        """Return the colors' indices (N,)."""
        return self.bias[index]

    def batch(self, index: Tensor) -> Batch:
        """Return the images at `index` on the [0, 1] scale, with their labels."""
        bias = self.bias[index]
        return Batch(
            x=self.augment(self.pixels(index).float().div_(255), index),
            y=self.y[index],
            bias=bias,
            group=self.group[index],
            row=self.row[index],
            bias_features=F.one_hot(bias, COLORS).float(),
        )

    def recolored(self, value: int) -> Self:
        """Return the same digits, all in the mean color of index `value`, without noise."""
        mean = torch.tensor(list(MEANS.values()), device=self.color.device)[value]
        bias = torch.full_like(self.bias, value)
        return replace(self, color=mean.expand_as(self.color), bias=bias, group=self.y * COLORS + bias)


def assign_colors(y: Tensor, aligned_share: float) -> Tensor:
    """Return a color for each image, (n,) int64, by its position among the images of its class.

    A share `aligned_share` of the images of a class gets the color of the class; the other nine colors share the rest
    equally. Colors are assigned in the order of the images: first color 0, then color 1 and so on. Source:
    alinlab/LfF, make_dataset.py.
    """
    color = torch.empty_like(y)
    shares = np.full((COLORS, COLORS), (1 - aligned_share) / (COLORS - 1))
    np.fill_diagonal(shares, aligned_share)
    for label in range(COLORS):
        rows = (y == label).nonzero()[:, 0]
        ends = (len(rows) * np.cumsum(shares[label])).round()
        ends[-1] = len(rows)
        color[rows] = torch.from_numpy(np.searchsorted(ends, np.arange(len(rows)), side="right"))
    return color


def draw_noise(color: Tensor, severity: int, seed: int) -> Tensor:
    """Return colors, float32 (n, 3): clamp(mean + N(0, std^2), 0, 1); noise i depends only on (seed, i)."""
    noise = np.random.Generator(np.random.Philox(seed)).normal(size=(len(color), 3)) * STDS[severity - 1]
    return (
        (torch.tensor(list(MEANS.values()), dtype=torch.float64)[color] + torch.from_numpy(noise)).clamp(0, 1).float()
    )


class LfFColoredMNIST(Dataset):
    """Colored MNIST of Nam et al., "Learning from Failure", NeurIPS 2020: gray digits times a noisy color.

    In the test set every color is equally frequent in every class. The color of an image depends on its position in
    MNIST; the seed determines only the noise and which images are in val. Source: alinlab/LfF.
    """

    bias_kind = "color"

    class Config(DigitSettings):
        """Settings of `data`."""

        conflicting_share: float = Field(
            0.005,
            ge=0,
            lt=1,
            description="Share of the training images of a class that do not have the color of the class; published "
            "values are 0.05, 0.02, 0.01 and 0.005.",
        )
        severity: int = Field(
            4,
            ge=1,
            le=5,
            description="Noise of the color, from 1 (standard deviation 0.05) to 5 (0.002); published: 4.",
        )

    def __init__(self, config: "LfFColoredMNIST.Config") -> None:
        digits_by_split, self.val_note = read_splits(config)
        splits = {}
        for name, digits in digits_by_split.items():
            bias = assign_colors(digits.y, 1 - config.conflicting_share if digits.biased else 1 / COLORS)
            split = TintedDigits(
                y=digits.y,
                group=digits.y * COLORS + bias,
                row=digits.row,
                gray=digits.images,
                color=draw_noise(bias, config.severity, derive(config.seed, name, "noise")),
                bias=bias,
                augmentation=Augmentation(config.rotation, config.random_colors, config.random_invert),
            )
            splits[name] = first_images(split, config.max_images)
        self.source = "Colored MNIST of LfF from the MNIST digits of the package"
        self.transform = ArrayTransform((3, 28, 28), torch.zeros(3, 1, 1), torch.ones(3, 1, 1), white=1)
        spec = DataSpec(
            input_shape=(3, 28, 28),
            num_classes=COLORS,
            num_bins=COLORS,
            bias_shape=(),
            class_names=CLASSES,
            bias_value_names=tuple(MEANS),
            num_rows=TRAINING_IMAGES,
            aligned=tuple(range(COLORS)),
        )
        self.splits, self.spec = select_bias(splits, spec, config.bias)
