"""The trainer: the order of epochs, independence of evaluation and logging, averages, clipping, diverging losses."""

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lntl.data.colored_mnist import ColoredMNIST
from lntl.data.loader import Loader
from lntl.errors import UserError
from lntl.evaluation.predict import predict
from lntl.methods.base import Method, Objective, minimise
from lntl.training.trainer import NonFiniteLossError, Trainer, TrainingPhase
from lntl.types import IGNORE, Batch, Split

MakeTrainer = Callable[..., Trainer]
LNTL_TERMS = ("task", "mi", "bias", "mu", "h_accuracy", "gradient_ratio")
PHASES = ["erm", "bias_head", {"method": "lntl", "epochs": 2}]


def get_state(trainer: Trainer) -> dict[str, Tensor]:
    return {**trainer.networks.state_dict(), **{f"average.{k}": v for k, v in trainer.evaluated.state_dict().items()}}


def assert_same_state(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


# --- epochs ---


def test_records_come_in_the_order_of_the_phases(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(*PHASES)
    records = list(trainer)
    order = [(r.phase, r.method, r.epoch, r.total_epoch, r.step) for r in records]
    assert order == [(1, "erm", 1, 1, 3), (2, "bias_head", 1, 2, 6), (3, "lntl", 1, 3, 9), (3, "lntl", 2, 4, 12)]
    assert [set(r.metrics) for r in records[:3]] == [
        {"train/task", "train/lr_f", "train/lr_g"},
        {"train/bias", "train/lr_h"},
        {f"train/{name}" for name in (*LNTL_TERMS, "lr_f", "lr_g", "lr_h")},
    ]
    assert all(r.seconds > 0 and r.images_per_second > 0 for r in records)
    assert trainer.done
    assert list(trainer) == []


def test_the_seconds_of_an_epoch_include_those_before_a_stop(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 10))  # ten seconds pass between two readings
    monkeypatch.setattr("lntl.training.trainer.perf_counter", lambda: next(clock))
    trainer, resumed_trainer, older_trainer = (make_trainer("erm") for _ in range(3))
    next(trainer.epoch())
    state = copy.deepcopy(trainer.state_dict())
    resumed_trainer.load_state_dict(state)
    next(clock)  # the time between the stop and the resume does not count
    (record,) = resumed_trainer
    assert record.seconds == 10 + 30  # one reading after each step, and one at the end of the epoch
    assert record.images_per_second == 2 * 32 / 30
    del state["seconds"]  # as in files of older versions
    older_trainer.load_state_dict(state)
    (record,) = older_trainer
    assert record.seconds == 30


def test_steps_count_within_the_epoch_and_report_every_interval(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("erm", "erm", logging={"log_interval_batches": 2})
    for _ in range(2):
        steps = list(trainer.epoch())
        assert [(step.index, step.total) for step in steps] == [(1, 3), (2, 3), (3, 3)]
        assert [step.terms is not None for step in steps] == [False, True, True]
    assert trainer.total_steps == trainer.total_epochs * 3 == 6


def test_a_record_is_the_mean_of_the_terms_of_its_steps(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("erm", logging={"log_interval_batches": 1})
    terms = [step.terms["task"] for step in trainer.epoch() if step.terms]
    assert trainer.record is not None
    assert trainer.record.metrics["train/task"] == pytest.approx(sum(terms) / 3, rel=1e-12)


def test_a_new_phase_starts_with_new_optimisers(make_trainer: MakeTrainer) -> None:
    """The first step of a new Adam optimiser has the size of the learning rate, for every gradient."""
    trainer = make_trainer("erm", "erm", training={"optimizer_fg": {"name": "adam", "lr": 1e-3}})
    list(trainer.epoch())
    initial_state = copy.deepcopy(trainer.networks.g.state_dict())
    next(trainer.epoch())
    changes = [(trainer.networks.g.state_dict()[key] - initial_state[key]).abs() for key in initial_state]
    assert max(float(m.max()) for m in changes) == pytest.approx(1e-3, rel=1e-3)
    assert trainer.phase == 1


def test_each_network_has_the_rate_of_its_own_optimiser(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(
        {"method": "lntl", "optimizer_h": {"lr": 0.5, "schedule": "step", "step_size": 1, "gamma": 0.1}, "epochs": 2},
        training={"optimizer_fg": {"lr": 0.01}},
    )
    rates = [[record.metrics[f"train/lr_{name}"] for name in "fgh"] for record in trainer]
    assert rates == [[0.01, 0.01, 0.5], [0.01, 0.01, pytest.approx(0.05)]]


def test_the_order_of_images_differs_between_epochs_and_seeds(make_trainer: MakeTrainer) -> None:
    def collect_rows(**project: int) -> list[list[int]]:
        trainer, batches = make_trainer({"method": "erm", "epochs": 2}, "erm", project=project), []
        original_batch = trainer.loader.split.batch

        class Spy(Split):
            def __len__(self) -> int:
                return 90

            def to(self, device: torch.device) -> "Spy":
                return self

            def batch(self, index: Tensor) -> Batch:
                batches.append(index.tolist())
                return original_batch(index)

        trainer.loader.split = Spy()  # type: ignore[assignment]
        list(trainer)
        return batches

    rows_of_seed_0 = collect_rows()
    epochs = [rows_of_seed_0[:3], rows_of_seed_0[3:6], rows_of_seed_0[6:]]
    assert all(sorted(chain(*epoch)) == list(range(90)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert collect_rows() == rows_of_seed_0 != collect_rows(seed=1)


# --- independence of evaluation, logging and global state ---


def test_evaluating_between_steps_changes_nothing(make_trainer: MakeTrainer, digits: ColoredMNIST) -> None:
    reference, evaluated_trainer = (make_trainer(*PHASES, training={"ema": 0.9}) for _ in range(2))
    records = list(reference)
    val = Loader(digits.splits["val"], 7, torch.device("cpu"))
    evaluated_records = []
    while not evaluated_trainer.done:
        for _ in evaluated_trainer.epoch():
            predict(evaluated_trainer.evaluated, val, 100)
            predict(evaluated_trainer.networks, val, 100)
            torch.rand(5)
            evaluated_trainer.state_dict()
        evaluated_records.append(evaluated_trainer.record)
    assert_same_state(get_state(reference), get_state(evaluated_trainer))
    assert [r.metrics for r in evaluated_records if r] == [r.metrics for r in records]


@pytest.mark.full
def test_the_log_interval_changes_no_weight_and_no_mean(make_trainer: MakeTrainer) -> None:
    trainers = [make_trainer(*PHASES, logging={"log_interval_batches": interval}) for interval in (1, 2, 50)]
    first_records, *other_records = [list(trainer) for trainer in trainers]
    for trainer, records in zip(trainers[1:], other_records, strict=True):
        assert_same_state(get_state(trainers[0]), get_state(trainer))
        for expected, record in zip(first_records, records, strict=True):
            assert expected.metrics == pytest.approx(record.metrics, rel=1e-12)


def test_the_global_random_state_does_not_change_the_weights(make_trainer: MakeTrainer) -> None:
    first_trainer, second_trainer = make_trainer("lntl"), make_trainer("lntl")
    for seed, trainer in enumerate((first_trainer, second_trainer)):
        torch.manual_seed(seed)
        list(trainer)
    assert_same_state(get_state(first_trainer), get_state(second_trainer))


# --- steps ---


def test_a_step_of_erm_equals_an_explicit_sgd_step(make_trainer: MakeTrainer) -> None:
    sgd = {"name": "sgd", "lr": 0.1, "momentum": 0.0}
    trainer = make_trainer("erm", training={"optimizer_fg": sgd})
    expected_networks, batches = copy.deepcopy(trainer.networks).train(), []
    original_objectives = trainer.method.objectives
    trainer.method.objectives = lambda batch, p: batches.append(batch) or original_objectives(batch, p)  # type: ignore[method-assign]
    next(trainer.epoch())
    loss = cross_entropy(expected_networks.g(expected_networks.f(batches[0].x)), batches[0].y)
    parameters = [*expected_networks.f.parameters(), *expected_networks.g.parameters()]
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.data -= 0.1 * gradient
    for key, value in expected_networks.state_dict().items():
        torch.testing.assert_close(trainer.networks.state_dict()[key], value, msg=lambda m, key=key: f"{key}: {m}")


def test_the_average_of_the_weights_equals_a_slow_loop(make_trainer: MakeTrainer) -> None:
    """The average starts as the weights after the first step of the phase and keeps 80 % at each further step."""
    trainer = make_trainer("erm", {"method": "lntl", "epochs": 2}, training={"ema": 0.8})
    list(trainer.epoch())
    average: dict[str, Tensor] = {}
    while not trainer.done:
        for _ in trainer.epoch():
            for key, value in trainer.networks.state_dict().items():
                if value.is_floating_point():
                    average[key] = 0.8 * average[key] + 0.2 * value if key in average else value.clone()
    for key, value in average.items():
        torch.testing.assert_close(trainer.evaluated.state_dict()[key], value, rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(average[key], trainer.networks.state_dict()[key]) for key in average)


def test_without_an_average_the_weights_themselves_are_evaluated(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("erm")
    assert trainer.evaluated is trainer.networks


@pytest.mark.parametrize("max_norm", [0.01, 1e6])
def test_clipping_bounds_the_gradient_of_each_network(make_trainer: MakeTrainer, max_norm: float) -> None:
    """With plain SGD at a rate of 1 the step of a network is its gradient."""
    sgd = {"name": "sgd", "lr": 1.0, "momentum": 0.0}
    settings = {"optimizer_fg": sgd, "optimizer_h": sgd}

    def compute_steps(**training: Any) -> dict[str, Tensor]:
        trainer = make_trainer("lntl", training=settings | training)
        initial_networks = copy.deepcopy(trainer.networks)
        next(trainer.epoch())
        return {
            name: torch.cat(
                [(p - q).detach().flatten() for p, q in zip(net.parameters(), initial_net.parameters(), strict=True)]
            )
            for (name, net), initial_net in zip(
                trainer.networks.named_children(), initial_networks.children(), strict=True
            )
        }

    unclipped_steps = compute_steps()
    for name, step in compute_steps(clip_grad_norm=max_norm).items():
        assert unclipped_steps[name].norm() > 0.02
        expected = unclipped_steps[name] * min(1.0, max_norm / float(unclipped_steps[name].norm()))
        torch.testing.assert_close(step, expected, rtol=1e-3, atol=1e-6)


# --- losses that are not finite ---


class BreakingSplit(Split):
    """A split whose first `num_finite` batches are finite; all later batches are NaN."""

    def __init__(self, split: Any, num_finite: int) -> None:
        self.split, self.num_finite, self.count = split, num_finite, 0

    def __len__(self) -> int:
        return len(self.split)

    def to(self, device: torch.device) -> "BreakingSplit":
        return self

    def batch(self, index: Tensor) -> Batch:
        self.count += 1
        batch: Batch = self.split.batch(index)
        return batch if self.count <= self.num_finite else replace(batch, x=batch.x * torch.nan)


@pytest.mark.parametrize("interval", [1, 2, 50])
def test_a_loss_that_is_not_finite_is_reported_with_step_phase_and_terms(
    make_trainer: MakeTrainer, digits: ColoredMNIST, interval: int
) -> None:
    split = BreakingSplit(digits.splits["train"], num_finite=7)
    trainer = make_trainer(
        "erm", {"method": "lntl", "epochs": 2}, split=split, logging={"log_interval_batches": interval}
    )
    message = (
        r"^the loss is not finite at step 2 of epoch 2 in phase 2 \(lntl\): task = nan, mi = nan, bias = nan, mu = 0\.1"
        r", h_accuracy = \S+, gradient_ratio = nan; lower the learning rate or set training\.clip_grad_norm$"
    )
    records = []
    with pytest.raises(NonFiniteLossError, match=message):
        records.extend(trainer)
    assert [record.total_epoch for record in (records or [trainer.record]) if record][-1] == 2


def test_a_loss_that_diverges_at_a_high_learning_rate_is_reported(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer({"method": "erm", "epochs": 9}, training={"optimizer_fg": {"name": "sgd", "lr": 1e30}})
    with pytest.raises(NonFiniteLossError, match=r"phase 1 \(erm\): task = (nan|inf)"):
        list(trainer)


class MethodWithChangingTerms(Method):
    """A method that logs one term, and after `steps_before` steps also the terms `extra_terms`."""

    trains = ("f", "g")
    extra_terms: tuple[str, ...] = ()
    steps_before = 0

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        loss = cross_entropy(self.g(self.f(batch.x)), batch.y)
        self.steps_before -= 1
        further_terms = dict.fromkeys(self.extra_terms, loss) if self.steps_before < 0 else {}
        yield minimise(loss, over=(self.f, self.g), task=loss, **further_terms)


def make_method_trainer(method_class: type[Method], make_trainer: MakeTrainer, **sections: Any) -> Trainer:
    trainer = make_trainer({"method": "erm", "epochs": 2}, **sections)
    spec = trainer.method.spec
    trainer.phases = [TrainingPhase(trainer.settings, lambda networks: method_class(networks, trainer.settings, spec))]
    trainer._start_phase(0)
    return trainer


OTHER_TERMS = r"^the method logs other terms than before in this epoch: task, margin, not task; .*checkpoint"


def test_terms_that_change_within_an_epoch_are_reported(make_trainer: MakeTrainer) -> None:
    trainer = make_method_trainer(MethodWithChangingTerms, make_trainer)
    trainer.method.extra_terms, trainer.method.steps_before = ("margin",), 1
    with pytest.raises(UserError, match=OTHER_TERMS):
        list(trainer)
    trainer = make_method_trainer(MethodWithChangingTerms, make_trainer)
    trainer.method.extra_terms, trainer.method.steps_before = ("margin",), 3  # an epoch has three steps
    assert ["train/margin" in record.metrics for record in trainer] == [False, True]


@pytest.mark.parametrize("interval", [1, 50])
def test_a_method_that_logs_other_terms_than_its_checkpoint_is_an_error_within_an_epoch(
    make_trainer: MakeTrainer, interval: int
) -> None:
    trainer, resumed_trainer = (
        make_method_trainer(MethodWithChangingTerms, make_trainer),
        make_method_trainer(MethodWithChangingTerms, make_trainer),
    )
    trainer.log_interval = interval  # with 1, no term waits to be reported; with 50, all terms wait
    next(trainer.epoch())
    resumed_trainer.load_state_dict(copy.deepcopy(trainer.state_dict()))
    resumed_trainer.method.extra_terms = ("margin",)
    with pytest.raises(UserError, match=OTHER_TERMS):
        list(resumed_trainer)


def test_a_method_may_log_other_terms_than_its_checkpoint_in_a_new_epoch(make_trainer: MakeTrainer) -> None:
    trainer, resumed_trainer = (
        make_method_trainer(MethodWithChangingTerms, make_trainer),
        make_method_trainer(MethodWithChangingTerms, make_trainer),
    )
    list(trainer.epoch())
    resumed_trainer.load_state_dict(copy.deepcopy(trainer.state_dict()))
    resumed_trainer.method.extra_terms = ("margin",)
    assert [set(record.metrics) >= {"train/task", "train/margin"} for record in resumed_trainer] == [True]


class PreparedMethod(Method):
    """A method that counts the data in `prepare`, owns a network, and draws only one training row in each epoch."""

    trains = ("f",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.extra = nn.Linear(1, 2)
        self.register_buffer("weights", torch.zeros(self.spec.num_rows))
        self.register_buffer("counts", torch.zeros(3, dtype=torch.int64))  # images, known bias labels, seed

    def prepare(self, batches: Callable[[], Iterable[Batch]], seed: int) -> None:
        rows = [batch.row for batch in batches()]
        num_known = sum(int((batch.bias != IGNORE).sum()) for batch in batches())
        self.counts += torch.tensor([len(torch.cat(rows)), num_known, seed % 1000 + 1])
        self.weights[rows[0][5]] = 1
        assert not torch.is_grad_enabled()
        assert not self.f.training

    def sampling_weights(self) -> Tensor:
        return self.weights

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        assert self.extra.training
        loss = self.extra(self.f(batch.x).mean()[None]).square().sum()
        yield minimise(loss, over=(self.f, self.extra), row=batch.row.double().mean())


def test_a_method_prepares_once_before_its_first_step_and_never_on_resume(make_trainer: MakeTrainer) -> None:
    trainer = make_method_trainer(PreparedMethod, make_trainer)
    assert not trainer.method.counts.any()
    next(trainer.epoch())
    state = copy.deepcopy(trainer.state_dict())
    images, num_known, seed = trainer.method.counts.tolist()
    assert (images, num_known) == (90, 0)  # all training images, but no bias label, because the method uses none
    resumed_trainer = make_method_trainer(PreparedMethod, make_trainer)
    resumed_trainer.load_state_dict(state)
    assert len(list(resumed_trainer)) == len(list(trainer)) == 2
    assert resumed_trainer.method.counts.tolist() == trainer.method.counts.tolist() == [images, num_known, seed]
    other_trainer = make_method_trainer(PreparedMethod, make_trainer, project={"seed": 1})
    next(other_trainer.epoch())
    assert other_trainer.method.counts[2] != seed


def test_sampling_weights_choose_the_rows_of_an_epoch(make_trainer: MakeTrainer) -> None:
    trainer = make_method_trainer(PreparedMethod, make_trainer)
    records = list(trainer)
    (row,) = trainer.method.weights.nonzero()[:, 0].tolist()
    assert [record.metrics["train/row"] for record in records] == [row, row]


def test_the_first_weights_of_a_methods_network_follow_from_seed_and_phase(make_trainer: MakeTrainer) -> None:
    first_weights = []
    for global_seed, seed, phase in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
        trainer = make_method_trainer(PreparedMethod, make_trainer, project={"seed": seed})
        trainer.phases = trainer.phases * 2
        torch.manual_seed(global_seed)
        trainer._start_phase(phase)
        first_weights.append(trainer.method.extra.weight)
    assert torch.equal(first_weights[0], first_weights[1])
    assert not any(torch.equal(first_weights[0], weight) for weight in first_weights[2:])


def test_a_methods_network_is_trained_and_resumed(make_trainer: MakeTrainer) -> None:
    trainer = make_method_trainer(PreparedMethod, make_trainer)
    initial_weight = trainer.method.extra.weight.clone()
    next(trainer.epoch())
    state = copy.deepcopy(trainer.state_dict())
    assert not torch.equal(trainer.method.extra.weight, initial_weight)
    list(trainer)
    resumed_trainer = make_method_trainer(PreparedMethod, make_trainer)
    resumed_trainer.load_state_dict(state)
    list(resumed_trainer)
    assert torch.equal(trainer.method.extra.weight, resumed_trainer.method.extra.weight)
