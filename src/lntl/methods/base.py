"""The base class of training methods."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from lntl.plugins import Settings
from lntl.types import Batch, DataSpec, Networks

NetworkName = Literal["f", "g", "h"]


@dataclass(frozen=True, slots=True)
class Objective:
    """One line of a method's algorithm: minimise `loss` over the networks `over`; `terms` are logged."""

    loss: Tensor
    over: tuple[nn.Module, ...]
    terms: dict[str, Tensor]


def report(**terms: Tensor) -> Objective:
    """Return an objective that trains nothing and only logs its terms.

    Args:
        terms: Scalars to log, as in `minimise`.

    Returns:
        The objective, for a method to yield.

    Example:
        >>> yield report(task=self.loss_of_fit)
    """
    return Objective(torch.zeros(()), (), {name: term.detach() for name, term in terms.items()})


def minimise(loss: Tensor, over: tuple[nn.Module, ...], **terms: Tensor) -> Objective:
    """Return an objective: the loss is minimised over the networks `over`.

    Args:
        loss: A scalar.
        over: The networks whose parameters one optimiser step changes.
        terms: Scalars to log as `train/NAME`; every step of an epoch must have the same names.

    Returns:
        The objective, for a method to yield.

    Example:
        >>> yield minimise(task, over=(self.f, self.g), task=task)
    """
    return Objective(loss, over, {name: term.detach() for name, term in terms.items()})


class TrainingBatches(Protocol):
    """The data that `Method.prepare` gets: a function that returns batches."""

    def __call__(self, order_seed: int | None = None) -> Iterable[Batch]:
        """Iterate over all rows once: in order if there is no seed, else shuffled and augmented as in training."""


class Method(nn.Module):
    """A training method over the networks f, g and h.

    To write a method, derive a class from this one, set `trains` and implement `objectives`. Keep all state in buffers
    and parameters. A method may have additional networks as attributes: objectives list them in `over`, and they are
    trained with the settings of `optimizer_fg`, or of `optimizer_h` if they are listed in `trained_with_h`.

    Attributes:
        trains: The networks of f, g and h that the method trains. The others are in eval mode and do not change,
            including their buffers.
        fits: Networks that `prepare` fits in closed form or with another solver, without optimiser steps.
        sees_bias: Whether the method uses the bias; if False, every bias label that it gets is IGNORE.
        mean_over_images: Whether the loss of a batch is the mean of the losses of its parts, weighted by their numbers
            of images (for means over known labels, see `LabelCounts`). If True, with several processes or with
            training.accumulate, `objectives` gets a part of the batch and must not change buffers. False is correct
            for every loss: `objectives` then gets the labels of the whole batch. Each process then applies f and
            the method's own networks only to its share of batch.x. The outputs are gathered, and every process computes
            the rest for the whole batch.
        trained_with_h: Additional networks that are trained with the settings of `optimizer_h`.
        required_model_settings: Settings of `model` that the method needs.

    Example:
        >>> class ERM(Method):
        ...     trains = ("f", "g")
        ...
        ...     def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        ...         task = cross_entropy(self.g(self.f(batch.x)), batch.y)
        ...         yield minimise(task, over=(self.f, self.g), task=task)
    """

    class Config(Settings):
        """Settings of the method in a phase."""

    trains: ClassVar[tuple[NetworkName, ...]]
    fits: ClassVar[tuple[NetworkName, ...]] = ()
    sees_bias: ClassVar[bool] = False
    mean_over_images: ClassVar[bool] = False
    trained_with_h: ClassVar[tuple[str, ...]] = ()
    required_model_settings: ClassVar[Mapping[str, str]] = {}

    def __init__(self, networks: Networks, config: Settings, spec: DataSpec) -> None:
        super().__init__()
        self._networks = (networks,)  # in a tuple: f, g and h belong to the trainer, not to this module's state
        self.config, self.spec = config, spec

    @property
    def networks(self) -> Networks:
        """The networks f, g and h."""
        return self._networks[0]

    @property
    def f(self) -> nn.Module:
        """The feature extractor."""
        return self._networks[0].f

    @property
    def g(self) -> nn.Module:
        """The task head."""
        return self._networks[0].g

    @property
    def h(self) -> nn.Module:
        """The bias head."""
        return self._networks[0].h

    @property
    def own_networks(self) -> dict[str, nn.Module]:
        """Additional networks of the method, by name: its child modules with trainable parameters."""
        return {name: net for name, net in self.named_children() if any(p.requires_grad for p in net.parameters())}

    @classmethod
    def in_parts(cls, config: Settings) -> bool:
        """Return whether a batch may be divided into parts; override it if this depends on a setting.

        The default is `mean_over_images`.

        Args:
            config: The settings of the phase.
        """
        return cls.mean_over_images

    @classmethod
    def prepared_on(cls, config: Settings) -> Literal["train", "val"]:
        """Return the split whose rows `prepare` gets.

        Args:
            config: The settings of the phase.

        Returns:
            "train", or "val" for one half of val. That half is then not used to choose the best checkpoint.
        """
        return "train"

    @classmethod
    def check_groups(cls, config: Settings, group: Tensor, all_groups: Tensor, spec: DataSpec) -> None:
        """Raise UserError if the method cannot learn from rows with these groups; called before the first phase.

        Args:
            config: The settings of the phase.
            group: Group of each row that `prepare` gets, (n,) int64; IGNORE if a bias of the row is unknown.
            all_groups: Groups that occur in any split, ascending.
            spec: Numbers and names of classes and bias values.
        """

    def prepare(self, batches: TrainingBatches, seed: int) -> None:
        """Read the data before the first step of the phase, and store the result in buffers or in the `fits` networks.

        A resumed run does not call it again, because its checkpoint contains the result.

        Args:
            batches: Each call iterates over all rows of the split `prepared_on`, in order or shuffled with a seed.
                Gradients are disabled; f, g and h are in eval mode.
            seed: Seed for all random numbers that this function draws.
        """

    def sampling_weights(self) -> Tensor | None:
        """Return weights for drawing the rows of an epoch.

        Returns:
            One non-negative weight for each row of the data set, (num_rows,): rows are drawn with replacement, with
            probabilities proportional to their weights. None to use each row once.
        """
        return None

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield the objectives to minimise on one batch, in order.

        Args:
            batch: The batch; without bias labels if `sees_bias` is False.
            progress: Share of the phase that is done, in [0, 1).

        Yields:
            Objectives (`minimise`). The trainer takes an optimiser step for each one before it requests the next.
        """
        raise NotImplementedError
