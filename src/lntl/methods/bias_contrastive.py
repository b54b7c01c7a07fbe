"""Bias contrast: pull images of one class and different bias together, push others apart (Hong and Yang, 2021)."""

from collections.abc import Iterator

from pydantic import Field
from torch import nn
from torch.nn.functional import normalize

from lntl.methods.base import Objective, minimise
from lntl.methods.posterior import TaskMethod, TaskSettings
from lntl.ops import mean_over_positions, supervised_contrast
from lntl.plugins import Settings, Weight
from lntl.types import IGNORE, Batch, DataSpec, Networks

__all__ = ["BiasContrastive"]


class BiasContrastive(TaskMethod):
    """min_{f,g,k} L_c + alpha * L_con, with v = k(f(x)) / |k(f(x))|, k a projection network.

    L_con = mean over i with non-empty P(i) of -1/|P(i)| sum_{p in P(i)} log( exp(v_i v_p / t) / sum_{a != i} exp(v_i
    v_a / t) ), P(i) = the images of the batch with the class of i and another known bias value. Losses are in nats. A
    map z (N, C, H, W) is averaged over its positions.
    Source: Hong and Yang, NeurIPS 2021 (BiasCon; with task: bias_product also their BiasBal).
    Deviation: one view of an image, without augmentation; an image with empty P(i) is left out of L_con.
    Deviation: the features are those of f; the paper takes those in front of the last layer (`split: last` of convnet)
    without a network k, and contrasts with a second batch in which rare bias values are drawn more often.
    """

    trains = ("f", "g")

    class Config(TaskSettings):
        """Settings of a phase with `method: bias_contrastive`."""

        alpha: Weight = Field(
            1.0,
            description="Weight of the contrast; the authors' code for colored digits weights the task by 0.01 "
            "instead, which corresponds to 100 here.",
        )
        temperature: float = Field(
            0.07, gt=0, le=1e6, description="t, the temperature of the contrast, no unit; 0.07 in the authors' code."
        )
        width: int = Field(64, ge=1, le=65_536, description="Outputs of the projection network k.")

    config: Config

    def __init__(self, networks: Networks, config: Settings, spec: DataSpec) -> None:
        super().__init__(networks, config, spec)
        width = self.config.width
        self.k = nn.Sequential(nn.Linear(networks.num_features, width), nn.ReLU(), nn.Linear(width, width))

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Yield the task loss and the contrastive loss over f, g and k."""
        z = self.f(batch.x)
        task = self.task_loss(self.g(z), batch)
        bias = batch.group % self.spec.num_bias_values
        known = batch.group != IGNORE
        positive = (batch.y[:, None] == batch.y) & (bias[:, None] != bias) & known[:, None] & known
        contrast = supervised_contrast(normalize(self.k(mean_over_positions(z))), positive, self.config.temperature)
        loss = task + self.config.alpha * contrast
        yield minimise(loss, over=(self.f, self.g, self.k), task=task, contrast=contrast)
