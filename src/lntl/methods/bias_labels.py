"""One label of each bias for each image."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from lntl.errors import UserError
from lntl.types import IGNORE, Batch, DataSpec


def labels_per_bias(batch: Batch, spec: DataSpec) -> Tensor:
    """Return one label of each bias for each image, (N, B) int64, IGNORE if unknown.

    For bias maps, B = 1 and the label is the bias value of the image's group.
    """
    if len(spec.bias_shape) == 1:
        return batch.bias
    return torch.where(batch.group == IGNORE, IGNORE, batch.group % spec.num_bias_values)[:, None]


def values_per_bias(spec: DataSpec) -> tuple[int, ...]:
    """Return the number of values of each label of `labels_per_bias`."""
    if len(spec.bias_shape) == 1:
        return spec.num_values_per_bias or (spec.num_bins,) * spec.bias_shape[0]
    return (spec.num_bias_values,)


def check_bias_values(method: str, batches: Callable[[], Iterable[Batch]], spec: DataSpec) -> None:
    """Raise UserError unless the training labels of each bias have at least two values."""
    labels = torch.cat([labels_per_bias(batch, spec) for batch in batches()])
    for number, bias in enumerate(labels.T):
        values = bias[bias != IGNORE].unique()
        if len(values) < 2:
            name = f"the bias {spec.biases[number].name!r}" if spec.biases else "the bias"
            raise UserError(
                f"method {method}: {name} has {'one value' if len(values) else 'no label'} in the training images, but "
                "the method needs two values; use erm"
            )
