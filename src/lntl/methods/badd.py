"""BAdd: bias features are added to z in training, so that f does not need to learn the bias (Sarridis et al., 2024)."""

from collections.abc import Iterator, Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from lntl.methods.base import Method, Objective, TrainingBatches, minimise
from lntl.methods.bias_classifier import BiasClassifiers, BiasClassifierSettings
from lntl.methods.bias_labels import check_bias_values
from lntl.plugins import Settings
from lntl.types import Batch, DataSpec, Networks

__all__ = ["BAdd"]


class BAdd(Method):
    """Sarridis et al., 2024: min_{f,g} CE(g(f(x) + m * sum_k b_k(x)), y) in nats; at test g(f(x)) is used.

    b_k is a bias classifier of bias k, fitted on the training data before the phase and then frozen; b_k(x) are its
    features, of the shape of z. They give the bias to g, so that f gains nothing by learning it.
    Source: "BAdd: Bias Mitigation through Bias Addition", 2024, and the authors' code in vb-mitigator.

    Deviation: the bias classifiers learn only from the training data; the authors' code loads trained classifiers and
    does not say on which data they were trained.
    Deviation: the features are added to the output z of f. The paper adds them to the input of the last layer, which is
    the same if f ends there (`split: last` of convnet).
    """

    trains = ("f", "g")
    mean_over_images = True
    sees_bias = True

    class Config(BiasClassifierSettings):
        """Settings of a phase with `method: badd`."""

        m: float = Field(
            1.0,
            ge=0,
            le=1e9,
            description="Factor of the bias features; vb-mitigator uses 1 on Biased-MNIST and 0.5 on FB-Biased-MNIST.",
        )

    config: Config

    def __init__(self, networks: Networks, config: Settings, spec: DataSpec) -> None:
        super().__init__(networks, config, spec)
        self.bias_classifiers = BiasClassifiers(networks, spec)

    def prepare(self, batches: TrainingBatches, seed: int) -> None:
        """Fit the bias classifiers."""
        check_bias_values("badd", batches, self.spec)
        self.bias_classifiers.fit(batches, self.config, seed)

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield the task loss over f and g."""
        z = add_bias_features(self.f(batch.x), self.bias_classifiers(batch.x), self.config.m)
        task = cross_entropy(self.g(z), batch.y)
        yield minimise(task, over=(self.f, self.g), task=task)


def add_bias_features(z: Tensor, bias_features: Sequence[Tensor], m: float = 1.0) -> Tensor:
    """Return z + m * sum_k b_k, of the shape of z.

    Args:
        z: Features (N, ...).
        bias_features: Features from the bias classifier of each bias, of the shape of z, without gradient.
        m: Factor of the bias features, without unit.
    """
    return z + m * torch.stack([*bias_features]).sum(dim=0).type_as(z)
