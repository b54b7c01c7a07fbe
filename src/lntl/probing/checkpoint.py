"""Probe a checkpoint for the bias that is left in it, and write what was found into its run's folder."""

import logging
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lntl import config as configuration
from lntl.data.loader import Loader
from lntl.errors import UserError
from lntl.evaluation import embedding
from lntl.experiment.build import Experiment
from lntl.experiment.checkpoints import load_networks, open_checkpoint
from lntl.experiment.run import run_of
from lntl.methods import load_method
from lntl.probing import probe
from lntl.probing.bias_head import judge
from lntl.probing.features import check_layers, default_layers
from lntl.probing.leakage import Subject, leaks
from lntl.probing.probe import Halves
from lntl.probing.recoloring import Answers, answers, mean_interval
from lntl.runs import checkpoint
from lntl.runs.files import write_atomic, write_json
from lntl.runs.folder import RunFolder
from lntl.seeding import derive, permutation
from lntl.types import DataSpec, Networks, RecolorableSplit

log = logging.getLogger("lntl")

MAX_IMAGES = 10_000  # of the test split that probes see, both halves together: bounds time and memory
STRIP = 8  # images shown under every bias value
_ALL = ""  # the name of all biases together, where there are several
_SEED = 0  # of the images that are looked at and of the bootstrap: the same for every run, so that runs compare


def probe_checkpoint(
    path: Path,
    layers: list[str] | None = None,
    seeds: int = 3,
    device: str | None = None,
    trust: Sequence[str] = (),
) -> dict[str, Any]:
    """Look for the bias in a checkpoint; write probe.json, embedding.npz and, where data allow, recoloring.json, .npz.

    Returns the content of probe.json, with that of recoloring.json (or None) under `recoloring`. Layers are modules of
    f and g by name, or `penultimate`. Nothing is written unless all of it was found. trust: as of `open_checkpoint`.
    """
    began = perf_counter()
    folder = run_of(path)
    subject, group = _subject(path, folder, device, trust)
    spec = subject.experiment.data.spec
    y, bias = group // spec.num_bias_values, group % spec.num_bias_values
    halves = Halves(y, bias, tuple(range(seeds)))
    halves.check(spec.bias_value_names)
    names = tuple(dict.fromkeys(layers or default_layers(subject.networks)))
    check_layers(names, subject.networks, next(subject.batches()).x[:2])
    found = _probe(subject, halves, names)
    log.info("embedding of z")
    some = embedding.chosen(len(y), _SEED)
    xy = embedding.embed(replace(subject, index=subject.index[some]).features(subject.networks, "f"), _SEED)
    recolored = _recolor(subject)
    found |= {"recolorable": recolored is not None, "seconds": round(perf_counter() - began, 1)}
    write_json(folder.probe, found)
    _write_arrays(folder.embedding, xy=xy, y=y[some], bias=bias[some])
    if recolored is not None:
        write_json(folder.recoloring, recolored[0])
        _write_arrays(folder.recoloring_strip, **recolored[1])
    return found | {"recoloring": None if recolored is None else recolored[0]}


def _subject(path: Path, folder: RunFolder, device: str | None, trust: Sequence[str]) -> tuple[Subject, Tensor]:
    """Return what to look into, and the group of each image, int64 on the CPU."""
    experiment, saved = open_checkpoint(path, device, trust)
    warnings: list[str] = []
    erm = _erm(experiment, folder, warnings)
    networks = load_networks(experiment, saved, path)
    group = experiment.data.splits["test"].group.cpu()
    known = (group >= 0).nonzero()[:, 0]
    index = known[permutation(len(known), derive(_SEED, "images"))[:MAX_IMAGES]].sort().values
    return Subject(path, len(saved.records), experiment, networks, erm, index, warnings), group[index]


def _erm(experiment: Experiment, folder: RunFolder, warnings: list[str]) -> Networks | None:
    """Return the networks of the plain training inside the run folder, at its best; None where there was none."""
    if experiment.config.evaluation.erm_epochs == 0:
        return None
    twin = configuration.erm_config(experiment.config, folder.path)
    beside = RunFolder(folder.path / twin.project.experiment_name)
    path = beside.best_or_last
    if not path.exists():
        warnings.append(f"no ERM beside it: {path} is missing")
        return None
    return load_networks(replace(experiment, networks=deepcopy(experiment.networks)), checkpoint.load(path), path)


def _biases(spec: DataSpec, halves: Halves, warnings: list[str]) -> dict[str, Halves]:
    """Return each of several biases for the probes; one that does not vary on these images is left out, and told."""
    biases = {}
    for one in spec.biases:
        of_one = replace(halves, bias=torch.tensor(one.value_of_joint)[halves.bias])
        try:
            of_one.check(one.values)
        except UserError as error:
            warnings.append(f"{one.name}: {error}")
        else:
            biases[one.name] = of_one
    return biases


def _probe(subject: Subject, halves: Halves, layers: tuple[str, ...]) -> dict[str, Any]:
    """Return the content of probe.json, without its seconds."""
    spec = subject.experiment.data.spec
    warnings = [*subject.warnings, *probe.warnings(halves, spec.class_names, spec.bias_value_names)]
    each = leaks(subject, {_ALL: halves, **_biases(spec, halves, warnings)}, layers)
    learn, unseen = halves(halves.seeds[0])
    return {
        "checkpoint": str(subject.path),
        "epoch": subject.epoch,
        "bias": subject.experiment.data.bias_kind,
        "n_train": len(learn),
        "n_test": len(unseen),
        "seeds": list(halves.seeds),
        **_head(subject, halves),
        **each.pop(_ALL),
        **({"per_bias": each} if spec.biases else {}),
        "warnings": warnings,
    }


def _head(subject: Subject, halves: Halves) -> dict[str, float | None]:
    """Return h's accuracy on the unseen halves and its chance; None for both where no phase trained h."""
    phases = subject.experiment.config.training.phases
    if not any("h" in load_method(phase.method).trains for phase in phases):
        return {"h_accuracy": None, "h_chance": None}
    counts = judge(subject.networks, subject.batches(), subject.experiment.data.spec.num_bins)
    unseen = [halves(seed)[1] for seed in halves.seeds]
    return {
        "h_accuracy": fmean(counts.accuracy(index) for index in unseen),
        "h_chance": fmean(counts.chance(index) for index in unseen),
    }


def _recolor(subject: Subject) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Return the content of recoloring.json and of recoloring.npz; None for data that cannot be recoloured."""
    experiment, split = subject.experiment, subject.experiment.data.splits["test"]
    if not isinstance(split, RecolorableSplit):
        return None
    log.info("recolouring")
    names = experiment.data.spec.bias_value_names
    recolored = [split.recolored(value) for value in range(len(names))]
    size, device = subject.batch_size, experiment.fabric.device
    run, erm = (
        None if networks is None else answers(networks, (Loader(each, size, device) for each in recolored))
        for networks in (subject.networks, subject.erm)
    )
    assert run is not None
    content = {
        "checkpoint": str(subject.path),
        "epoch": subject.epoch,
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
