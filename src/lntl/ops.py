"""Differentiable pieces of the objectives; each is one formula."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lntl.types import IGNORE

IMPOSSIBLE = -(2.0**14)  # logit of a bin that a bias does not have, beside one of more values; exact in bfloat16


class _ReverseGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradient, None


def reverse_gradient(z: Tensor, scale: float) -> Tensor:
    """Return z unchanged; its gradient is multiplied by -scale (Ganin and Lempitsky, 2015)."""
    out: Tensor = _ReverseGradient.apply(z, scale)
    return out


class frozen:  # noqa: N801 - reads as a function: frozen(h)(z)
    """A network that judges without being moved: gradients reach its input, never its parameters."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __call__(self, z: Tensor, *more: Tensor | None) -> Tensor:
        """Return module(z, *more) with the parameters held still."""
        parameters = [p for p in self._module.parameters() if p.requires_grad]
        try:
            for parameter in parameters:
                parameter.requires_grad_(False)
            out: Tensor = self._module(z, *more)
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)
        return out


_Two = tuple[Tensor, Tensor]


class _Adversarial(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, module: Callable[[Tensor], Tensor], z: Tensor, scale: float, *parameters: Tensor) -> _Two:
        with torch.enable_grad():
            leaf = z.detach().requires_grad_(ctx.needs_input_grad[1])
            out = module(leaf)
        ctx.graph = (leaf, out, scale, parameters)
        return out.detach(), out.detach().clone()

    @staticmethod
    def backward(ctx: Any, learns: Tensor, judges: Tensor) -> tuple[Tensor | None, ...]:
        leaf, out, scale, parameters = ctx.graph
        del ctx.graph
        moved: list[Tensor | None] = [None] * len(parameters)
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[3:]) if needed]
        if wanted:
            gradients = torch.autograd.grad(
                out, [parameters[i] for i in wanted], learns, retain_graph=leaf.requires_grad
            )
            for i, gradient in zip(wanted, gradients, strict=True):
                moved[i] = gradient
        toward_z = torch.autograd.grad(out, leaf, judges - scale * learns)[0] if leaf.requires_grad else None
        return None, toward_z, None, *moved


def adversarial(module: nn.Module, z: Tensor, scale: float, *more: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (module(reverse_gradient(z, scale), *more), frozen(module)(z, *more)) from one forward of the module.

    The first learns: its gradient moves the module, and z reversed. The second judges: its gradient moves z alone. What
    their backward passes share is done once. Use both outputs in one backward.
    """
    learns, judges = _Adversarial.apply(lambda leaf: module(leaf, *more), z, scale, *module.parameters())
    return learns, judges


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, limit: float | None, ratio: Tensor) -> _Two:
        ctx.limit, ctx.ratio = limit, ratio
        return z.view_as(z), z.view_as(z)

    @staticmethod
    def backward(ctx: Any, task: Tensor, adversary: Tensor) -> tuple[Tensor, None, None]:
        tiny = torch.finfo(task.dtype).tiny
        ctx.ratio.copy_(adversary.norm() / task.norm().clamp(min=tiny))
        if ctx.limit is not None:
            adversary = adversary * (ctx.limit * task.norm() / adversary.norm().clamp(min=tiny)).clamp(max=1)
        return task + adversary, None, None


def bounded(z: Tensor, limit: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """Return z twice, for the task and for the adversary, and the ratio of their gradients' norms over the batch.

    The gradient that comes back through the second is scaled down where the ratio is more than `limit`:
    d = d_task + d_adversary * min(1, limit / ratio), ratio = |d_adversary| / |d_task|. The ratio is filled in by the
    backward pass.
    """
    ratio = torch.zeros((), device=z.device)
    for_task, for_adversary = _Bounded.apply(z, limit, ratio)
    return for_task, for_adversary, ratio


def entropy(logits: Tensor) -> Tensor:
    """Return the mean entropy in nats of the beliefs in logits (N, K, ...): mean of -sum_k p_k log p_k, 0 for none."""
    log_p = F.log_softmax(logits, dim=1)
    return -(log_p.exp() * log_p).sum() * (logits.shape[1] / max(logits.numel(), 1))


def uniform_cross_entropy(logits: Tensor) -> Tensor:
    """Return the mean cross-entropy in nats of the beliefs in logits (N, K, ...) on the uniform one; 0 for none.

    Mean of -(1 / K) sum_k log p_k: at least log K, which it is where every belief is uniform. Bins with the logit
    IMPOSSIBLE are none of a belief's K.
    """
    each = _on_uniform(logits)
    return each.sum() / max(each.numel(), 1)


def _on_uniform(logits: Tensor) -> Tensor:
    """Return each belief's cross-entropy in nats on the uniform one over its bins, (N, ...)."""
    possible = logits > IMPOSSIBLE
    return -(F.log_softmax(logits, dim=1) * possible).sum(dim=1) / possible.sum(dim=1)


def bias_cross_entropy(logits: Tensor, bias: Tensor, smoothing: float = 0.0) -> Tensor:
    """Return L_B: cross-entropy in nats of logits (N, K, ...) on bias (N, ...), mean over the labelled places.

    With `smoothing` s in [0, 1) a label is 1 - s of its bin and s of the uniform distribution over the bias's bins.

    Labels with an axis of biases, (N, B) or a map (N, B, H, W), count as B biases, each with a mean over the places
    that are labelled for it, and the means are *summed*, as in the authors' code (CE_R + CE_G + CE_B). Without any
    label the loss is 0.
    """
    known = bias != IGNORE
    losses = F.cross_entropy(logits, bias, ignore_index=IGNORE, reduction="none")
    if smoothing:
        losses = (1 - smoothing) * losses + smoothing * _on_uniform(logits) * known
    places = [axis for axis in range(bias.dim()) if axis != 1]
    return (losses.sum(dim=places) / known.sum(dim=places).clamp(min=1)).sum()


def bias_accuracy(logits: Tensor, bias: Tensor) -> Tensor:
    """Return the share of the known bias labels (N, ...) that the largest logit of (N, K, ...) names; 0 of none."""
    known = bias != IGNORE
    return ((logits.argmax(dim=1) == bias) & known).sum() / known.sum().clamp(min=1)


def supervised_contrast(v: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """Return L_con of unit vectors v (N, D), `positive` (N, N) bool saying which pairs belong together, in nats.

    L_con = mean over i of -1/|P(i)| sum_{p in P(i)} log( exp(v_i v_p / t) / sum_{a != i} exp(v_i v_a / t) ), over the i
    that have a p (Khosla et al., NeurIPS 2020); 0 where none has.
    """
    self_pair = torch.eye(len(v), dtype=torch.bool, device=v.device)
    log_p = F.log_softmax((v @ v.T / temperature).masked_fill(self_pair, -torch.inf), dim=1)
    partners = positive.sum(dim=1)
    each = -log_p.masked_fill(~positive, 0).sum(dim=1) / partners.clamp(min=1)
    return each.sum() / (partners > 0).sum().clamp(min=1)


def pooled(z: Tensor) -> Tensor:
    """Return features z (N, C, ...) averaged over their places: (N, C)."""
    return z.flatten(2).mean(dim=2) if z.dim() > 2 else z
