"""A LeNet-like network whose features are a vector."""

from pydantic import Field
from torch import nn

from lntl.models import image_shape
from lntl.models.heads import PooledHead, TaskHeadSettings, VectorHead, task_head
from lntl.types import DataSpec, Networks

__all__ = ["LeNet"]


class LeNet(Networks):
    """f: (N, C, 28, 28) -> z (N, feature_dim); g: z -> (N, classes); h: z -> (N, bins, *bias_shape)."""

    class Config(TaskHeadSettings):
        """Settings of `model`."""

        feature_dim: int = Field(128, ge=1, le=65_536, description="Length of z.")
        hidden_dim: int = Field(64, ge=1, le=65_536, description="Hidden units of g and channels inside h.")

    def __init__(self, spec: DataSpec, config: "LeNet.Config") -> None:
        super().__init__()
        channels, height, width = image_shape(spec, "lenet")
        self.num_features = config.feature_dim
        self.f = nn.Sequential(
            nn.Conv2d(channels, 32, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * (height // 4) * (width // 4), config.feature_dim),
            nn.ReLU(),
        )
        body = nn.Sequential(nn.Linear(config.feature_dim, config.hidden_dim), nn.ReLU())
        self.g = task_head(body, config.hidden_dim, spec, config)
        if len(spec.bias_shape) == 3:
            self.h = VectorHead(config.feature_dim, config.hidden_dim, spec.num_bins, spec.bias_shape)
        else:
            self.h = PooledHead((config.feature_dim,), spec.num_bins, spec.bias_shape, spec.num_values_per_bias)
