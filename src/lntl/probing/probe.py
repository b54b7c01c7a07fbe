"""Leakage: how well a fresh probe reads the bias value from frozen features, on images that it has not seen.

A probe that reads the bias proves that the features hold it, whatever the run's own h says; one that fails proves
nothing but that this probe could not. Accuracies are therefore lower bounds of what is there.

The images are those of the test split, where the bias is independent of the class: on the training images of Colored
MNIST the class alone tells the colour, so that every network that knows the digit would seem to leak. Each seed halves
them anew; a probe learns on one half and is scored on the other, and two numbers say what chance is: the share of the
most frequent bias value, and the accuracy of the same probe when it learnt from permuted labels. The highest of
several probes (`leakage`) is chosen on the same unseen images, and so a little high where these are few.
"""

from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from torch import Tensor

from lntl.errors import UserError
from lntl.probing.probe_models import PROBES, suited
from lntl.seeding import derive, permutation

_TOLD = 0.1  # accuracy that the class may add to a constant answer before it is told


@dataclass(frozen=True, slots=True)
class Row:
    """One probe at one layer: its accuracy on the unseen half, for each seed."""

    layer: str
    probe: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return fmean(self.values)

    @property
    def std(self) -> float | None:
        """The standard deviation over the seeds (n - 1 in the denominator), None for a single one."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True, slots=True)
class Halves:
    """Labelled images y (n,), bias (n,), both int64 on the CPU, and the seeds that halve them."""

    y: Tensor
    bias: Tensor
    seeds: tuple[int, ...]

    def __call__(self, seed: int) -> tuple[Tensor, Tensor]:
        """Return the places of the learning half and of the unseen half: disjoint, every group split evenly.

        A function of the seed. Images are dealt out in turn, in random order within (bias value, class), so that a bias
        value of two images or more is in both halves.
        """
        order = permutation(len(self.bias), derive(seed, "halves"))
        group = self.bias * (int(self.y.max()) + 1) + self.y
        order = order[group[order].argsort(stable=True)]
        return order[::2], order[1::2]

    def check(self, bias_value_names: tuple[str, ...]) -> None:
        """Raise UserError where there is nothing to tell apart: fewer than two bias values with two images."""
        count = self.bias.bincount(minlength=len(bias_value_names))
        if int((count > 1).sum()) < 2:
            there = ", ".join(bias_value_names[value] for value in count.nonzero()[:, 0].tolist()) or "none"
            raise UserError(
                f"the test set does not vary in its bias (values there: {there}), so no probe can tell it; "
                "use data whose test images hold at least two bias values, twice each"
            )

    @property
    def majority(self) -> float:
        """What a constant answer scores: the share of the most frequent bias value."""
        return self._told_by(torch.zeros_like(self.y))

    @property
    def told_by_class(self) -> float:
        """What the class alone tells: the score of each class's most frequent bias value."""
        return self._told_by(self.y)

    def _told_by(self, key: Tensor) -> float:
        """Return the score on the unseen half of the bias value most frequent with each key on the learning half."""
        shares, shape = [], (int(key.max()) + 1, int(self.bias.max()) + 1)
        for learn, unseen in map(self, self.seeds):
            cells = key[learn] * shape[1] + self.bias[learn]
            answer = cells.bincount(minlength=shape[0] * shape[1]).view(shape).argmax(dim=1)
            shares.append(float((answer[key[unseen]] == self.bias[unseen]).double().mean()))
        return fmean(shares)


def read(layer: str, z: Tensor, halves: Halves, device: torch.device) -> list[Row]:
    """Return the accuracy of every suited probe on features z (n, ...) of a layer; pixels are a layer as well."""
    return [Row(layer, name, tuple(_score(name, z, halves, s, device) for s in halves.seeds)) for name in suited(z)]


def permuted(row: Row, z: Tensor, halves: Halves, device: torch.device) -> Row:
    """Return what the probe of `row` scores on z when the labels that it learns from are permuted."""
    return Row(row.layer, row.probe, tuple(_score(row.probe, z, halves, s, device, True) for s in halves.seeds))


def _score(name: str, z: Tensor, halves: Halves, seed: int, device: torch.device, permute: bool = False) -> float:
    learn, unseen = halves(seed)
    labels = halves.bias[learn]
    if permute:
        labels = labels[permutation(len(labels), derive(seed, "permuted labels"))]
    told = PROBES[name](z[learn], labels, z[unseen], seed, device)
    return float((told == halves.bias[unseen]).double().mean())


def warnings(halves: Halves, class_names: tuple[str, ...], bias_value_names: tuple[str, ...]) -> list[str]:
    """Return what a reader of the accuracies must know: values that do not occur, and a bias that the class tells."""
    told = []
    for kind, names, labels in (("class", class_names, halves.y), ("bias value", bias_value_names, halves.bias)):
        absent = [name for name, count in zip(names, labels.bincount(minlength=len(names)), strict=True) if not count]
        if absent:
            told.append(f"no test image of {kind} {', '.join(absent)}")
    if halves.told_by_class > halves.majority + _TOLD:
        told.append(
            f"on these images the class alone tells the bias with accuracy {halves.told_by_class:.3f} (a constant "
            f"answer: {halves.majority:.3f}), so a probe may read it from what serves the task"
        )
    return told
