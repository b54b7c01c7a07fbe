"""Leakage: what fresh probes read of each bias from the features of a checkpoint, of ERM, and from the pixels."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lntl.experiment.build import Experiment
from lntl.probing.features import MAX_VALUES, features, pooled
from lntl.probing.probes import Halves, probe_layer, probe_permuted
from lntl.runs.formats import Chance, Leaks, ProbeRow, Reference
from lntl.types import IGNORE, Batch, Networks

log = logging.getLogger("lntl")

_BATCH = 250  # images in one forward pass, at most: their maps stay in the cache, a quarter less time than 1000


@dataclass(frozen=True)
class Subject:
    """A checkpoint to probe, ERM beside it, and the positions (n,) of the test images that are probed."""

    path: Path
    epoch: int
    experiment: Experiment
    networks: Networks
    erm: Networks | None
    index: Tensor
    warnings: list[str]

    def batches(self) -> Iterator[Batch]:
        """Yield the images in batches, in their order."""
        loader = self.experiment.loader("test")
        for index in self.index.to(loader.device).split(self.batch_size):
            yield loader.split.batch(index)

    @property
    def batch_size(self) -> int:
        """Images in one forward pass."""
        return min(self.experiment.config.evaluation.batch_size, _BATCH)

    def features(self, networks: Networks, layer: str) -> Tensor:
        """Return the output of a layer of the networks for the images."""
        return features(networks, (batch.x for batch in self.batches()), layer)

    def pixels(self) -> Tensor:
        """Return the images themselves, on the CPU; large ones are averaged over a grid, as maps are."""
        return torch.cat([pooled(batch.x, MAX_VALUES).cpu() for batch in self.batches()])


@dataclass
class _Probes:
    """The probes of one bias so far; best: the one that reads most from the networks, and the features it reads."""

    rows: list[ProbeRow] = field(default_factory=list)
    pixels: list[ProbeRow] = field(default_factory=list)
    erm: list[ProbeRow] = field(default_factory=list)
    best: tuple[ProbeRow, Tensor] | None = None


def measure_leakage(subject: Subject, biases: Mapping[str, Halves], layers: tuple[str, ...]) -> dict[str, Leaks]:
    """Return what probes read of each bias, by its name; each layer is computed once.

    Args:
        subject: The checkpoint and the images.
        biases: The labels of each bias on the images, and the seeds that halve them.
        layers: Names of the layers to probe.
    """
    device = subject.experiment.fabric.device
    probes = {name: _Probes() for name in biases}
    for layer in layers:
        log.info("probes of layer %s", layer)
        z = subject.features(subject.networks, layer)
        for name, halves in biases.items():
            rows, of_bias = probe_layer(layer, z, halves, device), probes[name]
            highest = max(rows, key=lambda row: row.mean)
            of_bias.rows += rows
            if of_bias.best is None or highest.mean > of_bias.best[0].mean:
                of_bias.best = highest, z
    log.info("probes of pixels")
    pixels = subject.pixels()
    for name, halves in biases.items():
        probes[name].pixels = probe_layer("pixels", pixels, halves, device)
    if subject.erm is not None:
        log.info("probes of plain training (ERM)")
        for layer in layers:
            z = subject.features(subject.erm, layer)
            for name, halves in biases.items():
                probes[name].erm += probe_layer(layer, z, halves, device)
    return {name: _leaks(found, biases[name], device, subject.erm is not None) for name, found in probes.items()}


def _leaks(found: _Probes, halves: Halves, device: torch.device, erm: bool) -> Leaks:
    assert found.best is not None
    best, z = found.best
    log.info("the %s probe of layer %s on permuted labels", best.probe, best.layer)
    return Leaks(
        chance=Chance(majority=halves.majority, permutation=probe_permuted(best, z, halves, device).mean),
        probes=found.rows,
        reference=Reference(pixels=found.pixels, erm=found.erm if erm else None),
        leakage=best.mean,
    )


@dataclass(frozen=True, slots=True)
class HeadCounts:
    """Of each of n images: bias labels that h gets right (n,), and labels by bias and value (n, biases, bins)."""

    hits: Tensor
    labels: Tensor

    def accuracy(self, index: Tensor) -> float:
        """Return h's accuracy over the known labels of the images at `index`."""
        return int(self.hits[index].sum()) / max(1, int(self.labels[index].sum()))

    def chance(self, index: Tensor) -> float:
        """Return what the most frequent value of each bias (each colour channel) scores on the images at `index`."""
        count = self.labels[index].sum(dim=0)
        return int(count.amax(dim=1).sum()) / max(1, int(count.sum()))


@torch.inference_mode()
def count_head(networks: Networks, batches: Iterable[Batch], num_bins: int) -> HeadCounts:
    """Run h over images in batches; leave the networks in eval mode."""
    networks.eval()
    hits, labels = [], []
    for batch in batches:
        known = batch.bias != IGNORE
        right = (networks.h(networks.f(batch.x)).argmax(dim=1) == batch.bias) & known
        hits.append(right.flatten(1).sum(dim=1).cpu() if right.dim() > 1 else right.long().cpu())
        biases = batch.bias.shape[1] if batch.bias.dim() > 1 else 1
        bias = torch.where(known, batch.bias, num_bins).reshape(len(known), biases, -1)  # one value more: unknown
        labels.append(F.one_hot(bias, num_bins + 1).sum(dim=2)[..., :num_bins].cpu())
    return HeadCounts(torch.cat(hits), torch.cat(labels))
