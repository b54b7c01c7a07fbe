"""JTT: the error set equals a loop, errors are drawn by their weight, and f and g restart before its phase."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from lanes import first_is_fast
from torch import Tensor, nn

from lntl.data.colored_mnist import ColoredMNIST
from lntl.errors import UserError
from lntl.methods.weights import restart
from lntl.models import load_model
from lntl.training.trainer import Trainer
from lntl.types import IGNORE, DataSpec, Networks

MakeTrainer = Callable[..., Trainer]
PHASES = ({"method": "erm", "epochs": 4}, {"method": "jtt", "lambda_up": 9.0})


def train_to_the_first_jtt_step(trainer: Trainer) -> dict[str, Tensor]:
    """Run the ERM phase and the first step of jtt; return the weights after the ERM phase."""
    while trainer.epoch_index < 4:
        list(trainer.epoch())
    weights = copy.deepcopy(trainer.networks.state_dict())
    next(trainer.epoch())
    return weights


def test_the_error_set_contains_the_errors_of_the_previous_phase(
    make_trainer: MakeTrainer, digits: ColoredMNIST
) -> None:
    trainer = make_trainer(*PHASES, training={"optimizer_fg": {"lr": 0.01}})
    erm_weights = train_to_the_first_jtt_step(trainer)
    erm_networks = copy.deepcopy(trainer.networks).eval()
    erm_networks.load_state_dict(erm_weights)
    error_rows = set()
    for index in range(90):
        image = digits.splits["train"].batch(torch.tensor([index]))
        if int(erm_networks.g(erm_networks.f(image.x)).argmax()) != int(image.y):
            error_rows.add(int(image.row))
    assert 0 < len(error_rows) < 90
    assert set(trainer.method.wrong.nonzero()[:, 0].tolist()) == error_rows
    weights = trainer.method.sampling_weights()
    assert weights.tolist() == [9.0 if row in error_rows else 1.0 for row in range(100)]


def test_errors_are_drawn_in_proportion_to_their_weight(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(*PHASES[:1], {"method": "jtt", "lambda_up": 9.0, "epochs": 200})
    train_to_the_first_jtt_step(trainer)
    is_error, rows = trainer.method.wrong, trainer.loader.split.row
    is_error[rows] = torch.arange(90) < 10
    drawn_rows = [
        batch.row for seed in range(200) for batch in trainer.loader.batches(seed, 0, trainer.method.sampling_weights())
    ]
    share = float(is_error[torch.cat(drawn_rows)].float().mean())
    assert share == pytest.approx(9 * 10 / (9 * 10 + 80), abs=0.02)  # the standard error of 18,000 draws is 0.004


def test_the_share_of_errors_is_logged(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(*PHASES, logging={"log_interval_batches": 1})
    records = list(trainer)
    assert 0 < records[-1].metrics["train/errors"] <= 1


@pytest.mark.parametrize("restart", [True, False])
def test_f_g_and_the_average_of_the_weights_restart(make_trainer: MakeTrainer, restart: bool) -> None:
    """After one step of plain SGD at a tiny rate, the weights are almost those at the start of the phase."""
    sgd = {"name": "sgd", "lr": 1e-9, "momentum": 0.0}
    phases = PHASES[0], PHASES[1] | {"restart": restart, "optimizer_fg": sgd}
    trainer = make_trainer(*phases, training={"ema": 0.99})
    erm_weights = train_to_the_first_jtt_step(trainer)
    for state in (trainer.networks.state_dict(), trainer.evaluated.state_dict()):
        for key, value in erm_weights.items():
            is_unchanged = torch.allclose(state[key], value, atol=1e-6)
            if key.startswith("h."):
                assert is_unchanged, key
            elif value.dim() > 1:
                assert is_unchanged != restart, key
    assert trainer.evaluated is not trainer.networks
    weights = dict(trainer.networks.named_parameters())
    assert all(torch.equal(weights[key], value) for key, value in trainer.evaluated.named_parameters())


@pytest.mark.full
def test_the_weights_after_the_restart_follow_from_the_seed(make_trainer: MakeTrainer) -> None:
    sgd = {"name": "sgd", "lr": 1e-9, "momentum": 0.0}

    def get_weights_after_restart(**project: int) -> Tensor:
        trainer = make_trainer(PHASES[0], PHASES[1] | {"optimizer_fg": sgd}, project=project)
        torch.manual_seed(99)
        train_to_the_first_jtt_step(trainer)
        return trainer.networks.f.first.weight.detach()

    assert torch.equal(get_weights_after_restart(), get_weights_after_restart())
    assert not torch.allclose(get_weights_after_restart(), get_weights_after_restart(seed=1), atol=1e-3)


def test_no_bias_label_is_used(make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, prepared_batches = make_trainer("jtt"), []
    prepare = trainer.method.prepare
    monkeypatch.setattr(
        trainer.method, "prepare", lambda batches, seed: prepared_batches.extend(batches()) or prepare(batches, seed)
    )
    next(trainer.epoch())
    assert len(prepared_batches) == 3
    assert all((batch.bias == IGNORE).all() and (batch.group == IGNORE).all() for batch in prepared_batches)


class Scale(nn.Module):
    """A layer with a weight and without reset_parameters, such as ConvNeXt's layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))


def test_a_layer_that_cannot_reset_its_weights_is_refused() -> None:
    with pytest.raises(UserError, match=r"Scale has weights but cannot initialise them again.*reset_parameters"):
        restart(Networks(), nn.Sequential(nn.Linear(2, 2), Scale()), nn.Linear(2, 2), 0)


@pytest.mark.parametrize(
    ("name", "arch", "split"),
    first_is_fast(
        [
            ("timm", "resnet10t", "layer2"),
            ("torchvision", "convnext_tiny", "features.3"),
            ("torchvision", "swin_t", "features.3"),
            ("torchvision", "resnet18", "layer2"),
            ("torchvision", "shufflenet_v2_x0_5", "stage3"),
            ("timm", "convnext_atto", "stages.1"),
            ("timm", "vit_tiny_patch16_224", "blocks.5"),
            ("timm", "deit_tiny_distilled_patch16_224", "blocks.5"),
        ]
    ),
)
def test_every_model_family_restarts_in_place_and_from_the_seed(name: str, arch: str, split: str) -> None:
    if name == "timm":
        pytest.importorskip("timm")
    spec = DataSpec((3, 64, 64), 2, 2, (), ("a", "b"), ("u", "v"), num_rows=4)
    plugin: Any = load_model(name)
    config = plugin.Config(arch=arch, split=split)

    def build() -> Networks:
        networks: Networks = plugin(spec, config)
        return networks

    networks = build()
    networks.rebuild = build
    initial_state = copy.deepcopy(networks.state_dict())
    restarted_networks = [networks.f, networks.g]
    weights = []
    for seed in (1, 1, 2):
        with torch.no_grad():
            for parameter in networks.parameters():
                parameter.add_(7.0)
        restart(networks, *restarted_networks, seed)
        weights.append({k: v.clone() for k, v in networks.state_dict().items() if not k.startswith("h.")})
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    assert any(not torch.equal(value, weights[2][key]) for key, value in weights[0].items())
    # No weight is still near 7.
    assert all((value - initial_state[key]).abs().max() < 3.5 for key, value in weights[0].items())


def test_pretrained_weights_are_loaded_again() -> None:
    spec = DataSpec((3, 32, 32), 2, 2, (), ("a", "b"), ("u", "v"), num_rows=4)
    plugin: Any = load_model("torchvision")
    config = plugin.Config(arch="shufflenet_v2_x0_5", split="stage2", weights="some.safetensors")
    pretrained_state = plugin.create("shufflenet_v2_x0_5", (3, 32, 32), 1000).state_dict()

    def build() -> Networks:
        networks = plugin(spec, config)
        networks.load_whole(pretrained_state)
        return networks  # type: ignore[no-any-return]

    networks = build()
    networks.rebuild = build
    with torch.no_grad():
        networks.f.get_parameter("conv1.0.weight").zero_()
    restart(networks, networks.f, networks.g, 3)
    assert torch.equal(networks.f.get_parameter("conv1.0.weight"), pretrained_state["conv1.0.weight"])
    torch.manual_seed(3)
    assert torch.equal(networks.g.get_parameter("fc.weight"), build().g.get_parameter("fc.weight"))
