"""The trainer: an iterable of epochs that knows phases, epochs and steps, but no files and no evaluation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from time import perf_counter
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.hooks import RemovableHandle

from lntl import ranks
from lntl.data.loader import Loader
from lntl.errors import UserError
from lntl.methods.base import Method, Objective
from lntl.seeding import derive
from lntl.training import Optimizer, Phase
from lntl.training.optim import build_optimizer, learning_rate, parameter_groups
from lntl.types import Batch, EpochRecord, LabelCounts, Networks, TrainerState

if TYPE_CHECKING:  # as slow to import as torch
    from lightning_fabric import Fabric
    from lightning_fabric.wrappers import _FabricOptimizer


class NonFiniteLossError(UserError):
    """A loss term became infinite or NaN."""


@dataclass(frozen=True)
class TrainingPhase:
    """A phase to run: its settings, and a function that creates its method for the networks."""

    settings: Phase
    make_method: Callable[[Networks], Method]


@dataclass(frozen=True, slots=True)
class Step:
    """One update of the weights.

    Attributes:
        index: Number of the update within the epoch, from 1.
        total: Updates in the epoch.
        terms: Means of the terms since the last report, and learning rates; None if there is no report
            after this update. A report comes every `log_interval` updates.
    """

    index: int
    total: int
    terms: dict[str, float] | None


class LoggedTerms:
    """The terms that a method logs in an epoch: one row per step, on the device until `take` moves them to the host."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.pending: list[Tensor] = []  # one row (terms,) for each step since the last `take`
        self.sums: Tensor | None = None  # (terms,), sums over earlier steps

    def add(self, terms: dict[str, Tensor], device: torch.device) -> None:
        """Store the terms of a step; raises UserError if their names differ from those of earlier steps."""
        names = tuple(terms)
        if names != self.names and (self.pending or self.sums is not None):
            raise UserError(
                f"the method logs other terms than before in this epoch: {', '.join(names)}, not "
                f"{', '.join(self.names)}; log the same terms at every step. If the code of the method has changed "
                "since the checkpoint, restore the old code until the epoch is over, or train again under another "
                "project.experiment_name"
            )
        self.names = names
        self.pending.append(torch.stack([term.to(device, torch.float32) for term in terms.values()]))

    def take(self) -> Tensor:
        """Return the terms since the last call, (steps, terms), on the host: the only synchronisation of the loop."""
        rows = torch.stack(self.pending).double().cpu()
        self.pending = []
        self.sums = rows.sum(dim=0) if self.sums is None else self.sums + rows.sum(dim=0)
        return rows

    def means(self, steps: int) -> dict[str, float]:
        """Return the mean of each term over the `steps` of the epoch."""
        assert self.sums is not None
        return self.name_values(self.sums / steps)

    def name_values(self, values: Tensor) -> dict[str, float]:
        """Return values (terms,) by name."""
        return dict(zip(self.names, values.tolist(), strict=True))

    def load_state_dict(self, state: TrainerState, device: torch.device) -> None:
        """Continue from a saved state."""
        self.names, self.sums = tuple(state["terms"]), state["sums"]
        self.pending = [row.to(device) for row in state["pending"]]


def _list_trainable(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


class Trainer:
    """Train the networks, phase by phase.

    Iterating yields an EpochRecord for each epoch; iterating over `epoch()` takes the updates of the next epoch one by
    one, after which `record` holds its EpochRecord. Every random choice is a function of (seed, phase, epoch, step), so
    that a `state_dict` taken between any two updates resumes exactly.

    Args:
        fabric: Lightning Fabric: device and precision.
        networks: f, g and h, on the device of `fabric`; trained in place.
        loader: Batches of the training split.
        phases: The phases, in order.
        seed: Seed of the run.
        log_interval: Updates between two reports.
        rebuild: Function that builds the model again, for methods that initialise it again; None if no method does.
        held_out: Batches of the rows of val on which a method may be fitted; None if no method is.
        accumulate: Number of parts of a batch whose gradients a process computes one after the other, if the method
            allows it (`Method.in_parts`).

    With several processes (`lntl.ranks`), each takes a share of every batch; after every step, all have the same state.

    Attributes:
        record: The EpochRecord of the last finished epoch.
        method: The method of the current phase.
        done: Whether every epoch of every phase is over.
        evaluated: The networks to evaluate: the moving average if the phase has one.

    Example:
        >>> for record in trainer:
        ...     print(record.phase, record.epoch, record.metrics["train/task"])
    """

    def __init__(
        self,
        fabric: "Fabric",
        networks: Networks,
        loader: Loader,
        phases: list[TrainingPhase],
        seed: int,
        log_interval: int = 50,
        rebuild: Callable[[], Networks] | None = None,
        held_out: Loader | None = None,
        accumulate: int = 1,
    ) -> None:
        self.held_out, self.accumulate = held_out, accumulate
        self._share: tuple[torch.Size, int] | None = None  # shape of this rank's x, and images of the whole batch
        self._hooks: list[RemovableHandle] = []
        self.fabric, self.networks, self.loader, self.phases = fabric, networks, loader, phases
        self.seed, self.log_interval = seed, log_interval
        wrapped = Networks()
        wrapped.num_features, wrapped.has_given_weights = networks.num_features, networks.has_given_weights
        wrapped.rebuild = rebuild
        wrapped.f, wrapped.g, wrapped.h = (fabric.setup_module(net) for net in (networks.f, networks.g, networks.h))
        self._wrapped = wrapped
        self.record: EpochRecord | None = None
        self._start_phase(phase=0)

    def _start_phase(self, phase: int) -> None:
        """Set up a phase: its method, an optimiser for each trained network, and the moving average of weights."""
        self.phase, self.epoch_index, self.step = phase, 0, 0
        self._seconds = 0.0  # since the epoch began
        self.settings = self.phases[phase].settings
        torch.manual_seed(derive(self.seed, "method", phase))  # for the initial weights of the method's own networks
        self.method = self.phases[phase].make_method(self._wrapped).to(self.fabric.device)
        learners = {name: getattr(self._wrapped, name) for name in self.method.trains} | self.method.own_networks
        self._learners: dict[str, nn.Module] = {name: net for name, net in learners.items() if _list_trainable(net)}
        self._optimizers = {name: self._build_optimizer(name) for name in self._learners}
        self._terms = LoggedTerms()
        self._in_parts = self.method.in_parts(self.settings)
        for hook in self._hooks:
            hook.remove()
        gathered_modules = (
            [self._wrapped.f, *self.method.children()] if ranks.world_size() > 1 and not self._in_parts else []
        )
        self._hooks = [module.register_forward_hook(self._gather_outputs) for module in gathered_modules]
        decay = self.settings.ema
        self._average = (
            AveragedModel(self.networks, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True) if decay else None
        )

    def _build_optimizer(self, name: str) -> "_FabricOptimizer":
        factors = self.networks.lr_factors if name == "f" else {}
        net = (
            self.networks.f if name == "f" else self._learners[name]
        )  # without the wrapper of Fabric, which changes the names of layers
        optimizer = build_optimizer(self._optimizer_settings(name), parameter_groups(net, factors))
        return cast("_FabricOptimizer", self.fabric.setup_optimizers(optimizer))

    def _optimizer_settings(self, name: str) -> Optimizer:
        return self.settings.optimizer_h if name in ("h", *self.method.trained_with_h) else self.settings.optimizer_fg

    @property
    def done(self) -> bool:
        """Whether every epoch of every phase is over."""
        return self.phase == len(self.phases) - 1 and self.epoch_index == self.settings.epochs

    @property
    def total_steps(self) -> int:
        """Updates of the run so far; in every phase, a finished epoch counts as len(loader) updates."""
        epochs = sum(phase.settings.epochs for phase in self.phases[: self.phase]) + self.epoch_index
        return epochs * len(self.loader) + self.step

    @property
    def total_epochs(self) -> int:
        """Epochs of all phases together."""
        return sum(phase.settings.epochs for phase in self.phases)

    @property
    def evaluated(self) -> Networks:
        """The networks to evaluate: the moving average of the weights if the phase has one, else the networks."""
        return self._average.module if self._average is not None else self.networks  # type: ignore[return-value]

    def __iter__(self) -> Iterator[EpochRecord]:
        """Train to the end, and yield the record of each epoch."""
        while not self.done:
            for _ in self.epoch():
                pass
            assert self.record is not None
            yield self.record

    def epoch(self) -> Iterator[Step]:
        """Take the remaining updates of the current epoch, or those of the first epoch of the next phase.

        Yields:
            Each update. After the last one, `record` holds the metrics of the epoch.

        Raises:
            NonFiniteLossError: If a loss term became infinite or NaN.
        """
        if self.epoch_index == self.settings.epochs:
            self._start_phase(self.phase + 1)
        first_step, earlier_seconds, start, total = self.step, self._seconds, perf_counter(), self._epoch_steps
        if self._phase_step == 0:
            self._prepare()
        order, weights = derive(self.seed, "order", self.phase, self.epoch_index), self.method.sampling_weights()
        share = () if ranks.world_size() == 1 else ((ranks.rank(), ranks.world_size()),)
        for batch in islice(self.loader.batches(order, first_step, weights, *share), total - first_step):
            self._update(self._hide_unused_bias(batch))
            self.step, self._seconds = self.step + 1, earlier_seconds + perf_counter() - start
            is_reported = self.step % self.log_interval == 0 or self.step == total
            yield Step(self.step, total, self._report() if is_reported else None)
        seconds = perf_counter() - start
        self._finish_epoch((total - first_step) * self.loader.batch_size / seconds, earlier_seconds + seconds)

    @torch.no_grad()
    def _prepare(self) -> None:
        loader = self.held_out if self.method.prepared_on(self.settings) == "val" else self.loader
        if loader is None:
            raise UserError(f"{self.settings.method} is fitted on val, but there is no val; set rows: train")
        self._wrapped.eval()
        if ranks.is_first():
            self.method.prepare(
                lambda order_seed=None: map(self._hide_unused_bias, loader.batches(order_seed)),
                derive(self.seed, "prepare", self.phase),
            )
        for module in (self.networks, self.method):
            ranks.broadcast_state(module)

    def _hide_unused_bias(self, batch: Batch) -> Batch:
        """Return the batch, without bias labels if the method does not use them."""
        return batch if self.method.sees_bias else batch.without_bias()

    def _update(self, batch: Batch) -> None:
        """Minimise the objectives of one batch; their terms stay on the device until the next report."""
        rank = (ranks.rank(),) if ranks.rank() and self._in_parts else ()  # each share has its own dropout
        torch.manual_seed(derive(self.seed, "step", self.phase, self.epoch_index, self.step, *rank))
        for name, net in self._wrapped.named_children():
            net.train(name in self.method.trains)
        self.method.train()
        for name, optimizer in self._optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self._compute_learning_rate(name) * group.get("factor", 1.0)
        terms: dict[str, Tensor] = {}
        progress = self._phase_step / (self._epoch_steps * self.settings.epochs)
        parts = [(self.method.objectives(part, progress), weight) for part, weight in self._split_batch(batch)]
        while (objective_terms := self._minimise(parts)) is not None:
            terms |= objective_terms
        self._share = None
        if ranks.world_size() > 1:
            terms = self._combine(terms)
        self._terms.add(terms, self.fabric.device)
        if self._average is not None:
            self._average.update_parameters(self.networks)

    def _split_batch(self, batch: Batch) -> list[tuple[Batch, float]]:
        """Return the parts of a batch that this rank computes, each with the weight of its loss in the whole loss."""
        if ranks.world_size() == 1 and (self.accumulate == 1 or not self._in_parts):
            return [(batch, 1.0)]
        n = self.loader.size(self.step)
        if not self._in_parts:
            self._share = batch.x.shape, n
            labels = (batch.y, batch.bias, batch.group, batch.row, batch.bias_features)
            y, bias, group, row, features = (ranks.gather(label, n) for label in labels)
            return [(Batch(batch.x, y, bias, group, row, features), 1 / ranks.world_size())]
        positions, groups, *_ = counts = ranks.total(batch.label_counts()).to(self.fabric.device)
        known = counts[2:] if batch.bias.dim() > 1 else counts[2]
        parts = []
        for index in torch.arange(len(batch.y)).tensor_split(self.accumulate):
            part = batch.part(slice(int(index[0]), int(index[-1]) + 1))
            weight = len(index) / n
            parts.append(
                (replace(part, counts=LabelCounts(known * weight, positions * weight, groups * weight)), weight)
            )
        return parts

    def _gather_outputs(self, module: nn.Module, inputs: tuple[object, ...], output: object) -> object:
        """Gather the outputs of a module for the shares of all ranks; a forward hook."""
        x = inputs[0] if inputs else None
        if self._share is None or not isinstance(x, Tensor) or x.shape != self._share[0]:
            return None
        if isinstance(output, Tensor):
            return ranks.gather(output, self._share[1])
        return [ranks.gather(value, self._share[1]) for value in cast(list[Tensor], output)]

    def _combine(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the terms of the whole batch; set the running statistics of BatchNorm to their mean over ranks."""
        networks = [*(getattr(self._wrapped, name) for name in self.method.trains), *self.method.own_networks.values()]
        norms = [m for net in networks for m in net.modules() if isinstance(m, _NormBase) and m.training]
        buffers = [b for norm in norms for b in (norm.running_mean, norm.running_var) if b is not None]
        values = [torch.as_tensor(term, device=self.fabric.device) for term in terms.values()]
        total = ranks.total(torch.cat([v.detach().flatten().double() for v in (*values, *buffers)]))
        totals = total.split([v.numel() for v in (*values, *buffers)])
        for buffer, buffer_total in zip(buffers, totals[len(values) :], strict=True):
            buffer.copy_(buffer_total / ranks.world_size())
        return {name: value[0] for name, value in zip(terms, totals, strict=False)}

    def _minimise(self, parts: list[tuple[Iterator[Objective], float]]) -> dict[str, Tensor] | None:
        """Minimise the next objective, summed over the parts of the batch; return its terms, or None after the last."""
        terms: dict[str, Tensor] = {}
        optimizers: dict[nn.Module, _FabricOptimizer] = {}
        for number, (objectives, weight) in enumerate(parts):
            if (objective := next(objectives, None)) is None:
                return None
            if objective.over:
                if number == 0:
                    learners = self._learners.items()
                    optimizers = {net: self._optimizers[name] for name, net in learners if net in objective.over}
                    for optimizer in optimizers.values():
                        optimizer.zero_grad()
                loss = objective.loss if weight == 1 else objective.loss * weight
                self.fabric.backward(loss, inputs=[p for net in objective.over for p in _list_trainable(net)])
            for name, term in objective.terms.items():  # after the backward pass, which sets some of them
                weighted = term if weight == 1 else term * weight
                terms[name] = terms[name] + weighted if name in terms else weighted
        ranks.sum_gradients(p for net in optimizers for p in _list_trainable(net))
        for net, optimizer in optimizers.items():
            if (norm := self.settings.clip_grad_norm) is not None:
                self.fabric.clip_gradients(net, optimizer, max_norm=norm, error_if_nonfinite=False)
            optimizer.step()
        return terms

    @property
    def _epoch_steps(self) -> int:
        """Number of steps in an epoch of this phase: one if the method trains nothing."""
        return len(self.loader) if self.method.trains or self.method.own_networks else 1

    @property
    def _phase_step(self) -> int:
        return self.epoch_index * self._epoch_steps + self.step

    def _compute_learning_rate(self, name: str) -> float:
        settings = self._optimizer_settings(name)
        return learning_rate(settings, self._phase_step, self._epoch_steps, self.settings.epochs)

    def _report(self) -> dict[str, float]:
        """Return the mean terms of the steps since the last report, and the learning rates."""
        rows = self._terms.take()
        non_finite = (~rows.isfinite().all(dim=1)).nonzero()
        if len(non_finite):
            self._raise_non_finite(self.step - len(rows) + int(non_finite[0]) + 1, rows[non_finite[0, 0]])
        return self._terms.name_values(rows.mean(dim=0)) | self._collect_learning_rates()

    def _collect_learning_rates(self) -> dict[str, float]:
        """Return the learning rate of the latest update, by network."""
        return {f"lr_{name}": self._optimizers[name].param_groups[0]["lr"] for name in self._optimizers}

    def _raise_non_finite(self, step: int, values: Tensor) -> None:
        terms = ", ".join(f"{name} = {value:g}" for name, value in self._terms.name_values(values).items())
        raise NonFiniteLossError(
            f"the loss is not finite at step {step} of epoch {self.epoch_index + 1} in phase {self.phase + 1} "
            f"({self.settings.method}): {terms}; lower the learning rate or set training.clip_grad_norm"
        )

    def _finish_epoch(self, images_per_second: float, seconds: float) -> None:
        if self._terms.pending:  # only after resuming with another number of processes, if epochs are then shorter
            self._terms.take()
        terms, self._terms = self._terms.means(self._epoch_steps), LoggedTerms()
        self.epoch_index, self.step, self._seconds = self.epoch_index + 1, 0, 0.0
        self.record = EpochRecord(
            phase=self.phase + 1,
            method=self.settings.method,
            epoch=self.epoch_index,
            total_epoch=sum(phase.settings.epochs for phase in self.phases[: self.phase]) + self.epoch_index,
            step=self.total_steps,
            metrics={f"train/{name}": value for name, value in (terms | self._collect_learning_rates()).items()},
            images_per_second=images_per_second,
            seconds=seconds,
        )

    def state_dict(self) -> TrainerState:
        """Return the state on which the rest of the run depends; it can be taken after any update.

        Returns:
            Plain values and tensors, which `torch.load(weights_only=True)` reads.
        """
        return {
            "phase": self.phase,
            "epoch": self.epoch_index,
            "step": self.step,
            "networks": self.networks.state_dict(),
            "method": self.method.state_dict(),
            "optimizers": {name: optimizer.optimizer.state_dict() for name, optimizer in self._optimizers.items()},
            "average": self._average.state_dict() if self._average is not None else None,
            "terms": list(self._terms.names),
            "pending": list(self._terms.pending),
            "sums": self._terms.sums,
            "seconds": self._seconds,
        }

    def load_state_dict(self, state: TrainerState) -> None:
        """Continue from a saved state.

        Args:
            state: A `state_dict` of a trainer with the same phases.
        """
        self._start_phase(state["phase"])
        self.epoch_index, self.step, self._seconds = state["epoch"], state["step"], state.get("seconds", 0.0)
        self.networks.load_state_dict(state["networks"])
        self.method.load_state_dict(state["method"])
        for name, optimizer in self._optimizers.items():
            optimizer.optimizer.load_state_dict(state["optimizers"][name])
        if self._average is not None:
            self._average.load_state_dict(state["average"] or {})
        self._terms.load_state_dict(state, self.fabric.device)
