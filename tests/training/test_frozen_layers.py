"""Frozen layers of f and factors of learning rates; training on vectors with one or several bias labels."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from lanes import first_is_fast
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


def copy_state(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.networks.state_dict().items()}


def find_changed_names(trainer: Trainer, initial_state: dict[str, Tensor]) -> set[str]:
    return {
        name for name, value in trainer.networks.state_dict().items() if not torch.equal(value, initial_state[name])
    }


@pytest.mark.parametrize("updates", ["joint", "alternating"])
def test_weights_and_statistics_of_frozen_layers_do_not_change(make_trainer: MakeTrainer, updates: str) -> None:
    phases = [*PHASES, {"method": "lntl", "updates": updates}, {"method": "erm"}]
    trainer = make_trainer(*phases, model=RESNET | {"frozen": ["conv1", "bn1", "layer1"]}, training={"ema": 0.9})
    initial_state, average = copy_state(trainer), {}
    for _ in trainer:
        average = trainer.evaluated.state_dict()
    frozen_names = {name for name in initial_state if name.startswith(("f.conv1.", "f.bn1.", "f.layer1."))}
    assert any("running_mean" in name for name in frozen_names)
    assert find_changed_names(trainer, initial_state) == initial_state.keys() - frozen_names
    assert all(torch.equal(average[name], initial_state[name]) for name in frozen_names)


@pytest.mark.parametrize("method", ["lntl", "erm", "blind_eye", "lff"])
def test_all_of_f_may_be_frozen(make_trainer: MakeTrainer, method: str) -> None:
    trainer = make_trainer(method, model=RESNET | {"frozen": ["f"]})
    initial_state = copy_state(trainer)
    for record in trainer:
        assert "train/lr_f" not in record.metrics
        assert "train/lr_g" in record.metrics
    changed_networks = {name.partition(".")[0] for name in find_changed_names(trainer, initial_state)}
    assert changed_networks == ({"g", "h"} if method in ("lntl", "blind_eye") else {"g"})


def test_jtt_resets_all_layers_except_frozen_layers(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("jtt", model=RESNET | {"frozen": ["conv1", "bn1"]}, training={"optimizer_fg": {"lr": 1e-9}})
    initial_state = copy_state(trainer)
    list(trainer)
    changed_layers = {name.rpartition(".")[0] for name in find_changed_names(trainer, initial_state)}
    assert "f.layer1.0.conv1" in changed_layers
    assert not changed_layers & {"f.conv1", "f.bn1"}


def test_a_factor_scales_the_learning_rate_of_its_layers(make_trainer: MakeTrainer) -> None:
    """One step of plain SGD moves each weight by lr * factor * gradient."""
    steps: dict[float, dict[str, Tensor]] = {}
    for factor in (1.0, 0.25):
        trainer = make_trainer(
            "erm",
            model=RESNET | {"lr_factors": {"layer1": factor}},
            training={"optimizer_fg": {"name": "sgd", "lr": 0.5, "momentum": 0.0, "schedule": "cosine"}},
        )
        initial_state = copy_state(trainer)
        next(trainer.epoch())
        steps[factor] = {name: initial_state[name] - value for name, value in trainer.networks.state_dict().items()}
    for name, step in steps[1.0].items():
        if name.startswith(("f.", "g.")) and name.endswith(("weight", "bias")):
            scale = 0.25 if name.startswith("f.layer1.") else 1.0
            torch.testing.assert_close(steps[0.25][name], scale * step, rtol=1e-3, atol=1e-6)
    assert max(float(step.abs().max()) for name, step in steps[1.0].items() if name.startswith("f.layer1.")) > 1e-3


def test_a_run_with_frozen_layers_and_factors_is_resumed_exactly(make_trainer: MakeTrainer) -> None:
    model = RESNET | {"lr_factors": {"f": 0.1, "layer2": 0.5}, "frozen": ["conv1"]}
    uninterrupted_trainer, stopped_trainer, resumed_trainer = (make_trainer("lntl", model=model) for _ in range(3))
    list(uninterrupted_trainer)
    steps = stopped_trainer.epoch()
    next(steps)
    resumed_trainer.load_state_dict(stopped_trainer.state_dict())
    list(resumed_trainer)
    assert find_changed_names(resumed_trainer, copy_state(uninterrupted_trainer)) == set()


@dataclass(frozen=True)
class VectorSplit(Split):
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
        is_known = self.group[index] != IGNORE
        features = torch.nn.functional.one_hot((self.group[index] % 3).clamp(min=0), 3).float() * is_known[:, None]
        return Batch(self.x[index], self.y[index], self.bias[index], self.group[index], index, features)

    def to(self, device: torch.device) -> "VectorSplit":
        return replace(self, x=self.x.to(device))


@pytest.fixture(params=[(), (2,)], ids=["one_label", "two_labels"])
def vector_data(request: pytest.FixtureRequest) -> tuple[VectorSplit, DataSpec]:
    """40 vectors of 6 numbers with 4 classes and 3 bias values; a tenth of the bias labels is missing."""
    torch.manual_seed(0)
    y, value = torch.arange(40) % 4, torch.arange(40) // 4 % 3
    is_missing = torch.arange(40) % 10 == 3
    bias = torch.stack([value, value // 2], dim=1) if request.param else value
    bias, group = bias.clone(), y * 3 + value
    bias[is_missing], group[is_missing] = IGNORE, IGNORE
    spec = DataSpec((6,), 4, 3, request.param, tuple("abcd"), tuple("uvw"), 40)
    return VectorSplit(torch.randn(40, 6), y, bias, group), spec


def make_vector_trainer(data: tuple[VectorSplit, DataSpec], phases: list[dict[str, Any]], **model: Any) -> Trainer:
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


@pytest.mark.parametrize("method", first_is_fast(["lntl", *sorted({*plugins.names("lntl.methods")} - {"lntl"})]))
def test_every_method_learns_from_vectors_with_labels(vector_data: tuple[VectorSplit, DataSpec], method: str) -> None:
    model_settings = load_method(method).required_model_settings
    trainer = make_vector_trainer(vector_data, [{"method": method, "epochs": 2}], **model_settings)
    initial_state = copy_state(trainer)
    records = list(trainer)
    assert len(records) == 2
    assert {name.partition(".")[0] for name in find_changed_names(trainer, initial_state)} == {
        *trainer.method.trains,
        *trainer.method.fits,
    }


def test_h_learns_a_label_that_the_vector_contains(vector_data: tuple[VectorSplit, DataSpec]) -> None:
    split, spec = vector_data
    split_with_bias = replace(split, x=torch.cat([torch.eye(3)[split.row // 4 % 3], split.x[:, :3]], dim=1))
    phase = {"method": "bias_head", "epochs": 60, "optimizer_h": {"lr": 0.02}}
    trainer = make_vector_trainer((split_with_bias, spec), [phase], hidden=[32, 32])
    list(trainer)
    networks = trainer.networks.eval()
    logits = networks.h(networks.f(split_with_bias.x))
    is_known = split.bias != IGNORE
    assert (logits.argmax(dim=1) == split.bias)[is_known].float().mean() > 0.9
