"""Measure the bias that is left in a checkpoint, and make the missing parts of the report of its run."""

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
from lntl.evaluation.predict import draw_embedded_images, embed
from lntl.evaluation.saliency import captum_installed
from lntl.experiment.build import Experiment
from lntl.experiment.checkpoints import load_networks, open_checkpoint
from lntl.experiment.evaluate import evaluate_checkpoint
from lntl.experiment.run import folder_of_checkpoint
from lntl.probing.features import check_layers, default_layers
from lntl.probing.image_shift import check_images, select_directions, shift_images
from lntl.probing.leakage import Subject, count_head, measure_leakage
from lntl.probing.probes import Halves, split_warnings
from lntl.probing.recoloring import recolor
from lntl.probing.saliency import is_saliency_outdated, write_saliency
from lntl.runs import checkpoint
from lntl.runs.files import write_atomic, write_json
from lntl.runs.folder import RunFolder
from lntl.runs.formats import ImageShift, Probe, Recoloring
from lntl.seeding import derive, permutation
from lntl.types import DataSpec, ImageSplit, Networks

log = logging.getLogger("lntl")

IMAGES_PER_CLASS, MAX_CLASSES = 10, 100  # example images of each class, and classes that have example images
MAX_IMAGES = 10_000  # test images for probes, in both halves together; limits time and memory
MAX_EMBEDDED_IMAGES = 500  # points of the embedding; t-SNE of 1,000 takes twice as long
_JOINT = ""  # name of the combination of all biases, if there are several
_SEED = 0  # seed of the choice of images and of the bootstrap; the same for all runs, so that runs can be compared


@dataclass(frozen=True)
class ProbeResults:
    """Results of the probes, of recoloring and of shifted images; None for what was not measured."""

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
) -> ProbeResults:
    """Measure the bias that is left in a checkpoint, and write it into the folder of its run.

    Writes probe.json and embedding.npz; also recoloring.json and recoloring.npz if the data can be recolored, and
    image_shift.json and image_shift.npz if the brightness or the color of the images was changed. All files are
    written at the end, or none if a measurement fails.

    Args:
        path: A checkpoint in RUN/checkpoints/.
        layers: Modules of f and g by name, or "penultimate"; None for z and the layer before the logits.
        seeds: Number of random halvings of the test images.
        device: The device to use instead of that in the configuration.
        trust: User modules that may be imported.
        shifts: What to change in the test images: names in image_shift.SHIFTS. By default, the biases that are computed
            from the images.

    Raises:
        UserError: For the reasons of `open_checkpoint`; or if a layer does not exist, the bias does not vary in the
            test set, or the images cannot be changed in the ways of `shifts`.
    """
    start = perf_counter()
    folder = folder_of_checkpoint(path)
    return _probe_subject(*_open_subject(path, folder, device, trust), folder, start, layers, seeds, shifts)


def _probe_subject(
    subject: Subject,
    group: Tensor,
    folder: RunFolder,
    start: float,
    layers: list[str] | None = None,
    seeds: int = 2,
    shifts: Sequence[str] = (),
) -> ProbeResults:
    """Measure an open checkpoint and write the results, as in `probe_checkpoint`."""
    spec = subject.experiment.data.spec
    directions = select_directions(shifts, subject.experiment.config.data)
    check_images(subject.experiment.data, directions)
    y, bias = group // spec.num_bias_values, group % spec.num_bias_values
    halves = Halves(y, bias, tuple(range(seeds)))
    biases = _collect_labels(spec, halves, subject.warnings)
    names = tuple(dict.fromkeys(layers or default_layers(subject.networks)))
    check_layers(names, subject.networks, next(subject.batches()).x[:2])
    probe, z = _measure(subject, halves, biases, names)
    log.info("embedding of z")
    sample = draw_embedded_images(len(y), _SEED, MAX_EMBEDDED_IMAGES)
    if z is None:
        xy = embed(replace(subject, index=subject.index[sample]).features(subject.networks, ["f"])["f"], _SEED)
    else:
        xy = embed(z[sample], _SEED)
    recoloring, image_shift = recolor(subject, _SEED), shift_images(subject, directions)
    probe.recolorable, probe.seconds = recoloring is not None, round(perf_counter() - start, 1)
    write_json(folder.probe, probe)
    _write_arrays(folder.embedding, xy=xy, y=y[sample], bias=bias[sample])
    if recoloring is not None:
        write_json(folder.recoloring, recoloring[0])
        _write_arrays(folder.recoloring_strip, **recoloring[1])
    if image_shift is not None:
        write_json(folder.image_shift, image_shift[0])
        _write_arrays(folder.image_shift_strip, **image_shift[1])
    return ProbeResults(probe, recoloring and recoloring[0], image_shift and image_shift[0])


def _open_subject(path: Path, folder: RunFolder, device: str | None, trust: Sequence[str]) -> tuple[Subject, Tensor]:
    """Open a checkpoint to probe; also return the group of each image, int64 on the CPU."""
    experiment, saved = open_checkpoint(path, device, trust)
    warnings: list[str] = []
    erm = _load_erm(experiment, folder, warnings)
    networks = load_networks(experiment, saved, path)
    group = experiment.data.splits["test"].group.cpu()
    known = (group >= 0).nonzero()[:, 0]
    index = known[permutation(len(known), derive(_SEED, "images"))[:MAX_IMAGES]].sort().values
    return Subject(path, len(saved.records), experiment, networks, erm, index, warnings), group[index]


def _load_erm(experiment: Experiment, folder: RunFolder, warnings: list[str]) -> Networks | None:
    """Load the best checkpoint of plain training (ERM) in the run folder; return None if ERM was not trained."""
    if experiment.config.evaluation.erm_epochs == 0:
        return None
    erm = configuration.erm_config(experiment.config, folder.path)
    path = RunFolder(folder.path / erm.project.experiment_name).best_or_last
    if not path.exists():
        warnings.append(f"no comparison with ERM: {path.parent} has no checkpoint")
        return None
    return load_networks(replace(experiment, networks=deepcopy(experiment.networks)), checkpoint.load(path), path)


def _collect_labels(spec: DataSpec, halves: Halves, warnings: list[str]) -> dict[str, Halves]:
    """Return the labels that probes predict, by name: those of each bias, and of all biases combined as _JOINT.

    A bias that does not vary is left out with a warning. The combination is left out if hardly any of its values occurs
    twice. Raises UserError if no labels are left.
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


def _measure(
    subject: Subject, halves: Halves, biases: dict[str, Halves], layers: tuple[str, ...]
) -> tuple[Probe, Tensor | None]:
    """Return the content of probe.json, without `seconds`, and the features z if they were probed."""
    spec, warnings = subject.experiment.data.spec, subject.warnings
    leakages, z = measure_leakage(subject, biases, layers)
    if _JOINT in biases:
        warnings = [*warnings, *split_warnings(halves, spec.class_names, spec.bias_value_names)]
        joint = leakages.pop(_JOINT)
    else:
        name = max(leakages, key=lambda name: leakages[name].leakage - leakages[name].chance.majority)
        joint = leakages[name]
        warnings = [
            *warnings,
            f"hardly any combination of the {len(spec.biases)} biases occurs twice in the test set, so the leakage of "
            f"all biases together is that of {name}, the highest above chance",
        ]
    train, held_out = halves(halves.seeds[0])
    head_accuracy, head_chance = _score_head(subject, halves, z)
    probe = Probe(
        checkpoint=str(subject.path),
        epoch=subject.epoch,
        bias=bias_name(subject.experiment.data.bias_kind, spec.biases),
        n_train=len(train),
        n_test=len(held_out),
        seeds=list(halves.seeds),
        h_accuracy=head_accuracy,
        h_chance=head_chance,
        **dict(joint),
        warnings=warnings,
    )
    if spec.biases:
        probe.per_bias = leakages
    return probe, z


def _score_head(subject: Subject, halves: Halves, z: Tensor | None) -> tuple[float, float] | tuple[None, None]:
    """Return h's accuracy on the first held-out half and chance accuracy there; None for both if h was not trained.

    The features z of all images are used if they have the shape that h expects, not that of a coarser grid.
    """
    if not subject.experiment.h_is_trained(subject.epoch):
        return None, None
    index = halves(halves.seeds[0])[1]
    held_out = replace(subject, index=subject.index[index])
    if z is not None:
        with torch.inference_mode():
            shape = subject.networks.eval().f(next(held_out.batches()).x[:1]).shape[1:]
        z = z[index] if z.shape[1:] == shape else None
    counts = count_head(subject.networks, held_out.batches(), subject.experiment.data.spec.num_bins, z)
    return counts.accuracy(slice(None)), counts.chance(slice(None))


def _write_arrays(path: Path, **arrays: Tensor) -> None:
    content: dict[str, Any] = {name: tensor.numpy() for name, tensor in arrays.items()}
    write_atomic(path, lambda file: np.savez_compressed(file, **content))


def complete(folder: RunFolder, device: str | None = None, trust: Sequence[str] = ()) -> list[str]:
    """Make the missing parts of the report of a run; return one sentence for each part that could not be made."""
    folder.check_links()
    checkpoint_path = folder.best_or_last
    # cached, because the data may be large
    open_subject = cache(lambda: _open_subject(checkpoint_path, folder, device, trust))
    parts: dict[Path, Callable[[], object]] = {
        folder.samples: lambda: write_samples(folder, trust),
        folder.evaluation_of(checkpoint_path): lambda: evaluate_checkpoint(
            checkpoint_path, device=device, trust=trust
        ).write(),
        folder.probe: lambda: _probe_subject(*open_subject(), folder, perf_counter()),
    }
    if captum_installed():
        parts[folder.saliency] = lambda: write_saliency(open_subject()[0], folder)
    messages = []
    for path, make in parts.items():
        if path.exists() and not (path == folder.saliency and is_saliency_outdated(folder)):
            continue
        try:
            make()
        except UntrustedError:
            raise
        except UserError as error:
            messages.append(f"{path.name} could not be made: {error}")
    return messages


def write_samples(folder: RunFolder, trust: Sequence[str] = ()) -> None:
    """Write samples.npz: the first ten images of each class of train and of test, uint8 (classes, 10, C, H, W).

    Raises UserError if the data cannot be loaded or have no images.
    """
    config = configuration.read(folder.config, trust=trust)
    data = load_data(config.data.name, config.data)
    arrays: dict[str, Any] = {}
    for name in ("train", "test"):
        split = data.splits[name]
        if not isinstance(split, ImageSplit):
            raise UserError(f"data.name: the splits of {config.data.name} contain no images (ImageSplit) to show")
        arrays[name] = _select_first_images(split, min(data.spec.num_classes, MAX_CLASSES))
    arrays["class_names"] = np.array(data.spec.class_names[:MAX_CLASSES])
    write_atomic(folder.samples, lambda file: np.savez_compressed(file, **arrays))


def _select_first_images(split: ImageSplit, num_classes: int) -> NDArray[Any]:
    """Return the first images of each class; missing images are black."""
    image = thumbnails(split.pixels(torch.zeros(1, dtype=torch.int64)))[0]
    images = image.new_zeros((num_classes, IMAGES_PER_CLASS, *image.shape))
    for label in range(num_classes):
        rows = torch.nonzero(split.y == label)[:IMAGES_PER_CLASS, 0]
        if len(rows):
            images[label, : len(rows)] = thumbnails(split.pixels(rows))
    return images.numpy()
