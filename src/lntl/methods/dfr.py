"""Deep feature reweighting: refit the last layer on group-balanced rows (Kirichenko et al., ICLR 2023)."""

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from lntl.errors import UserError
from lntl.methods.base import Method, Objective, TrainingBatches, report
from lntl.methods.last_layer import (
    collect_layer_inputs,
    compute_standardisation,
    fit_logistic,
    weighted_loss,
    write_layer,
)
from lntl.plugins import Settings
from lntl.seeding import derive
from lntl.types import Batch, DataSpec, Networks

__all__ = ["DFR"]


class DFR(Method):
    """Kirichenko et al., ICLR 2023: f is fixed, and the last linear layer (W, b) of g is refitted on balanced rows.

    A draw takes from each group (class, bias value) as many rows as the smallest group has, and fits
    min_{W,b} C * sum of CE(W u + b, y) + |W|_1, with u the inputs of the layer, standardised. (W, b) is the mean of
    several draws. Hidden layers of g do not change; u is their output. With several biases, a group has one value of
    each. Rows whose bias is unknown are left out. If a group occurs in the data but not among the rows, the method
    raises an error.

    `rows: val` fits on one half of val (half of each group, at random). From then on the run uses only the other half
    as val, so that the best epoch is not chosen on rows of the fit. Use it if the groups of val have the proportions of
    the data to which the model will be applied. `rows: train` fits on the rows that f has already learned; in the
    paper this is worse.

    One epoch is enough: the layer is fitted before its only step, which trains nothing.
    Deviation: the paper chooses C by worst-group accuracy on held-out rows; here it is a setting.
    Source: "Last Layer Re-Training is Sufficient for Robustness to Spurious Correlations", ICLR 2023, and the authors'
    code, for the standardised features and the mean of the draws.
    """

    trains = ()
    mean_over_images = True
    fits = ("g",)
    sees_bias = True

    class Config(Settings):
        """Settings of a phase with `method: dfr`."""

        rows: Literal["val", "train"] = Field(
            "val", description="Rows on which the layer is fitted: half of val, or train."
        )
        draws: int = Field(10, ge=1, le=1000, description="Balanced draws whose layers are averaged; 10 in the paper.")
        c: float = Field(
            1.0,
            gt=0,
            le=1e6,
            description="C, the inverse strength of the L1 penalty as in scikit-learn; the paper tries 0.01 to 1.",
        )

    config: Config
    task: Tensor
    zeros: Tensor

    def __init__(self, networks: Networks, config: Settings, spec: DataSpec) -> None:
        super().__init__(networks, config, spec)
        self.register_buffer("task", torch.zeros(()))
        self.register_buffer("zeros", torch.zeros(()))

    @classmethod
    def prepared_on(cls, config: Settings) -> Literal["train", "val"]:
        """Return `rows`."""
        assert isinstance(config, DFR.Config)
        return config.rows

    @classmethod
    def check_groups(cls, config: Settings, group: Tensor, all_groups: Tensor, spec: DataSpec) -> None:
        """Raise UserError if a group that occurs in the data has no row."""
        present = set(group.tolist())
        if empty := [number for number in all_groups.tolist() if number not in present]:
            y, value = divmod(empty[0], spec.num_bias_values)
            split = "train" if cls.prepared_on(config) == "train" else "the half of val that dfr is fitted on"
            raise UserError(
                f"dfr: {len(empty)} of {len(all_groups)} groups have no row in {split}, the first is class "
                f"{spec.class_names[y]} with bias value {spec.bias_value_names[value]}; add rows of these groups, "
                "set `rows` to the other split, or use leace"
            )

    def prepare(self, batches: TrainingBatches, seed: int) -> None:
        """Fit g's last layer."""
        inputs = collect_layer_inputs(self.networks, batches(), self.spec)
        groups, group_index, count = inputs.group.unique(return_inverse=True, return_counts=True)
        intercept = inputs.layer.bias is not None
        mean, std = compute_standardisation(inputs.z, None, intercept)
        z, layers = (inputs.z - mean) / std, []
        for number in range(self.config.draws):
            random = torch.Generator().manual_seed(derive(seed, "draw", number))
            order = torch.randperm(len(group_index), generator=random)
            rows = torch.cat([order[group_index[order] == k][: int(count.min())] for k in range(len(groups))])
            layers.append(
                fit_logistic(
                    z[rows], inputs.y[rows], c=self.config.c, l1=True, intercept=intercept, seed=derive(seed, number)
                )
            )
        weight, bias = (torch.stack(part).mean(dim=0) for part in zip(*layers, strict=True))
        write_layer(inputs.layer, weight, bias, mean, std)
        self.task.copy_(weighted_loss(inputs, 1 / count[group_index]))
        self.zeros.copy_((weight == 0).double().mean())

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Log the group-balanced cross-entropy in nats on the rows of the fit, and the share of zero weights."""
        yield report(task=self.task, zeros=self.zeros)
