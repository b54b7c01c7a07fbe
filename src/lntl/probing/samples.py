"""Example images of a run's data, for its report."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lntl import config as configuration
from lntl.data import load as load_data
from lntl.data.transforms import thumbnails
from lntl.errors import UserError
from lntl.experiment.checkpoints import check_trusted
from lntl.runs.files import write_atomic
from lntl.runs.folder import RunFolder
from lntl.types import ImageSplit
from lntl.yaml_file import read_yaml

SPLITS = ("train", "test")
PER_CLASS = 10


def write_samples(folder: RunFolder, trust: Sequence[str] = ()) -> None:
    """Write samples.npz: of train and of test the first ten images of each class, uint8 (classes, 10, C, H, W).

    Raises UserError where the data cannot be loaded, or have no pictures to show.
    """
    check_trusted(read_yaml(folder.config), str(folder.config), trust)
    config = configuration.read(folder.config)
    data = load_data(config.data.name, config.data)
    arrays: dict[str, Any] = {}
    for name in SPLITS:
        split = data.splits[name]
        if not isinstance(split, ImageSplit):
            raise UserError(f"data.name: the splits of {config.data.name} are no ImageSplit: nothing to show")
        arrays[name] = _by_class(split, data.spec.num_classes)
    arrays["class_names"] = np.array(data.spec.class_names)
    write_atomic(folder.samples, lambda file: np.savez_compressed(file, **arrays))


def _by_class(split: ImageSplit, num_classes: int) -> NDArray[Any]:
    """Return the first images of each class; places beyond a class's last image stay black."""
    like = thumbnails(split.pixels(torch.zeros(1, dtype=torch.int64)))[0]
    pictures = like.new_zeros((num_classes, PER_CLASS, *like.shape))
    for label in range(num_classes):
        rows = torch.nonzero(split.y == label)[:PER_CLASS, 0]
        if len(rows):
            pictures[label, : len(rows)] = thumbnails(split.pixels(rows))
    return pictures.numpy()
