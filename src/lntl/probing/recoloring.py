"""Recoloring, a causal check: give each image every bias value in turn, and compare the predictions.

A probe measures the bias in the features; recoloring measures how far the predictions use it.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lntl.data.loader import Loader
from lntl.evaluation.tally import RESAMPLES, interval
from lntl.probing.leakage import Subject
from lntl.runs.formats import Changes, ColorAccuracy, Estimate, Recoloring
from lntl.seeding import derive, permutation
from lntl.types import Networks, PartOfSplit, RecolorableSplit

log = logging.getLogger("lntl")

STRIP_SIZE = 8  # images that are shown with every bias value
MAX_PREDICTIONS = 5_000  # test images times bias values; 500 images give a flip rate within 4.4 percentage points


@dataclass(frozen=True, slots=True)
class RecoloredPredictions:
    """Probabilities (n, values, classes) of n images with each bias value in turn, and their classes y (n,)."""

    probabilities: Tensor
    y: Tensor

    @property
    def predicted(self) -> Tensor:
        """The predicted class of each image under each bias value, (n, values)."""
        return self.probabilities.argmax(dim=2)

    @property
    def flipped(self) -> Tensor:
        """Whether the prediction differs between bias values, bool (n,)."""
        return (self.predicted != self.predicted[:, :1]).any(dim=1)

    @property
    def change(self) -> Tensor:
        """The mean over bias values v of the total variation 1/2 sum_k |p_v - m|_k, m the mean of all p_v, (n,)."""
        distance = (self.probabilities - self.probabilities.mean(dim=1, keepdim=True)).abs().sum(dim=2) / 2
        return distance.mean(dim=1)

    @property
    def accuracy(self) -> list[float]:
        """The accuracy over all images under each bias value."""
        return [float(hits) for hits in (self.predicted == self.y[:, None]).double().mean(dim=0)]


@torch.inference_mode()
def predict_recolored(networks: Networks, loaders: Iterable[Loader]) -> RecoloredPredictions:
    """Predict the same images under each bias value, with one loader per value; leaves the networks in eval mode."""
    networks.eval()
    columns, y = [], torch.zeros(0, dtype=torch.int64)
    for loader in loaders:
        rows = [(networks.g(networks.f(b.x)).float().softmax(dim=1).cpu(), b.y.cpu()) for b in loader.batches()]
        probabilities, y = (torch.cat(column) for column in zip(*rows, strict=True))
        columns.append(probabilities)
    return RecoloredPredictions(torch.stack(columns, dim=1), y)


def recolor(subject: Subject, seed: int) -> tuple[Recoloring, dict[str, Tensor]] | None:
    """Recolor test images; return how predictions change, and the arrays of recoloring.npz (images in each color).

    If there are many images, a random subset is drawn with `seed`. Returns None for data that cannot be recolored.
    """
    experiment, split = subject.experiment, subject.experiment.data.splits["test"]
    if not isinstance(split, RecolorableSplit):
        return None
    log.info("recoloring")
    names = experiment.data.spec.bias_value_names
    recolored_splits = [split.recolored(value) for value in range(len(names))]
    index = (
        permutation(len(split), derive(seed, "recolored images"))[: max(STRIP_SIZE, MAX_PREDICTIONS // len(names))]
        .sort()
        .values
    )
    size, device = subject.batch_size, experiment.device

    def predict(networks: Networks) -> RecoloredPredictions:
        parts = (PartOfSplit(recolored, index) for recolored in recolored_splits)
        return predict_recolored(networks, (Loader(part, size, device) for part in parts))

    run = predict(subject.networks)
    erm = None if subject.erm is None else predict(subject.erm)
    content = Recoloring(
        checkpoint=str(subject.path),
        epoch=subject.epoch,
        n=len(run.y),
        colors=list(names),
        **dict(_compute_changes(run, seed)),
        by_color=[ColorAccuracy(name=name, accuracy=value) for name, value in zip(names, run.accuracy, strict=True)],
        erm=None if erm is None else _compute_changes(erm, seed),
    )
    positions = _strip_positions(run.y, seed)
    pixels = torch.stack([recolored.pixels(index[positions]) for recolored in recolored_splits], dim=1)
    return content, {"x": pixels, "predicted": run.predicted[positions], "y": run.y[positions]}


def _compute_changes(predictions: RecoloredPredictions, seed: int) -> Changes:
    return Changes(
        flip_rate=mean_interval(predictions.flipped, seed), mean_change=mean_interval(predictions.change, seed)
    )


def _strip_positions(y: Tensor, seed: int) -> Tensor:
    """Return the positions of STRIP_SIZE images, drawn from as many classes as possible and sorted by class."""
    order = permutation(len(y), derive(seed, "strip"))
    # 1 for the first image of each class, 2 for the second, ...
    rank = F.one_hot(y[order]).cumsum(dim=0).gather(1, y[order, None])[:, 0]
    positions = order[rank.argsort(stable=True)][:STRIP_SIZE]
    return positions[y[positions].argsort(stable=True)]


def mean_interval(values: Tensor, seed: int) -> Estimate:
    """Return the mean of values (n,) with its bootstrap percentile interval."""
    random = np.random.default_rng(derive(seed, "bootstrap"))
    numbers = values.double().numpy()
    means = [numbers[random.integers(len(numbers), size=len(numbers))].mean() for _ in range(RESAMPLES)]
    low, high = interval(np.array(means))
    return Estimate(value=float(numbers.mean()), low=low, high=high)
