"""Leakage: how well a fresh probe reads the bias value from frozen features, on images that it has not seen.

A probe that reads the bias proves that the features hold it, whatever the run's own h says; one that fails proves
nothing but that this probe could not. Accuracies are therefore lower bounds of what is there.

The images are those of the test split, where the bias is independent of the class: on the training images of Colored
MNIST the class alone predicts the colour, so that every network that knows the digit would seem to leak. Each seed
halves them anew; a probe learns on one half and is scored on the other, and two numbers say what chance is: the share
of the most frequent bias value, and the accuracy of the same probe when it learnt from permuted labels. The highest of
several probes (`leakage`) is chosen on the same unseen images, and so a little high where these are few.
"""

from dataclasses import dataclass
from statistics import fmean, stdev

import torch
from torch import Tensor

from lntl.errors import UserError
from lntl.probing.probe_models import PROBES, suited
from lntl.runs.formats import ProbeRow
from lntl.seeding import derive, permutation

_FROM_CLASS = 0.1  # accuracy that the class may add to a constant answer without a warning


@dataclass(frozen=True, slots=True)
class Halves:
    """Labelled images y (n,), bias (n,), both int64 on the CPU, and the seeds that halve them."""

    y: Tensor
    bias: Tensor
    seeds: tuple[int, ...]

    def __call__(self, seed: int) -> tuple[Tensor, Tensor]:
        """Return the positions of the learning half and of the unseen half: disjoint, every group split evenly.

        A function of the seed. Images are dealt out in turn, in random order within (bias value, class), so that a bias
        value of two images or more is in both halves.
        """
        order = permutation(len(self.bias), derive(seed, "halves"))
        group = self.bias * (int(self.y.max()) + 1) + self.y
        order = order[group[order].argsort(stable=True)]
        return order[::2], order[1::2]

    def check(self, bias_value_names: tuple[str, ...]) -> None:
        """Raise UserError unless two bias values have two images each."""
        count = self.bias.bincount(minlength=len(bias_value_names))
        if int((count > 1).sum()) < 2:
            there = ", ".join(bias_value_names[value] for value in count.nonzero()[:, 0].tolist()) or "none"
            raise UserError(
                f"the test set does not vary in its bias (values there: {there}), so no probe can tell it; "
                "use data whose test images hold at least two bias values, twice each"
            )

    @property
    def majority(self) -> float:
        """Accuracy of a constant answer: the share of the most frequent bias value."""
        return self._predicted_from(torch.zeros_like(self.y))

    @property
    def from_class(self) -> float:
        """Accuracy of the most frequent bias value of each class."""
        return self._predicted_from(self.y)

    def _predicted_from(self, key: Tensor) -> float:
        """Return the score on the unseen half of the bias value most frequent with each key on the learning half."""
        shares, shape = [], (int(key.max()) + 1, int(self.bias.max()) + 1)
        for learn, unseen in map(self, self.seeds):
            cells = key[learn] * shape[1] + self.bias[learn]
            answer = cells.bincount(minlength=shape[0] * shape[1]).view(shape).argmax(dim=1)
            shares.append(float((answer[key[unseen]] == self.bias[unseen]).double().mean()))
        return fmean(shares)


def probe_row(layer: str, probe: str, accuracies: list[float]) -> ProbeRow:
    """Return the accuracies of a probe on a layer, one a seed, with their mean and standard deviation."""
    std = stdev(accuracies) if len(accuracies) > 1 else None
    return ProbeRow(layer=layer, probe=probe, mean=fmean(accuracies), std=std, values=accuracies)


def read(layer: str, z: Tensor, halves: Halves, device: torch.device) -> list[ProbeRow]:
    """Return the accuracy of each suited probe on the unseen halves.

    Args:
        layer: Name of the layer, or "pixels".
        z: Features of the images, (n, ...).
        halves: Labels of the images, and the seeds that halve them.
        device: Device on which convolutional probes are trained.
    """
    return [
        probe_row(layer, name, [_score(name, z, halves, seed, device) for seed in halves.seeds]) for name in suited(z)
    ]


def permuted(row: ProbeRow, z: Tensor, halves: Halves, device: torch.device) -> ProbeRow:
    """Return the accuracy of the probe of `row` on z when the labels that it learns from are permuted."""
    accuracies = [_score(row.probe, z, halves, seed, device, permute=True) for seed in halves.seeds]
    return probe_row(row.layer, row.probe, accuracies)


def _score(name: str, z: Tensor, halves: Halves, seed: int, device: torch.device, permute: bool = False) -> float:
    learn, unseen = halves(seed)
    labels = halves.bias[learn]
    if permute:
        labels = labels[permutation(len(labels), derive(seed, "permuted labels"))]
    predicted = PROBES[name](z[learn], labels, z[unseen], seed, device)
    return float((predicted == halves.bias[unseen]).double().mean())


def warnings(halves: Halves, class_names: tuple[str, ...], bias_value_names: tuple[str, ...]) -> list[str]:
    """Return warnings for values that do not occur, and for a bias that can be predicted from the class."""
    found = []
    for kind, names, labels in (("class", class_names, halves.y), ("bias value", bias_value_names, halves.bias)):
        absent = [name for name, count in zip(names, labels.bincount(minlength=len(names)), strict=True) if not count]
        if absent:
            found.append(f"no test image of {kind} {', '.join(absent)}")
    if halves.from_class > halves.majority + _FROM_CLASS:
        found.append(
            f"on these images the class alone predicts the bias with accuracy {halves.from_class:.3f} (a constant "
            f"answer: {halves.majority:.3f}), so a probe may read it from what serves the task"
        )
    return found
