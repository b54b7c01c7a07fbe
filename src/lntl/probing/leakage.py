"""What fresh probes read of each bias from a checkpoint's features, from plain training's, and from the pixels."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lntl.experiment.build import Experiment
from lntl.probing import probe
from lntl.probing.features import MAX_VALUES, features, pooled
from lntl.probing.probe import Halves, Row
from lntl.types import Batch, Networks

log = logging.getLogger("lntl")

_BATCH = 250  # images in one forward pass, at most: their maps stay in the cache, a quarter less time than 1000


@dataclass(frozen=True)
class Subject:
    """A checkpoint to look into, with the images of the test split whose bias is known, and ERM beside it."""

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
        """Return what a layer of the networks says of the images."""
        return features(networks, (batch.x for batch in self.batches()), layer)

    def pixels(self) -> Tensor:
        """Return the images themselves, on the CPU; large ones averaged over a grid, as maps are."""
        return torch.cat([pooled(batch.x, MAX_VALUES).cpu() for batch in self.batches()])


@dataclass
class _Found:
    """The probes of one bias so far; best: the one that reads most from the networks, and what it reads it from."""

    rows: list[Row] = field(default_factory=list)
    pixels: list[Row] = field(default_factory=list)
    erm: list[Row] = field(default_factory=list)
    best: tuple[Row, Tensor] | None = None


def leaks(subject: Subject, biases: Mapping[str, Halves], layers: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return of each bias the keys chance, probes, reference and leakage of probe.json; each layer is computed once."""
    device = subject.experiment.fabric.device
    found = {name: _Found() for name in biases}
    for layer in layers:
        log.info("probes of layer %s", layer)
        z = subject.features(subject.networks, layer)
        for name, halves in biases.items():
            new, one = probe.read(layer, z, halves, device), found[name]
            highest = max(new, key=lambda row: row.mean)
            one.rows += new
            if one.best is None or highest.mean > one.best[0].mean:
                one.best = highest, z
    log.info("probes of pixels")
    pixels = subject.pixels()
    for name, halves in biases.items():
        found[name].pixels = probe.read("pixels", pixels, halves, device)
    if subject.erm is not None:
        log.info("probes of plain training (ERM)")
        for layer in layers:
            z = subject.features(subject.erm, layer)
            for name, halves in biases.items():
                found[name].erm += probe.read(layer, z, halves, device)
    return {name: _told(one, biases[name], device, subject.erm is not None) for name, one in found.items()}


def _told(found: _Found, halves: Halves, device: torch.device, erm: bool) -> dict[str, Any]:
    assert found.best is not None
    best, z = found.best
    log.info("the %s probe of layer %s on permuted labels", best.probe, best.layer)
    return {
        "chance": {"majority": halves.majority, "permutation": probe.permuted(best, z, halves, device).mean},
        "probes": _rows(found.rows),
        "reference": {"pixels": _rows(found.pixels), "erm": _rows(found.erm) if erm else None},
        "leakage": best.mean,
    }


def _rows(rows: list[Row]) -> list[dict[str, Any]]:
    return [
        {"layer": row.layer, "probe": row.probe, "mean": row.mean, "std": row.std, "values": list(row.values)}
        for row in rows
    ]
