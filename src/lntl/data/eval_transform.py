"""What evaluation makes of an image file, a picture or an array, without the data set that the networks learned from.

The settings are plain values (`settings()`), so that they can be stored beside the weights.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lntl.data import transforms
from lntl.data.decoding import UnreadableImageError, squared, upright
from lntl.data.given import Images, Pictures, Source, Values, floats, other_shape, parsed, picture
from lntl.data.image_settings import ImageSettings
from lntl.data.images import ImageSource
from lntl.errors import UserError
from lntl.types import InputTransform

_KEPT = {"size", "fit", "crop", "normalise"}  # of the image settings: those that change what evaluation sees


class EvalTransform(InputTransform):
    """From images or vectors to x; from float images on the [0, 1] scale by (image - mean) / std of `unit`."""

    shape: tuple[int, ...]  # of one x
    told: str  # what happens to an image, in words

    def forward(self, images: Images) -> Tensor:
        """Return x of all images, float32 (N, C, H, W), or (N, D) of vectors."""
        source = self.source(images)
        return source.load(torch.arange(len(source)))

    @abstractmethod
    def source(self, images: Images) -> Source:
        """Return the images, to be read in batches; raises UserError where they are of a kind that does not fit."""

    @abstractmethod
    def unit(self) -> tuple[Tensor, Tensor]:
        """Return mean and std, (C, 1, 1) or of one x, of float images on the [0, 1] scale, or of vectors."""


class FileTransform(EvalTransform):
    """Pictures of any size: decoded, made square, resized and normalised as the data sets of image files do."""

    def __init__(self, settings: ImageSettings) -> None:
        super().__init__()
        self.image_settings = settings
        self.shape = (3, settings.size, settings.size)
        fits = {"crop": "its middle square", "stretch": "squeezed to a square", "pad": "on a black square"}
        cut = "" if settings.stored == settings.size else f", of which the middle {settings.size} x {settings.size}"
        self.told = (
            f"RGB, upright as its EXIF data say, white where it is transparent; {fits[settings.fit]}, resized "
            f"(bilinear, with antialiasing) to {settings.stored} x {settings.stored}{cut}"
        )

    def source(self, images: Images) -> Source:
        """Return the images; uint8 arrays count as pictures, float arrays must have the network's size."""
        given = parsed(images, self.shape)
        if isinstance(given, Tensor) and given.is_floating_point():
            mean, std = self.unit()
            return Values(given, lambda values: values.sub(mean).div_(std))
        if isinstance(given, list) and isinstance(given[0], Path):
            return ImageSource(given, self.image_settings)
        side, fit = self.image_settings.stored, self.image_settings.fit
        return Pictures(len(given), lambda i: squared(picture(given[i]), i, side, fit), self._of_squares)

    def _of_squares(self, squares: Tensor) -> Tensor:
        out = transforms.empty(len(squares), self.image_settings.size, np.float32)
        transforms.normalise(transforms.middle(squares, self.image_settings.size), self.image_settings, out)
        return out.permute(0, 3, 1, 2)

    def unit(self) -> tuple[Tensor, Tensor]:
        """Return mean and std of red, green and blue, (3, 1, 1)."""
        normal = self.image_settings.normalise
        return torch.tensor(normal.mean).view(3, 1, 1), torch.tensor(normal.std).view(3, 1, 1)

    def settings(self) -> dict[str, Any]:
        """Return the settings that evaluation depends on."""
        return self.image_settings.model_dump(include=_KEPT)


class ArrayTransform(EvalTransform):
    """Images of exactly one size, or vectors: x = (value - mean) / std, and nothing is resized.

    white: what stands for white in the values, 255 or 1; None where they are no images, so that only float arrays of
    the shape are taken. grey: the networks see the luma, in all channels.
    """

    def __init__(
        self, shape: Sequence[int], mean: Tensor, std: Tensor, white: int | None = None, grey: bool = False
    ) -> None:
        super().__init__()
        self.shape, self.white, self.grey = tuple(shape), white, grey
        self.mean, self.std = mean, std
        size = " x ".join(map(str, self.shape[1:]))
        luma = ", as luma (ITU-R BT.601) in all channels" if grey else ""
        self.told = f"images of {size}, not resized{luma}" if white else f"values of shape {self.shape}"

    def source(self, images: Images) -> Source:
        """Return the images or vectors; raises UserError where they are not of the shape."""
        if self.white is None:
            return Values(floats(images, self.shape), self._of_values)
        given = parsed(images, self.shape)
        if isinstance(given, list):
            return Pictures(len(given), lambda i: self._pixels(given[i], i), self._of_pixels)
        if given.is_floating_point():
            return Values(given, lambda unit: self._of_values(unit * float(self.white or 1)))
        if given.shape[2:] != self.shape[1:]:
            raise UserError(other_shape(given, self.shape))
        return Values(given, self._of_pixels)

    def _pixels(self, image: Path | Image.Image, place: int) -> NDArray[np.uint8]:
        pixels = upright(image, place)
        if pixels.shape[:2] != self.shape[1:]:
            has, wants = ("{} x {} pixels".format(*shape) for shape in (pixels.shape, self.shape[1:]))
            name = image if isinstance(image, Path) else Path(f"image {place}")
            raise UnreadableImageError(name, f"{has}, and the network takes {wants} (height x width)")
        return pixels

    def _of_pixels(self, pixels: Tensor) -> Tensor:
        """Return x of images (N, 1 or 3, H, W) uint8, as `ColoredMNIST` and `Arrays` make it."""
        channels = self.shape[0]
        if (self.grey or channels == 1) and pixels.shape[1] == 3:
            pixels = transforms.luma(pixels)
        return self._of_values(pixels.expand(-1, channels, -1, -1).float().div_(255 / float(self.white or 1)))

    def _of_values(self, values: Tensor) -> Tensor:
        return values.sub(self.mean).div_(self.std)

    def unit(self) -> tuple[Tensor, Tensor]:
        """Return mean and std on the [0, 1] scale."""
        return self.mean / (self.white or 1), self.std / (self.white or 1)

    def settings(self) -> dict[str, Any]:
        """Return shape, mean and std as lists, and what stands for white."""
        numbers = {name: getattr(self, name).flatten().tolist() for name in ("mean", "std")}
        return {"shape": list(self.shape), **numbers, "white": self.white, "grey": self.grey}


def restored(kept: Mapping[str, Any], workers: int = 0) -> EvalTransform:
    """Return the transform whose settings are `kept`; image files are read by so many threads."""
    if "size" in kept:
        return FileTransform(ImageSettings.model_validate({**kept, "workers": workers}))
    shape = kept["shape"]
    mean, std = (torch.tensor(kept[name]).view(-1, *[1] * (len(shape) - 1)) for name in ("mean", "std"))
    return ArrayTransform(shape, mean, std, kept["white"], kept["grey"])


def as_it_is(shape: Sequence[int]) -> ArrayTransform:
    """Return the transform of a data set that does not tell its own: it takes x as the batches hold it."""
    return ArrayTransform(shape, torch.zeros(()), torch.ones(()))
