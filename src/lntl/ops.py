"""Differentiable building blocks of the objectives: gradient reversal, frozen networks, entropies, losses."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lntl.errors import UserError
from lntl.types import IGNORE

MASKED_LOGIT = -(2.0**14)  # logit of a bin that a bias lacks because another bias has more bins; exact in bfloat16


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradient, None


def reverse_gradient(z: Tensor, scale: float) -> Tensor:
    """Return z; its gradient is multiplied by -scale in the backward pass.

    Args:
        z: Features of any shape.
        scale: Factor of the reversed gradient, mu in the paper; no unit.

    Returns:
        z, unchanged, of the same shape.

    Source:
        Ganin and Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015.
    """
    out: Tensor = _ReverseGradient.apply(z, scale)
    return out


class frozen:  # noqa: N801 - reads as a function: frozen(h)(z)
    """Forward pass with frozen parameters: gradients reach only the input.

    Args:
        module: The network; after the call its parameters require gradients as before.

    Example:
        >>> confusion = -entropy(frozen(h)(z))  # moves f through z, but not h
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(self, z: Tensor, *args: Tensor | None) -> Tensor:
        """Return module(z, *args)."""
        parameters = [p for p in self._module.parameters() if p.requires_grad]
        try:
            for parameter in parameters:
                parameter.requires_grad_(False)
            out: Tensor = self._module(z, *args)
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)
        return out


_Pair = tuple[Tensor, Tensor]


class _Adversarial(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, module: Callable[[Tensor], Tensor], z: Tensor, scale: float, *parameters: Tensor) -> _Pair:
        with torch.enable_grad():
            leaf = z.detach().requires_grad_(ctx.needs_input_grad[1])
            out = module(leaf)
        ctx.graph = (leaf, out, scale, parameters)
        return out.detach(), out.detach().clone()

    @staticmethod
    def backward(ctx: Any, reversed_gradient: Tensor, frozen_gradient: Tensor) -> tuple[Tensor | None, ...]:
        leaf, out, scale, parameters = ctx.graph
        del ctx.graph
        parameter_gradients: list[Tensor | None] = [None] * len(parameters)
        trainable = [i for i, needs_grad in enumerate(ctx.needs_input_grad[3:]) if needs_grad]
        if trainable:
            gradients = torch.autograd.grad(
                out, [parameters[i] for i in trainable], reversed_gradient, retain_graph=leaf.requires_grad
            )
            for i, gradient in zip(trainable, gradients, strict=True):
                parameter_gradients[i] = gradient
        z_gradient = (
            torch.autograd.grad(out, leaf, frozen_gradient - scale * reversed_gradient)[0]
            if leaf.requires_grad
            else None
        )
        return None, z_gradient, None, *parameter_gradients


def adversarial(module: nn.Module, z: Tensor, scale: float, *args: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the adversary's logits twice, from one forward pass: with a reversed gradient and with frozen parameters.

    Args:
        module: The adversary h.
        z: Features (N, ...).
        scale: Factor of the reversed gradient; no unit.
        args: Further arguments of `module`.

    Returns:
        reversed_logits: `module(reverse_gradient(z, scale), *args)`; its gradient reaches the module and, reversed, z.
        frozen_logits: `frozen(module)(z, *args)`; its gradient reaches only z.
        Use both in one backward pass, so that their common gradient is computed once.

    Example:
        >>> reversed_logits, frozen_logits = adversarial(h, z, mu)
        >>> loss = task + bias_cross_entropy(reversed_logits, bias) - lam * entropy(frozen_logits)
    """
    reversed_logits, frozen_logits = _Adversarial.apply(
        lambda leaf: module(leaf, *args), z, scale, *module.parameters()
    )
    return reversed_logits, frozen_logits


class _LimitGradientRatio(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, limit: float | None, ratio: Tensor) -> _Pair:
        ctx.limit, ctx.ratio = limit, ratio
        return z.view_as(z), z.view_as(z)

    @staticmethod
    def backward(ctx: Any, task_gradient: Tensor, adversary_gradient: Tensor) -> tuple[Tensor, None, None]:
        tiny = torch.finfo(task_gradient.dtype).tiny
        task_norm, adversary_norm = task_gradient.norm(), adversary_gradient.norm()
        ctx.ratio.copy_(adversary_norm / task_norm.clamp(min=tiny))
        if ctx.limit is not None:
            adversary_gradient = adversary_gradient * (ctx.limit * task_norm / adversary_norm.clamp(min=tiny)).clamp(
                max=1
            )
        return task_gradient + adversary_gradient, None, None


def limit_gradient_ratio(z: Tensor, limit: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """Limit the norm of the adversary's gradient at z to a multiple of the norm of the task's gradient.

    The gradient of z becomes d_task + d_adversary * min(1, limit / ratio) with ratio = |d_adversary| / |d_task|, norms
    over the batch.

    Args:
        z: Features (N, ...).
        limit: Largest ratio, no unit; None for no limit.

    Returns:
        z_task: z, for the task head.
        z_adversary: z, for the adversary.
        ratio: The ratio before the limit, a scalar that the backward pass sets.
    """
    ratio = torch.zeros((), device=z.device)
    z_task, z_adversary = _LimitGradientRatio.apply(z, limit, ratio)
    return z_task, z_adversary, ratio


_MIN_COUNT = 1e-9  # avoids 0 / 0; a count may be below 1 (`types.LabelCounts`), so the bound is not 1


def entropy(logits: Tensor, count: Tensor | None = None) -> Tensor:
    """Return the mean entropy of the softmax, the mean of -sum_k p_k log p_k.

    Args:
        logits: Logits (N, K, ...), bins in dimension 1.
        count: Divisor of the sum over N (`Batch.position_count`); None for N.

    Returns:
        A scalar in nats, at most log K; 0 for an empty batch.
    """
    log_p = F.log_softmax(logits, dim=1)
    total = -(log_p.exp() * log_p).sum()
    if count is not None:
        return total / (count.clamp(min=_MIN_COUNT) * logits.shape[2:].numel()).type_as(total)
    return total * (logits.shape[1] / max(logits.numel(), 1))


def uniform_cross_entropy(logits: Tensor, count: Tensor | None = None) -> Tensor:
    """Return the mean cross-entropy of the softmax with the uniform distribution, the mean of -(1 / K) sum_k log p_k.

    Args:
        logits: Logits (N, K, ...), bins in dimension 1. Masked bins (logit MASKED_LOGIT) are excluded from K.
        count: Divisor of the sum over N (`Batch.position_count`); None for N.

    Returns:
        A scalar in nats, at least log K, with equality where every p is uniform; 0 for an empty batch.
    """
    losses = _uniform_losses(logits)
    if count is not None:
        return losses.sum() / (count.clamp(min=_MIN_COUNT) * losses.shape[1:].numel()).type_as(losses)
    return losses.sum() / max(losses.numel(), 1)


def _uniform_losses(logits: Tensor) -> Tensor:
    """Return the cross-entropy in nats with the uniform distribution over the bins that are not masked, (N, ...)."""
    bins = logits > MASKED_LOGIT
    return -(F.log_softmax(logits, dim=1) * bins).sum(dim=1) / bins.sum(dim=1)


def bias_cross_entropy(logits: Tensor, bias: Tensor, smoothing: float = 0.0, count: Tensor | None = None) -> Tensor:
    """Return the bias loss L_B: cross-entropy in nats, mean over the known labels of a bias, summed over the biases.

    Args:
        logits: Logits (N, K) of one bias, (N, K, B) of B biases, (N, K, B, H, W) of B bias maps.
        bias: Labels (N,), (N, B) or (N, B, H, W), IGNORE where unknown.
        smoothing: Label smoothing s in [0, 1): the target is (1 - s) * one-hot + s * uniform.
        count: Divisor of the losses of each bias, (B,) or a scalar (`Batch.known_count`); None for the number of its
            known labels.

    Returns:
        A scalar in nats; 0 if no label is known.

    Source:
        The sum over the biases is that of the authors' code (CE_R + CE_G + CE_B).
    """
    known = bias != IGNORE
    losses = F.cross_entropy(logits, bias, ignore_index=IGNORE, reduction="none")
    if smoothing:
        losses = (1 - smoothing) * losses + smoothing * _uniform_losses(logits) * known
    axes = [axis for axis in range(bias.dim()) if axis != 1]
    divisor = known.sum(dim=axes).clamp(min=1) if count is None else count.clamp(min=_MIN_COUNT).type_as(losses)
    return (losses.sum(dim=axes) / divisor).sum()


def bias_accuracy(logits: Tensor, bias: Tensor, count: Tensor | None = None) -> Tensor:
    """Return the accuracy of bias logits.

    Args:
        logits: Logits (N, K, ...), bins in dimension 1.
        bias: Labels (N, ...), IGNORE where unknown.
        count: Number of known labels of each bias (`Batch.known_count`), whose sum is the divisor; None to count the
            labels of `bias`.

    Returns:
        A scalar in [0, 1]: the share of the known labels that the argmax equals; 0 if no label is known.
    """
    known = bias != IGNORE
    divisor = known.sum().clamp(min=1) if count is None else count.sum().clamp(min=_MIN_COUNT)
    return ((logits.argmax(dim=1) == bias) & known).sum() / divisor


def supervised_contrast(v: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrastive loss.

    L_con = mean over i of -1/|P(i)| sum_{p in P(i)} log( exp(v_i v_p / t) / sum_{a != i} exp(v_i v_a / t) ), over the i
    whose set of positives P(i) is not empty.

    Args:
        v: Unit vectors (N, D).
        positive: (N, N) bool; positive[i, j] is True if j is in P(i), and the diagonal is False.
        temperature: t, no unit.

    Returns:
        A scalar in nats; 0 if every P(i) is empty.

    Source:
        Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020.
    """
    self_pair = torch.eye(len(v), dtype=torch.bool, device=v.device)
    log_p = F.log_softmax((v @ v.T / temperature).masked_fill(self_pair, -torch.inf), dim=1)
    num_positives = positive.sum(dim=1)
    losses = -log_p.masked_fill(~positive, 0).sum(dim=1) / num_positives.clamp(min=1)
    return losses.sum() / (num_positives > 0).sum().clamp(min=1)


def mean_over_positions(z: Tensor) -> Tensor:
    """Return features averaged over their positions.

    Args:
        z: Features (N, C) or (N, C, ...).

    Returns:
        The means, (N, C).
    """
    return z.flatten(2).mean(dim=2) if z.dim() > 2 else z


@torch.no_grad()
def split_last_layer(g: nn.Module, z: Tensor, num_classes: int) -> tuple[nn.Module, nn.Linear]:
    """Split a task head before its last linear layer: g(z) = layer(body(z)).

    Args:
        g: The task head, in eval mode.
        z: Features on which the split is checked.
        num_classes: Number of logits.

    Returns:
        body: A copy of g whose last linear layer is replaced by the identity; the identity if g itself is linear.
        layer: The last linear layer itself.

    Raises:
        UserError: If g does not end with one linear layer that gives the logits of one head.
    """
    layers = [(name, module) for name, module in g.named_modules() if isinstance(module, nn.Linear)]
    name, layer = layers[-1] if layers else ("", None)
    if layer is not None and layer.out_features == num_classes:
        body = copy.deepcopy(g) if name else nn.Identity()
        if name:
            parent, _, attribute = name.rpartition(".")
            setattr(body.get_submodule(parent), attribute, nn.Identity())
        inputs = body(z)
        if inputs.shape == (len(z), layer.in_features) and torch.allclose(layer(inputs), g(z), rtol=1e-4, atol=1e-4):
            return body, layer
    raise UserError(
        f"model: g does not end with a linear layer that gives the {num_classes} logits, so there is no last layer to "
        "fit again; use a model that has one (with heads: single)"
    )
