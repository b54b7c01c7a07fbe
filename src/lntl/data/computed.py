"""Biases that an image shows by itself: numbers of its pixels or its file, which no one needs to annotate."""

import importlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lntl.data.images import ImageSource
from lntl.errors import UserError
from lntl.plugins import did_you_mean

BATCH = 256  # images that are measured at a time
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue. Source: Rec. ITU-R BT.601
# What the user's code may raise.
_RAISED = (ArithmeticError, AttributeError, LookupError, NameError, OSError, RuntimeError, TypeError, ValueError)
FRAME = 16  # the background is the outermost 1/16 of the side


def brightness(images: Tensor) -> Tensor:
    """Return the mean luma of each image (N, 3, H, W) uint8: (N, 1) in [0, 1]."""
    return color(images) @ torch.tensor(LUMA, dtype=torch.float64)[:, None]


def color(images: Tensor) -> Tensor:
    """Return the mean red, green and blue of each image (N, 3, H, W) uint8: (N, 3) in [0, 1]."""
    return images.double().mean(dim=(2, 3)) / 255


def background(images: Tensor) -> Tensor:
    """Return the mean red, green and blue of each image's frame, which an object in the middle leaves free: (N, 3)."""
    height, width = images.shape[2:]
    frame = torch.ones(height, width, dtype=torch.bool)
    edge = max(1, min(height, width) // FRAME)
    frame[edge : height - edge, edge : width - edge] = False
    return images[:, :, frame].double().mean(dim=2) / 255


PIXELS: dict[str, Callable[[Tensor], Tensor]] = {"background": background, "brightness": brightness, "color": color}
NAMES = (*PIXELS, "size")


def parts(name: str) -> tuple[str, ...]:
    """Return what the numbers of a computed bias are called; a function of the user gives one number."""
    if name in ("color", "background"):
        return tuple(f"{name} {channel}" for channel in ("red", "green", "blue"))
    return (name,)


def measure(name: str, source: ImageSource) -> Tensor:
    """Return the numbers of each image as float64 (n, len(parts(name))).

    `size` is the file's, in bytes; the others are of the pixels that evaluation sees. A dotted name is a function of
    the user from one image (H, W, 3) uint8 to a number. Raises UserError with the nearest valid name.
    """
    if name == "size":
        return torch.tensor([[path.stat().st_size] for path in source.paths], dtype=torch.float64)
    function = PIXELS[name] if name in PIXELS else _each(_users(name), name)
    return torch.cat([function(source.pixels(index)) for index in torch.arange(len(source)).split(BATCH)])


def _users(name: str) -> Callable[[np.ndarray], object]:
    module, _, attribute = name.rpartition(".")
    if not module:
        raise UserError(f"data.bias.from: {name!r} is not one of the computed biases{did_you_mean(name, NAMES)}")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"data.bias.from: cannot load {name!r}: {error}; is its folder in PYTHONPATH?") from error
    if not callable(function):
        raise UserError(f"data.bias.from: {name!r} is no function; it must take an image (H, W, 3) and give a number")
    return function  # type: ignore[no-any-return]


def _each(function: Callable[[np.ndarray], object], name: str) -> Callable[[Tensor], Tensor]:
    """Return the function of one image as a function of a batch."""

    def measured(images: Tensor) -> Tensor:
        return torch.tensor([[number(image.numpy())] for image in images.permute(0, 2, 3, 1)], dtype=torch.float64)

    def number(image: np.ndarray) -> float:
        try:
            value = function(image)
        except _RAISED as error:
            told = f"{name} raised {type(error).__name__}: {error}; --debug shows where"
            raise UserError(f"data.bias.from: {told}") from error
        if not isinstance(value, int | float | np.number | np.bool_) or not np.isfinite(value):
            raise UserError(f"data.bias.from: {name} gave {value!r} for an image; it must give a finite number")
        return float(value)

    return measured
