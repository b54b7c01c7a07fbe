"""Leakage: how well fresh probes predict each bias from the features of a checkpoint, those of ERM, and the pixels."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lntl.experiment.build import Experiment
from lntl.probing.features import MAX_VALUES, layer_outputs, pool_maps
from lntl.probing.probes import Halves, Layer, probe_layers, probe_permuted
from lntl.runs.formats import Chance, LeakageResult, ProbeRow, Reference
from lntl.types import IGNORE, Batch, Networks

log = logging.getLogger("lntl")

_PIXELS = "pixels"  # name of the images among the layers
_LAYERS_PER_PASS = 4  # layers whose outputs are stored in one pass over the images: at most 1.3 GB
_MAX_BATCH_SIZE = 250  # images in one forward pass; their maps fit in the CPU cache, which saves 25 % against 1000


@dataclass(frozen=True)
class Subject:
    """A checkpoint to probe, the networks of ERM for comparison, and the positions (n,) of the probed test images."""

    path: Path
    epoch: int
    experiment: Experiment
    networks: Networks
    erm: Networks | None
    index: Tensor
    warnings: list[str]

    def batches(self) -> Iterator[Batch]:
        """Yield the images in batches, in the order of `index`."""
        loader = self.experiment.loader("test")
        for index in self.index.to(loader.device).split(self.batch_size):
            yield loader.split.batch(index)

    @property
    def batch_size(self) -> int:
        """Number of images in one forward pass."""
        return min(self.experiment.config.evaluation.batch_size, _MAX_BATCH_SIZE)

    def features(self, networks: Networks, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return the output of each layer of the networks for the images, from one pass."""
        return layer_outputs(networks, (batch.x for batch in self.batches()), layers)

    def pixels(self) -> Tensor:
        """Return the images on the CPU; large images are averaged over a grid, as feature maps are."""
        return torch.cat([pool_maps(batch.x, MAX_VALUES).cpu() for batch in self.batches()])


@dataclass
class _BiasResults:
    """Results of the probes of one bias, collected pass by pass.

    best: the result of the most accurate probe of the checkpoint, and the features on which that probe was trained.
    """

    rows: list[ProbeRow] = field(default_factory=list)
    pixels: list[ProbeRow] = field(default_factory=list)
    erm: list[ProbeRow] = field(default_factory=list)
    best: tuple[ProbeRow, Tensor] | None = None


def measure_leakage(
    subject: Subject, biases: Mapping[str, Halves], layers: tuple[str, ...]
) -> tuple[dict[str, LeakageResult], Tensor | None]:
    """Return how well probes predict each bias, by the name of the bias, and the output of f if it is a probed layer.

    The features of the checkpoint are probed with each seed. The references (pixels, ERM and permuted labels) are
    probed with the first seed only.

    Args:
        subject: The checkpoint and the images.
        biases: The labels of the images for each bias, and the seeds that split the images into halves.
        layers: Names of the layers to probe.
    """
    device, z = subject.experiment.device, None
    results = {name: _BiasResults() for name in biases}
    for outputs in _compute_outputs(subject, subject.networks, layers):
        z = outputs.get("f", z)
        log.info("probes of %s", ", ".join(outputs))
        for name, rows in _probe_rows(outputs, biases, device).items():
            result, highest = results[name], max(rows, key=lambda row: row.mean)
            result.rows += rows
            if result.best is None or highest.mean > result.best[0].mean:
                result.best = highest, outputs[highest.layer]
    first_seed = {name: replace(halves, seeds=halves.seeds[:1]) for name, halves in biases.items()}
    log.info("probes of pixels%s", "" if subject.erm is None else " and of plain training (ERM)")
    pixels, erm = {_PIXELS: subject.pixels()}, subject.erm
    for outputs in [{}] if erm is None else _compute_outputs(subject, erm, layers):
        for name, rows in _probe_rows(pixels | outputs, first_seed, device).items():
            results[name].pixels += [row for row in rows if row.layer == _PIXELS]
            results[name].erm += [row for row in rows if row.layer != _PIXELS]
        pixels = {}
    leakages = {
        name: _compute_bias_leakage(result, biases[name], first_seed[name], device, erm is not None)
        for name, result in results.items()
    }
    return leakages, z


def _compute_outputs(subject: Subject, networks: Networks, layers: tuple[str, ...]) -> Iterator[dict[str, Tensor]]:
    """Yield the outputs of a few layers at a time, from one pass over the images each time."""
    for start in range(0, len(layers), _LAYERS_PER_PASS):
        yield subject.features(networks, layers[start : start + _LAYERS_PER_PASS])


def _probe_rows(
    outputs: Mapping[str, Tensor], biases: Mapping[str, Halves], device: torch.device
) -> dict[str, list[ProbeRow]]:
    """Return the results of the probes of all layers for each bias, by the name of the bias."""
    layers = [Layer(layer, z, halves) for halves in biases.values() for layer, z in outputs.items()]
    rows = iter(probe_layers(layers, device))
    return {name: [row for _ in outputs for row in next(rows)] for name in biases}


def _compute_bias_leakage(
    result: _BiasResults, halves: Halves, first_seed: Halves, device: torch.device, erm: bool
) -> LeakageResult:
    assert result.best is not None
    best, z = result.best
    log.info("the %s probe of layer %s on permuted labels", best.probe, best.layer)
    return LeakageResult(
        chance=Chance(majority=halves.majority, permutation=probe_permuted(best, z, first_seed, device).mean),
        probes=result.rows,
        reference=Reference(pixels=result.pixels, erm=result.erm if erm else None),
        leakage=best.mean,
    )


@dataclass(frozen=True, slots=True)
class HeadCounts:
    """Counts for each of n images: correct predictions of h (n,), and labels by bias and value (n, biases, bins)."""

    hits: Tensor
    labels: Tensor

    def accuracy(self, index: Tensor | slice) -> float:
        """Return h's accuracy over the known labels of the images at `index`."""
        return int(self.hits[index].sum()) / max(1, int(self.labels[index].sum()))

    def chance(self, index: Tensor | slice) -> float:
        """Return the accuracy of always predicting the most frequent value of each bias (of each color channel)."""
        count = self.labels[index].sum(dim=0)
        return int(count.amax(dim=1).sum()) / max(1, int(count.sum()))


@torch.inference_mode()
def count_head(networks: Networks, batches: Iterable[Batch], num_bins: int, z: Tensor | None = None) -> HeadCounts:
    """Run h over images in batches, on their features `z` if given; leave the networks in eval mode."""
    networks.eval()
    hits, labels, start = list[Tensor](), list[Tensor](), 0
    for batch in batches:
        features = networks.f(batch.x) if z is None else z[start : start + len(batch.y)].to(batch.x.device)
        start += len(batch.y)
        known = batch.bias != IGNORE
        correct = (networks.h(features).argmax(dim=1) == batch.bias) & known
        hits.append(correct.flatten(1).sum(dim=1).cpu() if correct.dim() > 1 else correct.long().cpu())
        biases = batch.bias.shape[1] if batch.bias.dim() > 1 else 1
        bias = torch.where(known, batch.bias, num_bins).reshape(len(known), biases, -1)  # num_bins: unknown
        labels.append(F.one_hot(bias, num_bins + 1).sum(dim=2)[..., :num_bins].cpu())
    return HeadCounts(torch.cat(hits), torch.cat(labels))
