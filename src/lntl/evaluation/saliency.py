"""Where a network looks: integrated gradients of its predictions, in the pixels of images or the numbers of vectors.

Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017; computed by Captum.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from lntl.errors import UserError

BATCH_SIZE = 32  # inputs in one forward and backward pass; more need more memory and are not faster
BRIGHTEST_QUANTILE = 0.99  # the pixels of a heat map above this quantile get full brightness
SMOOTHING_WIDTH = 1 / 40  # standard deviation of the smoothing of a heat map, in units of its longer side
NEEDS_CAPTUM = "saliency needs Captum: pip install 'lntl[explain]'"


@dataclass(frozen=True, slots=True)
class Attributions:
    """Attributions of n predictions to their inputs.

    Attributes:
        values: Integrated gradients of the log-odds of the predicted class, float32 with the shape of x, (n, ...).
        predicted: Predicted classes, int64 (n,).
        probability: Probabilities of the predicted classes, float32 (n,).
    """

    values: Tensor
    predicted: Tensor
    probability: Tensor


@dataclass(frozen=True, slots=True)
class ExplainedExample:
    """An example with the prediction of each network and its attributions.

    Attributes:
        name: Name of the example.
        picture: The image as the networks see it, uint8 (3, H, W); None for a vector.
        predictions: Predicted class and its probability, by the name of the network.
        values: Integrated gradients with the shape of x, float32 (C, H, W) or (D,), by the name of the network.
    """

    name: str
    picture: Tensor | None
    predictions: Mapping[str, tuple[str, float]]
    values: Mapping[str, Tensor]


def captum_installed() -> bool:
    """Return whether Captum, an optional dependency, is installed."""
    return find_spec("captum") is not None


def integrated_gradients(network: Callable[[Tensor], Tensor], x: Tensor, steps: int) -> Attributions:
    """Return the integrated gradients of a network's predictions.

    The path goes from x = 0, the mean that normalisation subtracts, straight to x. The sum of an example's
    attributions is the log-odds of its predicted class minus the log-odds of the same class at x = 0, up to the error
    of the integral.

    Args:
        network: Maps x to logits (n, classes); in evaluation mode.
        x: Examples (n, ...), n > 0.
        steps: Points of the integral (Gauss-Legendre).

    Returns:
        The attributions, on the CPU.

    Raises:
        UserError: If Captum is not installed, or the network cannot be differentiated.
    """
    if not captum_installed():
        raise UserError(NEEDS_CAPTUM)
    from captum.attr import IntegratedGradients

    def log_odds(x: Tensor, target: Tensor) -> Tensor:
        logits = network(x.clone()).float()  # a copy, because a network may change its input in place
        other_logits = logits.scatter(1, target[:, None], -torch.inf).logsumexp(dim=1)
        return logits.gather(1, target[:, None])[:, 0] - other_logits

    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone() if x.is_inference() else x
        _check_differentiable(lambda x: log_odds(x, torch.zeros(len(x), dtype=torch.int64, device=x.device)), x[:1])
        parts = []
        for part in x.split(BATCH_SIZE):
            with torch.no_grad():
                probability, predicted = network(part.clone()).float().softmax(dim=1).max(dim=1)
            values = IntegratedGradients(log_odds).attribute(
                part,
                additional_forward_args=predicted,
                n_steps=steps,
                method="gausslegendre",
                internal_batch_size=BATCH_SIZE,
            )
            parts.append((values.detach().float().cpu(), predicted.cpu(), probability.cpu()))
    return Attributions(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _check_differentiable(function: Callable[[Tensor], Tensor], x: Tensor) -> None:
    remedy = "lntl cannot show where it looks: avoid operations such as argmax, rounding and torch.no_grad in f and g"
    x = x.detach().clone().requires_grad_()
    value = function(x).sum()
    if not value.requires_grad:
        raise UserError(f"the model cannot be differentiated (its output has no gradient), so {remedy}")
    try:
        torch.autograd.grad(value, x)
    except RuntimeError as error:  # an operation without a derivative
        reason = str(error).splitlines()[0][:200]
        raise UserError(f"the model cannot be differentiated ({reason}), so {remedy}") from error


def heat_maps(values: Tensor) -> Tensor:
    """Return attributions of images as heat maps.

    A pixel's heat is the sum of the absolute attributions of its channels, smoothed by a Gaussian, divided by the
    99 % quantile of the map, and at most 1. The standard deviation of the Gaussian is 1/40 of the image's longer side.

    Args:
        values: Attributions (n, C, H, W).

    Returns:
        Heat in [0, 1], float32 (n, H, W); 0 everywhere for an image without attributions.
    """
    from scipy.ndimage import gaussian_filter  # imported here because it is slow to import

    pixels = values.abs().sum(dim=1).numpy()
    width = SMOOTHING_WIDTH * max(pixels.shape[1:])
    smooth = gaussian_filter(pixels, (0, width, width))
    quantile, maximum = (np.quantile(smooth, q, axis=(1, 2), keepdims=True) for q in (BRIGHTEST_QUANTILE, 1))
    scale = np.maximum(np.where(quantile > 0, quantile, maximum), np.finfo(np.float32).tiny)
    return torch.from_numpy((smooth / scale).clip(max=1).astype(np.float32))
