"""The data of a configuration, opened so that an audit can go on where training would stop, and looked at."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lntl.audit import fingerprints as duplicates
from lntl.audit.fingerprints import Fingerprints
from lntl.config.keys import Data
from lntl.data import load as load_data
from lntl.data.decoding import UnreadableImageError
from lntl.data.rows import LabelSettings, LeakingGroupsError
from lntl.types import Dataset, ImageSplit, Split

Watch = Callable[[Sequence[Tensor], str], Iterable[Tensor]]  # yields what it is given, and shows how far it is

AT_ONCE, BYTES = 256, 2**26  # examples that are looked at at a time, at most, and bytes of their pixels


@dataclass(frozen=True)
class Looked:
    """Fingerprints of the examples that can be read, their places (m,) among all; `broken`: why the others cannot."""

    prints: Fingerprints
    place: NDArray[np.int64]
    broken: dict[int, str]


@dataclass(frozen=True)
class Audited:
    """A data set; the groups that lie in two splits, where they do; and, unless nothing was opened, its examples."""

    data: Dataset
    leaking: LeakingGroupsError | None
    looked: Looked | None


def read(settings: Data, look: bool, watch: Watch) -> Audited:
    """Return the data without the rows that are wrong; raises UserError where nothing can be told of them.

    look: whether to open every image, once; again where some cannot be read, for then the data are those without them.
    """
    settings = settings.lenient() if isinstance(settings, LabelSettings) else settings
    unread = settings.unread() if isinstance(settings, LabelSettings) else settings
    data, leaking = _opened(unread)
    if not look:
        return Audited(data, leaking, None)
    looked = _look(data, watch)
    if looked.broken and unread is not settings:
        data, leaking = _opened(settings)
        looked = _look(data, watch)
    return Audited(data, leaking, looked)


def _opened(settings: Data) -> tuple[Dataset, LeakingGroupsError | None]:
    """Return the data, the groups taken for none where they lie in two splits."""
    try:
        return load_data(settings.name, settings), None
    except LeakingGroupsError as error:
        assert isinstance(settings, LabelSettings)  # they alone have groups
        return load_data(settings.name, settings.without_groups()), error


def _look(data: Dataset, watch: Watch) -> Looked:
    size = max(1, min(AT_ONCE, BYTES // math.prod(data.spec.input_shape)))
    parts, places, broken, begin = [], [], dict[int, str](), 0
    for name, split in data.splits.items():
        for index in watch(torch.arange(len(split)).split(size), name):
            for some, found in _prints(split, index):
                if isinstance(found, Fingerprints):
                    parts.append(found)
                    places.append(begin + some.numpy())
                else:
                    broken[begin + int(some)] = found.reason
        begin += len(split)
    prints = duplicates.join(parts) if parts else duplicates.NO_PICTURES  # vectors can always be read
    return Looked(prints, np.concatenate([np.empty(0, dtype=np.int64), *places]), broken)


def _prints(split: Split, index: Tensor) -> Iterator[tuple[Tensor, Fingerprints | UnreadableImageError]]:
    """Yield the fingerprints of the examples at `index`, of those that can be read one by one where others cannot."""
    try:
        if isinstance(split, ImageSplit):
            yield index, duplicates.of_pictures(split.pixels(index))
        else:
            yield index, duplicates.of_vectors(split.batch(index).x)
    except UnreadableImageError as error:
        if len(index) == 1:
            yield index, error
        else:
            for one in index.split(1):
                yield from _prints(split, one)
