"""The authors' network for Colored MNIST, split into f and g at the 32 x 14 x 14 map. Source: the authors' code."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import batch_norm, conv2d

from lntl.models import image_shape
from lntl.models.heads import MapHead, PooledHead, TaskHeadSettings, task_head
from lntl.types import DataSpec, Networks

__all__ = ["ConvNet"]


class ConvNet(Networks):
    """f: (N, 3, 28, 28) -> z (N, 32, 14, 14), or (N, 64); g: z -> (N, classes); h: z -> (N, bins, *bias_shape)."""

    class Config(TaskHeadSettings):
        """Settings of `model`; the defaults give the architecture of the paper."""

        bias_head: Literal["map", "pooled"] = Field(
            "map",
            description="map: h predicts at each position from its neighbourhood, as in the paper; pooled: h predicts "
            "once per image from the whole map, for a bias that is the same everywhere in an image. Data with one bias "
            "label per image always use pooled.",
        )
        split: Literal["map", "last"] = Field(
            "map",
            description="End of f. map: after two convolutions, as in the paper. last: in front of the last layer of "
            "g, as in the papers of other methods; h is then `pooled`.",
        )
        batch_norm: bool = Field(
            False,
            description="BatchNorm after each convolution. The network of the paper does not have it; training is "
            "faster with it, especially on augmented images.",
        )

    def __init__(self, spec: DataSpec, config: "ConvNet.Config") -> None:
        super().__init__()
        channels, height, width = image_shape(spec, "convnet")
        ends_at_map = config.split == "map"
        shape = (32, height // 2, width // 2) if ends_at_map else (64,)
        self.num_features = shape[0]
        features = Features(channels, config.batch_norm)
        body = nn.Sequential(
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            *norm_relu(64, config.batch_norm),
            nn.Conv2d(64, 64, 3, padding=1),
            *norm_relu(64, config.batch_norm),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.f = features if ends_at_map else nn.Sequential(features, body)
        self.g = task_head(body if ends_at_map else nn.Sequential(), 64, spec, config)
        if config.bias_head == "map" and len(spec.bias_shape) == 3 and ends_at_map:
            self.h = MapHead(32, spec.num_bins, spec.bias_shape[0])
        else:
            self.h = PooledHead(shape, spec.num_bins, spec.bias_shape, spec.num_values_per_bias)


def norm_relu(channels: int, batch_norm: bool) -> list[nn.Module]:
    """Return the layers after a convolution: ReLU, and BatchNorm before ReLU if `batch_norm` is True."""
    return [nn.BatchNorm2d(channels), nn.ReLU()] if batch_norm else [nn.ReLU()]


class Features(nn.Module):
    """f: x (N, C, 28, 28) -> z (N, 32, 14, 14), non-negative."""

    def __init__(self, channels: int, batch_norm: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.first = nn.Conv2d(channels, 32, 5, padding=2)
        self.rest = nn.Sequential(
            # ReLU follows pooling, on a smaller map. Without BatchNorm, z is the same as in the authors' order (ReLU
            # before pooling).
            nn.MaxPool2d(3, stride=2, padding=1),
            *norm_relu(32, batch_norm),
            nn.Conv2d(32, 32, 3, padding=1),
            *norm_relu(32, batch_norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return z = rest(first(norm(x))).

        The scale and the shift of the norm are folded into the weights of the convolution; the shift becomes the
        weights of an additional channel of ones. The output is the same, and the backward pass is faster, because it
        computes no gradient with respect to the normalised images.
        """
        norm, first = self.norm, self.first
        x = batch_norm(x, norm.running_mean, norm.running_var, training=norm.training, eps=norm.eps)
        scale_weight = first.weight * norm.weight[:, None, None]
        shift_weight = (first.weight * norm.bias[:, None, None]).sum(dim=1, keepdim=True)
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1).contiguous(memory_format=torch.channels_last)
        z: Tensor = self.rest(conv2d(x, torch.cat([scale_weight, shift_weight], dim=1), first.bias, padding=2))
        return z
