"""Refit the last linear layer of g on frozen features: logistic regression with scikit-learn."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lntl.errors import UserError
from lntl.methods.weights import unwrap
from lntl.ops import split_last_layer
from lntl.types import IGNORE, Batch, DataSpec, Networks


@dataclass(frozen=True)
class LayerInputs:
    """The rows on which a last layer is fitted.

    Attributes:
        layer: The last layer.
        z: Its inputs, (n, C) float64 on the CPU.
        y: Class of each row, (n,) int64.
        group: Group of each row, (n,) int64.
    """

    layer: nn.Linear
    z: Tensor
    y: Tensor
    group: Tensor


def collect_layer_inputs(networks: Networks, batches: Iterable[Batch], spec: DataSpec) -> LayerInputs:
    """Return the inputs of g's last linear layer for the rows whose bias is known.

    As in evaluation, f and g run in float32, without the wrapper of Fabric that lowers the precision.

    Raises UserError if g does not end with such a layer, or if a class has no row.
    """
    f, g = unwrap(networks.f), unwrap(networks.g)
    body, layer = None, None
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for batch in batches:
        z = f(batch.x)
        if body is None:
            body, layer = split_last_layer(g, z, spec.num_classes)
        known = batch.group != IGNORE
        parts.append((body(z)[known].cpu().double(), batch.y[known].cpu(), batch.group[known].cpu()))
    assert layer is not None
    z, y, group = (torch.cat(part) for part in zip(*parts, strict=True))
    if missing := sorted({*range(spec.num_classes)} - {*y.tolist()}):
        raise UserError(
            f"the last layer cannot be fitted: no row has class {spec.class_names[missing[0]]} and a bias label"
        )
    return LayerInputs(layer, z, y, group)


def fit_logistic(
    z: Tensor, y: Tensor, weight: Tensor | None = None, *, c: float, l1: bool = False, intercept: bool = True, seed: int
) -> tuple[Tensor, Tensor]:
    """Return weights (K, C) and intercepts (K,) of a multinomial logistic regression, with scikit-learn.

    Args:
        z: Features (n, C) float64.
        y: Classes (n,), each of 0 to K - 1 at least once.
        weight: Weight of each row, (n,), with a mean of 1; None: all weights are 1.
        c: Inverse strength of the penalty, relative to the sum of the losses.
        l1: Whether the penalty is the sum of |w|, instead of half the sum of w^2.
        intercept: Whether intercepts are fitted; without them, they are 0.
        seed: Seed of the order in which the solver visits the rows.
    """
    import sklearn  # imported here because it is slow to import
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    settings: dict[str, Any] = {"solver": "lbfgs", "max_iter": 1000}
    if l1:
        is_before_1_8 = tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 8)
        penalty = {"penalty": "l1"} if is_before_1_8 else {"l1_ratio": 1.0}
        settings = {"solver": "saga", "tol": 1e-3, "max_iter": 300} | penalty
    model = LogisticRegression(C=c, fit_intercept=intercept, random_state=seed % 2**32, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the result is accurate enough
        model.fit(z.numpy(), y.numpy(), sample_weight=None if weight is None else weight.numpy())
    w, b = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_).expand(len(model.coef_))
    if len(w) == 1:  # scikit-learn has one row for two classes
        return torch.cat([-w, w]) / 2, torch.cat([-b, b]) / 2
    return w, b


def compute_standardisation(z: Tensor, weight: Tensor | None, centred: bool) -> tuple[Tensor, Tensor]:
    """Return mean (C,) and standard deviation (C,) of features (n, C).

    The mean is 0 if not `centred`; a standard deviation of 0 is replaced by 1.
    """
    w = torch.ones(len(z), dtype=z.dtype) if weight is None else weight
    mean = w @ z / w.sum()
    std = (w @ (z - mean).square() / w.sum()).sqrt()
    is_constant = std <= 1e-6 * mean.abs().clamp(min=1e-6)
    return mean if centred else torch.zeros_like(mean), torch.where(is_constant, torch.ones_like(std), std)


@torch.no_grad()
def write_layer(layer: nn.Linear, weight: Tensor, bias: Tensor, mean: Tensor, std: Tensor) -> None:
    """Write weights (K, C) and intercepts (K,), which were fitted on (z - mean) / std, into a layer."""
    layer.weight.copy_(weight / std)
    if layer.bias is not None:
        layer.bias.copy_(bias - weight / std @ mean)


def weighted_loss(inputs: LayerInputs, weight: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats of the layer on the rows, weighted by `weight` (n,)."""
    logits = inputs.layer(inputs.z.type_as(inputs.layer.weight)).cpu().double()
    return (cross_entropy(logits, inputs.y, reduction="none") * weight).sum() / weight.sum()


def independence_weights(group: Tensor, num_bias_values: int) -> Tensor:
    """Return the weight p(y) p(b) / p(y, b) of each row, scaled to mean 1, float64 (n,).

    With these weights bias and label are independent, provided that every class occurs with every bias value.
    """
    y, b = group // num_bias_values, group % num_bias_values
    count_y, count_b, count_group = (torch.bincount(labels).double() for labels in (y, b, group))
    weight = count_y[y] * count_b[b] / count_group[group]
    return weight / weight.mean()
