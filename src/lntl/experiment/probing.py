"""Probe a checkpoint for the bias that is left in it, and write what was found into its run's folder."""

import logging
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lntl import config as configuration
from lntl import plugins
from lntl.data.loader import Loader
from lntl.evaluation import embedding, probe
from lntl.evaluation.bias_head import judge
from lntl.evaluation.features import MAX_VALUES, check_layers, default_layers, features, pooled
from lntl.evaluation.probe import Halves, Row
from lntl.evaluation.recoloring import Answers, Recolorable, answers, mean_interval
from lntl.experiment.build import Experiment
from lntl.experiment.opened import load_networks, open_checkpoint
from lntl.runs import checkpoint
from lntl.runs.files import write_atomic, write_json
from lntl.runs.folder import RunFolder, of_checkpoint
from lntl.seeding import derive, permutation
from lntl.types import Batch, Networks

log = logging.getLogger("lntl")

MAX_IMAGES = 10_000  # of the test split that probes see, both halves together: bounds time and memory
STRIP = 8  # images shown under every bias value
_BATCH = 250  # images in one forward pass, at most: their maps stay in the cache, a quarter less time than 1000
_SEED = 0  # of the images that are looked at and of the bootstrap: the same for every run, so that runs compare


@dataclass(frozen=True)
class _Subject:
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


def probe_checkpoint(
    path: Path, layers: list[str] | None = None, seeds: int = 3, device: str | None = None
) -> dict[str, Any]:
    """Look for the bias in a checkpoint; write probe.json, embedding.npz and, where data allow, recoloring.json, .npz.

    Returns the content of probe.json, with that of recoloring.json (or None) under `recoloring`. Layers are modules of
    f and g by name, or `penultimate`. Nothing is written unless all of it was found.
    """
    began = perf_counter()
    folder = of_checkpoint(path)
    subject, group = _subject(path, folder, device)
    spec = subject.experiment.data.spec
    y, bias = group // spec.num_biases, group % spec.num_biases
    halves = Halves(y, bias, tuple(range(seeds)))
    halves.check(spec.bias_names)
    names = tuple(dict.fromkeys(layers or default_layers(subject.networks)))
    check_layers(names, subject.networks, next(subject.batches()).x[:2])
    found = _probe(subject, halves, names)
    log.info("embedding of z")
    some = embedding.chosen(len(y), _SEED)
    xy = embedding.embed(replace(subject, index=subject.index[some]).features(subject.networks, "f"), _SEED)
    recolored = _recolor(subject)
    found["seconds"] = round(perf_counter() - began, 1)
    write_json(folder.probe, found)
    _write_arrays(folder.embedding, xy=xy, y=y[some], bias=bias[some])
    if recolored is not None:
        write_json(folder.recoloring, recolored[0])
        _write_arrays(folder.recoloring_strip, **recolored[1])
    return found | {"recoloring": None if recolored is None else recolored[0]}


def _subject(path: Path, folder: RunFolder, device: str | None) -> tuple[_Subject, Tensor]:
    """Return what to look into, and the group of each image, int64 on the CPU."""
    experiment, saved = open_checkpoint(path, device)
    warnings: list[str] = []
    erm = _erm(experiment, folder, warnings)
    networks = load_networks(experiment, saved, path)
    group = experiment.data.splits["test"].group.cpu()
    known = (group >= 0).nonzero()[:, 0]
    index = known[permutation(len(known), derive(_SEED, "images"))[:MAX_IMAGES]].sort().values
    return _Subject(path, len(saved.records), experiment, networks, erm, index, warnings), group[index]


def _erm(experiment: Experiment, folder: RunFolder, warnings: list[str]) -> Networks | None:
    """Return the networks of the plain training inside the run folder, as it ended; None where there was none."""
    if experiment.config.evaluation.erm_epochs == 0:
        return None
    twin = configuration.erm_twin(experiment.config, folder.path)
    path = RunFolder(folder.path / twin.project.experiment_name).last
    if not path.exists():
        warnings.append(f"no ERM beside it: {path} is missing")
        return None
    return load_networks(replace(experiment, networks=deepcopy(experiment.networks)), checkpoint.load(path), path)


def _probe(subject: _Subject, halves: Halves, layers: tuple[str, ...]) -> dict[str, Any]:
    """Return the content of probe.json, without its seconds."""
    device, spec = subject.experiment.fabric.device, subject.experiment.data.spec
    rows, permuted = _leaks(subject, halves, layers)
    log.info("probes of pixels")
    pixels = probe.read("pixels", subject.pixels(), halves, device)
    erm = None
    if subject.erm is not None:
        log.info("probes of plain training (ERM)")
        found = (probe.read(layer, subject.features(subject.erm, layer), halves, device) for layer in layers)
        erm = [_told(row) for each in found for row in each]
    learn, unseen = halves(halves.seeds[0])
    return {
        "checkpoint": str(subject.path),
        "epoch": subject.epoch,
        "bias": getattr(subject.experiment.data, "bias_kind", "bias value"),
        "n_train": len(learn),
        "n_test": len(unseen),
        "seeds": list(halves.seeds),
        "chance": {"majority": halves.majority, "permutation": permuted.mean},
        **_head(subject, halves),
        "probes": [_told(row) for row in rows],
        "reference": {"pixels": [_told(row) for row in pixels], "erm": erm},
        "leakage": max(row.mean for row in rows),
        "warnings": [*subject.warnings, *probe.warnings(halves, spec.class_names, spec.bias_names)],
    }


def _leaks(subject: _Subject, halves: Halves, layers: tuple[str, ...]) -> tuple[list[Row], Row]:
    """Return all probes of the layers, and the one that reads most when it learns from permuted labels."""
    device = subject.experiment.fabric.device
    rows: list[Row] = []
    best, best_z = None, torch.zeros(0)
    for layer in layers:
        log.info("probes of layer %s", layer)
        z = subject.features(subject.networks, layer)
        rows += probe.read(layer, z, halves, device)
        if (highest := max(rows, key=lambda row: row.mean)) is not best:
            best, best_z = highest, z
    assert best is not None
    log.info("the %s probe of layer %s on permuted labels", best.probe, best.layer)
    return rows, probe.permuted(best, best_z, halves, device)


def _told(row: Row) -> dict[str, Any]:
    return {"layer": row.layer, "probe": row.probe, "mean": row.mean, "std": row.std, "values": list(row.values)}


def _head(subject: _Subject, halves: Halves) -> dict[str, float | None]:
    """Return h's accuracy on the unseen halves and its chance; None for both where no phase trained h."""
    phases = subject.experiment.config.training.phases
    if not any("h" in plugins.load("lntl.methods", phase.method).trains for phase in phases):
        return {"h_accuracy": None, "h_chance": None}
    counts = judge(subject.networks, subject.batches(), subject.experiment.data.spec.num_bins)
    unseen = [halves(seed)[1] for seed in halves.seeds]
    return {
        "h_accuracy": fmean(counts.accuracy(index) for index in unseen),
        "h_chance": fmean(counts.chance(index) for index in unseen),
    }


def _recolor(subject: _Subject) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Return the content of recoloring.json and of recoloring.npz; None for data that cannot be recoloured."""
    experiment, split = subject.experiment, subject.experiment.data.splits["test"]
    if not isinstance(split, Recolorable):
        return None
    log.info("recolouring")
    names = experiment.data.spec.bias_names
    recolored: list[Any] = [split.recolored(value) for value in range(len(names))]
    size, device = subject.batch_size, experiment.fabric.device
    run, erm = (
        None if networks is None else answers(networks, (Loader(each, size, device) for each in recolored))
        for networks in (subject.networks, subject.erm)
    )
    assert run is not None
    content = {
        "checkpoint": str(subject.path),
        "n": len(run.y),
        "colors": list(names),
        **_changes(run),
        "by_color": [{"name": name, "accuracy": value} for name, value in zip(names, run.accuracy, strict=True)],
        "erm": None if erm is None else _changes(erm),
    }
    some = _some(run.y)
    shown = torch.stack([each.pixels(some) for each in recolored], dim=1)
    return content, {"x": shown, "predicted": run.predicted[some], "y": run.y[some]}


def _some(y: Tensor) -> Tensor:
    """Return the places of STRIP images, drawn by the seed from as many classes as can be, sorted by class."""
    order = permutation(len(y), derive(_SEED, "strip"))
    turn = F.one_hot(y[order]).cumsum(dim=0).gather(1, y[order, None])[:, 0]  # the how-manieth of its class
    some = order[turn.argsort(stable=True)][:STRIP]
    return some[y[some].argsort(stable=True)]


def _changes(found: Answers) -> dict[str, dict[str, float]]:
    return {
        name: asdict(mean_interval(values, _SEED))
        for name, values in (("flip_rate", found.flipped), ("mean_change", found.change))
    }


def _write_arrays(path: Path, **arrays: Tensor) -> None:
    content: dict[str, Any] = {name: tensor.numpy() for name, tensor in arrays.items()}
    write_atomic(path, lambda file: np.savez_compressed(file, **content))
