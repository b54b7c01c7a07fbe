"""Leakage: what fresh probes read of each bias from the features of a checkpoint, of ERM, and from the pixels."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lntl.experiment.build import Experiment
from lntl.probing.features import MAX_VALUES, layer_outputs, pooled
from lntl.probing.probes import Halves, Layer, probe_layers, probe_permuted
from lntl.runs.formats import Chance, Leaks, ProbeRow, Reference
from lntl.types import IGNORE, Batch, Networks

log = logging.getLogger("lntl")

_PIXELS = "pixels"  # name of the images among the layers
_AT_ONCE = 4  # layers whose outputs are read in one pass and held: at most 1.3 GB
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

    def features(self, networks: Networks, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the output of each layer of the networks for the images, from one pass."""
        return layer_outputs(networks, (batch.x for batch in self.batches()), layers)

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
    """Return what probes read of each bias, by its name.

    The features of the checkpoint are probed with each seed; what they are compared with (pixels, ERM and permuted
    labels) with the first seed alone.

    Args:
        subject: The checkpoint and the images.
        biases: The labels of each bias on the images, and the seeds that halve them.
        layers: Names of the layers to probe.
    """
    device = subject.experiment.fabric.device
    probes = {name: _Probes() for name in biases}
    for outputs in _outputs(subject, subject.networks, layers):
        log.info("probes of %s", ", ".join(outputs))
        for name, rows in _rows(outputs, biases, device).items():
            of_bias, highest = probes[name], max(rows, key=lambda row: row.mean)
            of_bias.rows += rows
            if of_bias.best is None or highest.mean > of_bias.best[0].mean:
                of_bias.best = highest, outputs[highest.layer]
    once = {name: replace(halves, seeds=halves.seeds[:1]) for name, halves in biases.items()}
    log.info("probes of pixels%s", "" if subject.erm is None else " and of plain training (ERM)")
    pixels, erm = {_PIXELS: subject.pixels()}, subject.erm
    for outputs in [{}] if erm is None else _outputs(subject, erm, layers):
        for name, rows in _rows(pixels | outputs, once, device).items():
            probes[name].pixels += [row for row in rows if row.layer == _PIXELS]
            probes[name].erm += [row for row in rows if row.layer != _PIXELS]
        pixels = {}
    return {name: _leaks(found, biases[name], once[name], device, erm is not None) for name, found in probes.items()}


def _outputs(subject: Subject, networks: Networks, layers: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """Yield the outputs of a few layers at a time: the networks run once for these."""
    for start in range(0, len(layers), _AT_ONCE):
        yield subject.features(networks, layers[start : start + _AT_ONCE])


def _rows(
    outputs: Mapping[str, Tensor], biases: Mapping[str, Halves], device: torch.device
) -> dict[str, list[ProbeRow]]:
    """Return the probes of every layer for each bias, by its name."""
    layers = [Layer(layer, z, halves) for halves in biases.values() for layer, z in outputs.items()]
    rows = iter(probe_layers(layers, device))
    return {name: [row for _ in outputs for row in next(rows)] for name in biases}


def _leaks(found: _Probes, halves: Halves, once: Halves, device: torch.device, erm: bool) -> Leaks:
    assert found.best is not None
    best, z = found.best
    log.info("the %s probe of layer %s on permuted labels", best.probe, best.layer)
    return Leaks(
        chance=Chance(majority=halves.majority, permutation=probe_permuted(best, z, once, device).mean),
        probes=found.rows,
        reference=Reference(pixels=found.pixels, erm=found.erm if erm else None),
        leakage=best.mean,
    )


@dataclass(frozen=True, slots=True)
class HeadCounts:
    """Of each of n images: bias labels that h gets right (n,), and labels by bias and value (n, biases, bins)."""

    hits: Tensor
    labels: Tensor

    def accuracy(self, index: Tensor | slice) -> float:
        """Return h's accuracy over the known labels of the images at `index`."""
        return int(self.hits[index].sum()) / max(1, int(self.labels[index].sum()))

    def chance(self, index: Tensor | slice) -> float:
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
