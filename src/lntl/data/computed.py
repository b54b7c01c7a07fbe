"""Biases that an image shows by itself."""

import torch
from torch import Tensor

from lntl.data.images import ImageSource
from lntl.errors import UserError
from lntl.plugins import did_you_mean

NAMES = ("brightness", "color")


def parts(name: str) -> tuple[str, ...]:
    """Return what the numbers of a computed bias are called."""
    return ("color red", "color green", "color blue") if name == "color" else (name,)


def measure(name: str, source: ImageSource) -> Tensor:
    """Return the numbers of each image as float64 (n, len(parts(name))); raises UserError for an unknown name."""
    if name not in NAMES:
        raise UserError(f"data.bias.from: {name!r} is not one of the computed biases{did_you_mean(name, NAMES)}")
    colors = source.pixels(torch.arange(len(source))).double().mean(dim=(2, 3)) / 255
    return colors if name == "color" else colors.mean(dim=1, keepdim=True)
