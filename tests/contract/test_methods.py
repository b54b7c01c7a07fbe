"""Properties of all methods. A new method is tested here without a change of this file.

A method is tested with its defaults, and with each other value of its settings of type Literal.
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


def iterate_variants() -> Iterator[Phase]:
    """Yield a phase for each method with its defaults, and for each other value of its settings of type Literal."""
    for method in METHODS:
        yield {"method": method}
        for key, field in load_method(method).Config.model_fields.items():
            if get_origin(field.annotation) is Literal:
                yield from (
                    {"method": method, key: value} for value in get_args(field.annotation) if value != field.default
                )


FURTHER_PHASES = [
    {"method": "lntl", "max_gradient_ratio": 0.05},
    {"method": "lntl", "h_steps": 3},
    {"method": "lntl", "h_smoothing": 0.1},
]


def parametrize_phases(is_fast: Callable[[Phase], bool]) -> pytest.MarkDecorator:
    """Parametrise a test over all methods and variants; the fast lane runs those for which `is_fast` is true."""
    return pytest.mark.parametrize(
        "phase",
        [
            pytest.param(
                phase, id="-".join(map(str, phase.values())), marks=[] if is_fast(phase) else [pytest.mark.full]
            )
            for phase in (*iterate_variants(), *FURTHER_PHASES)
        ],
    )


all_variants = parametrize_phases(is_fast=lambda phase: len(phase) == 1)
# The fast lane runs ERM, LNTL, a method that restarts f and g, a method with its own networks, and a repair method.
resumed_variants = parametrize_phases(
    is_fast=lambda phase: set(phase.values()) <= {"erm", "lntl", "jtt", "lff", "leace"}
)
all_methods = pytest.mark.parametrize("phase", [pytest.param({"method": method}, id=method) for method in METHODS])


def select_24_examples(split: Split) -> Split:
    """Return 24 examples of a split: the first example of each class, and the first of the other examples."""
    first_of_class = [int((split.y == label).nonzero()[0]) for label in split.y.unique()]
    other_rows = [index for index in range(len(split)) if index not in first_of_class]
    return PartOfSplit(split, torch.tensor(sorted(first_of_class + other_rows[: 24 - len(first_of_class)])))


@pytest.fixture
def make_trainer(make_trainer: MakeTrainer, digits: ColoredMNIST, request: pytest.FixtureRequest) -> MakeTrainer:
    """The function of conftest with three batches of eight examples and the model settings that the method needs."""
    phase = request.getfixturevalue("phase") if "phase" in request.fixturenames else {"method": "erm"}
    model, train = load_method(phase["method"]).required_model_settings, select_24_examples(digits.splits["train"])

    def make(*phases: str | Phase, split: Split = train, training: Phase | None = None, **sections: Any) -> Trainer:
        training = {"batch_size": 8} | (training or {})
        return make_trainer(*phases, split=split, model=model, training=training, **sections)

    return make


def take_snapshot(trainer: Trainer) -> Any:
    """Return the trainer's state as a checkpoint contains it, except for the seconds."""
    file = BytesIO()
    torch.save(trainer.state_dict() | {"seconds": 0.0}, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def flatten_tree(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, dict | list | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {path: leaf for key, value in items for path, leaf in flatten_tree(value, f"{prefix}.{key}").items()}
    return {prefix: tree}


def assert_equal(first: Any, second: Any) -> None:
    """Assert that two states are equal, tensors bit for bit."""
    first, second = flatten_tree(first), flatten_tree(second)
    assert first.keys() == second.keys()
    for key, value in first.items():
        is_equal = torch.equal(value, second[key]) if isinstance(value, Tensor) else value == second[key]
        assert is_equal, key


def get_fields_without_times(record: EpochRecord) -> tuple[Any, ...]:
    """Return the fields of a record except for the times."""
    return record.phase, record.method, record.epoch, record.total_epoch, record.step, record.metrics


def get_method(trainer: Trainer) -> Method:
    return trainer.method


# --- the networks that a method trains ---


@all_variants
def test_an_epoch_changes_exactly_the_networks_that_the_method_trains(make_trainer: MakeTrainer, phase: Phase) -> None:
    trainer = make_trainer(phase)
    initial_state = copy.deepcopy(trainer.networks.state_dict())
    (record,) = trainer
    final_state = trainer.networks.state_dict()
    changed_networks = {
        key.split(".")[0] for key in initial_state if not torch.equal(initial_state[key], final_state[key])
    }
    method = trainer.method
    assert changed_networks == {*method.trains, *method.fits}  # state_dict has parameters and buffers
    assert record.metrics
    assert all(torch.tensor(value).isfinite() for value in record.metrics.values())


def compute_gradients(method: Method, batch: Batch) -> dict[str, Tensor]:
    """Return the flat gradient of each network, also of the method's own, summed over its objectives on a batch."""
    networks = {name: getattr(method, name).train() for name in ("f", "g", "h")} | method.own_networks
    total_gradients = {name: torch.zeros(sum(p.numel() for p in net.parameters())) for name, net in networks.items()}
    for objective in method.objectives(batch, 0.5):
        parameters_by_name = {
            name: [*net.parameters()] for name, net in networks.items() if any(net is o for o in objective.over)
        }
        if not parameters_by_name:  # an objective that is only logged
            continue
        gradient_iterator = iter(
            torch.autograd.grad(objective.loss, [p for parameters in parameters_by_name.values() for p in parameters])
        )
        for name, parameters in parameters_by_name.items():
            total_gradients[name] += torch.cat([next(gradient_iterator).flatten() for _ in parameters])
    return total_gradients


@all_variants
def test_a_method_trains_differently_from_erm(make_trainer: MakeTrainer, phase: Phase, batch: Batch) -> None:
    """With equal weights, each method differs from ERM in the gradients of a batch or in the sampling weights."""
    trainer, erm_trainer = make_trainer(phase), make_trainer("erm")
    trainer._prepare()
    method_gradients, trains, sampling_weights = (
        compute_gradients(trainer.method, batch),
        trainer.method.trains,
        trainer.method.sampling_weights(),
    )
    erm_trainer.networks.load_state_dict(trainer.networks.state_dict())
    erm_gradients = compute_gradients(erm_trainer.method, batch)
    untrained_networks = {"f", "g", "h"} - set(trains)
    assert all(method_gradients[name].any() != (name in untrained_networks) for name in method_gradients)
    if phase["method"] != "erm" and trains:
        has_other_gradients = any(
            (method_gradients[name] - erm_gradients[name]).norm() > 1e-4 * method_gradients[name].norm()
            for name in trains
        )
        assert has_other_gradients or (
            sampling_weights is not None and len(sampling_weights[trainer.loader.split.row].unique()) > 1
        )


@all_variants
def test_the_objectives_train_the_networks_that_the_attribute_trains_lists(
    make_trainer: MakeTrainer, phase: Phase, batch: Batch
) -> None:
    method = get_method(make_trainer(phase))
    trained_networks = [net for objective in method.objectives(batch, 0.5) for net in objective.over]
    assert {name for name in ("f", "g", "h") if any(net is getattr(method, name) for net in trained_networks)} == set(
        method.trains
    )


@all_variants
def test_an_epoch_runs_in_mixed_precision(make_trainer: MakeTrainer, phase: Phase) -> None:
    trainer = make_trainer(phase, precision="bf16-mixed", training={"ema": 0.9, "clip_grad_norm": 1.0})
    (record,) = trainer
    assert all(torch.tensor(value).isfinite() for value in record.metrics.values())
    assert all(parameter.dtype == torch.float32 for parameter in trainer.networks.parameters())


# --- the labels that a method uses ---


class RandomBiasSplit(Split):
    """A split with random bias labels, groups and bias features."""

    def __init__(self, split: Any) -> None:
        self.split = split
        self.y, self.group, self.row = split.y, split.group, split.row

    def to(self, device: torch.device) -> "RandomBiasSplit":
        return RandomBiasSplit(self.split.to(device))

    def batch(self, index: Tensor) -> Batch:
        batch = self.split.batch(index)
        rng = torch.Generator().manual_seed(int(index[0]))
        return replace(
            batch,
            bias=torch.where(batch.bias == IGNORE, IGNORE, torch.randint(0, 8, batch.bias.shape, generator=rng)),
            group=batch.y * 10 + torch.randint(0, 10, batch.y.shape, generator=rng),
            bias_features=torch.rand(batch.bias_features.shape, generator=rng),
        )


@all_variants
def test_only_a_method_that_sees_the_bias_depends_on_it(
    make_trainer: MakeTrainer, phase: Phase, digits: ColoredMNIST
) -> None:
    original_trainer, random_trainer = (
        make_trainer(phase),
        make_trainer(phase, split=RandomBiasSplit(select_24_examples(digits.splits["train"]))),
    )
    for trainer in (original_trainer, random_trainer):
        list(trainer)
    states = [trainer.networks.state_dict() for trainer in (original_trainer, random_trainer)]
    is_equal = all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert is_equal == (not original_trainer.method.sees_bias)


@all_methods
def test_only_a_method_with_the_attribute_sees_bias_gets_bias_labels(
    make_trainer: MakeTrainer, phase: Phase, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[Batch] = []
    trainer = make_trainer(phase)
    objectives = trainer.method.objectives
    monkeypatch.setattr(trainer.method, "objectives", lambda batch, p: batches.append(batch) or objectives(batch, p))
    next(trainer.epoch())
    batch = batches[0]
    has_labels = bool((batch.bias != IGNORE).any() or (batch.group != IGNORE).any() or batch.bias_features.any())
    assert has_labels == trainer.method.sees_bias


# --- the state of a method ---


@all_methods
def test_the_state_of_a_method_is_loaded_unchanged(make_trainer: MakeTrainer, phase: Phase) -> None:
    trainer = make_trainer(phase, training={"ema": 0.9})
    list(trainer)
    saved_state = take_snapshot(trainer)
    second_trainer = make_trainer(phase, training={"ema": 0.9}, project={"seed": 1})
    second_trainer.load_state_dict(saved_state)
    assert_equal(take_snapshot(second_trainer), saved_state)
    assert second_trainer.done


@resumed_variants
def test_resume_is_exact_within_an_epoch_and_between_phases(make_trainer: MakeTrainer, phase: Phase) -> None:
    """Training stops within the first phase, at its end, and in both epochs of the second; an epoch has three steps.

    For a method that trains nothing, an epoch has one step. A new trainer resumes from each saved state.
    """
    make = partial(make_trainer, "erm", phase | {"epochs": 2}, training={"ema": 0.9})
    stops = (1, 3, 4, 7, 9) if make_trainer(phase).method.fits else (1, 3, 4, 8, 9)
    records, states = train_until(make(), *stops)
    resumed_records: list[EpochRecord] = []
    for start, stop in pairwise((0, *stops)):
        trainer = make()
        if start:
            trainer.load_state_dict(states[start])
        new_records, new_states = train_until(trainer, stop)
        resumed_records += new_records
        assert_equal(new_states[stop], states[stop])
    assert [get_fields_without_times(record) for record in resumed_records] == [
        get_fields_without_times(record) for record in records
    ]


def train_until(trainer: Trainer, *stops: int) -> tuple[list[EpochRecord], dict[int, Any]]:
    """Train to the last step of `stops`; return the records of complete epochs and the state after each stop."""
    records: list[EpochRecord] = []
    states: dict[int, Any] = {}
    while not trainer.done:
        for _ in trainer.epoch():
            if trainer.total_steps in stops:
                states[trainer.total_steps] = take_snapshot(trainer)
            if trainer.total_steps == stops[-1] < 9:
                return records, states
        assert trainer.record is not None
        records.append(trainer.record)
    return records, states | {stops[-1]: take_snapshot(trainer)}


# --- lntl ---


def get_weights(networks: Networks, *names: str) -> dict[str, Tensor]:
    return {key: value for key, value in networks.state_dict().items() if key.split(".")[0] in names}


def test_lntl_without_its_terms_is_erm_bit_for_bit(make_trainer: MakeTrainer) -> None:
    lntl_trainer = make_trainer({"method": "lntl", "lam": 0.0, "mu": 0.0, "epochs": 2})
    erm_trainer = make_trainer({"method": "erm", "epochs": 2})
    task_losses = [[record.metrics["train/task"] for record in trainer] for trainer in (lntl_trainer, erm_trainer)]
    assert task_losses[0] == task_losses[1]
    assert_equal(get_weights(lntl_trainer.networks, "f", "g"), get_weights(erm_trainer.networks, "f", "g"))


@pytest.mark.parametrize(
    ("ramp", "progress", "factor"),
    [("constant", 0.0, 1), ("linear", 0.0, 0), ("linear", 0.25, 0.25), ("dann", 0.0, 0), ("dann", 0.1, 0.46211716)],
)  # fmt: skip
def test_mu_follows_its_ramp(
    make_trainer: MakeTrainer, batch: Batch, ramp: str, progress: float, factor: float
) -> None:
    method = get_method(make_trainer({"method": "lntl", "mu": 0.5, "mu_ramp": ramp}))
    for updates in ("joint", "alternating"):
        method.config = method.config.model_copy(update={"updates": updates})
        terms = {k: v for objective in method.objectives(batch, progress) for k, v in objective.terms.items()}
        assert terms["mu"].item() == pytest.approx(0.5 * factor)


def test_the_trainer_passes_the_progress_within_the_phase(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("erm", {"method": "lntl", "mu": 0.6, "mu_ramp": "linear", "epochs": 2})
    records = list(trainer)
    assert records[1].metrics["train/mu"] == pytest.approx(0.6 * (0 + 1 + 2) / 3 / 6)
    assert records[2].metrics["train/mu"] == pytest.approx(0.6 * (3 + 4 + 5) / 3 / 6)


def train_like_the_authors(networks: Networks, batches: list[Batch], lam: float, mu: float, lr: float) -> None:
    """Train as the authors' code does: two sub-steps per batch, each with its own forward pass and optimiser steps.

    Each network has SGD with momentum 0.9 and weight decay 5e-4; the gradient of f is multiplied by -mu.
    """
    networks.train()
    optimizers = {
        name: torch.optim.SGD(net.parameters(), lr, momentum=0.9, weight_decay=5e-4)
        for name, net in networks.named_children()
    }
    for batch in batches:
        networks.zero_grad()
        z = networks.f(batch.x)
        log_q = torch.log_softmax(networks.h(z), dim=1)
        information = sum((log_q.exp() * log_q)[:, :, c].sum(dim=1).mean() for c in range(3)) / 3
        (cross_entropy(networks.g(z), batch.y) + lam * information).backward()
        optimizers["f"].step()
        optimizers["g"].step()

        networks.zero_grad()
        logits = networks.h(networks.f(batch.x))
        loss = sum(cross_entropy(logits[:, :, c], batch.bias[:, c], ignore_index=IGNORE) for c in range(3))
        loss.backward()
        for parameter in networks.f.parameters():
            parameter.grad.mul_(-mu)
        optimizers["f"].step()
        optimizers["h"].step()


def test_the_alternating_schedule_equals_the_authors_two_sub_steps(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sgd = {"name": "sgd", "lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4}
    phase = {"method": "lntl", "updates": "alternating", "h_positions": "all", "lam": 0.3, "mu": 0.2}
    trainer = make_trainer(phase, training={"optimizer_fg": sgd, "optimizer_h": sgd}, precision="64-true")
    expected_networks = copy.deepcopy(trainer.networks)
    batches = [replace(batch, x=batch.x.double()) for batch in trainer.loader.batches(order_seed=7)]
    monkeypatch.setattr(trainer.loader, "batches", lambda *arguments: iter(batches))
    list(trainer)
    train_like_the_authors(expected_networks, batches, lam=0.3, mu=0.2, lr=0.02)
    for name, value in expected_networks.state_dict().items():
        torch.testing.assert_close(trainer.networks.state_dict()[name], value, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("h_positions", ["all", "labelled"])
def test_the_gradients_of_eq_9_equal_those_of_its_three_terms(
    make_trainer: MakeTrainer, batch: Batch, h_positions: str
) -> None:
    """f gets the gradient of task + lam * information - mu * bias, g that of the task, h that of the bias loss."""
    lam, mu = 0.4, 0.3
    method = get_method(
        make_trainer({"method": "lntl", "lam": lam, "mu": mu, "h_positions": h_positions}, precision="64-true")
    )
    batch = replace(batch, x=batch.x.double())
    nets = {name: getattr(method, name).train() for name in ("f", "g", "h")}
    parameters = {name: [*net.parameters()] for name, net in nets.items()}

    (objective,) = method.objectives(batch, 0.5)
    gradients = torch.autograd.grad(
        objective.loss, [p for network_parameters in parameters.values() for p in network_parameters]
    )

    z = nets["f"](batch.x)
    task = cross_entropy(nets["g"](z), batch.y)
    if h_positions == "all":
        log_q, labels = torch.log_softmax(nets["h"](z), dim=1), batch.bias
    else:
        where = (batch.bias != IGNORE).any(dim=1)
        log_q, labels = torch.log_softmax(nets["h"](z, where), dim=1), batch.bias.movedim(1, -1)[where]
    information = (log_q.exp() * log_q).sum(dim=1).mean()
    bias = -3 * log_q.gather(1, labels.clamp(min=0)[:, None])[:, 0][labels != IGNORE].mean()
    losses = {"f": task + lam * information - mu * bias, "g": task, "h": bias}
    expected_gradients = [
        g for name in losses for g in torch.autograd.grad(losses[name], parameters[name], retain_graph=True)
    ]
    torch.testing.assert_close(gradients, tuple(expected_gradients))
    for name, term in (("task", task), ("mi", information), ("bias", bias)):
        assert objective.terms[name].item() == pytest.approx(term.item(), rel=1e-6)


def test_max_gradient_ratio_limits_the_adversary_by_the_gradient_of_the_task(
    make_trainer: MakeTrainer, batch: Batch
) -> None:
    """The gradient of f is that of the task plus a share of the adversary's; those of g and h do not change."""
    settings = {"method": "lntl", "lam": 0.4, "mu": 0.3}
    task_gradients, unlimited_gradients, limited_gradients = (
        compute_gradients(get_method(make_trainer(p)), batch)
        for p in (settings | {"lam": 0.0, "mu": 0.0}, settings, settings | {"max_gradient_ratio": 0.05})
    )
    torch.testing.assert_close(
        [limited_gradients["g"], limited_gradients["h"]], [unlimited_gradients["g"], unlimited_gradients["h"]]
    )
    adversary_gradient, limited_adversary_gradient = (
        unlimited_gradients["f"] - task_gradients["f"],
        limited_gradients["f"] - task_gradients["f"],
    )
    factor = float(limited_adversary_gradient.norm() / adversary_gradient.norm())
    assert factor < 0.9
    torch.testing.assert_close(
        limited_adversary_gradient,
        factor * adversary_gradient,
        rtol=1e-3,
        atol=1e-3 * float(limited_adversary_gradient.abs().max()),
    )


def test_h_steps_update_only_h_before_the_joint_update(make_trainer: MakeTrainer, batch: Batch) -> None:
    method = get_method(make_trainer({"method": "lntl", "h_steps": 3}))
    updated_networks = [objective.over for objective in method.objectives(batch, 0.0)]
    assert updated_networks == [(method.h,), (method.h,), (method.f, method.g, method.h)]


PHASES_WITH_SMOOTHING = [
    {"method": "bias_head"},
    {"method": "blind_eye", "h_steps": 2},
    {"method": "conditional_adversary"},
    {"method": "lntl", "h_steps": 2},
    {"method": "lntl", "updates": "alternating"},
]


@pytest.mark.parametrize("phase", PHASES_WITH_SMOOTHING, ids=lambda phase: "-".join(map(str, phase.values())))
def test_h_smoothing_acts_on_every_update_of_h(make_trainer: MakeTrainer, batch: Batch, phase: Phase) -> None:
    """The target of h is (1 - s) * label + s * uniform, so its gradient is linear in s and not constant."""

    def compute_gradients_of_h(smoothing: float) -> Iterator[Tensor]:
        method = get_method(make_trainer(phase | {"h_smoothing": smoothing}))
        for objective in method.objectives(batch, 0.5):
            if any(net is method.h for net in objective.over):
                yield torch.cat([g.flatten() for g in torch.autograd.grad(objective.loss, [*method.h.parameters()])])

    gradients_0, gradients_025, gradients_05 = (
        list(compute_gradients_of_h(smoothing)) for smoothing in (0.0, 0.25, 0.5)
    )
    assert len(gradients_0) == phase.get("h_steps", 1)
    for start, middle, end in zip(gradients_0, gradients_025, gradients_05, strict=True):
        assert (end - start).norm() > 0.1 * start.norm()
        torch.testing.assert_close(middle, (start + end) / 2, rtol=1e-3, atol=1e-3 * float(start.abs().max()))


def test_bias_head_learns_from_features_in_evaluation_mode(make_trainer: MakeTrainer) -> None:
    """f and its BatchNorm are frozen, so h is trained on the features that f gives in evaluation mode."""
    trainer = make_trainer("bias_head")
    next(trainer.epoch())
    assert not trainer.networks.f.training
    assert trainer.networks.h.training
