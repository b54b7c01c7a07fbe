"""Networks f, g and h, one architecture per file, and the heads that the architectures share."""

from collections import OrderedDict

import torch
from torch import nn

from lntl import plugins
from lntl.erasure import Eraser
from lntl.errors import UserError
from lntl.models.heads import PooledHead
from lntl.ops import split_last_layer
from lntl.types import DataSpec, Networks


def load_model(name: str) -> type[Networks]:
    """Return a model's class by its name, or by the dotted name of a user's class."""
    return plugins.load("lntl.models", name, Networks)


def image_shape(spec: DataSpec, model: str) -> tuple[int, int, int]:
    """Return channels, height and width of the images; raises UserError if the data are vectors."""
    if len(spec.input_shape) != 3:
        raise UserError(f"model.name: {model} takes images, but the data are vectors {spec.input_shape}; use mlp")
    channels, height, width = spec.input_shape
    return channels, height, width


def append_eraser(networks: Networks, spec: DataSpec) -> None:
    """Split networks in front of the last linear layer of g; f then ends with an eraser, at first the identity.

    f becomes a sequence of `features` (the old f), `hidden` (the layers of g before the last, if any) and `eraser`. g
    becomes its last layer. If g had hidden layers, h is replaced by a new head for the new z.

    Raises UserError if g does not end with a linear layer that gives the logits.
    """
    networks.eval()
    with torch.no_grad():
        z = networks.f(torch.zeros(1, *spec.input_shape))
    hidden, layer = split_last_layer(networks.g, z, spec.num_classes)
    networks.train()
    parts: OrderedDict[str, nn.Module] = OrderedDict(features=networks.f)
    if layer is not networks.g:
        parts["hidden"] = hidden
        networks.num_features, networks.g = layer.in_features, layer
        networks.h = PooledHead((layer.in_features,), spec.num_bins, spec.bias_shape, spec.num_values_per_bias)
    num_values = sum(spec.num_values_per_bias or (spec.num_bias_values,))
    parts["eraser"] = Eraser(layer.in_features, min(layer.in_features, num_values))
    networks.f = nn.Sequential(parts)
    factors = networks.lr_factors.items()
    networks.lr_factors = {f"features.{name}".removesuffix("."): factor for name, factor in factors}
