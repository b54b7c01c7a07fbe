"""What an audit tells of equal and of alike examples: how many, in which splits, with which labels, and which."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lntl.audit import fingerprints as duplicates
from lntl.audit.association import Ints, crosstab
from lntl.audit.opening import Looked
from lntl.data.splitting import straddling
from lntl.data.transforms import thumbnails
from lntl.types import IGNORE, Dataset, ImageSplit

Facts = dict[str, Any]

TOLD = 20  # sets of equal examples, and pairs of alike ones, that are named
SHOWN = 8  # pairs that are shown as pictures
ALIKE_MEANS = (
    f"at most {duplicates.BITS} of 64 bits of a perceptual hash differ, and small grey versions correlate by at least "
    f"{duplicates.ALIKE}"
)


@dataclass(frozen=True)
class Everything:
    """All examples of the splits one after another: split (n,) by its place, class, joint bias value, and row."""

    names: tuple[str, ...]
    split: Ints
    y: Ints
    value: Ints
    row: Ints
    begin: Ints  # of each split


def everything(data: Dataset) -> Everything:
    splits, num_bias_values = data.splits.values(), data.spec.num_bias_values
    y, group, row = (
        torch.cat([tensor.cpu() for tensor in tensors]).numpy()
        for tensors in zip(*((split.y, split.group, split.row) for split in splits), strict=True)
    )
    size = np.array([len(split) for split in splits])
    return Everything(
        names=tuple(data.splits),
        split=np.arange(len(size)).repeat(size),
        y=y,
        value=np.where(group == IGNORE, IGNORE, group - y * num_bias_values),
        row=row,
        begin=np.cumsum(size) - size,
    )


def called(data: Dataset, every: Everything, place: int) -> str:
    name = data.row_name(int(every.row[place]))
    return f"row {name}" if name.isdecimal() else name


def twins(data: Dataset, looked: Looked, every: Everything) -> tuple[Facts, Ints]:
    """Return what is said of equal and of alike examples, and the places of the alike pairs that are named."""
    split, y = every.split[looked.place], every.y[looked.place]
    number = duplicates.equal_sets(looked.prints.digest)
    across, disagree = straddling(number, split), straddling(number, y)
    first = np.unique(np.concatenate([across[:TOLD], disagree[:TOLD], np.arange(number.max(initial=-1) + 1)[:TOLD]]))
    order = sorted(first.tolist(), key=lambda each: (each not in across, each not in disagree, each))[:TOLD]
    pairs = duplicates.near_pairs(looked.prints)
    apart, differ = (each[pairs[:, 0]] != each[pairs[:, 1]] for each in (split, y))
    pairs = pairs[np.lexsort((~differ, ~apart))]  # first those of two splits, of these the ones with two labels

    def told(places: Ints) -> list[Facts]:
        return [_example(data, every, int(place)) for place in looked.place[places]]

    pictures = looked.prints.phash is not None
    facts = {
        "of": "images" if pictures else "vectors",
        "n": len(looked.place),
        "equal": {
            "sets": int(number.max(initial=-1)) + 1,
            "examples": int((number != IGNORE).sum()),
            "across": len(across),
            "disagree": len(disagree),
            "shared": _shared(number, split, every.names),
            "told": [told(np.flatnonzero(number == each)[:4]) for each in order],
        },
        "alike": {
            "means": ALIKE_MEANS,
            "pairs": len(pairs),
            "across": int(apart.sum()),
            "disagree": int(differ.sum()),
            "told": [told(pair) for pair in pairs[:TOLD]],
        }
        if pictures
        else None,
    }
    return facts, looked.place[pairs[:TOLD]]


def _shared(number: Ints, split: Ints, names: tuple[str, ...]) -> list[Facts]:
    """Return how many examples of each later split have an equal in each earlier one."""
    known = number != IGNORE
    count = crosstab(split[known], number[known], len(names), int(number.max(initial=0)) + 1)
    return [
        {"in": names[one], "of": names[other], "n": int(count[other][count[one] > 0].sum())}
        for one in range(len(names))
        for other in range(one + 1, len(names))
    ]


def _example(data: Dataset, every: Everything, place: int) -> Facts:
    spec, value = data.spec, int(every.value[place])
    return {
        "name": called(data, every, place),
        "split": every.names[every.split[place]],
        "class": spec.class_names[every.y[place]],
        "value": None if value == IGNORE else spec.bias_value_names[value],
    }


def pictures(data: Dataset, every: Everything, pairs: Ints) -> NDArray[np.uint8] | None:
    """Return the pictures of the first SHOWN pairs of places (m, 2), uint8 (pairs, 2, 3, H, W); None without a pair."""
    if not len(pairs):
        return None
    splits = [split for split in data.splits.values() if isinstance(split, ImageSplit)]

    def picture(place: int) -> NDArray[np.uint8]:
        number = int(every.split[place])
        pixels = splits[number].pixels(torch.tensor([place - int(every.begin[number])]))
        shown: NDArray[np.uint8] = thumbnails(pixels)[0].numpy()
        return shown

    return np.stack([[picture(int(place)) for place in pair] for pair in pairs[:SHOWN]])
