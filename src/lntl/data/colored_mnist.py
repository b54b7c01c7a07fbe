"""Colored MNIST: the color of a digit predicts its label in training, but not in the test set (Kim et al., 2019)."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import max_pool2d

from lntl.data import mnist
from lntl.data.array_file import READ_ERRORS, load_object_array
from lntl.data.eval_transform import ArrayTransform
from lntl.data.image_settings import RandomColors, RandomInvert, check_random_colors
from lntl.data.mnist import CLASSES, Augmentation, ColorBias, DigitSplit, Rotation, select_bias
from lntl.data.transforms import luma
from lntl.errors import UserError
from lntl.plugins import Settings
from lntl.seeding import derive, permutation
from lntl.types import IGNORE, Batch, Dataset, DataSpec

__all__ = ["ColoredMNIST"]

# Mean color (R, G, B) of the digits 0 to 9. Source: pixels of the authors' files.
COLORS = {
    "crimson": (220, 20, 60),
    "teal": (0, 128, 128),
    "yellow": (253, 233, 16),
    "blue": (0, 149, 182),
    "orange": (237, 145, 33),
    "purple": (145, 30, 188),
    "cyan": (70, 240, 240),
    "pink": (250, 197, 187),
    "lime": (210, 245, 60),
    "maroon": (128, 0, 0),
}
MEANS = np.array(list(COLORS.values()), dtype=np.float64)  # 10 x 3, on the 0..255 scale
# Input normalisation per channel, on the [0, 1] scale. Source: the authors' code.
PIXEL_MEAN, PIXEL_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
STROKE_THRESHOLD = 128  # MNIST pixels above this gray value belong to the stroke; source: the authors' files
BINS, BIN_WIDTH, MAP_SIDE = 8, 32, 14  # bias label: value // 32 at each of 14 x 14 positions; source: the authors' code


@dataclass(frozen=True, kw_only=True)
class ColoredDigits(DigitSplit):
    """Images as strokes (n, 28, 28) and colors (n, 3), uint8; batches are rendered on the device of the tensors.

    With the official files, `images` (n, 28, 28, 3) uint8 contains the pixels, and batches are taken from it.
    """

    strokes: Tensor
    color: Tensor
    images: Tensor | None = None
    grayscale: bool = False
    bias_dilation: int = 0  # distance in cells of the map up to which background cells get the label of the stroke

    def recolored(self, value: int) -> "ColoredDigits":
        """Return the same digits, all in the mean color of index `value`, without jitter."""
        return _with_colors(self, torch.from_numpy(MEANS[value]).to(torch.uint8).expand(len(self), 3))

    def pixels(self, index: Tensor) -> Tensor:
        """Return the images at `index` as uint8 (N, 3, 28, 28); with `grayscale`, the three channels are equal."""
        return _to_gray(self._in_color(index)) if self.grayscale else self._in_color(index)

    def _in_color(self, index: Tensor) -> Tensor:
        if self.images is not None:
            return self.images[index].permute(0, 3, 1, 2)
        rendered: Tensor = self.strokes[index][:, None] * self.color[index][:, :, None, None]
        return rendered

    def batch(self, index: Tensor) -> Batch:
        """Return the images at `index`, normalised, with their labels and 14 x 14 map of color bins."""
        color_pixels = self._in_color(index)
        pixels = _to_gray(color_pixels) if self.grayscale else color_pixels
        mean = torch.tensor(PIXEL_MEAN, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(PIXEL_STD, device=pixels.device).view(1, 3, 1, 1)
        return Batch(
            x=self.augment(pixels.float().div_(255).sub_(mean).div_(std), index),
            y=self.y[index],
            bias=self._bias(color_pixels, self.color[index]),
            group=self.group[index],
            row=self.row[index],
            bias_features=self.color[index].float().div_(255),
        )

    def _bias(self, pixels: Tensor, color: Tensor) -> Tensor:
        """Return the map of bias bins; cells near a stroke (`bias_dilation`) get the bins of the image's color."""
        subsampled = pixels[:, :, 1::2, 1::2]  # nearest-neighbour resizing from 28 to 14 takes pixels 1, 3, 5, ...
        bins = torch.where(subsampled > 0, (subsampled // BIN_WIDTH).long(), IGNORE)
        if not self.bias_dilation:
            return bins
        stroke = (subsampled > 0).any(dim=1, keepdim=True).float()
        near_stroke = max_pool2d(stroke, 2 * self.bias_dilation + 1, stride=1, padding=self.bias_dilation) > 0
        color_bins = (color // BIN_WIDTH).long()[:, :, None, None]
        return torch.where(near_stroke & (bins == IGNORE), color_bins, bins)


def _to_gray(pixels: Tensor) -> Tensor:
    """Return the luma of uint8 pixels (N, 3, H, W) in three equal channels."""
    return luma(pixels).expand_as(pixels)


def draw_colors(variance: float, means: Tensor, seed: int) -> Tensor:
    """Return one color per image, uint8 (n, 3): each channel is drawn from N(mean, variance) on the [0, 1] scale.

    The normal distribution is truncated (drawn through its inverse distribution function), so no channel is 0 or 255
    after rounding. Color i depends only on `seed`, i and its mean. means: (n, 3) float64 on the 0..255 scale.
    """
    u = torch.from_numpy(np.random.Generator(np.random.Philox(seed)).random(means.shape))
    sigma = 255 * math.sqrt(variance)
    low, high = (torch.special.ndtr((edge - means) / sigma) for edge in (0.5, 254.5))
    value: Tensor = means + sigma * torch.special.ndtri(low + u * (high - low))
    return value.clamp(0.51, 254.49).round().to(torch.uint8)


def nearest_mean(color: Tensor) -> Tensor:
    """Return the index of the mean color nearest to each color (n, 3)."""
    return torch.cdist(color.double(), torch.from_numpy(MEANS)).argmin(dim=1)


class ColoredMNIST(Dataset):
    """The paper's protocol: training digits have the mean color of their class, test digits a random one."""

    bias_kind = "nearest mean color"  # meaning of the bias value of a group

    class Config(Settings):
        """Settings of `data`."""

        path: str = Field(
            "data/colored_mnist",
            description="Folder of the official mnist_10color_jitter_var_X.XXX.npy files; if it has no file for "
            "color_var, the same protocol is rendered from the embedded strokes.",
        )
        bias: ColorBias = Field(["color"])
        color_var: float = Field(
            0.030,
            ge=1e-6,
            le=1,
            description="Variance sigma^2 of the color jitter on the [0, 1] scale; the paper uses 0.020 to 0.050.",
        )
        val_split_ratio: float = Field(
            0.1, gt=0, lt=1, description="Share of the training images that is held out as val."
        )
        val_coloring: Literal["biased", "random"] = Field(
            "random",
            description="Colors of val: `biased` as in training, or `random` as in the test set (an unbiased "
            "validation set from training digits).",
        )
        grayscale: bool = Field(
            False,
            description='Gray images in training and test, the paper\'s "Gray"; bias labels stay those of the color.',
        )
        bias_dilation: int = Field(
            0,
            ge=0,
            le=14,
            description="Distance in cells of the 14 x 14 map up to which background cells get the bias label of a "
            "stroke. 2 covers all cells whose features in convnet depend on the stroke; 0 as in the authors' code.",
        )
        rotation: Rotation = 0.0
        random_colors: RandomColors = 0.0
        random_invert: RandomInvert = 0.0
        seed: int = Field(0, ge=0, lt=2**63, description="Seed of the colors and of the train/val split.")
        max_images: int | None = Field(
            None,
            ge=100,
            le=1_000_000_000,
            description="Use only the first images of train and of test, for a quick try.",
        )

        @model_validator(mode="after")
        def _check_colors(self) -> Self:
            check_random_colors(self.grayscale, self.random_colors, self.random_invert)
            return self

    def __init__(self, config: "ColoredMNIST.Config") -> None:
        self.config = config
        path = Path(config.path) / f"mnist_10color_jitter_var_{config.color_var:.3f}.npy"
        if path.is_file():
            self.source = f"official file {path}"
            train, test = self._load_official(path)
        else:
            self.source = f"rendered from the embedded MNIST strokes (no {path})"
            train, test = self._render()
        if config.max_images is not None:
            train, test = (split.take(torch.arange(min(len(split), config.max_images))) for split in (train, test))
        order = permutation(len(train), derive(config.seed, "val"))
        held_out = min(max(1, round(config.val_split_ratio * len(train))), len(train) - 1)
        is_random = config.val_coloring == "random"
        recolored = self._recolor(train, derive(config.seed, "val colors")) if is_random else train
        val = recolored.take(order[:held_out].sort().values)
        self.val_note = f"{held_out} held-out training images, {config.val_coloring} colors"
        splits = {"train": train.take(order[held_out:].sort().values), "val": val, "test": test}
        augmentation = Augmentation(config.rotation, config.random_colors, config.random_invert)
        final_splits = {
            name: replace(
                split, grayscale=config.grayscale, bias_dilation=config.bias_dilation, augmentation=augmentation
            )
            for name, split in splits.items()
        }
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
        self.transform = ArrayTransform((3, 28, 28), mean, std, white=1, gray=config.grayscale)
        spec = DataSpec(
            num_rows=len(train),
            input_shape=(3, 28, 28),
            num_classes=10,
            num_bins=BINS,
            bias_shape=(3, MAP_SIDE, MAP_SIDE),
            class_names=CLASSES,
            bias_value_names=tuple(COLORS),
            aligned=tuple(range(len(COLORS))),  # digit k has color k
        )
        self.splits, self.spec = select_bias(final_splits, spec, config.bias)

    def _render(self) -> tuple[ColoredDigits, ColoredDigits]:
        first = slice(self.config.max_images)  # the color of an image does not depend on those after it
        train, test = (
            _make_digits((images[first] > STROKE_THRESHOLD).to(torch.uint8), labels[first])
            for images, labels in (mnist.read("train"), mnist.read("test"))
        )
        color = draw_colors(self.config.color_var, torch.from_numpy(MEANS)[train.y], derive(self.config.seed, "train"))
        return _with_colors(train, color), self._recolor(test, derive(self.config.seed, "test"))

    def _recolor(self, split: ColoredDigits, seed: int) -> ColoredDigits:
        """Give each image a mean color drawn at random from the ten, with the same jitter."""
        mean_index = np.random.Generator(np.random.Philox(derive(seed, "means"))).integers(0, len(MEANS), len(split))
        return _with_colors(split, draw_colors(self.config.color_var, torch.from_numpy(MEANS[mean_index]), seed))

    def _load_official(self, path: Path) -> tuple[ColoredDigits, ColoredDigits]:
        arrays = read_official(path)
        splits = []
        for split in ("train", "test"):
            images = torch.from_numpy(arrays[f"{split}_image"])
            digits = _make_digits((images > 0).any(dim=3).to(torch.uint8), torch.from_numpy(arrays[f"{split}_label"]))
            splits.append(replace(_with_colors(digits, images.flatten(1, 2).amax(dim=1)), images=images))
        return splits[0], splits[1]


def read_official(path: Path) -> dict[str, np.ndarray]:
    """Return train_image, train_label, test_image, test_label of an authors' file: uint8 (n, 28, 28, 3), int64 (n,).

    Raises UserError if the file is truncated, has another format, or its pickle contains anything but arrays.
    """
    try:
        content = load_object_array(path)
        return _check_arrays(content.item() if isinstance(content, np.ndarray) else content)
    except READ_ERRORS as error:
        raise UserError(
            f"{path}: not a readable Colored MNIST file ({error}); "
            "download it again with scripts/download_dataset.sh, or move it away to use the embedded digits"
        ) from error


def _check_arrays(content: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    splits, names = ("train", "test"), ("image", "label")
    arrays = {key: np.asarray(content[key]) for key in (f"{split}_{name}" for split in splits for name in names)}
    for split in splits:
        images, labels = arrays[f"{split}_image"], arrays[f"{split}_label"].reshape(-1)
        if images.dtype != np.uint8 or images.shape[1:] != (28, 28, 3) or len(images) != len(labels):
            raise ValueError(f"{split}_image is {images.dtype} {images.shape} for {len(labels)} labels")
        if len(labels) == 0 or not set(np.unique(labels)) <= set(range(10)):
            raise ValueError(f"{split}_label must hold the digits 0 to 9, and holds {np.unique(labels)[:20]}")
        arrays[f"{split}_label"] = labels.astype(np.int64)
    return arrays


def _make_digits(strokes: Tensor, y: Tensor) -> ColoredDigits:
    color = torch.zeros(len(y), 3, dtype=torch.uint8)
    return ColoredDigits(y=y, group=y, row=torch.arange(len(y)), strokes=strokes, color=color)


def _with_colors(split: ColoredDigits, color: Tensor) -> ColoredDigits:
    return replace(split, color=color, group=split.y * len(MEANS) + nearest_mean(color), images=None)
