"""Pretrained weights from a .safetensors file or the library's download; formats that can run code are not read."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lntl.errors import UserError
from lntl.models.backbone import Backbone, BackboneSettings
from lntl.plugins import Settings
from lntl.types import DataSpec, Networks

_DOWNLOAD_ERRORS = (OSError, RuntimeError, ValueError, AssertionError)


def load_pretrained_weights(networks: Networks, config: Settings, spec: DataSpec) -> None:
    """Load the pretrained weights of the configuration, if it names any; raises UserError if they are unavailable."""
    if not isinstance(networks, Backbone) or not isinstance(config, BackboneSettings):
        return
    state: Mapping[str, Tensor]
    if config.weights is not None:
        path = Path(config.weights)
        state, origin = _read(path, config.arch), f"model.weights: {path}"
    elif config.pretrained:
        fetch = _download_timm if networks.plugin == "timm" else _download_torchvision
        state, origin = fetch(config, spec), "model.pretrained"
    else:
        return
    if non_finite := [
        name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()
    ]:
        raise UserError(f"{origin}: the weight {non_finite[0]} is not finite; use another file")
    try:
        networks.load_whole(state)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error


def _read(path: Path, arch: str) -> dict[str, Tensor]:
    """Return the weights of a file; raises UserError if its metadata name another architecture.

    Architectures that differ only in padding, such as tf_efficientnet_lite0, have the same names and shapes.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    if not path.is_file():
        raise UserError(f"model.weights: {path}: there is no such file; name a .safetensors file of the architecture")
    try:
        with safe_open(path, framework="pt") as file:
            file_arch = (file.metadata() or {}).get("arch", arch)
        if file_arch != arch:
            raise UserError(
                f"model.weights: {path}: contains weights of {file_arch}, but model.arch is {arch}; set it to "
                f"{file_arch}"
            )
        return load_file(path)
    except SafetensorError as error:
        raise UserError(
            f"model.weights: {path}: not a .safetensors file ({error}); other formats can run code and are not read"
        ) from error


def _download_torchvision(config: BackboneSettings, spec: DataSpec) -> Mapping[str, Tensor]:
    from torchvision.models import get_model_weights

    weights = get_model_weights(config.arch).DEFAULT
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except _DOWNLOAD_ERRORS as error:
        target = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise UserError(
            f"model.pretrained: the weights of {config.arch} cannot be downloaded ({error}); copy the file "
            f"{weights.url} to {target}, or name a .safetensors file in model.weights"
        ) from error
    # The names in DenseNet's file have a dot that today's layers lack.
    return {re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d)", r"\1\2", key): v for key, v in state.items()}


def _download_timm(config: BackboneSettings, spec: DataSpec) -> Mapping[str, Tensor]:
    from lntl.models.timm import import_timm, size_arguments

    pretrained_config = import_timm().get_pretrained_cfg(config.arch)
    if pretrained_config is None or not pretrained_config.has_weights:
        raise UserError(
            f"model.pretrained: timm has no weights of {config.arch}; name a .safetensors file in model.weights"
        )
    source = (
        f"model.safetensors of {pretrained_config.hf_hub_id}"
        if pretrained_config.hf_hub_id
        else f"the weights of {config.arch}"
    )
    size = size_arguments(config.arch, spec.input_shape)
    try:
        network = import_timm().create_model(config.arch, pretrained=True, num_classes=spec.num_classes, **size)
    except _DOWNLOAD_ERRORS as error:
        raise UserError(
            f"model.pretrained: the weights of {config.arch} cannot be downloaded ({error}); download {source} "
            "from the Hugging Face hub on another machine, and name it in model.weights"
        ) from error
    state: dict[str, Tensor] = network.state_dict()
    return state
