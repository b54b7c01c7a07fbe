"""Transforms from images or vectors, as a user passes them, to network input; the training data are not needed.

The settings of a transform are plain values (`settings()`), stored in checkpoints.
"""

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lntl.data import array_file, transforms
from lntl.data.decoding import (
    BrightCallback,
    DepthWarnings,
    ImageFile,
    UnreadableImageError,
    load_upright,
    square_from_pil,
)
from lntl.data.image_settings import ImageSettings
from lntl.data.images import ImageSource
from lntl.errors import UserError
from lntl.types import InputTransform

log = logging.getLogger("lntl")


@dataclass(frozen=True)
class EncodedFiles:
    """Contents of image files, such as a column of Parquet, which are read on access."""

    files: Sequence[ImageFile]

    def __len__(self) -> int:
        return len(self.files)


ImageInput = (
    str | Path | Image.Image | Sequence[str | Path] | Sequence[Image.Image] | NDArray[Any] | Tensor | EncodedFiles
)


class Source(Protocol):
    """n images or vectors, read as x in batches."""

    def __len__(self) -> int: ...

    def load(self, index: Tensor) -> Tensor:
        """Return x of the images at `index` (N,); raises UnreadableImageError."""
        ...


@dataclass(frozen=True)
class Values:
    """Values (n, ...) in memory; `x` maps a batch of them to network input."""

    values: Tensor
    x: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.values)

    def load(self, index: Tensor) -> Tensor:
        """Return x of the values at `index`; raises UnreadableImageError if a value is not finite."""
        values = self.values[index]
        if values.is_floating_point() and len(nonfinite := index[~values.flatten(1).isfinite().all(dim=1)]):
            raise UnreadableImageError(Path(f"image {nonfinite[0]}"), "is not finite")
        return self.x(values)


@dataclass(frozen=True)
class LazyImages:
    """n images: `pixels(i)` returns image i as uint8 (H, W, 3); `x` maps a batch (N, 3, H, W) to network input."""

    n: int
    pixels: Callable[[int], NDArray[np.uint8]]
    x: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return self.n

    def load(self, index: Tensor) -> Tensor:
        """Return x of the images at `index`."""
        return self.x(torch.from_numpy(np.stack([self.pixels(i) for i in index.tolist()])).permute(0, 3, 1, 2))


_ACCEPTED_INPUTS = (
    "pass paths, PIL images, a uint8 array (N, H, W, 3) or (N, 3, H, W), or a float array in [0, 1] of the network's "
    "input size"
)


def parse_images(images: ImageInput, shape: tuple[int, ...]) -> list[Path] | list[Image.Image] | Tensor:
    """Return paths, PIL images, or a tensor (N, C, H, W): uint8 of any size, or float of `shape` in [0, 1]."""
    if isinstance(images, EncodedFiles):
        raise UserError("images: the network takes images of one size as arrays or files, not contents of files")
    if isinstance(images, str | Path | Image.Image):
        images = [images]  # type: ignore[assignment]
    if isinstance(images, np.ndarray | Tensor):
        if isinstance(images, Tensor):
            array = (images.float() if images.is_floating_point() else images).detach().cpu().numpy()
        else:
            array = images
        image_dimensions = (4, 3) if shape[0] == 1 else (4,)  # possible numbers of dimensions of the array
        values = array_file.as_tensor(array, "images") if array.ndim in image_dimensions and len(array) else None
        if values is None or (values.is_floating_point() and values.shape[1:] != shape):
            raise UserError(shape_error(images, shape))
        return values
    items = list(images) if isinstance(images, Sequence) else []
    paths = [Path(image) for image in items if isinstance(image, str | Path)]
    pil_images = [image for image in items if isinstance(image, Image.Image)]
    if items and len(items) in (len(paths), len(pil_images)):
        return paths or pil_images
    description = f"a {type(images).__name__} of {type(items[0]).__name__}" if items else f"{images!r}"
    raise UserError(f"images: {description} contains no images; {_ACCEPTED_INPUTS}")


def as_floats(values: ImageInput, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Return an array of numbers (N, *shape) as `dtype`; vectors may be integers."""
    if not isinstance(values, np.ndarray | Tensor):
        raise UserError(
            f"images: the network takes arrays of numbers {_batch_shape(shape)}, not images; pass an array or .npz"
        )
    kind = values.dtype.kind if isinstance(values, np.ndarray) else "f" if values.is_floating_point() else "i"
    if values.shape[1:] != shape or not len(values) or kind not in ("f" if len(shape) > 1 else "biuf"):
        raise UserError(shape_error(values, shape))
    if isinstance(values, Tensor):
        return values.detach().to(dtype).cpu()
    return torch.from_numpy(np.require(values, np.float64 if dtype == torch.float64 else np.float32, ["C", "W"]))


def _warn_if_single(values: NDArray[Any] | Tensor) -> None:
    """Log a warning if numbers have float32 or less, although the network needs float64."""
    kind = str(values.dtype).removeprefix("torch.")
    if kind in ("float32", "float16", "bfloat16"):
        log.warning(
            "images: %s numbers, but the run was trained on float64 numbers, which lose digits in %s; pass float64",
            kind,
            kind,
        )


def shape_error(values: NDArray[Any] | Tensor, shape: tuple[int, ...]) -> str:
    """Return the error message about an array of the wrong shape or dtype."""
    kind = str(values.dtype).removeprefix("torch.")
    remedy = f"; {_ACCEPTED_INPUTS}" if len(shape) == 3 else ""
    return f"images: {kind} {tuple(values.shape)} do not fit the network, which takes {_batch_shape(shape)}{remedy}"


def _batch_shape(shape: tuple[int, ...]) -> str:
    return f"(N, {', '.join(map(str, shape))})"


def as_pil(image: Tensor | Image.Image | Path) -> Image.Image:
    """Return an image uint8 (C, H, W) as a PIL image."""
    if isinstance(image, Tensor):
        return Image.fromarray(image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
    assert isinstance(image, Image.Image)
    return image


_LUMA_NOTE = ", as luma (ITU-R BT.601) in all channels"
_STORED_SETTINGS = {"size", "fit", "crop", "normalise"}  # image settings that evaluation depends on


class EvalTransform(InputTransform):
    """Map images or vectors to network input x, without the data set.

    Float images on the [0, 1] scale become (image - mean) / std, with mean and std from `mean_and_std()`.

    Attributes:
        shape: Shape of one x.
        description: What happens to an image, for users.
        gray: Whether x has the luma in all channels.
    """

    shape: tuple[int, ...]
    description: str
    gray: bool = False

    def forward(self, images: ImageInput) -> Tensor:
        """Return x of all images, float32 (N, C, H, W), or of all vectors, (N, D)."""
        source = self.source(images)
        return source.load(torch.arange(len(source)))

    def _gray(self, values: Tensor) -> Tensor:
        """Return float images (N, C, H, W), as luma if `gray`."""
        return transforms.float_luma(values) if self.gray and values.shape[1] == 3 else values

    @abstractmethod
    def source(self, images: ImageInput) -> Source:
        """Return the images, to be read in batches; raises UserError if they have the wrong type or shape."""

    @abstractmethod
    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Return mean and std of x: (C, 1, 1) for images on the [0, 1] scale, else the shape of one x."""


class FileTransform(EvalTransform):
    """Images of any size: decoded, made square, resized and normalised as in the data sets of image files."""

    def __init__(self, settings: ImageSettings) -> None:
        super().__init__()
        self.image_settings = settings
        self.shape, self.gray = (3, settings.size, settings.size), settings.grayscale
        fits = {"crop": "its middle square", "stretch": "squeezed to a square", "pad": "on a black square"}
        crop_note = (
            "" if settings.stored_side == settings.size else f", of which the middle {settings.size} x {settings.size}"
        )
        self.description = (
            f"RGB, upright according to its EXIF data, white where it is transparent; {fits[settings.fit]}, resized "
            f"(bilinear, with antialiasing) to {settings.stored_side} x {settings.stored_side}{crop_note}"
        )
        if self.gray:
            self.description += _LUMA_NOTE
        if settings.white is not None:
            self.description += f"; in images with more than 8 bits, 0 is black and {settings.white} is white"

    def source(self, images: ImageInput) -> Source:
        """Return the images; uint8 arrays count as images of any size, float arrays must have the network's size."""
        if isinstance(images, EncodedFiles):
            return ImageSource(images.files, self.image_settings, warn=True)
        array = parse_images(images, self.shape)
        if isinstance(array, Tensor) and array.is_floating_point():
            mean, std = self.mean_and_std()
            return Values(array, lambda values: self._gray(values).sub(mean).div_(std))
        if isinstance(array, list) and isinstance(array[0], Path):
            return ImageSource(array, self.image_settings, warn=True)
        side, fit, white = self.image_settings.stored_side, self.image_settings.fit, self.image_settings.white
        on_bright = DepthWarnings(white)
        return LazyImages(
            len(array),
            lambda i: square_from_pil(as_pil(array[i]), i, side, fit, white, on_bright),
            self._normalise_squares,
        )

    def _normalise_squares(self, squares: Tensor) -> Tensor:
        pixels = transforms.center_crop(squares, self.image_settings.size)
        if self.gray:
            pixels = transforms.luma(pixels).expand(-1, 3, -1, -1)
        out = transforms.empty_images(len(squares), self.image_settings.size, np.float32)
        transforms.normalise(pixels, self.image_settings, out)
        return out.permute(0, 3, 1, 2)

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Return mean and std of red, green and blue, (3, 1, 1)."""
        normal = self.image_settings.normalise
        return torch.tensor(normal.mean).view(3, 1, 1), torch.tensor(normal.std).view(3, 1, 1)

    def settings(self) -> dict[str, Any]:
        """Return the settings that evaluation depends on."""
        white = {} if self.image_settings.white is None else {"white": self.image_settings.white}
        grayscale = {"grayscale": True} if self.gray else {}
        return self.image_settings.model_dump(include=_STORED_SETTINGS) | grayscale | white


class ArrayTransform(EvalTransform):
    """Images of exactly one size, or vectors: x = (value - mean) / std, and nothing is resized.

    Args:
        shape: Shape of one x.
        mean: Mean, (C, 1, 1) or of the shape of one x. If it is float64, x is computed in float64, because float32
            would lose digits of the values.
        std: Standard deviation, like `mean`.
        white: Value of white, 255 or 1; None if the values are not images: only float arrays of `shape` are accepted.
        gray: Whether x has the luma in all channels.
    """

    def __init__(
        self, shape: Sequence[int], mean: Tensor, std: Tensor, white: int | None = None, gray: bool = False
    ) -> None:
        super().__init__()
        self.shape, self.white, self.gray = tuple(shape), white, gray
        self.mean, self.std = mean, std
        size = " x ".join(map(str, self.shape[1:]))
        self.description = (
            f"images of {size}, not resized{_LUMA_NOTE if gray else ''}" if white else f"values of shape {self.shape}"
        )

    def source(self, images: ImageInput) -> Source:
        """Return the images or vectors; raises UserError if they have another shape."""
        if self.white is None:
            if self.mean.dtype == torch.float64 and isinstance(images, np.ndarray | Tensor):
                _warn_if_single(images)
            return Values(as_floats(images, self.shape, self.mean.dtype), self._normalise)
        array = parse_images(images, self.shape)
        if isinstance(array, list):
            on_bright = DepthWarnings(None)
            return LazyImages(len(array), lambda i: self._read_pixels(array[i], i, on_bright), self._normalise_pixels)
        if array.is_floating_point():
            return Values(array, lambda values: self._normalise(self._gray(values) * float(self.white or 1)))
        if array.shape[2:] != self.shape[1:]:
            raise UserError(shape_error(array, self.shape))
        return Values(array, self._normalise_pixels)

    def _read_pixels(self, image: Path | Image.Image, number: int, on_bright: BrightCallback) -> NDArray[np.uint8]:
        pixels = load_upright(image, number, on_bright)
        if pixels.shape[:2] != self.shape[1:]:
            image_size, x_size = ("{} x {} pixels".format(*shape) for shape in (pixels.shape, self.shape[1:]))
            name = image if isinstance(image, Path) else Path(f"image {number}")
            raise UnreadableImageError(name, f"{image_size}, and the network takes {x_size} (height x width)")
        return pixels

    def _normalise_pixels(self, pixels: Tensor) -> Tensor:
        """Return x of images (N, 1 or 3, H, W) uint8, equal to that of `ColoredMNIST` and `Arrays`."""
        channels = self.shape[0]
        if (self.gray or channels == 1) and pixels.shape[1] == 3:
            pixels = transforms.luma(pixels)
        return self._normalise(pixels.expand(-1, channels, -1, -1).float().div_(255 / float(self.white or 1)))

    def _normalise(self, values: Tensor) -> Tensor:
        return values.sub(self.mean).div_(self.std).float()

    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Return mean and std on the [0, 1] scale."""
        return self.mean / (self.white or 1), self.std / (self.white or 1)

    def settings(self) -> dict[str, Any]:
        """Return shape, mean and std as lists, and the value of white."""
        values = {
            "shape": list(self.shape),
            "mean": self.mean.flatten().tolist(),
            "std": self.std.flatten().tolist(),
            "white": self.white,
            "grey": self.gray,  # the spelling of earlier checkpoints and exports
        }
        return values | ({"double": True} if self.mean.dtype == torch.float64 else {})


def restore(settings: Mapping[str, Any], workers: int = 0) -> EvalTransform:
    """Return the transform with the given `settings()`; `workers` threads read image files."""
    if "size" in settings:
        return FileTransform(ImageSettings.model_validate({**settings, "workers": workers}))
    shape, dtype = settings["shape"], torch.float64 if settings.get("double") else torch.float32
    mean, std = (
        torch.tensor(settings[name], dtype=dtype).view(-1, *[1] * (len(shape) - 1)) for name in ("mean", "std")
    )
    return ArrayTransform(shape, mean, std, settings["white"], settings["grey"])


def identity(shape: Sequence[int]) -> ArrayTransform:
    """Return the transform for a data set that has none of its own: users pass x itself."""
    return ArrayTransform(shape, torch.zeros(()), torch.ones(()))
