"""The trainer: an iterable of epochs that knows phases, epochs and steps, and nothing of files or evaluation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _FabricOptimizer
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lntl import config
from lntl.data.loader import Loader
from lntl.errors import UserError
from lntl.methods.base import Method
from lntl.seeding import derive
from lntl.training import optim
from lntl.training.terms import Terms
from lntl.types import Batch, EpochRecord, Networks


class NonFiniteLossError(UserError):
    """A loss term became infinite or NaN."""


@dataclass(frozen=True)
class Plan:
    """A phase to run: its settings, and how to make its method from the networks."""

    settings: config.Phase
    method: Callable[[Networks], Method]


@dataclass(frozen=True, slots=True)
class Step:
    """One update: its place in the epoch; every `log_interval` steps also the mean terms and the learning rates."""

    index: int  # from 1, within the epoch
    total: int
    terms: dict[str, float] | None


def _learning(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


class Trainer:
    """Runs the phases in order.

    `for record in trainer:` yields an EpochRecord per epoch; `for step in trainer.epoch():` takes the steps of the next
    epoch one by one, after which `trainer.record` tells about it. Every random choice is a function of
    (seed, phase, epoch, step), so `state_dict` taken between any two steps resumes exactly.
    """

    def __init__(
        self, fabric: Fabric, networks: Networks, loader: Loader, plans: list[Plan], seed: int, log_interval: int = 50
    ) -> None:
        self.fabric, self.networks, self.loader, self.plans = fabric, networks, loader, plans
        self.seed, self.log_interval = seed, log_interval
        wrapped = Networks()
        wrapped.num_features = networks.num_features
        wrapped.f, wrapped.g, wrapped.h = (fabric.setup_module(net) for net in (networks.f, networks.g, networks.h))
        self._wrapped = wrapped
        self.record: EpochRecord | None = None
        self._enter(phase=0)

    def _enter(self, phase: int) -> None:
        """Set up a phase: its method, an optimiser for each network that learns, and the average of the weights."""
        self.phase, self.epoch_index, self.step = phase, 0, 0
        self._seconds = 0.0  # that the epoch has taken so far
        self.settings = self.plans[phase].settings
        torch.manual_seed(derive(self.seed, "method", phase))  # for the first weights of networks of its own
        self.method = self.plans[phase].method(self._wrapped).to(self.fabric.device)
        learners = {name: getattr(self._wrapped, name) for name in self.method.trains} | self.method.own
        self._learners: dict[str, nn.Module] = {name: net for name, net in learners.items() if _learning(net)}
        self._optimizers = {name: self._optimizer(name) for name in self._learners}
        self._terms = Terms()
        decay = self.settings.ema
        self._average = (
            AveragedModel(self.networks, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True) if decay else None
        )

    def _optimizer(self, name: str) -> _FabricOptimizer:
        factors = self.networks.lr_factors if name == "f" else {}
        net = self.networks.f if name == "f" else self._learners[name]  # without Fabric's wrapper: its layers' names
        optimizer = optim.build(self._optimizer_settings(name), optim.groups(net, factors))
        return cast(_FabricOptimizer, self.fabric.setup_optimizers(optimizer))

    def _optimizer_settings(self, name: str) -> config.Optimizer:
        return self.settings.optimizer_h if name in ("h", *self.method.with_h) else self.settings.optimizer_fg

    @property
    def done(self) -> bool:
        """Whether every epoch of every phase is over."""
        return self.phase == len(self.plans) - 1 and self.epoch_index == self.settings.epochs

    @property
    def total_steps(self) -> int:
        """Updates of the run so far."""
        before = sum(plan.settings.epochs for plan in self.plans[: self.phase]) + self.epoch_index
        return before * len(self.loader) + self.step

    @property
    def total_epochs(self) -> int:
        """Epochs of all phases together."""
        return sum(plan.settings.epochs for plan in self.plans)

    @property
    def evaluated(self) -> Networks:
        """The networks to evaluate: the average of the weights where the phase keeps one, else the weights."""
        return self._average.module if self._average is not None else self.networks  # type: ignore[return-value]

    def __iter__(self) -> Iterator[EpochRecord]:
        """Train to the end; yield the record of each epoch."""
        while not self.done:
            for _ in self.epoch():
                pass
            assert self.record is not None
            yield self.record

    def epoch(self) -> Iterator[Step]:
        """Take the (remaining) steps of the current epoch, entering the next phase where the last one is over."""
        if self.epoch_index == self.settings.epochs:
            self._enter(self.phase + 1)
        start, before, began, total = self.step, self._seconds, perf_counter(), len(self.loader)
        if self._phase_step == 0:
            self._prepare()
        order = derive(self.seed, "order", self.phase, self.epoch_index)
        for batch in self.loader.batches(order, start, self.method.sampling_weights()):
            self._update(self._shown(batch))
            self.step, self._seconds = self.step + 1, before + perf_counter() - began
            reports = self.step % self.log_interval == 0 or self.step == total
            yield Step(self.step, total, self._report() if reports else None)
        seconds = perf_counter() - began
        self._finish_epoch((total - start) * self.loader.batch_size / seconds, before + seconds)

    @torch.no_grad()
    def _prepare(self) -> None:
        self._wrapped.eval()
        self.method.prepare(lambda: map(self._shown, self.loader.batches()), derive(self.seed, "prepare", self.phase))

    def _shown(self, batch: Batch) -> Batch:
        """Return what of a batch the method may see."""
        return batch if self.method.sees_bias else batch.without_bias()

    def _update(self, batch: Batch) -> None:
        """Minimise the objectives of one batch; their terms stay on the device until the next report."""
        torch.manual_seed(derive(self.seed, "step", self.phase, self.epoch_index, self.step))
        for name, net in self._wrapped.named_children():
            net.train(name in self.method.trains)
        self.method.train()
        for name, optimizer in self._optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self._learning_rate(name) * group.get("factor", 1.0)
        terms: dict[str, Tensor] = {}
        progress = self._phase_step / (len(self.loader) * self.settings.epochs)
        for objective in self.method.objectives(batch, progress):
            self._minimise(objective.loss, objective.over)
            terms |= objective.terms
        self._terms.add(terms, self.fabric.device)
        if self._average is not None:
            self._average.update_parameters(self.networks)

    def _minimise(self, loss: Tensor, over: tuple[nn.Module, ...]) -> None:
        optimizers = {net: self._optimizers[name] for name, net in self._learners.items() if net in over}
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        self.fabric.backward(loss, inputs=[p for net in over for p in _learning(net)])
        for net, optimizer in optimizers.items():
            if (norm := self.settings.clip_grad_norm) is not None:
                self.fabric.clip_gradients(net, optimizer, max_norm=norm, error_if_nonfinite=False)
            optimizer.step()

    @property
    def _phase_step(self) -> int:
        return self.epoch_index * len(self.loader) + self.step

    def _learning_rate(self, name: str) -> float:
        settings = self._optimizer_settings(name)
        return optim.learning_rate(settings, self._phase_step, len(self.loader), self.settings.epochs)

    def _report(self) -> dict[str, float]:
        """Return the mean terms of the steps since the last report, and the learning rates."""
        rows = self._terms.take()
        wrong = (~rows.isfinite().all(dim=1)).nonzero()
        if len(wrong):
            self._complain(self.step - len(rows) + int(wrong[0]) + 1, rows[wrong[0, 0]])
        return self._terms.named(rows.mean(dim=0)) | self._rates()

    def _rates(self) -> dict[str, float]:
        """Return the learning rate of the latest update, by network."""
        return {f"lr_{name}": self._optimizers[name].param_groups[0]["lr"] for name in self._optimizers}

    def _complain(self, step: int, values: Tensor) -> None:
        told = ", ".join(f"{name} = {value:g}" for name, value in self._terms.named(values).items())
        raise NonFiniteLossError(
            f"the loss is not finite at step {step} of epoch {self.epoch_index + 1} in phase {self.phase + 1} "
            f"({self.settings.method}): {told}; lower the learning rate or set training.clip_grad_norm"
        )

    def _finish_epoch(self, images_per_second: float, seconds: float) -> None:
        terms, self._terms = self._terms.means(len(self.loader)), Terms()
        self.epoch_index, self.step, self._seconds = self.epoch_index + 1, 0, 0.0
        self.record = EpochRecord(
            phase=self.phase + 1,
            method=self.settings.method,
            epoch=self.epoch_index,
            total_epoch=sum(plan.settings.epochs for plan in self.plans[: self.phase]) + self.epoch_index,
            step=self.total_steps,
            metrics={f"train/{name}": value for name, value in (terms | self._rates()).items()},
            images_per_second=images_per_second,
            seconds=seconds,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on."""
        return {
            "phase": self.phase,
            "epoch": self.epoch_index,
            "step": self.step,
            "networks": self.networks.state_dict(),
            "method": self.method.state_dict(),
            "optimizers": {name: optimizer.optimizer.state_dict() for name, optimizer in self._optimizers.items()},
            "average": self._average.state_dict() if self._average is not None else None,
            **self._terms.state_dict(),
            "seconds": self._seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self._enter(state["phase"])
        self.epoch_index, self.step, self._seconds = state["epoch"], state["step"], state.get("seconds", 0.0)
        self.networks.load_state_dict(state["networks"])
        self.method.load_state_dict(state["method"])
        for name, optimizer in self._optimizers.items():
            optimizer.optimizer.load_state_dict(state["optimizers"][name])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._terms.load_state_dict(state, self.fabric.device)
