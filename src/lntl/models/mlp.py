"""A multilayer perceptron for feature vectors, e.g. the embeddings of a foundation model; images are flattened."""

import math
from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from lntl.models.heads import PooledHead, TaskHeadSettings, task_head
from lntl.types import DataSpec, Networks

__all__ = ["MLP"]


class MLP(Networks):
    """f: x (N, D) -> z (N, hidden[-1]); g: z -> (N, classes); h: z -> (N, bins, *bias_shape)."""

    class Config(TaskHeadSettings):
        """Settings of `model`."""

        hidden: list[Annotated[int, Field(ge=1, le=65_536)]] = Field(
            [256, 128],
            min_length=1,
            max_length=100,
            description="Units of each layer of f; the last is the length of z.",
        )
        head_dim: int = Field(64, ge=1, le=65_536, description="Hidden units of g.")
        batch_norm: bool = Field(True, description="BatchNorm after each linear layer of f.")
        input_scale: float = Field(
            1.0,
            gt=0,
            le=1_000_000,
            description="Factor of the input. 0.00392156862745098 divides by 255 a second time, as the network of LfF.",
        )
        dropout: float = Field(0.0, ge=0, lt=1, description="Probability that dropout zeroes a unit of f.")

    def __init__(self, spec: DataSpec, config: "MLP.Config") -> None:
        super().__init__()
        self.num_features = config.hidden[-1]
        layers: list[nn.Module] = [nn.Flatten(), *([Scale(config.input_scale)] if config.input_scale != 1 else [])]
        for inputs, units in pairwise((math.prod(spec.input_shape), *config.hidden)):
            norm = [nn.BatchNorm1d(units)] if config.batch_norm else []
            layers += [nn.Linear(inputs, units), *norm, nn.ReLU(), nn.Dropout(config.dropout)]
        self.f = nn.Sequential(*layers)
        body = nn.Sequential(nn.Linear(self.num_features, config.head_dim), nn.ReLU())
        self.g = task_head(body, config.head_dim, spec, config)
        self.h = PooledHead((self.num_features,), spec.num_bins, spec.bias_shape, spec.num_values_per_bias)


class Scale(nn.Module):
    """Multiplication by a constant factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return x times the factor."""
        return x * self.factor
