"""Initialise f and g, or copies of them, again."""

import torch
from torch import nn

from lntl.errors import UserError
from lntl.types import Networks


def unwrap(network: nn.Module) -> nn.Module:
    """Return the network inside the wrapper of Fabric; unlike the wrapper, it can be copied."""
    module = getattr(network, "module", None)
    return module if isinstance(module, nn.Module) else network


def restart(networks: Networks, f: nn.Module, g: nn.Module, seed: int) -> None:
    """Initialise f and g again in place, with random numbers that depend only on `seed`.

    `reset_parameters` of each layer draws its weights. If a layer has no such function, or if training starts from
    existing weights (`model.weights`, `model.pretrained`), the model is built again and its weights are copied. Frozen
    weights do not change.

    Args:
        networks: The networks; `networks.rebuild` builds the model again.
        f: The feature extractor, or a copy of it.
        g: The task head, or a copy of it.
        seed: Seed of the weights.

    Raises:
        UserError: If a layer has weights but no `reset_parameters`, and the model cannot be built again.
    """
    parts = [part for network in (f, g) for part in network.modules() if _is_trainable(part)]
    without_reset = [
        part for part in parts if list(part.parameters(recurse=False)) and not hasattr(part, "reset_parameters")
    ]
    torch.manual_seed(seed)
    if networks.rebuild is not None and (without_reset or networks.has_given_weights):
        new_networks = networks.rebuild()
        _copy(new_networks.f, f)
        _copy(new_networks.g, g)
    elif without_reset:
        raise UserError(
            f"model: {type(without_reset[0]).__name__} has weights but cannot initialise them again, "
            "which this method needs; add a function reset_parameters() to it"
        )
    else:
        for part in parts:
            if callable(reset := getattr(part, "reset_parameters", None)):
                reset()


def _is_trainable(part: nn.Module) -> bool:
    """Return whether a module is not frozen: it has no weights of its own, or one of them requires a gradient."""
    weights = list(part.parameters(recurse=False))
    return not weights or any(weight.requires_grad for weight in weights)


@torch.no_grad()
def _copy(source: nn.Module, target: nn.Module) -> None:
    """Copy weights and buffers, except those of frozen modules."""
    state = source.state_dict()
    for name, part in target.named_modules():
        if _is_trainable(part):
            tensors = {**dict(part.named_parameters(recurse=False)), **dict(part.named_buffers(recurse=False))}
            for key, value in tensors.items():
                if (full_key := f"{name}.{key}" if name else key) in state:
                    value.copy_(state[full_key])
