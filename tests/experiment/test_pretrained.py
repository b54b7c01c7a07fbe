"""Start weights come from a file or a download; if the download fails, the message names the file to copy."""

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
TIMM_MODEL = {"name": "timm/test_resnet", "split": "layer1"}
MakeConfig = Callable[..., Config]


def make_state(arch: str, classes: int = 1000, seed: int = 7) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    plugin: Any = load_model("torchvision")
    state: dict[str, Tensor] = plugin.create(arch, (3, 28, 28), classes).state_dict()
    return state


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    """A file with the weights of MODEL for 1000 classes."""
    save_file(make_state("shufflenet_v2_x0_5"), tmp_path / "all.safetensors")
    return tmp_path / "all.safetensors"


def test_weights_are_loaded_from_a_file(make_config: MakeConfig, weights_file: Path) -> None:
    networks = build(make_config(model=MODEL | {"weights": str(weights_file)})).networks
    assert torch.equal(networks.f.state_dict()["conv1.0.weight"], make_state("shufflenet_v2_x0_5")["conv1.0.weight"])
    random_networks = build(make_config(model=MODEL)).networks
    for name in ("g.fc.weight", "h.last.0.weight"):  # weights that are not in the file follow from the seed
        assert torch.equal(networks.state_dict()[name], random_networks.state_dict()[name])


def test_weights_that_are_not_finite_are_refused(make_config: MakeConfig, weights_file: Path) -> None:
    state = make_state("shufflenet_v2_x0_5")
    state["fc.bias"][0] = torch.inf
    save_file(state, weights_file)
    with pytest.raises(UserError, match=r"model\.weights: .*all\.safetensors: the weight fc\.bias is not finite"):
        build(make_config(model=MODEL | {"weights": str(weights_file)}))


def test_weights_whose_metadata_name_another_architecture_are_refused(
    make_config: MakeConfig, weights_file: Path
) -> None:
    save_file(make_state("shufflenet_v2_x0_5"), weights_file, metadata={"arch": "tf_shufflenet"})
    with pytest.raises(
        UserError, match=r"all\.safetensors: contains weights of tf_shufflenet, but model\.arch is shuff"
    ):
        build(make_config(model=MODEL | {"weights": str(weights_file)}))


@pytest.mark.full
def test_a_checkpoint_does_not_need_the_file_of_start_weights(
    tmp_path: Path, weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(
        tmp_path, model=MODEL | {"weights": weights_file.name}, training={"phases": [{"method": "erm", "epochs": 1}]}
    )
    monkeypatch.chdir(tmp_path)
    assert lntl("train", "tiny.yaml") == 0
    weights_file.unlink()
    assert lntl("eval", str(RUN)) == 0
    assert lntl("train", "tiny.yaml", "--resume", "auto", "--epochs", "2") == 0


def write_pickle(path: Path) -> None:
    torch.save(make_state("shufflenet_v2_x0_5"), path)


def write_other_architecture(path: Path) -> None:
    save_file(make_state("squeezenet1_1"), path)


@pytest.mark.parametrize(
    ("write_weights", "message"),
    [
        (lambda path: None, r"model\.weights: .*w\.safetensors: there is no such file; name a \.safetensors file"),
        (write_pickle, r"w\.safetensors: not a \.safetensors file \(.*\); other formats can run code and are not read"),
        (
            write_other_architecture,
            r"model\.weights: .*w\.safetensors: \d+ weights do not fit torchvision/shufflenet_v2_x0_5; ",
        ),
    ],
)
def test_a_wrong_file_is_reported(
    make_config: MakeConfig, tmp_path: Path, write_weights: Callable[[Path], None], message: str
) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path)
    with pytest.raises(UserError, match=message):
        build(make_config(model=MODEL | {"weights": str(path)}))


def test_torchvisions_weights_are_read_without_running_code(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    download_settings: list[dict[str, Any]] = []

    def record_download(url: str, **settings: Any) -> dict[str, Tensor]:
        download_settings.append(settings | {"url": url})
        return make_state("shufflenet_v2_x0_5")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", record_download)
    networks = build(make_config(model=MODEL | {"pretrained": True})).networks
    assert torch.equal(networks.f.state_dict()["conv1.0.weight"], make_state("shufflenet_v2_x0_5")["conv1.0.weight"])
    assert download_settings[0]["weights_only"] is True
    assert download_settings[0]["check_hash"] is True


def test_old_weight_names_of_densenet_are_translated(monkeypatch: pytest.MonkeyPatch) -> None:
    state = make_state("densenet121")
    old_state = {k.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): v for k, v in state.items()}
    assert old_state.keys() != state.keys()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda url, **settings: old_state)
    spec = DataSpec((3, 32, 32), 4, 5, (), tuple("abcd"), tuple("uvwxy"), 100)
    plugin: Any = load_model("torchvision")
    config = plugin.Config(arch="densenet121", split="features.pool0", pretrained=True)
    networks = plugin(spec, config)
    pretrained.load_pretrained_weights(networks, config, spec)
    for key in ("denseblock1.denselayer1.norm1.weight", "denseblock4.denselayer3.conv2.weight"):
        assert torch.equal(networks.g.state_dict()[f"features.{key}"], state[f"features.{key}"])


def test_images_that_are_too_small_are_reported(make_config: MakeConfig) -> None:
    with pytest.raises(UserError, match=r"at 'features\.pool0': images of 3 x 28 x 28 cannot be processed \("):
        build(make_config(model={"name": "torchvision/densenet121", "split": "features.pool0"}))


def raise_no_network(*arguments: Any, **settings: Any) -> None:
    raise urllib.error.URLError("no route to host")


def test_without_a_network_the_message_names_the_file_to_copy(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", raise_no_network)
    message = (
        r"model\.pretrained: the weights of shufflenet_v2_x0_5 cannot be downloaded \(.*no route to host.*\); copy "
        r"the file https://\S+\.pth to \S+/checkpoints/\S+\.pth, or name a \.safetensors file in model\.weights"
    )
    with pytest.raises(UserError, match=message):
        build(make_config(model=MODEL | {"pretrained": True}))


def test_weights_of_timm_are_loaded_into_their_layers(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    create_model, pretrained_networks = timm.create_model, []

    def create_and_record(arch: str, pretrained: bool = False, **settings: Any) -> Any:
        torch.manual_seed(5 if pretrained else torch.initial_seed())
        network = create_model(arch, **settings)
        if pretrained:
            pretrained_networks.append(network)
        return network

    monkeypatch.setattr(timm, "create_model", create_and_record)
    networks = build(make_config(model=TIMM_MODEL | {"pretrained": True})).networks
    assert torch.equal(
        networks.f.state_dict()["layer1.0.conv1.weight"], pretrained_networks[0].state_dict()["layer1.0.conv1.weight"]
    )


def test_without_a_network_the_message_names_the_weights_of_timm(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("timm.models._builder.load_pretrained", raise_no_network)
    message = r"cannot be downloaded \(.*no route to host.*\); download model\.safetensors of timm/test_resnet\.r160"
    with pytest.raises(UserError, match=message):
        build(make_config(model=TIMM_MODEL | {"pretrained": True}))


def test_weights_and_pretrained_together_are_refused(make_config: MakeConfig) -> None:
    with pytest.raises(UserError, match="pretrained and weights both name start weights; set only one of them"):
        make_config(model=MODEL | {"pretrained": True, "weights": "x.safetensors"})
