"""What a training method is."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

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


def minimise(loss: Tensor, over: tuple[nn.Module, ...], **terms: Tensor) -> Objective:
    """Return the objective "minimise loss over these networks"; the terms are logged as train/NAME."""
    return Objective(loss, over, {name: term.detach() for name, term in terms.items()})


class Method(nn.Module):
    """A training method over the networks f, g and h. Its own state, if any, is its buffers and parameters.

    Networks of its own are modules set as attributes; objectives name them in `over`, beside f, g and h, and they learn
    with the settings of optimizer_fg, or of optimizer_h where `with_h` names them.
    """

    class Config(Settings):
        """Settings of the method in a phase."""

    trains: ClassVar[tuple[NetworkName, ...]]  # the others are in eval mode and do not change, buffers included
    sees_bias: ClassVar[bool] = False  # a method that does not is handed IGNORE for every bias label
    with_h: ClassVar[tuple[str, ...]] = ()  # networks of its own that belong to h
    needs: ClassVar[dict[str, Any]] = {}  # settings of `model` without which it does not run

    def __init__(self, networks: Networks, config: Settings, spec: DataSpec) -> None:
        super().__init__()
        self._networks = (networks,)  # in a tuple: f, g and h belong to the trainer, not to this module's state
        self.config, self.spec = config, spec

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
    def own(self) -> dict[str, nn.Module]:
        """The networks of its own, by name: the attributes that hold weights."""
        return {name: net for name, net in self.named_children() if list(net.parameters())}

    def prepare(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        """Look at the training data before the phase's first step, and keep what was found in buffers.

        Each call of `batches()` goes through all training data in their order, without gradients and with f, g and h in
        eval mode. A resumed run does not prepare again: it has the buffers.
        """

    def sampling_weights(self) -> Tensor | None:
        """Return weights (num_rows,) to draw an epoch's rows by, with replacement; None: each row once."""
        return None

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield what to minimise on one batch, in order; `progress` in [0, 1) is the share of the phase done."""
        raise NotImplementedError
