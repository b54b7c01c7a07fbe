"""Properties of all methods: a new method is tested here without a change of this file.

A method is tested as its defaults make it, and once for each other value of its settings that name a choice.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from io import BytesIO
from itertools import pairwise
from typing import Any, Literal, get_args, get_origin

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lntl import plugins
from lntl.data.colored_mnist import ColoredMNIST
from lntl.methods import load_method
from lntl.methods.base import Method
from lntl.training.trainer import Trainer
from lntl.types import IGNORE, Batch, EpochRecord, Networks, PartOfSplit, Split

METHODS = plugins.names("lntl.methods")
MakeTrainer = Callable[..., Trainer]
Phase = dict[str, Any]


def variants() -> Iterator[Phase]:
    """Yield a phase for each method and each value of its settings that are a choice."""
    for method in METHODS:
        yield {"method": method}
        for key, field in load_method(method).Config.model_fields.items():
            if get_origin(field.annotation) is Literal:
                yield from (
                    {"method": method, key: value} for value in get_args(field.annotation) if value != field.default
                )


MORE = [
    {"method": "lntl", "max_gradient_ratio": 0.05},
    {"method": "lntl", "h_steps": 3},
    {"method": "lntl", "h_smoothing": 0.1},
]


def each_phase(fast: Callable[[Phase], bool]) -> pytest.MarkDecorator:
    """Parametrise a test over all methods and variants; the fast lane runs those for which `fast` is true."""
    return pytest.mark.parametrize(
        "phase",
        [
            pytest.param(phase, id="-".join(map(str, phase.values())), marks=[] if fast(phase) else [pytest.mark.full])
            for phase in (*variants(), *MORE)
        ],
    )


each_variant = each_phase(fast=lambda phase: len(phase) == 1)
# Plain training, LNTL, a method that restarts f and g, one with its own networks, and a repair.
each_resumed = each_phase(fast=lambda phase: set(phase.values()) <= {"erm", "lntl", "jtt", "lff", "leace"})
each_method = pytest.mark.parametrize("phase", [pytest.param({"method": method}, id=method) for method in METHODS])


def first(split: Split) -> Split:
    """Return 24 examples of a split: the first of each class, and the first of all."""
    of_class = [int((split.y == label).nonzero()[0]) for label in split.y.unique()]
    others = [index for index in range(len(split)) if index not in of_class]
    return PartOfSplit(split, torch.tensor(sorted(of_class + others[: 24 - len(of_class)])))


@pytest.fixture
def make_trainer(make_trainer: MakeTrainer, digits: ColoredMNIST, request: pytest.FixtureRequest) -> MakeTrainer:
    """The function of conftest, on three batches of eight, with the settings of `model` that the method needs."""
    tested = request.getfixturevalue("phase") if "phase" in request.fixturenames else {"method": "erm"}
    model, train = load_method(tested["method"]).required_model_settings, first(digits.splits["train"])

    def make(*phases: str | Phase, split: Split = train, training: Phase | None = None, **sections: Any) -> Trainer:
        training = {"batch_size": 8} | (training or {})
        return make_trainer(*phases, split=split, model=model, training=training, **sections)

    return make


def snapshot(trainer: Trainer) -> Any:
    """Return the trainer's state as a checkpoint contains it, except for the seconds that it took."""
    file = BytesIO()
    torch.save(trainer.state_dict() | {"seconds": 0.0}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, dict | list | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {path: leaf for key, value in items for path, leaf in flat(value, f"{prefix}.{key}").items()}
    return {prefix: tree}


def assert_equal(left: Any, right: Any) -> None:
    """Assert that two states are the same, tensors bit for bit."""
    left, right = flat(left), flat(right)
    assert left.keys() == right.keys()
    for key, value in left.items():
        same = torch.equal(value, right[key]) if isinstance(value, Tensor) else value == right[key]
        assert same, key


def record_facts(record: EpochRecord) -> tuple[Any, ...]:
    """Return the fields of a record except times."""
    return record.phase, record.method, record.epoch, record.total_epoch, record.step, record.metrics


def method_of(trainer: Trainer) -> Method:
    return trainer.method


# --- what it trains ---


@each_variant
def test_an_epoch_changes_the_networks_that_the_method_trains_and_no_other(
    make_trainer: MakeTrainer, phase: Phase
) -> None:
    trainer = make_trainer(phase)
    before = copy.deepcopy(trainer.networks.state_dict())
    (record,) = trainer
    after = trainer.networks.state_dict()
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    method = trainer.method
    assert changed == {*method.trains, *method.fits}  # parameters and buffers: state_dict holds both
    assert record.metrics
    assert all(torch.tensor(value).isfinite() for value in record.metrics.values())


def gradients(method: Method, batch: Batch) -> dict[str, Tensor]:
    """Return the flat gradient of each network, the method's included, summed over its objectives on a batch."""
    networks = {name: getattr(method, name).train() for name in ("f", "g", "h")} | method.own_networks
    total = {name: torch.zeros(sum(p.numel() for p in net.parameters())) for name, net in networks.items()}
    for objective in method.objectives(batch, 0.5):
        moved = {name: [*net.parameters()] for name, net in networks.items() if any(net is o for o in objective.over)}
        if not moved:  # it only logs
            continue
        found = iter(torch.autograd.grad(objective.loss, [p for each in moved.values() for p in each]))
        for name, parameters in moved.items():
            total[name] += torch.cat([next(found).flatten() for _ in parameters])
    return total


@each_variant
def test_a_method_trains_differently_from_erm(make_trainer: MakeTrainer, phase: Phase, batch: Batch) -> None:
    """Each method differs from ERM in the gradients of a batch, at equal weights, or in how often it draws a row."""
    trainer, erm = make_trainer(phase), make_trainer("erm")
    trainer._prepare()
    own, trains, drawn = gradients(trainer.method, batch), trainer.method.trains, trainer.method.sampling_weights()
    erm.networks.load_state_dict(trainer.networks.state_dict())
    plain = gradients(erm.method, batch)
    still = {"f", "g", "h"} - set(trains)
    assert all(own[name].any() != (name in still) for name in own)
    if phase["method"] != "erm" and trains:
        differs = any((own[name] - plain[name]).norm() > 1e-4 * own[name].norm() for name in trains)
        assert differs or (drawn is not None and len(drawn[trainer.loader.split.row].unique()) > 1)


@each_variant
def test_the_objectives_train_the_networks_in_trains(make_trainer: MakeTrainer, phase: Phase, batch: Batch) -> None:
    method = method_of(make_trainer(phase))
    moved = [net for objective in method.objectives(batch, 0.5) for net in objective.over]
    assert {name for name in ("f", "g", "h") if any(net is getattr(method, name) for net in moved)} == set(
        method.trains
    )


@each_variant
def test_an_epoch_runs_in_mixed_precision(make_trainer: MakeTrainer, phase: Phase) -> None:
    trainer = make_trainer(phase, precision="bf16-mixed", training={"ema": 0.9, "clip_grad_norm": 1.0})
    (record,) = trainer
    assert all(torch.tensor(value).isfinite() for value in record.metrics.values())
    assert all(parameter.dtype == torch.float32 for parameter in trainer.networks.parameters())


# --- what it sees ---


class Scrambled(Split):
    """A split whose labels of bias, group and colour are random."""

    def __init__(self, split: Any) -> None:
        self.split = split
        self.y, self.group, self.row = split.y, split.group, split.row

    def to(self, device: torch.device) -> "Scrambled":
        return Scrambled(self.split.to(device))

    def batch(self, index: Tensor) -> Batch:
        batch = self.split.batch(index)
        random = torch.Generator().manual_seed(int(index[0]))
        return replace(
            batch,
            bias=torch.where(batch.bias == IGNORE, IGNORE, torch.randint(0, 8, batch.bias.shape, generator=random)),
            group=batch.y * 10 + torch.randint(0, 10, batch.y.shape, generator=random),
            bias_features=torch.rand(batch.bias_features.shape, generator=random),
        )


@each_variant
def test_only_a_method_that_sees_the_bias_depends_on_it(
    make_trainer: MakeTrainer, phase: Phase, digits: ColoredMNIST
) -> None:
    true, scrambled = make_trainer(phase), make_trainer(phase, split=Scrambled(first(digits.splits["train"])))
    for trainer in (true, scrambled):
        list(trainer)
    states = [trainer.networks.state_dict() for trainer in (true, scrambled)]
    same = all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert same == (not true.method.sees_bias)


@each_method
def test_a_method_without_sees_bias_gets_no_bias_labels(
    make_trainer: MakeTrainer, phase: Phase, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[Batch] = []
    trainer = make_trainer(phase)
    objectives = trainer.method.objectives
    monkeypatch.setattr(trainer.method, "objectives", lambda batch, p: batches.append(batch) or objectives(batch, p))
    next(trainer.epoch())
    batch = batches[0]
    labelled = bool((batch.bias != IGNORE).any() or (batch.group != IGNORE).any() or batch.bias_features.any())
    assert labelled == trainer.method.sees_bias


# --- its state ---


@each_method
def test_the_state_of_a_method_round_trips(make_trainer: MakeTrainer, phase: Phase) -> None:
    trainer = make_trainer(phase, training={"ema": 0.9})
    list(trainer)
    saved = snapshot(trainer)
    again = make_trainer(phase, training={"ema": 0.9}, project={"seed": 1})
    again.load_state_dict(saved)
    assert_equal(snapshot(again), saved)
    assert again.done


@each_resumed
def test_resume_is_exact_in_the_middle_of_an_epoch_and_across_a_border_of_phases(
    make_trainer: MakeTrainer, phase: Phase
) -> None:
    """Three steps an epoch: stopped within the first phase, on the border, and in both epochs of the second.

    A method that trains nothing has one step an epoch. Each time another trainer resumes from the saved state.
    """
    make = partial(make_trainer, "erm", phase | {"epochs": 2}, training={"ema": 0.9})
    stops = (1, 3, 4, 7, 9) if make_trainer(phase).method.fits else (1, 3, 4, 8, 9)
    records, states = train_until(make(), *stops)
    resumed: list[EpochRecord] = []
    for start, stop in pairwise((0, *stops)):
        trainer = make()
        if start:
            trainer.load_state_dict(states[start])
        more, found = train_until(trainer, stop)
        resumed += more
        assert_equal(found[stop], states[stop])
    assert [record_facts(record) for record in resumed] == [record_facts(record) for record in records]


def train_until(trainer: Trainer, *stops: int) -> tuple[list[EpochRecord], dict[int, Any]]:
    """Train to the last of some steps; return the records of the epochs that ended and the state after each stop."""
    records: list[EpochRecord] = []
    states: dict[int, Any] = {}
    while not trainer.done:
        for _ in trainer.epoch():
            if trainer.total_steps in stops:
                states[trainer.total_steps] = snapshot(trainer)
            if trainer.total_steps == stops[-1] < 9:
                return records, states
        assert trainer.record is not None
        records.append(trainer.record)
    return records, states | {stops[-1]: snapshot(trainer)}


# --- lntl ---


def weights(networks: Networks, *names: str) -> dict[str, Tensor]:
    return {key: value for key, value in networks.state_dict().items() if key.split(".")[0] in names}


def test_lntl_without_its_terms_is_erm_bit_for_bit(make_trainer: MakeTrainer) -> None:
    lntl = make_trainer({"method": "lntl", "lam": 0.0, "mu": 0.0, "epochs": 2})
    erm = make_trainer({"method": "erm", "epochs": 2})
    task = [[record.metrics["train/task"] for record in trainer] for trainer in (lntl, erm)]
    assert task[0] == task[1]
    assert_equal(weights(lntl.networks, "f", "g"), weights(erm.networks, "f", "g"))


@pytest.mark.parametrize(
    ("ramp", "progress", "factor"),
    [("constant", 0.0, 1), ("linear", 0.0, 0), ("linear", 0.25, 0.25), ("dann", 0.0, 0), ("dann", 0.1, 0.46211716)],
)  # fmt: skip
def test_mu_follows_its_ramp(
    make_trainer: MakeTrainer, batch: Batch, ramp: str, progress: float, factor: float
) -> None:
    method = method_of(make_trainer({"method": "lntl", "mu": 0.5, "mu_ramp": ramp}))
    for updates in ("joint", "alternating"):
        method.config = method.config.model_copy(update={"updates": updates})
        terms = {k: v for objective in method.objectives(batch, progress) for k, v in objective.terms.items()}
        assert terms["mu"].item() == pytest.approx(0.5 * factor)


def test_the_trainer_passes_the_progress_within_the_phase(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("erm", {"method": "lntl", "mu": 0.6, "mu_ramp": "linear", "epochs": 2})
    records = list(trainer)
    assert records[1].metrics["train/mu"] == pytest.approx(0.6 * (0 + 1 + 2) / 3 / 6)
    assert records[2].metrics["train/mu"] == pytest.approx(0.6 * (3 + 4 + 5) / 3 / 6)


def authors_loop(networks: Networks, batches: list[Batch], lam: float, mu: float, lr: float) -> None:
    """Train as the authors' code does: two sub-steps a batch, each with a forward pass and optimiser steps of its own.

    One optimiser a network, SGD with momentum 0.9 and weight decay 5e-4; the reversal is written as minus the gradient.
    """
    networks.train()
    steps = {
        name: torch.optim.SGD(net.parameters(), lr, momentum=0.9, weight_decay=5e-4)
        for name, net in networks.named_children()
    }
    for batch in batches:
        networks.zero_grad()
        z = networks.f(batch.x)
        log_q = torch.log_softmax(networks.h(z), dim=1)
        information = sum((log_q.exp() * log_q)[:, :, c].sum(dim=1).mean() for c in range(3)) / 3
        (cross_entropy(networks.g(z), batch.y) + lam * information).backward()
        steps["f"].step()
        steps["g"].step()

        networks.zero_grad()
        logits = networks.h(networks.f(batch.x))
        loss = sum(cross_entropy(logits[:, :, c], batch.bias[:, c], ignore_index=IGNORE) for c in range(3))
        loss.backward()
        for parameter in networks.f.parameters():
            parameter.grad.mul_(-mu)
        steps["f"].step()
        steps["h"].step()


def test_the_alternating_schedule_is_the_authors_two_sub_steps(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sgd = {"name": "sgd", "lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4}
    phase = {"method": "lntl", "updates": "alternating", "h_positions": "all", "lam": 0.3, "mu": 0.2}
    trainer = make_trainer(phase, training={"optimizer_fg": sgd, "optimizer_h": sgd}, precision="64-true")
    by_hand = copy.deepcopy(trainer.networks)
    batches = [replace(batch, x=batch.x.double()) for batch in trainer.loader.batches(order_seed=7)]
    monkeypatch.setattr(trainer.loader, "batches", lambda *place: iter(batches))
    list(trainer)
    authors_loop(by_hand, batches, lam=0.3, mu=0.2, lr=0.02)
    for name, value in by_hand.state_dict().items():
        torch.testing.assert_close(trainer.networks.state_dict()[name], value, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("h_positions", ["all", "labelled"])
def test_eq_9_joint_equals_its_three_terms_by_hand(make_trainer: MakeTrainer, batch: Batch, h_positions: str) -> None:
    """The gradient of f is task + lam * information - mu * bias; g's is task alone; h's is bias alone."""
    lam, mu = 0.4, 0.3
    method = method_of(
        make_trainer({"method": "lntl", "lam": lam, "mu": mu, "h_positions": h_positions}, precision="64-true")
    )
    batch = replace(batch, x=batch.x.double())
    nets = {name: getattr(method, name).train() for name in ("f", "g", "h")}
    parameters = {name: [*net.parameters()] for name, net in nets.items()}

    (objective,) = method.objectives(batch, 0.5)
    got = torch.autograd.grad(objective.loss, [p for each in parameters.values() for p in each])

    z = nets["f"](batch.x)
    task = cross_entropy(nets["g"](z), batch.y)
    if h_positions == "all":
        log_q, labels = torch.log_softmax(nets["h"](z), dim=1), batch.bias
    else:
        where = (batch.bias != IGNORE).any(dim=1)
        log_q, labels = torch.log_softmax(nets["h"](z, where), dim=1), batch.bias.movedim(1, -1)[where]
    information = (log_q.exp() * log_q).sum(dim=1).mean()
    bias = -3 * log_q.gather(1, labels.clamp(min=0)[:, None])[:, 0][labels != IGNORE].mean()
    want = {"f": task + lam * information - mu * bias, "g": task, "h": bias}
    by_hand = [g for name in want for g in torch.autograd.grad(want[name], parameters[name], retain_graph=True)]
    torch.testing.assert_close(got, tuple(by_hand))
    for name, term in (("task", task), ("mi", information), ("bias", bias)):
        assert objective.terms[name].item() == pytest.approx(term.item(), rel=1e-6)


def test_max_ratio_bounds_the_adversary_by_the_gradient_of_the_task(make_trainer: MakeTrainer, batch: Batch) -> None:
    """f's gradient is the task's plus a share of the adversary's; those of g and h are as they were."""
    settings = {"method": "lntl", "lam": 0.4, "mu": 0.3}
    task, free, bound = (
        gradients(method_of(make_trainer(p)), batch)
        for p in (settings | {"lam": 0.0, "mu": 0.0}, settings, settings | {"max_gradient_ratio": 0.05})
    )
    torch.testing.assert_close([bound["g"], bound["h"]], [free["g"], free["h"]])
    adversary, bounded = free["f"] - task["f"], bound["f"] - task["f"]
    factor = float(bounded.norm() / adversary.norm())
    assert factor < 0.9
    torch.testing.assert_close(bounded, factor * adversary, rtol=1e-3, atol=1e-3 * float(bounded.abs().max()))


def test_h_steps_update_only_h_before_the_joint_update(make_trainer: MakeTrainer, batch: Batch) -> None:
    method = method_of(make_trainer({"method": "lntl", "h_steps": 3}))
    moved = [objective.over for objective in method.objectives(batch, 0.0)]
    assert moved == [(method.h,), (method.h,), (method.f, method.g, method.h)]


SMOOTHED = [
    {"method": "bias_head"},
    {"method": "blind_eye", "h_steps": 2},
    {"method": "conditional_adversary"},
    {"method": "lntl", "h_steps": 2},
    {"method": "lntl", "updates": "alternating"},
]


@pytest.mark.parametrize("phase", SMOOTHED, ids=lambda phase: "-".join(map(str, phase.values())))
def test_h_smoothing_acts_on_every_update_of_h(make_trainer: MakeTrainer, batch: Batch, phase: Phase) -> None:
    """h learns (1 - s) of its label and s of the uniform belief: its gradient is a line in s that is not level."""

    def gradients_of_h(smoothing: float) -> Iterator[Tensor]:
        method = method_of(make_trainer(phase | {"h_smoothing": smoothing}))
        for objective in method.objectives(batch, 0.5):
            if any(net is method.h for net in objective.over):
                yield torch.cat([g.flatten() for g in torch.autograd.grad(objective.loss, [*method.h.parameters()])])

    without, half, full = (list(gradients_of_h(smoothing)) for smoothing in (0.0, 0.25, 0.5))
    assert len(without) == phase.get("h_steps", 1)
    for start, middle, end in zip(without, half, full, strict=True):
        assert (end - start).norm() > 0.1 * start.norm()
        torch.testing.assert_close(middle, (start + end) / 2, rtol=1e-3, atol=1e-3 * float(start.abs().max()))


def test_bias_head_learns_from_features_in_evaluation_mode(make_trainer: MakeTrainer) -> None:
    """f stands still, its BatchNorm too: what h learns from is what f gives when it is evaluated."""
    trainer = make_trainer("bias_head")
    next(trainer.epoch())
    assert not trainer.networks.f.training
    assert trainer.networks.h.training
