"""Images or vectors as a user hands them over: paths, pictures, arrays; and x made of them in batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lntl.data import array_file
from lntl.data.decoding import UnreadableImageError
from lntl.errors import UserError

Images = str | Path | Image.Image | Sequence[str | Path] | Sequence[Image.Image] | NDArray[Any] | Tensor


class Source(Protocol):
    """n images or vectors, of which x is made in batches."""

    def __len__(self) -> int: ...

    def load(self, index: Tensor) -> Tensor:
        """Return x of the images at `index` (N,); raises UnreadableImageError."""
        ...


@dataclass(frozen=True)
class Values:
    """Values (n, ...) of which `x` makes what the network sees."""

    values: Tensor
    x: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.values)

    def load(self, index: Tensor) -> Tensor:
        values = self.values[index]
        if values.is_floating_point() and len(wrong := index[~values.flatten(1).isfinite().all(dim=1)]):
            raise UnreadableImageError(Path(f"image {wrong[0]}"), "is not finite")
        return self.x(values)


@dataclass(frozen=True)
class Pictures:
    """n pictures: `pixels(i)` is number i as (H, W, 3) uint8; `x` makes of (N, 3, H, W) what the network sees."""

    n: int
    pixels: Callable[[int], NDArray[np.uint8]]
    x: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return self.n

    def load(self, index: Tensor) -> Tensor:
        return self.x(torch.from_numpy(np.stack([self.pixels(i) for i in index.tolist()])).permute(0, 3, 1, 2))


_KINDS = (
    "give paths, PIL images, an array uint8 (N, H, W, 3) or (N, 3, H, W), or one of floats in [0, 1] that has the "
    "network's size"
)


def parsed(images: Images, shape: tuple[int, ...]) -> list[Path] | list[Image.Image] | Tensor:
    """Return paths, pictures, or images (N, C, H, W): uint8 of any size, or float of the shape on the [0, 1] scale."""
    if isinstance(images, str | Path | Image.Image):
        images = [images]  # type: ignore[assignment]
    if isinstance(images, np.ndarray | Tensor):
        array = images.detach().cpu().numpy() if isinstance(images, Tensor) else images
        images_of = (4, 3) if shape[0] == 1 else (4,)  # dimensions that arrays of images have
        values = array_file.as_tensor(array, "images") if array.ndim in images_of and len(array) else None
        if values is None or (values.is_floating_point() and values.shape[1:] != shape):
            raise UserError(other_shape(images, shape))
        return values
    listed = list(images) if isinstance(images, Sequence) else []
    paths = [Path(image) for image in listed if isinstance(image, str | Path)]
    pictures = [image for image in listed if isinstance(image, Image.Image)]
    if listed and len(listed) in (len(paths), len(pictures)):
        return paths or pictures
    what = f"a {type(images).__name__} of {type(listed[0]).__name__}" if listed else f"{images!r}"
    raise UserError(f"images: {what} holds no images; {_KINDS}")


def floats(values: Any, shape: tuple[int, ...]) -> Tensor:
    """Return an array of numbers (N, *shape) as float32; integers count as numbers where a vector is wanted."""
    if not isinstance(values, np.ndarray | Tensor):
        raise UserError(f"images: the network takes arrays of numbers {_of(shape)}, no pictures; give an array or .npz")
    tensor = torch.as_tensor(values)
    if tensor.shape[1:] != shape or not len(tensor) or (len(shape) > 1 and not tensor.is_floating_point()):
        raise UserError(other_shape(values, shape))
    return tensor.float().cpu()


def other_shape(values: Any, shape: tuple[int, ...]) -> str:
    """Return the sentence that says that an array does not fit."""
    kind = str(values.dtype).removeprefix("torch.")
    remedy = f"; {_KINDS}" if len(shape) == 3 else ""
    return f"images: {kind} {tuple(values.shape)} do not fit the network, which takes {_of(shape)}{remedy}"


def _of(shape: tuple[int, ...]) -> str:
    return f"(N, {', '.join(map(str, shape))})"


def picture(image: Tensor | Image.Image | Path) -> Image.Image:
    """Return an image uint8 (C, H, W) as a picture."""
    if isinstance(image, Tensor):
        return Image.fromarray(image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
    assert isinstance(image, Image.Image)
    return image
