"""Read all examples of a data set for an audit: faults that would stop training are collected instead."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lntl.audit.association import Ints
from lntl.audit.fingerprints import NO_IMAGES, Fingerprints, image_fingerprints, join, vector_fingerprints
from lntl.config.keys import Data
from lntl.data import load as load_data
from lntl.data.decoding import UnreadableImageError
from lntl.data.rows import LabelSettings, LeakingGroupsError
from lntl.types import IGNORE, Dataset, ImageSplit, Split

ShowProgress = Callable[[Sequence[Tensor], str], Iterable[Tensor]]  # yields the given items and shows the progress

_MAX_BATCH_SIZE = 256
_MAX_BATCH_BYTES = 2**26  # pixels of a batch of images


@dataclass(frozen=True)
class OpenedExamples:
    """Fingerprints of the m readable examples, their positions (m,), and the reason for each unreadable position."""

    prints: Fingerprints
    position: Ints
    unreadable: dict[int, str]


@dataclass(frozen=True)
class Examples:
    """All n examples of a data set, split after split.

    Attributes:
        data: The data set, without the rows that training would skip or refuse.
        leak_error: The error raised if values of group_id have rows in more than one split; else None.
        opened_examples: Fingerprints of the examples; None if the examples were not opened.
        splits: Names of the splits.
        split: Index of the split of each example, (n,).
        y: Class, (n,).
        value: Joint bias value, IGNORE if unknown, (n,).
        row: Index of each example in the data set, (n,).
        offset: Position of the first example of each split.
    """

    data: Dataset
    leak_error: LeakingGroupsError | None
    opened_examples: OpenedExamples | None
    splits: tuple[str, ...]
    split: Ints
    y: Ints
    value: Ints
    row: Ints
    offset: Ints

    def name(self, position: int) -> str:
        """Return the name of an example."""
        name = self.data.row_name(int(self.row[position]))
        return f"row {name}" if name.isdecimal() else name


def read(settings: Data, images: bool, show_progress: ShowProgress) -> Examples:
    """Return the examples of a data set.

    Args:
        settings: The section `data` of a configuration.
        images: Whether to open every example.
        show_progress: Function that yields the items of a sequence and shows the progress.

    Raises:
        UserError: If the data cannot be read.
    """
    settings = settings.skipping_errors() if isinstance(settings, LabelSettings) else settings
    unopened = settings.without_opening_images() if isinstance(settings, LabelSettings) else settings
    data, leak_error = _load(unopened)
    opened_examples = _open(data, show_progress) if images else None
    if opened_examples is not None and opened_examples.unreadable and unopened is not settings:
        data, leak_error = _load(settings)  # without the images that training skips
        opened_examples = _open(data, show_progress)
    splits = data.splits.values()
    y, group, row = (
        torch.cat([tensor.cpu() for tensor in tensors]).numpy()
        for tensors in zip(*((split.y, split.group, split.row) for split in splits), strict=True)
    )
    split_sizes = np.array([len(split) for split in splits])
    return Examples(
        data=data,
        leak_error=leak_error,
        opened_examples=opened_examples,
        splits=tuple(data.splits),
        split=np.arange(len(split_sizes)).repeat(split_sizes),
        y=y,
        value=np.where(group == IGNORE, IGNORE, group - y * data.spec.num_bias_values),
        row=row,
        offset=np.cumsum(split_sizes) - split_sizes,
    )


def _load(settings: Data) -> tuple[Dataset, LeakingGroupsError | None]:
    """Return the data set, and the error if a value of its group_id has rows in more than one split."""
    try:
        return load_data(settings.name, settings), None
    except LeakingGroupsError as error:
        assert isinstance(settings, LabelSettings)  # only these settings have group_id
        return load_data(settings.name, settings.without_groups()), error


def _open(data: Dataset, show_progress: ShowProgress) -> OpenedExamples:
    batch_size = max(1, min(_MAX_BATCH_SIZE, _MAX_BATCH_BYTES // math.prod(data.spec.input_shape)))
    parts, positions, unreadable, offset = [], [], dict[int, str](), 0
    for name, split in data.splits.items():
        for index in show_progress(torch.arange(len(split)).split(batch_size), name):
            for part, result in _fingerprints(split, index):
                if isinstance(result, Fingerprints):
                    parts.append(result)
                    positions.append(offset + part.numpy())
                else:
                    unreadable[offset + int(part)] = result.reason
        offset += len(split)
    prints = join(parts) if parts else NO_IMAGES  # no part: no image can be read (vectors can always be read)
    return OpenedExamples(prints, np.concatenate([np.empty(0, dtype=np.int64), *positions]), unreadable)


def _fingerprints(split: Split, index: Tensor) -> Iterator[tuple[Tensor, Fingerprints | UnreadableImageError]]:
    """Yield the fingerprints of the examples at `index`: together, or one by one if an example cannot be read."""
    try:
        if isinstance(split, ImageSplit):
            yield index, image_fingerprints(split.pixels(index))
        else:
            yield index, vector_fingerprints(split.batch(index).x)
    except UnreadableImageError as error:
        if len(index) == 1:
            yield index, error
        else:
            for position in index.split(1):
                yield from _fingerprints(split, position)
