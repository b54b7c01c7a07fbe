"""Probe a checkpoint for the bias that is left in it, and make the other parts that a report of its run lacks."""

import logging
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lntl import config as configuration
from lntl.data import load as load_data
from lntl.data.transforms import thumbnails
from lntl.errors import UntrustedError, UserError
from lntl.evaluation.metrics import bias_name
from lntl.evaluation.predict import embed, embedded_images
from lntl.evaluation.saliency import captum_installed
from lntl.experiment.build import Experiment
from lntl.experiment.checkpoints import load_networks, open_checkpoint
from lntl.experiment.evaluate import evaluate_checkpoint
from lntl.experiment.run import run_of
from lntl.methods import load_method
from lntl.probing.features import check_layers, default_layers
from lntl.probing.image_shift import check_images, chosen_shifts, shift_images
from lntl.probing.leakage import Subject, count_head, measure_leakage
from lntl.probing.probes import Halves, split_warnings
from lntl.probing.recoloring import recolor
from lntl.probing.saliency import saliency_outdated, write_saliency
from lntl.runs import checkpoint
from lntl.runs.files import write_atomic, write_json
from lntl.runs.folder import RunFolder
from lntl.runs.formats import ImageShift, Probe, Recoloring
from lntl.seeding import derive, permutation
from lntl.types import DataSpec, ImageSplit, Networks

log = logging.getLogger("lntl")

PER_CLASS, MAX_CLASSES = 10, 100  # example images of a class, and classes that have some
MAX_IMAGES = 10_000  # of the test split that probes see, both halves together: bounds time and memory
_JOINT = ""  # the name of all biases together, where there are several
_SEED = 0  # of the choice of images and of the bootstrap: the same for every run, so that runs compare


@dataclass(frozen=True)
class Probed:
    """What probes found in a checkpoint, and what changing its test images did, None if they were not changed."""

    probe: Probe
    recoloring: Recoloring | None
    image_shift: ImageShift | None


def probe_checkpoint(
    path: Path,
    layers: list[str] | None = None,
    seeds: int = 2,
    device: str | None = None,
    trust: Sequence[str] = (),
    shifts: Sequence[str] = (),
) -> Probed:
    """Measure the bias that is left in a checkpoint, and write it into the folder of its run.

    Writes probe.json and embedding.npz; recoloring.json and recoloring.npz where the data can be recoloured;
    image_shift.json and image_shift.npz where the brightness or the color of the images was changed. Nothing is written
    unless all of it was measured.

    Args:
        path: A checkpoint in RUN/checkpoints/.
        layers: Modules of f and g by name, or "penultimate"; None for z and the layer before the logits.
        seeds: Number of random halvings of the test images.
        device: The device to use instead of the configuration's.
        trust: Modules of the user's that may be imported for it.
        shifts: What to change in the test images: names in image_shift.SHIFTS. By default, the biases that are computed
            from the images.

    Raises:
        UserError: As `open_checkpoint`; or if a layer does not exist, the bias does not vary in the test set, or images
            cannot be changed so.
    """
    began = perf_counter()
    folder = run_of(path)
    return _probe_subject(*_subject(path, folder, device, trust), folder, began, layers, seeds, shifts)


def _probe_subject(
    subject: Subject,
    group: Tensor,
    folder: RunFolder,
    began: float,
    layers: list[str] | None = None,
    seeds: int = 2,
    shifts: Sequence[str] = (),
) -> Probed:
    """Measure a checkpoint that is open and write the results, as `probe_checkpoint`."""
    spec = subject.experiment.data.spec
    directions = chosen_shifts(shifts, subject.experiment.config.data)
    check_images(subject.experiment.data, directions)
    y, bias = group // spec.num_bias_values, group % spec.num_bias_values
    halves = Halves(y, bias, tuple(range(seeds)))
    biases = _biases(spec, halves, subject.warnings)
    names = tuple(dict.fromkeys(layers or default_layers(subject.networks)))
    check_layers(names, subject.networks, next(subject.batches()).x[:2])
    found = _probe(subject, halves, biases, names)
    log.info("embedding of z")
    shown = embedded_images(len(y), _SEED)
    xy = embed(replace(subject, index=subject.index[shown]).features(subject.networks, ["f"])["f"], _SEED)
    recolored, shifted = recolor(subject, _SEED), shift_images(subject, directions)
    found.recolorable, found.seconds = recolored is not None, round(perf_counter() - began, 1)
    write_json(folder.probe, found)
    _write_arrays(folder.embedding, xy=xy, y=y[shown], bias=bias[shown])
    if recolored is not None:
        write_json(folder.recoloring, recolored[0])
        _write_arrays(folder.recoloring_strip, **recolored[1])
    if shifted is not None:
        write_json(folder.image_shift, shifted[0])
        _write_arrays(folder.image_shift_strip, **shifted[1])
    return Probed(found, recolored and recolored[0], shifted and shifted[0])


def _subject(path: Path, folder: RunFolder, device: str | None, trust: Sequence[str]) -> tuple[Subject, Tensor]:
    """Return what to probe, and the group of each image, int64 on the CPU."""
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
    erm = configuration.erm_config(experiment.config, folder.path)
    path = RunFolder(folder.path / erm.project.experiment_name).best_or_last
    if not path.exists():
        warnings.append(f"no ERM beside it: {path.parent} has no checkpoint")
        return None
    return load_networks(replace(experiment, networks=deepcopy(experiment.networks)), checkpoint.load(path), path)


def _biases(spec: DataSpec, halves: Halves, warnings: list[str]) -> dict[str, Halves]:
    """Return the labels to probe by name: of all biases together, named _JOINT, and of each of several.

    One of several that does not vary is left out with a warning, and so are all together where combinations are so many
    that hardly one occurs twice. Raises UserError if nothing is left.
    """
    biases = {}
    for bias in spec.biases:
        labels = replace(halves, bias=bias.labels(halves.bias))
        try:
            labels.check(bias.values)
        except UserError as error:
            warnings.append(f"{bias.name}: {error}")
        else:
            biases[bias.name] = labels
    try:
        halves.check(spec.bias_value_names)
    except UserError:
        if not biases:
            raise
        return biases
    return {_JOINT: halves, **biases}


def _probe(subject: Subject, halves: Halves, biases: dict[str, Halves], layers: tuple[str, ...]) -> Probe:
    """Return the content of probe.json, without its seconds."""
    spec, warnings = subject.experiment.data.spec, subject.warnings
    leaks = measure_leakage(subject, biases, layers)
    if _JOINT in biases:
        warnings = [*warnings, *split_warnings(halves, spec.class_names, spec.bias_value_names)]
        joint = leaks.pop(_JOINT)
    else:
        name = max(leaks, key=lambda name: leaks[name].leakage - leaks[name].chance.majority)
        joint = leaks[name]
        warnings = [
            *warnings,
            f"hardly any combination of the {len(spec.biases)} biases occurs twice in the test set, so the leakage of "
            f"all together is that of {name}, the highest above chance",
        ]
    learn, unseen = halves(halves.seeds[0])
    head_accuracy, head_chance = _head(subject, halves)
    found = Probe(
        checkpoint=str(subject.path),
        epoch=subject.epoch,
        bias=bias_name(subject.experiment.data.bias_kind, spec.biases),
        n_train=len(learn),
        n_test=len(unseen),
        seeds=list(halves.seeds),
        h_accuracy=head_accuracy,
        h_chance=head_chance,
        **dict(joint),
        warnings=warnings,
    )
    if spec.biases:
        found.per_bias = leaks
    return found


def _head(subject: Subject, halves: Halves) -> tuple[float, float] | tuple[None, None]:
    """Return h's accuracy on the first unseen half and its chance; None for both where no phase trained h."""
    phases = subject.experiment.config.training.phases
    if not any("h" in load_method(phase.method).trains for phase in phases):
        return None, None
    unseen = replace(subject, index=subject.index[halves(halves.seeds[0])[1]])
    counts = count_head(subject.networks, unseen.batches(), subject.experiment.data.spec.num_bins)
    return counts.accuracy(slice(None)), counts.chance(slice(None))


def _write_arrays(path: Path, **arrays: Tensor) -> None:
    content: dict[str, Any] = {name: tensor.numpy() for name, tensor in arrays.items()}
    write_atomic(path, lambda file: np.savez_compressed(file, **content))


def complete(folder: RunFolder, device: str | None = None, trust: Sequence[str] = ()) -> list[str]:
    """Make the missing parts of a run's report; return one sentence for each part that could not be made."""
    folder.check_links()
    chosen = folder.best_or_last
    subject = cache(lambda: _subject(chosen, folder, device, trust))  # opened once: the data may be large
    parts: dict[Path, Callable[[], object]] = {
        folder.samples: lambda: write_samples(folder, trust),
        folder.evaluation_of(chosen): lambda: evaluate_checkpoint(chosen, device=device, trust=trust).write(),
        folder.probe: lambda: _probe_subject(*subject(), folder, perf_counter()),
    }
    if captum_installed():
        parts[folder.saliency] = lambda: write_saliency(subject()[0], folder)
    faults = []
    for path, make in parts.items():
        if path.exists() and not (path == folder.saliency and saliency_outdated(folder)):
            continue
        try:
            make()
        except UntrustedError:
            raise
        except UserError as error:
            faults.append(f"{path.name} could not be made: {error}")
    return faults


def write_samples(folder: RunFolder, trust: Sequence[str] = ()) -> None:
    """Write samples.npz: of train and of test the first ten images of each class, uint8 (classes, 10, C, H, W).

    Raises UserError if the data cannot be loaded or have no images.
    """
    config = configuration.read(folder.config, trust=trust)
    data = load_data(config.data.name, config.data)
    arrays: dict[str, Any] = {}
    for name in ("train", "test"):
        split = data.splits[name]
        if not isinstance(split, ImageSplit):
            raise UserError(f"data.name: the splits of {config.data.name} contain no images (ImageSplit) to show")
        arrays[name] = _by_class(split, min(data.spec.num_classes, MAX_CLASSES))
    arrays["class_names"] = np.array(data.spec.class_names[:MAX_CLASSES])
    write_atomic(folder.samples, lambda file: np.savez_compressed(file, **arrays))


def _by_class(split: ImageSplit, num_classes: int) -> NDArray[Any]:
    """Return the first images of each class; what is beyond the last image of a class stays black."""
    like = thumbnails(split.pixels(torch.zeros(1, dtype=torch.int64)))[0]
    pictures = like.new_zeros((num_classes, PER_CLASS, *like.shape))
    for label in range(num_classes):
        rows = torch.nonzero(split.y == label)[:PER_CLASS, 0]
        if len(rows):
            pictures[label, : len(rows)] = thumbnails(split.pixels(rows))
    return pictures.numpy()
