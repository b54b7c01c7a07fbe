"""Example images of a run's data, for its report."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from lntl import config as configuration
from lntl import plugins
from lntl.errors import UserError
from lntl.runs.files import write_atomic
from lntl.runs.folder import RunFolder

SPLITS = ("train", "test")
PER_CLASS = 10
LARGEST = 64  # pixels of an image's longer side; larger images are made smaller


def write_samples(folder: RunFolder) -> None:
    """Write samples.npz: of train and of test the first ten images of each class, uint8 (classes, 10, C, H, W).

    Raises UserError where the data cannot be loaded, or have no pictures to show.
    """
    config = configuration.read(folder.config)
    data = plugins.load("lntl.data", config.data.name)(config.data)
    if not all(hasattr(data.splits[name], "pixels") for name in SPLITS):
        raise UserError(f"data.name: the splits of {config.data.name} have no `pixels(index)`: nothing to show")
    arrays: dict[str, Any] = {name: _by_class(data.splits[name], data.spec.num_classes) for name in SPLITS}
    arrays["class_names"] = np.array(data.spec.class_names)
    write_atomic(folder.samples, lambda file: np.savez_compressed(file, **arrays))


def _by_class(split: Any, num_classes: int) -> NDArray[Any]:
    """Return the first images of each class; places beyond a class's last image stay black."""
    like = small(split.pixels(torch.zeros(1, dtype=torch.int64)))[0]
    pictures = like.new_zeros((num_classes, PER_CLASS, *like.shape))
    for label in range(num_classes):
        rows = torch.nonzero(split.y == label)[:PER_CLASS, 0]
        if len(rows):
            pictures[label, : len(rows)] = small(split.pixels(rows))
    return pictures.numpy()


def small(pixels: Tensor) -> Tensor:
    """Return images (N, C, H, W) uint8 with the longer side at most LARGEST."""
    factor = LARGEST / max(pixels.shape[-2:])
    if factor >= 1:
        return pixels
    size = [max(1, round(factor * side)) for side in pixels.shape[-2:]]
    return interpolate(pixels.float(), size, mode="area").round().to(torch.uint8)
