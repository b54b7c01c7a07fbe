"""A multilayer perceptron for feature vectors, e.g. the embeddings of a foundation model; images are flattened."""

import math
from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import nn

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
        dropout: float = Field(0.0, ge=0, lt=1, description="Probability that dropout zeroes a unit of f.")

    def __init__(self, spec: DataSpec, config: "MLP.Config") -> None:
        super().__init__()
        self.num_features = config.hidden[-1]
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, units in pairwise((math.prod(spec.input_shape), *config.hidden)):
            layers += [nn.Linear(inputs, units), nn.BatchNorm1d(units), nn.ReLU(), nn.Dropout(config.dropout)]
        self.f = nn.Sequential(*layers)
        body = nn.Sequential(nn.Linear(self.num_features, config.head_dim), nn.ReLU())
        self.g = task_head(body, config.head_dim, spec, config)
        self.h = PooledHead((self.num_features,), spec.num_bins, spec.bias_shape, spec.num_values_per_bias)
