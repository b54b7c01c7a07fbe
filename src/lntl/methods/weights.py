"""First weights: of a copy of a network, or of f and g begun anew."""

import torch
from torch import nn

from lntl.errors import UserError


def inner(network: nn.Module) -> nn.Module:
    """Return the network itself where Fabric has wrapped it: the wrapper is not to be copied."""
    wrapped = getattr(network, "module", None)
    return wrapped if isinstance(wrapped, nn.Module) else network


def restart(networks: nn.Module, seed: int) -> None:
    """Draw first weights in place, as each layer's reset_parameters does; they follow from `seed` alone.

    Layers whose weights are frozen keep them.
    Raises UserError where a layer holds weights and cannot draw them.
    """
    torch.manual_seed(seed)
    for part in networks.modules():
        weights = list(part.parameters(recurse=False))
        if weights and not any(weight.requires_grad for weight in weights):
            continue
        reset = getattr(part, "reset_parameters", None)
        if reset is not None:
            reset()
        elif weights:
            raise UserError(
                f"model: {type(part).__name__} holds weights but cannot draw them anew, as this method asks for; "
                "give it a method reset_parameters()"
            )
