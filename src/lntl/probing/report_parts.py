"""Make the parts of a run's report that its folder lacks: example images, evaluation and probes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lntl import config as configuration
from lntl.data import load as load_data
from lntl.data.transforms import thumbnails
from lntl.errors import UntrustedError, UserError
from lntl.experiment.evaluate import evaluate_checkpoint
from lntl.probing.checkpoint import probe_checkpoint
from lntl.runs.files import write_atomic
from lntl.runs.folder import RunFolder
from lntl.types import ImageSplit

SPLITS = ("train", "test")
PER_CLASS, MOST_CLASSES = 10, 100  # images of a class, and classes that have some


def complete(folder: RunFolder, device: str | None = None, trust: Sequence[str] = ()) -> list[str]:
    """Make the missing parts of a run's report; return why, for each part that could not be made."""
    folder.check_links()
    chosen = folder.best_or_last
    parts: dict[Path, Callable[[], object]] = {
        folder.samples: lambda: write_samples(folder, trust),
        folder.evaluation_of(chosen): lambda: evaluate_checkpoint(chosen, device=device, trust=trust).write(),
        folder.probe: lambda: probe_checkpoint(chosen, device=device, trust=trust),
    }
    faults = []
    for path, make in parts.items():
        if path.exists():
            continue
        try:
            make()
        except UntrustedError:
            raise
        except UserError as error:
            faults.append(f"{path.name} could not be made: {error}")
    return faults


def write_samples(folder: RunFolder, trust: Sequence[str] = ()) -> None:
    """Write samples.npz: of train and of test the first ten images of each class, uint8 (classes, 10, C, H, W).

    Raises UserError if the data cannot be loaded or have no images.
    """
    config = configuration.read(folder.config, trust=trust)
    data = load_data(config.data.name, config.data)
    arrays: dict[str, Any] = {}
    for name in SPLITS:
        split = data.splits[name]
        if not isinstance(split, ImageSplit):
            raise UserError(f"data.name: the splits of {config.data.name} are no ImageSplit: nothing to show")
        arrays[name] = _by_class(split, min(data.spec.num_classes, MOST_CLASSES))
    arrays["class_names"] = np.array(data.spec.class_names[:MOST_CLASSES])
    write_atomic(folder.samples, lambda file: np.savez_compressed(file, **arrays))


def _by_class(split: ImageSplit, num_classes: int) -> NDArray[Any]:
    """Return the first images of each class; what is beyond the last image of a class stays black."""
    like = thumbnails(split.pixels(torch.zeros(1, dtype=torch.int64)))[0]
    pictures = like.new_zeros((num_classes, PER_CLASS, *like.shape))
    for label in range(num_classes):
        rows = torch.nonzero(split.y == label)[:PER_CLASS, 0]
        if len(rows):
            pictures[label, : len(rows)] = thumbnails(split.pixels(rows))
    return pictures.numpy()
