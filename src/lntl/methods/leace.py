"""LEACE: erase the bias from the features in closed form; refit the last layer (Belrose et al., NeurIPS 2023)."""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from lntl.erasure import Eraser, LeaceFit
from lntl.errors import UserError
from lntl.methods.base import Method, Objective, TrainingBatches, report
from lntl.methods.last_layer import (
    collect_layer_inputs,
    compute_standardisation,
    fit_logistic,
    independence_weights,
    weighted_loss,
    write_layer,
)
from lntl.plugins import Settings
from lntl.types import IGNORE, Batch, DataSpec, Networks

__all__ = ["LEACE"]

_CHUNK = 4096  # number of rows whose moments are computed in one operation


class LEACE(Method):
    """Belrose et al., NeurIPS 2023: z <- z - W^+ P W (z - mean), the smallest change of z after which cov(z, b) = 0.

    W = cov(z)^(-1/2), P is the projection onto the columns of W cov(z, b), and b contains an indicator for each value
    of each bias. On the rows of the fit, no linear classifier of b then has a lower cross-entropy than the best
    constant. This is a statement about the loss, not about accuracy, and not about networks with hidden layers.

    With model.eraser: leace the networks are split in front of the last linear layer of g. f then ends with the hidden
    layers of g and the eraser (`lntl.erasure.Eraser`), which is the identity until this phase; g is only the last
    layer. The eraser is fitted on z. Then g is fitted on the erased and standardised z by logistic regression with an
    L2 penalty, C * sum of w CE + |W|^2 / 2. h does not change.

    Rows have the weight w = p(y) p(b) / p(y, b), where b is the combination of all biases. Label and bias are then
    independent if every class occurs with every bias value; otherwise part of the label would be erased, too.
    `rows: val` fits on one half of val instead of train; the whole run then uses only the other half as val. Rows
    whose bias is unknown are left out. A bias that is constant, or that determines the class of every row, raises an
    error.

    One epoch is enough: the networks are fitted before its only step, which trains nothing.
    Source: "LEACE: Perfect linear concept erasure in closed form", NeurIPS 2023; the row weights are our addition, as
    in `reweight`.
    """

    trains = ()
    mean_over_images = True
    fits = ("f", "g")
    sees_bias = True
    required_model_settings: ClassVar = {"eraser": "leace"}

    class Config(Settings):
        """Settings of a phase with `method: leace`."""

        rows: Literal["train", "val"] = Field(
            "train", description="Rows on which the eraser and the layer are fitted: train, or half of val."
        )
        c: float = Field(
            1.0, gt=0, le=1e6, description="C, the inverse strength of the layer's L2 penalty as in scikit-learn."
        )

    config: Config
    task: Tensor
    directions: Tensor

    def __init__(self, networks: Networks, config: Settings, spec: DataSpec) -> None:
        super().__init__(networks, config, spec)
        erasers = [module for module in self.f.modules() if isinstance(module, Eraser)]
        if not erasers:
            raise UserError("leace: f has no eraser at its end; set model.eraser: leace")
        self._eraser = (erasers[-1],)  # in a tuple, so that it is not a child module: it belongs to f
        self.register_buffer("task", torch.zeros(()))
        self.register_buffer("directions", torch.zeros(()))

    @classmethod
    def prepared_on(cls, config: Settings) -> Literal["train", "val"]:
        """Return `rows`."""
        assert isinstance(config, LEACE.Config)
        return config.rows

    @classmethod
    def check_groups(cls, config: Settings, group: Tensor, all_groups: Tensor, spec: DataSpec) -> None:
        """Raise UserError if the bias is constant, or determines the class of every row."""
        split = "train" if cls.prepared_on(config) == "train" else "the half of val that leace is fitted on"
        known = group[group != IGNORE].unique()
        joint = known % spec.num_bias_values
        names = [bias.name for bias in spec.biases] or ["the bias"]
        values = [bias.values for bias in spec.biases] or [spec.bias_value_names]
        for name, column, value_names in zip(names, _compute_bias_values(joint, spec).T.tolist(), values, strict=True):
            if len(set(column)) < 2:
                raise UserError(
                    f"leace: {name} is {value_names[column[0]] if column else 'unknown'} on every row of {split}, so "
                    "there is nothing to erase; leave it out of data.bias"
                )
        if len(joint.unique()) == len(joint):
            raise UserError(
                f"leace: the bias determines the class of every row of {split}, so the class would be erased "
                "with it; set rows to the other split, or add counterexamples"
            )

    def prepare(self, batches: TrainingBatches, seed: int) -> None:
        """Fit the eraser at the end of f, then g."""
        eraser, spec = self._eraser[0], self.spec
        eraser.reset()
        inputs = collect_layer_inputs(self.networks, batches(), spec)
        weight = independence_weights(inputs.group, spec.num_bias_values)
        bias = _compute_bias_values(inputs.group % spec.num_bias_values, spec)
        fit = LeaceFit(inputs.z.shape[1], spec.num_values_per_bias or spec.num_bias_values)
        for rows in torch.arange(len(bias)).split(_CHUNK):
            fit.update(inputs.z[rows], bias[rows], weight[rows])
        new_eraser = fit.eraser()
        eraser.copy_(new_eraser)
        erased_inputs = replace(inputs, z=new_eraser(inputs.z))
        intercept = inputs.layer.bias is not None
        std_before = compute_standardisation(inputs.z, weight, intercept)[1]
        mean, std = compute_standardisation(erased_inputs.z, weight, intercept)
        # A feature that contained only the bias now contains rounding errors, which must not be scaled up.
        std = torch.where(std > 1e-6 * std_before, std, std_before)
        z = (erased_inputs.z - mean) / std
        layer = fit_logistic(z, inputs.y, weight, c=self.config.c, intercept=intercept, seed=seed)
        write_layer(inputs.layer, *layer, mean, std)
        self.task.copy_(weighted_loss(erased_inputs, weight))
        self.directions.copy_(new_eraser.inward.any(dim=1).sum())

    def objectives(self, batch: Batch, progress: float) -> Iterator[Objective]:
        """Log the weighted cross-entropy in nats on the rows of the fit, and the number of erased directions."""
        yield report(task=self.task, directions=self.directions)


def _compute_bias_values(joint: Tensor, spec: DataSpec) -> Tensor:
    """Return the value of each bias, (n, B) int64, for joint values (n,)."""
    return torch.stack([bias.labels(joint) for bias in spec.biases] or [joint], dim=1)
