"""Start weights from a file or a download; without either, the message names the file to copy."""

import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_runs import RUN, lntl, write_config
from torch import Tensor

from lntl.config import Config
from lntl.errors import UserError
from lntl.experiment import pretrained
from lntl.experiment.build import build
from lntl.models import load_model
from lntl.types import DataSpec

MODEL = {"name": "torchvision/shufflenet_v2_x0_5", "split": "stage2"}
TIMM = {"name": "timm/test_resnet", "split": "layer1"}
MakeConfig = Callable[..., Config]


def state_of(arch: str, classes: int = 1000, seed: int = 7) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    plugin: Any = load_model("torchvision")
    state: dict[str, Tensor] = plugin.create(arch, (3, 28, 28), classes).state_dict()
    return state


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Weights of the whole architecture, for 1000 classes."""
    save_file(state_of("shufflenet_v2_x0_5"), tmp_path / "whole.safetensors")
    return tmp_path / "whole.safetensors"


def test_weights_from_a_file(make_config: MakeConfig, file: Path) -> None:
    begun = build(make_config(model=MODEL | {"weights": str(file)})).networks
    assert torch.equal(begun.f.state_dict()["conv1.0.weight"], state_of("shufflenet_v2_x0_5")["conv1.0.weight"])
    plain = build(make_config(model=MODEL)).networks
    for name in ("g.fc.weight", "h.last.0.weight"):  # what the file does not hold follows from the seed, as ever
        assert torch.equal(begun.state_dict()[name], plain.state_dict()[name])


def test_weights_that_are_not_finite_are_refused(make_config: MakeConfig, file: Path) -> None:
    state = state_of("shufflenet_v2_x0_5")
    state["fc.bias"][0] = torch.inf
    save_file(state, file)
    with pytest.raises(UserError, match=r"model\.weights: .*whole\.safetensors: the weight fc\.bias is not finite"):
        build(make_config(model=MODEL | {"weights": str(file)}))


def test_weights_of_an_architecture_that_only_pads_differently_are_refused(make_config: MakeConfig, file: Path) -> None:
    save_file(state_of("shufflenet_v2_x0_5"), file, metadata={"arch": "tf_shufflenet"})
    with pytest.raises(
        UserError, match=r"whole\.safetensors: contains weights of tf_shufflenet, but model\.arch is shuff"
    ):
        build(make_config(model=MODEL | {"weights": str(file)}))


@pytest.mark.full
def test_a_checkpoint_no_longer_needs_the_file(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(tmp_path, model=MODEL | {"weights": file.name}, training={"phases": [{"method": "erm", "epochs": 1}]})
    monkeypatch.chdir(tmp_path)
    assert lntl("train", "tiny.yaml") == 0
    file.unlink()
    assert lntl("eval", str(RUN)) == 0
    assert lntl("train", "tiny.yaml", "--resume", "auto", "--epochs", "2") == 0


def pickled(path: Path) -> None:
    torch.save(state_of("shufflenet_v2_x0_5"), path)


def of_another(path: Path) -> None:
    save_file(state_of("squeezenet1_1"), path)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: None, r"model\.weights: .*w\.safetensors: there is no such file; name a \.safetensors file"),
        (pickled, r"w\.safetensors: not a \.safetensors file \(.*\); other formats can run code and are not read"),
        (of_another, r"model\.weights: .*w\.safetensors: \d+ entries do not fit torchvision/shufflenet_v2_x0_5; "),
    ],
)
def test_a_wrong_file_is_reported(
    make_config: MakeConfig, tmp_path: Path, make: Callable[[Path], None], complaint: str
) -> None:
    path = tmp_path / "w.safetensors"
    make(path)
    with pytest.raises(UserError, match=complaint):
        build(make_config(model=MODEL | {"weights": str(path)}))


def test_torchvisions_weights_are_read_without_running_code(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def download(url: str, **settings: Any) -> dict[str, Tensor]:
        asked.append(settings | {"url": url})
        return state_of("shufflenet_v2_x0_5")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    begun = build(make_config(model=MODEL | {"pretrained": True})).networks
    assert torch.equal(begun.f.state_dict()["conv1.0.weight"], state_of("shufflenet_v2_x0_5")["conv1.0.weight"])
    assert asked[0]["weights_only"] is True
    assert asked[0]["check_hash"] is True


def test_names_of_an_old_densenet_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    state = state_of("densenet121")
    old = {k.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): v for k, v in state.items()}
    assert old.keys() != state.keys()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda url, **settings: old)
    spec = DataSpec((3, 32, 32), 4, 5, (), tuple("abcd"), tuple("uvwxy"), 100)
    plugin: Any = load_model("torchvision")
    config = plugin.Config(arch="densenet121", split="features.pool0", pretrained=True)
    networks = plugin(spec, config)
    pretrained.load_first_weights(networks, config, spec)
    for key in ("denseblock1.denselayer1.norm1.weight", "denseblock4.denselayer3.conv2.weight"):
        assert torch.equal(networks.g.state_dict()[f"features.{key}"], state[f"features.{key}"])


def test_images_that_are_too_small_are_reported(make_config: MakeConfig) -> None:
    with pytest.raises(UserError, match=r"at 'features\.pool0': images of 3 x 28 x 28 cannot be processed \("):
        build(make_config(model={"name": "torchvision/densenet121", "split": "features.pool0"}))


def no_network(*arguments: Any, **settings: Any) -> None:
    raise urllib.error.URLError("no route to host")


def test_without_a_network_the_message_names_the_file_to_copy(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    message = (
        r"model\.pretrained: the weights of shufflenet_v2_x0_5 cannot be downloaded \(.*no route to host.*\); copy "
        r"the file https://\S+\.pth to \S+/checkpoints/\S+\.pth, or name a \.safetensors file in model\.weights"
    )
    with pytest.raises(UserError, match=message):
        build(make_config(model=MODEL | {"pretrained": True}))


def test_weights_of_timm_are_loaded_into_their_layers(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    original, made = timm.create_model, []

    def create(arch: str, pretrained: bool = False, **settings: Any) -> Any:
        torch.manual_seed(5 if pretrained else torch.initial_seed())
        network = original(arch, **settings)
        if pretrained:
            made.append(network)
        return network

    monkeypatch.setattr(timm, "create_model", create)
    begun = build(make_config(model=TIMM | {"pretrained": True})).networks
    assert torch.equal(begun.f.state_dict()["layer1.0.conv1.weight"], made[0].state_dict()["layer1.0.conv1.weight"])


def test_timm_weights_without_an_internet_connection(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.models._builder.load_pretrained", no_network)
    told = r"cannot be downloaded \(.*no route to host.*\); download model\.safetensors of timm/test_resnet\.r160"
    with pytest.raises(UserError, match=told):
        build(make_config(model=TIMM | {"pretrained": True}))


def test_weights_and_pretrained_together_are_reported(make_config: MakeConfig) -> None:
    with pytest.raises(UserError, match="pretrained and weights both name start weights; set only one of them"):
        make_config(model=MODEL | {"pretrained": True, "weights": "x.safetensors"})
