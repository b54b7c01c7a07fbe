"""Restart: give f and g, or copies of them, first weights again."""

import torch
from torch import nn

from lntl.errors import UserError
from lntl.types import Networks


def inner(network: nn.Module) -> nn.Module:
    """Return the network inside Fabric's wrapper: the wrapper cannot be copied."""
    wrapped = getattr(network, "module", None)
    return wrapped if isinstance(wrapped, nn.Module) else network


def restart(networks: Networks, f: nn.Module, g: nn.Module, seed: int) -> None:
    """Give f and g first weights, in place, as a function of `seed`.

    Each layer draws them by its `reset_parameters`. Where a layer has none, or where training begins with given
    weights (`model.weights`, `model.pretrained`), the model is built again and its weights are copied. Frozen weights
    stay.

    Args:
        networks: The networks, which know how to build the model again.
        f: The feature extractor, or a copy of it.
        g: The task head, or a copy of it.
        seed: Seed of the weights.

    Raises:
        UserError: A layer has weights but no `reset_parameters`, and the model cannot be built again.
    """
    parts = [part for network in (f, g) for part in network.modules() if _learns(part)]
    fixed = [part for part in parts if list(part.parameters(recurse=False)) and not hasattr(part, "reset_parameters")]
    torch.manual_seed(seed)
    if networks.rebuild is not None and (fixed or networks.has_given_weights):
        fresh = networks.rebuild()
        _copy(fresh.f, f)
        _copy(fresh.g, g)
    elif fixed:
        raise UserError(
            f"model: {type(fixed[0]).__name__} has weights but cannot draw them again, as this method asks for; "
            "give it a method reset_parameters()"
        )
    else:
        for part in parts:
            if callable(reset := getattr(part, "reset_parameters", None)):
                reset()


def _learns(part: nn.Module) -> bool:
    """Return whether a module is not frozen: it has no weights itself, or one that requires a gradient."""
    weights = list(part.parameters(recurse=False))
    return not weights or any(weight.requires_grad for weight in weights)


@torch.no_grad()
def _copy(source: nn.Module, target: nn.Module) -> None:
    """Copy weights and buffers, except those of frozen modules."""
    state = source.state_dict()
    for name, part in target.named_modules():
        if _learns(part):
            own = {**dict(part.named_parameters(recurse=False)), **dict(part.named_buffers(recurse=False))}
            for key, value in own.items():
                if (full := f"{name}.{key}" if name else key) in state:
                    value.copy_(state[full])
