"""Networks for vectors (N, D) with one or several bias labels per example."""

import math

from torch import Tensor, nn

from lntl.plugins import Settings
from lntl.types import DataSpec, Networks

WIDTH = 16


class BiasHead(nn.Module):
    """h: z (N, C) -> logits (N, bins) or (N, bins, B), or the logits of the examples in the mask `where`."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        biases = spec.bias_shape or (1,)
        self.has_one_bias = not spec.bias_shape
        self.body = nn.Sequential(
            nn.Linear(WIDTH, WIDTH),
            nn.BatchNorm1d(WIDTH),
            nn.ReLU(),
            nn.Linear(WIDTH, spec.num_bins * biases[0]),
            nn.Unflatten(1, (spec.num_bins, *biases)),
        )

    def forward(self, z: Tensor, where: Tensor | None = None) -> Tensor:
        logits: Tensor = self.body(z)
        logits = logits[..., 0] if self.has_one_bias else logits
        return logits if where is None else logits[where]


class TinyNetworks(Networks):
    """f: x (N, ...) -> z (N, WIDTH); g: z -> (N, classes)."""

    class Config(Settings):
        """No settings."""

    def __init__(self, spec: DataSpec, config: Settings) -> None:
        super().__init__()
        self.num_features = WIDTH
        self.f = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(spec.input_shape), WIDTH), nn.ReLU())
        self.g = nn.Linear(WIDTH, spec.num_classes)
        self.h = BiasHead(spec)
