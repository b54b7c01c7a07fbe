"""Parts of f that stay as they are or learn slowly, and data of vectors with one label or several."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from lntl import config as configuration
from lntl import plugins
from lntl.data.loader import Loader
from lntl.methods import load_method
from lntl.models import append_eraser, load_model
from lntl.training.trainer import Trainer, TrainingPhase
from lntl.types import IGNORE, Batch, DataSpec, Split

RESNET = {"name": "timm/test_resnet", "split": "layer2"}
PHASES = [{"method": "bias_head", "epochs": 1}, {"method": "lntl", "epochs": 1}]
MakeTrainer = Callable[..., Trainer]


def snapshot(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.networks.state_dict().items()}


def changed(trainer: Trainer, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in trainer.networks.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("updates", ["joint", "alternating"])
def test_a_frozen_part_stays_bit_for_bit_statistics_included(make_trainer: MakeTrainer, updates: str) -> None:
    phases = [*PHASES, {"method": "lntl", "updates": updates}, {"method": "erm"}]
    trainer = make_trainer(*phases, model=RESNET | {"frozen": ["conv1", "bn1", "layer1"]}, training={"ema": 0.9})
    before, average = snapshot(trainer), {}
    for _ in trainer:
        average = trainer.evaluated.state_dict()
    still = {name for name in before if name.startswith(("f.conv1.", "f.bn1.", "f.layer1."))}
    assert any("running_mean" in name for name in still)
    assert changed(trainer, before) == before.keys() - still
    assert all(torch.equal(average[name], before[name]) for name in still)


@pytest.mark.parametrize("method", ["lntl", "erm", "blind_eye", "lff"])
def test_all_of_f_may_be_frozen(make_trainer: MakeTrainer, method: str) -> None:
    trainer = make_trainer(method, model=RESNET | {"frozen": ["f"]})
    before = snapshot(trainer)
    for record in trainer:
        assert "train/lr_f" not in record.metrics
        assert "train/lr_g" in record.metrics
    parts = {name.partition(".")[0] for name in changed(trainer, before)}
    assert parts == ({"g", "h"} if method in ("lntl", "blind_eye") else {"g"})


def test_jtt_begins_anew_but_for_what_is_frozen(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("jtt", model=RESNET | {"frozen": ["conv1", "bn1"]}, training={"optimizer_fg": {"lr": 1e-9}})
    before = snapshot(trainer)
    list(trainer)
    moved = {name.rpartition(".")[0] for name in changed(trainer, before)}
    assert "f.layer1.0.conv1" in moved
    assert not moved & {"f.conv1", "f.bn1"}


def test_a_factor_scales_the_learning_rate_of_its_layers(make_trainer: MakeTrainer) -> None:
    """One step of plain SGD moves each weight by lr * factor * gradient."""
    steps: dict[float, dict[str, Tensor]] = {}
    for factor in (1.0, 0.25):
        trainer = make_trainer(
            "erm",
            model=RESNET | {"lr_factors": {"layer1": factor}},
            training={"optimizer_fg": {"name": "sgd", "lr": 0.5, "momentum": 0.0, "schedule": "cosine"}},
        )
        before = snapshot(trainer)
        next(trainer.epoch())
        steps[factor] = {name: before[name] - value for name, value in trainer.networks.state_dict().items()}
    for name, step in steps[1.0].items():
        if name.startswith(("f.", "g.")) and name.endswith(("weight", "bias")):
            scale = 0.25 if name.startswith("f.layer1.") else 1.0
            torch.testing.assert_close(steps[0.25][name], scale * step, rtol=1e-3, atol=1e-6)
    assert max(float(step.abs().max()) for name, step in steps[1.0].items() if name.startswith("f.layer1.")) > 1e-3


def test_a_run_with_parts_is_taken_up_exactly(make_trainer: MakeTrainer) -> None:
    model = RESNET | {"lr_factors": {"f": 0.1, "layer2": 0.5}, "frozen": ["conv1"]}
    straight, stopped, resumed = (make_trainer("lntl", model=model) for _ in range(3))
    list(straight)
    steps = stopped.epoch()
    next(steps)
    resumed.load_state_dict(stopped.state_dict())
    list(resumed)
    assert changed(resumed, snapshot(straight)) == set()


@dataclass(frozen=True)
class Rows(Split):
    """A split of vectors; `bias` is (n,) or (n, B)."""

    x: Tensor
    y: Tensor
    bias: Tensor
    group: Tensor

    @property
    def row(self) -> Tensor:
        return torch.arange(len(self.y))

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, index: Tensor) -> Batch:
        known = self.group[index] != IGNORE
        features = torch.nn.functional.one_hot((self.group[index] % 3).clamp(min=0), 3).float() * known[:, None]
        return Batch(self.x[index], self.y[index], self.bias[index], self.group[index], index, features)

    def to(self, device: torch.device) -> "Rows":
        return replace(self, x=self.x.to(device))


@pytest.fixture(params=[(), (2,)], ids=["one_label", "two_labels"])
def rows(request: pytest.FixtureRequest) -> tuple[Rows, DataSpec]:
    """40 vectors of 6 numbers, 4 classes and 3 bias values; a tenth of the labels is missing."""
    torch.manual_seed(0)
    y, value = torch.arange(40) % 4, torch.arange(40) // 4 % 3
    missing = torch.arange(40) % 10 == 3
    bias = torch.stack([value, value // 2], dim=1) if request.param else value
    bias, group = bias.clone(), y * 3 + value
    bias[missing], group[missing] = IGNORE, IGNORE
    spec = DataSpec((6,), 4, 3, request.param, tuple("abcd"), tuple("uvw"), 40)
    return Rows(torch.randn(40, 6), y, bias, group), spec


def trainer_of(data: tuple[Rows, DataSpec], phases: list[dict[str, Any]], **model: Any) -> Trainer:
    split, spec = data
    raw = {
        "project": {"experiment_name": "vectors"},
        "data": {"name": "colored_mnist"},
        "model": {"name": "mlp", "hidden": [8, 5], **model},
        "training": {"device": "cpu", "batch_size": 16, "phases": phases},
    }
    config = configuration.validate(raw, "test")
    networks = load_model("mlp")(spec, config.model)
    if config.model.eraser == "leace":
        append_eraser(networks, spec)
    phases = [
        TrainingPhase(phase, partial(load_method(phase.method), config=phase, spec=spec))
        for phase in config.training.phases
    ]
    fabric = Fabric(accelerator="cpu", devices=1)
    loader = Loader(split, 16, fabric.device)
    return Trainer(fabric, networks, loader, phases, seed=0, held_out=loader)


@pytest.mark.parametrize("method", plugins.names("lntl.methods"))
def test_every_method_learns_from_vectors_with_labels(rows: tuple[Rows, DataSpec], method: str) -> None:
    needs = load_method(method).required_model_settings
    trainer = trainer_of(rows, [{"method": method, "epochs": 2}], **needs)
    before = snapshot(trainer)
    records = list(trainer)
    assert len(records) == 2
    assert {name.partition(".")[0] for name in changed(trainer, before)} == {
        *trainer.method.trains,
        *trainer.method.fits,
    }


def test_h_learns_a_label_that_the_vector_holds(rows: tuple[Rows, DataSpec]) -> None:
    split, spec = rows
    with_bias = replace(split, x=torch.cat([torch.eye(3)[split.row // 4 % 3], split.x[:, :3]], dim=1))
    phase = {"method": "bias_head", "epochs": 60, "optimizer_h": {"lr": 0.02}}
    trainer = trainer_of((with_bias, spec), [phase], hidden=[32, 32])
    list(trainer)
    networks = trainer.networks.eval()
    logits = networks.h(networks.f(with_bias.x))
    known = split.bias != IGNORE
    assert (logits.argmax(dim=1) == split.bias)[known].float().mean() > 0.9
