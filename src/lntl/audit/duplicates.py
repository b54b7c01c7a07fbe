"""Equal and alike examples of an audit: how many, in which splits, with which labels, and which."""

import numpy as np
import torch
from numpy.typing import NDArray

from lntl.audit import fingerprints
from lntl.audit.association import Ints, crosstab
from lntl.audit.examples import Examples, Opened
from lntl.data.rows import straddling
from lntl.data.transforms import thumbnails
from lntl.runs.formats import AlikeImages, Duplicates, EqualExamples, Example, SharedExamples
from lntl.types import IGNORE, ImageSplit

LISTED = 20  # sets of equal examples, and pairs of alike ones, that are listed
SHOWN = 8  # pairs that are shown as pictures
ALIKE_MEANS = (
    f"at most {fingerprints.BITS} of 64 bits of a perceptual hash differ, and small grey versions correlate by at "
    f"least {fingerprints.ALIKE}"
)


def find_duplicates(examples: Examples, opened: Opened) -> tuple[Duplicates, Ints]:
    """Return equal and alike examples, and the positions (pairs, 2) of the alike pairs that are listed."""
    split, y = examples.split[opened.position], examples.y[opened.position]
    number = fingerprints.equal_sets(opened.prints.digest)
    across, disagree = straddling(number, split), straddling(number, y)
    sets = np.unique(
        np.concatenate([across[:LISTED], disagree[:LISTED], np.arange(number.max(initial=-1) + 1)[:LISTED]])
    )
    order = sorted(sets.tolist(), key=lambda equal: (equal not in across, equal not in disagree, equal))[:LISTED]
    pairs = fingerprints.near_pairs(opened.prints)
    apart, differ = (labels[pairs[:, 0]] != labels[pairs[:, 1]] for labels in (split, y))
    pairs = pairs[np.lexsort((~differ, ~apart))]  # first those of two splits, of these the ones with two labels

    def listed(positions: Ints) -> list[Example]:
        return [_example(examples, int(position)) for position in opened.position[positions]]

    pictures = opened.prints.phash is not None
    found = Duplicates(
        of="images" if pictures else "vectors",
        n=len(opened.position),
        equal=EqualExamples(
            sets=int(number.max(initial=-1)) + 1,
            examples=int((number != IGNORE).sum()),
            across=len(across),
            disagree=len(disagree),
            shared=_shared(number, split, examples.splits),
            listed=[listed(np.flatnonzero(number == equal)[:4]) for equal in order],
        ),
        alike=AlikeImages(
            means=ALIKE_MEANS,
            pairs=len(pairs),
            across=int(apart.sum()),
            disagree=int(differ.sum()),
            listed=[listed(pair) for pair in pairs[:LISTED]],
        )
        if pictures
        else None,
    )
    return found, opened.position[pairs[:LISTED]]


def _shared(number: Ints, split: Ints, names: tuple[str, ...]) -> list[SharedExamples]:
    """Return how many examples of each later split have an equal one in each earlier split."""
    known = number != IGNORE
    count = crosstab(split[known], number[known], len(names), int(number.max(initial=0)) + 1).dense()
    return [
        SharedExamples(of=names[late], within=names[early], n=int(count[late][count[early] > 0].sum()))
        for early in range(len(names))
        for late in range(early + 1, len(names))
    ]


def _example(examples: Examples, position: int) -> Example:
    spec, value = examples.data.spec, int(examples.value[position])
    return Example(
        name=examples.name(position),
        split=examples.splits[examples.split[position]],
        label=spec.class_names[examples.y[position]],
        value=None if value == IGNORE else spec.bias_value_names[value],
    )


def pictures(examples: Examples, pairs: Ints) -> NDArray[np.uint8] | None:
    """Return the images of the first SHOWN pairs of positions, uint8 (pairs, 2, 3, H, W); None without a pair."""
    if not len(pairs):
        return None
    splits = [split for split in examples.data.splits.values() if isinstance(split, ImageSplit)]

    def picture(position: int) -> NDArray[np.uint8]:
        number = int(examples.split[position])
        pixels = splits[number].pixels(torch.tensor([position - int(examples.begin[number])]))
        shown: NDArray[np.uint8] = thumbnails(pixels)[0].numpy()
        return shown

    return np.stack([[picture(int(position)) for position in pair] for pair in pairs[:SHOWN]])
