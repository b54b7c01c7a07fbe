"""Build what a configuration describes: data, networks and trainer."""

import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, partial
from itertools import accumulate
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from lntl import plugins, ranks
from lntl.config import Config, Phase, Training
from lntl.data import load as load_data
from lntl.data.loader import Loader
from lntl.errors import UserError
from lntl.evaluation.predict import Predictions, predict
from lntl.experiment import pretrained
from lntl.methods import load_method
from lntl.models import append_eraser, load_model
from lntl.runs.checkpoint import NotFiniteError
from lntl.seeding import derive, permutation
from lntl.training.trainer import Trainer, TrainingPhase
from lntl.types import IGNORE, Dataset, Networks, PartOfSplit, Split

if TYPE_CHECKING:  # as slow to import as torch, and `lntl report` seldom needs it
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Experiment:
    """The parts of a run that a configuration describes, ready to train.

    Args:
        config: The configuration.
        device: The device of the networks.
        data: The data set, with its splits.
        networks: f, g and h.
        make_trainer: Function that makes `trainer`.

    Attributes:
        trainer: The trainer, at its first step. If the weights of a checkpoint will be loaded, it is made when it is
            first used: only training needs Lightning Fabric, which is slow to import.
    """

    config: Config
    device: torch.device
    data: Dataset
    networks: Networks
    make_trainer: Callable[[], Trainer]

    @cached_property
    def trainer(self) -> Trainer:
        """The trainer, at its first step."""
        return self.make_trainer()

    def loader(self, split: str) -> Loader:
        """Return a split in evaluation batches.

        Args:
            split: "train", "val" or "test".

        Returns:
            A loader of its examples, in order and without augmentation. If a phase is fitted on one half of val, val is
            the other half.
        """
        return Loader(_make_splits(self.config, self.data)[split], self.config.evaluation.batch_size, self.device)

    def h_is_trained(self, epochs: float) -> bool:
        """Return whether one of the first epochs of the run trains h."""
        phases = self.config.training.phases
        first_epochs = accumulate((phase.epochs for phase in phases), initial=1)
        return any(
            "h" in load_method(phase.method).trains and first <= epochs
            for phase, first in zip(phases, first_epochs, strict=False)
        )

    def predict(self, networks: Networks, split: str, epochs: float = math.inf) -> Predictions:
        """Run networks on a split.

        Args:
            networks: f, g and h, on `device`.
            split: "train", "val" or "test".
            epochs: Number of epochs of this run for which the networks were trained; all, if not given.

        Returns:
            For each example its labels, its task logits, and how many of its bias labels h predicts correctly, on the
            CPU.

        Raises:
            NotFiniteError: If logits are infinite or NaN.
        """
        spec = self.data.spec
        loader, h_is_trained = self.loader(split), self.h_is_trained(epochs)
        predictions = predict(networks, loader, spec.num_groups, spec.aligned, self._groups, h_is_trained)
        if not bool(predictions.probabilities.isfinite().all()):
            raise NotFiniteError(
                f"the networks' outputs on {split} are not finite: training diverged; lower the learning rate or set "
                "training.clip_grad_norm"
            )
        return predictions

    @property
    def val_note(self) -> str:
        """Source of val, and the method that is fitted on one half of it, if any."""
        methods = [phase.method for phase in self.config.training.phases if _fitting_split(phase) == "val"]
        half = f"; {methods[0]} is fitted on one half of it, and val means the other half" if methods else ""
        return f"{self.data.val_note}{half}"

    def count_groups(self, split: str) -> tuple[int, int]:
        """Return the number of groups (class, bias value) with images in a split, and in any split."""
        groups = self.loader(split).split.group.cpu().unique()
        return int((groups != IGNORE).sum()), len(self._groups)

    def labels_of_bias(self, index: int, split: str) -> tuple[Tensor, Tensor]:
        """Return the labels of one of several biases on a split, (n,), and its groups that occur in any split.

        An image may have this label although another of its biases is unknown.
        """
        num_values = len(self.data.spec.biases[index].values)
        groups = [
            (y * num_values + labels[:, index])[labels[:, index] != IGNORE] for y, labels in self._labels.values()
        ]
        return self._labels[split][1][:, index], torch.cat(groups).unique()

    @cached_property
    def _labels(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Classes (n,) and bias labels of the images of each split."""
        splits = _make_splits(self.config, self.data)
        return {name: (part.y.cpu(), part.bias_labels(torch.arange(len(part))).cpu()) for name, part in splits.items()}

    @cached_property
    def _groups(self) -> Tensor:
        return _all_groups(self.data)


HELD_OUT = "held_out"  # the half of val on which a phase is fitted


def _all_groups(data: Dataset) -> Tensor:
    """Return the groups that occur in any split, ascending."""
    groups: Tensor = torch.cat([split.group.cpu() for split in data.splits.values()]).unique()
    return groups[groups != IGNORE]


def _make_splits(config: Config, data: Dataset) -> dict[str, Split]:
    """Return the splits; if a phase is fitted on val, one half of val is HELD_OUT and the other half is val."""
    splits = dict(data.splits)
    if "val" in splits and any(_fitting_split(phase) == "val" for phase in config.training.phases):
        val, group = splits["val"], splits["val"].group.cpu()
        order = permutation(len(val), derive(config.project.seed, "halves of val"))
        by_group = order[group[order].argsort(stable=True)]
        sizes = group[by_group].unique_consecutive(return_counts=True)[1]
        rank = torch.cat([torch.arange(size) for size in sizes.tolist()])  # position of each row within its group
        held_out = rank % 2 == 0
        splits[HELD_OUT] = PartOfSplit(val, by_group[held_out].sort().values)
        splits["val"] = PartOfSplit(val, by_group[~held_out].sort().values)
    return splits


def _fitting_split(phase: Phase) -> str:
    return load_method(phase.method).prepared_on(phase)


def build(config: Config, trained: bool = False, data: Dataset | None = None) -> Experiment:
    """Return the experiment of a configuration, ready to train.

    Args:
        config: The configuration.
        trained: Whether the weights of a checkpoint will be loaded, so that pretrained weights are not needed.
        data: A data set to use instead of the configured one.

    Returns:
        The experiment; its `trainer` is at its first step.

    Raises:
        UserError: If the device, the data set or the pretrained weights are unavailable, or if a method needs bias
            labels and no training example has one.
    """
    training = config.training
    fabric = None
    if ranks.world_size() > 1:
        fabric = rank_fabric(training)
        fabric.launch()
    device = find_device(training.device) if fabric is None else fabric.device
    if data is None:
        data = load_data(config.data.name, config.data)
    splits = _make_splits(config, data)
    _check_methods(config, data, splits)
    torch.manual_seed(derive(config.project.seed, "weights"))
    spec, model = data.spec, config.model

    def make_networks(trained: bool = False) -> Networks:
        networks = load_model(model.name)(spec, model)
        if not trained:
            pretrained.load_pretrained_weights(networks, model, spec)
        if model.eraser == "leace":
            append_eraser(networks, spec)
        return networks

    networks = make_networks(trained)
    if ranks.world_size() > 1 and device.type == "cuda":  # untested on CUDA
        networks.f, networks.g, networks.h = map(
            nn.SyncBatchNorm.convert_sync_batchnorm, (networks.f, networks.g, networks.h)
        )
    networks.to(device).to(memory_format=torch.channels_last)
    make_trainer = partial(_make_trainer, config, fabric, device, data, splits, networks, make_networks)
    experiment = Experiment(config, device, data, networks, make_trainer)
    if not trained:
        experiment.trainer  # noqa: B018  (made now, so that its errors are raised here)
    return experiment


def _make_trainer(
    config: Config,
    fabric: "Fabric | None",
    device: torch.device,
    data: Dataset,
    splits: Mapping[str, Split],
    networks: Networks,
    make_networks: Callable[[], Networks],
) -> Trainer:
    """Return the trainer at its first step; without `fabric`, make that of a single process."""
    training, spec = config.training, data.spec
    num_parts = ranks.world_size() * training.accumulate
    return Trainer(
        fabric or make_fabric(training.device, training.precision),
        networks,
        Loader(data.splits["train"], training.batch_size, device, num_parts),
        [TrainingPhase(p, partial(load_method(p.method), config=p, spec=spec)) for p in training.phases],
        config.project.seed,
        config.logging.log_interval_batches,
        make_networks,
        Loader(splits[HELD_OUT], config.evaluation.batch_size, device) if HELD_OUT in splits else None,
        training.accumulate,
    )


def _check_methods(config: Config, data: Dataset, splits: Mapping[str, Split]) -> None:
    """Raise UserError if a method cannot run with the configuration and the data.

    Reasons: the method needs bias labels that no example has, cannot be fitted on its rows, or has a loss that is not a
    mean over images although batches are divided into parts.
    """
    for index, phase in enumerate(config.training.phases):
        method, key = load_method(phase.method), f"training.phases.{index}.method"
        if config.training.accumulate > 1 and not method.in_parts(phase):
            raise UserError(
                f"training.accumulate: with these settings the loss of {phase.method} (phase {index + 1}) is not a "
                "mean over images, so a batch cannot be divided into parts; set accumulate to 1"
            )
        name = {"train": "train", "val": HELD_OUT}[method.prepared_on(phase)]
        if name not in splits:
            raise UserError(f"{key}: {phase.method} is fitted on val, but there is no val; set rows: train")
        if not method.sees_bias:
            continue
        if not _has_bias(splits[name]):
            raise UserError(
                f"{key}: {phase.method} needs bias labels, and no {'training' if name == 'train' else 'val'} example "
                f"has one; set data.bias, or use a method without them: {', '.join(methods_without_bias())}"
            )
        try:
            method.check_groups(phase, splits[name].group.cpu(), _all_groups(data), data.spec)
        except UserError as error:
            raise UserError(f"{key}: {error}") from error


def _has_bias(split: Split) -> bool:
    labelled = (split.group != IGNORE).any() or (split.bias_labels(torch.arange(len(split))) != IGNORE).any()
    return bool(labelled)


def methods_without_bias() -> list[str]:
    """Return the names of the methods that need no bias labels."""
    return [name for name in plugins.names("lntl.methods") if not load_method(name).sees_bias]


def find_device(name: str) -> torch.device:
    """Return the device for a device name of a configuration; raises UserError if it is unavailable."""
    kind, _, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdecimal())):
        raise UserError(f"training.device: unknown device {name!r}; use auto, cpu, cuda, cuda:N or mps")
    available = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if kind in available and int(number or 0) >= available[kind]:
        raise UserError(f"training.device: {name} is not available here (found {available[kind]}); use cpu or auto")
    if kind == "auto":  # in the order of Fabric
        kind = next((kind for kind in ("mps", "cuda") if available[kind]), "cpu")
    return torch.device(kind, int(number or 0)) if kind == "cuda" else torch.device(kind)


def make_fabric(name: str, precision: Literal["32-true", "bf16-mixed"] = "32-true") -> "Fabric":
    """Return Lightning Fabric for a device name of a configuration; raises UserError if the device is unavailable."""
    device = find_device(name)
    from lightning_fabric import Fabric

    return Fabric(
        accelerator=device.type, devices=1 if device.type == "cpu" else [device.index or 0], precision=precision
    )


MEETING_SECONDS = float(os.environ.get("LNTL_MEETING_SECONDS", "300"))  # longest wait of a rank for the other ranks


def rank_fabric(training: Training) -> "Fabric":
    """Return Lightning Fabric for one rank of several; raises UserError if its device is unavailable."""
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy

    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)  # after the import, which sets it to INFO

    class Ranks(DDPStrategy):
        """One process per device, without a wrapper around networks: the trainer itself sums the gradients."""

        def setup_module(self, module: nn.Module) -> nn.Module:  # type: ignore[override]
            """Return the module as it is."""
            return module

    check_devices(training.device, training.devices)
    has_device = torch.accelerator.is_available() if training.device == "auto" else training.device != "cpu"
    backend = "cpu:gloo,cuda:nccl" if has_device else "gloo"
    strategy = Ranks(process_group_backend=backend, timeout=timedelta(seconds=MEETING_SECONDS))
    return Fabric(
        accelerator=training.device,
        strategy=strategy,
        devices=training.devices,
        num_nodes=training.num_nodes,
        precision=training.precision,
    )


def check_devices(device: str, devices: int) -> None:
    """Raise UserError if this machine has fewer devices; on CPU, if it has fewer cores than processes."""
    gpus, cores = torch.cuda.device_count(), os.cpu_count() or 1
    kind = ("cuda" if gpus else "cpu") if device == "auto" else device
    available = {"cuda": gpus, "mps": int(torch.backends.mps.is_available()), "cpu": cores}.get(kind, devices)
    if devices > available:
        unit = "cores, and each process needs one" if kind == "cpu" else "devices"
        raise UserError(
            f"training.devices: {devices} on {kind}, but this machine has only {available} {unit}; lower the number"
        )
