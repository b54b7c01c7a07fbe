"""Biased-MNIST: the color of the background, and optionally of the digit, indicates the label in training."""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

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
    Digits,
    DigitSettings,
    DigitSplit,
    first_images,
    read_splits,
    select_bias,
)
from lntl.seeding import derive
from lntl.types import Batch, BiasSpec, Dataset, DataSpec

__all__ = ["BiasedMNIST"]

# Color (R, G, B) by class. Source: clovaai/rebias, datasets/colour_mnist.py.
BACKGROUNDS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (225, 225, 0),
    "magenta": (225, 0, 225),
    "cyan": (0, 255, 255),
    "orange": (255, 128, 0),
    "rose": (255, 0, 128),
    "violet": (128, 0, 255),
    "gray": (128, 128, 128),
}
# Color of the digit by class; each is near the background of the next class. Source: vb-mitigator,
# datasets/fb_biased_mnist.py.
FOREGROUNDS = {
    "light green": (50, 255, 50),
    "light blue": (50, 50, 255),
    "light yellow": (225, 225, 50),
    "light magenta": (225, 50, 225),
    "light cyan": (50, 255, 255),
    "light orange": (255, 128, 50),
    "light rose": (255, 50, 128),
    "light violet": (128, 50, 255),
    "dark gray": (50, 50, 50),
    "light red": (255, 50, 50),
}
WHITE = (255, 255, 255)
COLORS = len(BACKGROUNDS)
UNBIASED_CORRELATION = 1 / COLORS  # correlation of a split in which every color is equally frequent in every class
MEAN = STD = 0.5  # of each channel on the [0, 1] scale; source: clovaai/rebias


@dataclass(frozen=True, kw_only=True)
class PaintedDigits(DigitSplit):
    """Digits (n, 28, 28) bool of one color on a background of one color; batches are made on the tensors' device.

    `background` and `foreground` (n,) int64 are indices into the colors; white digits have no `foreground`.
    """

    digit: Tensor
    background: Tensor
    foreground: Tensor | None = None

    def pixels(self, index: Tensor) -> Tensor:
        """Return the images at `index` as uint8 (N, 3, 28, 28)."""
        device = index.device
        background = torch.tensor(list(BACKGROUNDS.values()), dtype=torch.uint8, device=device)[self.background[index]]
        if self.foreground is None:
            digit = torch.tensor(WHITE, dtype=torch.uint8, device=device).expand_as(background)
        else:
            digit = torch.tensor(list(FOREGROUNDS.values()), dtype=torch.uint8, device=device)[self.foreground[index]]
        return torch.where(self.digit[index][:, None], digit[:, :, None, None], background[:, :, None, None])

    def bias_labels(self, index: Tensor) -> Tensor:
        """Return the color of the background (N,), or the colors of background and digit (N, 2)."""
        background = self.background[index]
        return background if self.foreground is None else torch.stack([background, self.foreground[index]], dim=1)

    def batch(self, index: Tensor) -> Batch:
        """Return the images at `index`, normalised, with their labels."""
        bias = self.bias_labels(index)
        return Batch(
            x=self.augment(self.pixels(index).float().div_(255).sub_(MEAN).div_(STD), index),
            y=self.y[index],
            bias=bias,
            group=self.group[index],
            row=self.row[index],
            bias_features=F.one_hot(bias, COLORS).flatten(1).float(),
        )

    def recolored(self, value: int) -> Self:
        """Return the same digits, all with the bias value of index `value`."""
        colors = (value,) if self.foreground is None else divmod(value, COLORS)
        return self.with_colors(*(torch.full_like(self.background, color) for color in colors))

    def with_colors(self, background: Tensor, foreground: Tensor | None = None) -> Self:
        """Return the same digits in other colors."""
        value = background if foreground is None else background * COLORS + foreground
        values = COLORS if foreground is None else COLORS**2
        return replace(self, background=background, foreground=foreground, group=self.y * values + value)


def draw_colors(y: Tensor, correlation: float, seed: int) -> Tensor:
    """Return a color for each image, (n,) int64.

    int(n * correlation) of the n images of a class, drawn at random, get the color of their class. The rest is split
    into chunks of ceil(rest / 9), one for each other color, in random order. Source: clovaai/rebias.

    Args:
        y: Labels (n,) int64.
        correlation: Share in [0, 1] of images in the color of their class.
        seed: Seed of all choices.
    """
    random, color = np.random.Generator(np.random.Philox(seed)), y.clone()
    for label in range(COLORS):
        rows = random.permutation((y == label).nonzero()[:, 0].numpy())
        conflicting = rows[int(len(rows) * correlation) :]
        other_colors = random.permutation(np.delete(np.arange(COLORS), label))
        size = max(1, math.ceil(len(conflicting) / len(other_colors)))
        for number, other in enumerate(other_colors.tolist()):
            color[torch.from_numpy(conflicting[number * size : (number + 1) * size])] = other
    return color


class BiasedMNIST(Dataset):
    """Biased-MNIST (Bahng et al., ICML 2020): digits on a background whose color indicates the label in training.

    `foreground_correlation` makes it FB-Biased-MNIST: the color of the digit is a second bias, drawn independently.
    A pixel is background where MNIST has 0. In the test set every color is equally frequent in every class.

    Source: clovaai/rebias, datasets/colour_mnist.py; vb-mitigator, datasets/fb_biased_mnist.py.
    """

    class Config(DigitSettings):
        """Settings of `data`."""

        correlation: float = Field(
            0.99,
            gt=0,
            le=1,
            description="Share rho of the training images of a class whose background has the color of the class; the "
            "published values are 0.999, 0.997, 0.995 and 0.990.",
        )
        foreground_correlation: Annotated[float, Field(gt=0, le=1)] | Literal["same"] | None = Field(
            None,
            description="Share of the training images of a class whose digit has the color of the class, for "
            "FB-Biased-MNIST; same: that of `correlation` (published: 0.90, 0.95 and 0.99); null: white digits.",
        )

    def __init__(self, config: "BiasedMNIST.Config") -> None:
        self.config = config
        two_biases = config.foreground_correlation is not None
        parts, self.val_note = read_splits(config)
        splits = {
            name: first_images(self._color_digits(name, digits), config.max_images) for name, digits in parts.items()
        }
        self.source = f"{'FB-' if two_biases else ''}Biased-MNIST from the MNIST digits of the package"
        self.bias_kind = "background and digit color" if two_biases else "background color"
        self.transform = ArrayTransform((3, 28, 28), torch.full((3, 1, 1), MEAN), torch.full((3, 1, 1), STD), white=1)
        self.splits, self.spec = select_bias(splits, _spec(TRAINING_IMAGES, two_biases), config.bias)

    def _color_digits(self, split: str, digits: Digits) -> PaintedDigits:
        """Return the digits of a split, with colors drawn at the correlation of the split."""
        config, y = self.config, digits.y
        foreground = config.correlation if config.foreground_correlation == "same" else config.foreground_correlation
        uncolored = PaintedDigits(
            y=y,
            group=y,
            row=digits.row,
            digit=digits.images > 0,
            background=y,
            augmentation=Augmentation(config.rotation, config.random_colors, config.random_invert),
        )
        colors = [
            draw_colors(y, correlation if digits.biased else UNBIASED_CORRELATION, derive(config.seed, split, part))
            for part, correlation in (("background", config.correlation), ("foreground", foreground))
            if correlation is not None
        ]
        return uncolored.with_colors(*colors)


def _spec(num_rows: int, two_biases: bool) -> DataSpec:
    """Return the spec of Biased-MNIST, or of FB-Biased-MNIST with its two biases."""
    classes = tuple(range(COLORS))
    names, biases = tuple(BACKGROUNDS), tuple[BiasSpec, ...]()
    if two_biases:
        names = tuple(f"{background}, {foreground} digit" for background in BACKGROUNDS for foreground in FOREGROUNDS)
        joint = range(COLORS**2)
        biases = (
            BiasSpec("background", tuple(BACKGROUNDS), tuple(k // COLORS for k in joint), classes),
            BiasSpec("digit color", tuple(FOREGROUNDS), tuple(k % COLORS for k in joint), classes),
        )
    return DataSpec(
        input_shape=(3, 28, 28),
        num_classes=COLORS,
        num_bins=COLORS,
        bias_shape=(2,) if two_biases else (),
        class_names=CLASSES,
        bias_value_names=names,
        num_rows=num_rows,
        aligned=tuple(k * COLORS + k for k in classes) if two_biases else classes,
        biases=biases,
    )
