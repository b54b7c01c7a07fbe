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
    """Return an objective that changes nothing, for its terms to be logged.

    Args:
        terms: As of `minimise`.

    Returns:
        The objective, for a method to yield.

    Example:
        >>> yield report(task=self.loss_of_fit)
    """
    return Objective(torch.zeros(()), (), {name: term.detach() for name, term in terms.items()})


def minimise(loss: Tensor, over: tuple[nn.Module, ...], **terms: Tensor) -> Objective:
    """Return the objective "minimise the loss over these networks".

    Args:
        loss: A scalar.
        over: The networks whose parameters one optimiser step changes.
        terms: Scalars to log, as `train/NAME`; the same names at every step of an epoch.

    Returns:
        The objective, for a method to yield.

    Example:
        >>> yield minimise(task, over=(self.f, self.g), task=task)
    """
    return Objective(loss, over, {name: term.detach() for name, term in terms.items()})


class TrainingBatches(Protocol):
    """The training data, as `Method.prepare` gets them."""

    def __call__(self, order_seed: int | None = None) -> Iterable[Batch]:
        """Iterate over all rows once: in their order, or shuffled and augmented as a training epoch is."""


class Method(nn.Module):
    """A training method over the networks f, g and h.

    A method of your own derives from it, sets `trains` and writes `objectives`. All its state is buffers and
    parameters. Networks of its own are attributes; objectives name them in `over`, and they learn with the settings
    of `optimizer_fg`, or of `optimizer_h` where `trained_with_h` names them.

    Attributes:
        trains: The networks that the method trains; the others are in eval mode and do not change, buffers included.
        fits: Networks that `prepare` fits at once, in closed form or by another solver.
        sees_bias: Whether the method uses the bias; else every bias label that it gets is IGNORE.
        trained_with_h: Networks of its own that learn with the settings of h.
        required_model_settings: Settings of `model` without which the method cannot run.

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
        """Networks of the method itself that learn, by name: its children with parameters that are not frozen."""
        return {name: net for name, net in self.named_children() if any(p.requires_grad for p in net.parameters())}

    @classmethod
    def prepared_on(cls, config: Settings) -> Literal["train", "val"]:
        """Return the rows that `prepare` sees.

        Args:
            config: The settings of the phase.

        Returns:
            "train", or "val" for one half of val, by which then nothing else is chosen.
        """
        return "train"

    @classmethod
    def check_groups(cls, config: Settings, group: Tensor, all_groups: Tensor, spec: DataSpec) -> None:
        """Raise UserError if the method cannot learn from such rows; called before any training.

        Args:
            config: The settings of the phase.
            group: Group of each row that `prepare` sees, (n,) int64; IGNORE where a bias is unknown.
            all_groups: Groups that occur in any split, ascending.
            spec: Counts and names.
        """

    def prepare(self, batches: TrainingBatches, seed: int) -> None:
        """Look at the data before the first step of the phase, and store the result in buffers, or in what it `fits`.

        A resumed run does not prepare again: it has the buffers.

        Args:
            batches: Each call iterates over all rows that `prepared_on` names, in order, or shuffled by a seed; without
                gradients, f, g and h in eval mode.
            seed: Seed of what is drawn here.
        """

    def sampling_weights(self) -> Tensor | None:
        """Return the weights by which an epoch draws its rows.

        Returns:
            One weight for each row of the data set, (num_rows,), not negative: rows are drawn with replacement, in
            proportion to them. None to take each row once.
        """
        return None

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield what to minimise on one batch, in order.

        Args:
            batch: The batch; without bias labels where `sees_bias` is False.
            progress: Share of the phase that is done, in [0, 1).

        Yields:
            Objectives (`minimise`). The trainer takes an optimiser step for each before it asks for the next.
        """
        raise NotImplementedError
