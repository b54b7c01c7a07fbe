"""Ranks, the processes of one run: who this process is, and the collectives that training and evaluation need.

In a run of one process, rank 0 of 1, each function returns what it is given and nothing is communicated.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lntl.errors import RankLostError

T = TypeVar("T")


@dataclass
class _Membership:
    rank: int = 0
    world_size: int = 1


_membership = _Membership()


def join(rank: int, world_size: int) -> None:
    """Record who this process is, once torch.distributed is initialised."""
    _membership.rank, _membership.world_size = rank, world_size


def rank() -> int:
    """Return the number of this process, from 0; rank 0 alone writes and prints."""
    return _membership.rank


def world_size() -> int:
    """Return the number of processes of the run."""
    return _membership.world_size


def is_first() -> bool:
    """Return whether this process is rank 0."""
    return _membership.rank == 0


@contextmanager
def _communication() -> Iterator[None]:
    """Raise RankLostError if a collective within the block fails."""
    try:
        yield
    except RuntimeError as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise RankLostError(
            f"rank {rank()} has lost the connection to the other processes of the run ({reason}); "
            "run the same command again with --resume auto"
        ) from error


def total(tensor: Tensor) -> Tensor:
    """Return the sum of a tensor over the ranks, the same bits on each."""
    if world_size() == 1:
        return tensor
    summed = tensor.detach().clone(memory_format=torch.contiguous_format)
    with _communication():
        dist.all_reduce(summed)
    return summed


@torch.no_grad()
def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients of parameters by their sum over the ranks, in one collective for each dtype."""
    if world_size() == 1:
        return
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_dtype.setdefault(parameter.grad.dtype, []).append(parameter.grad)
    for gradients in by_dtype.values():
        flat = total(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))


@torch.no_grad()
def broadcast_state(module: nn.Module) -> None:
    """Give the parameters and buffers of a module the values that they have on rank 0."""
    if world_size() == 1:
        return
    for tensor in (*module.parameters(), *module.buffers()):
        sent = tensor.detach().to(torch.uint8) if tensor.dtype == torch.bool else tensor.detach()
        sent = sent.clone(memory_format=torch.contiguous_format)
        with _communication():
            dist.broadcast(sent, 0)
        tensor.copy_(sent)


def share_sizes(n: int) -> list[int]:
    """Return how many of n examples each rank takes: consecutive ones, as many as another or one more."""
    parts, left = divmod(n, world_size())
    return [parts + (number < left) for number in range(world_size())]


def gather(tensor: Tensor, n: int) -> Tensor:
    """Return the n examples of all ranks, (n, ...), from the share (m, ...) of this one, in order; differentiable.

    What follows is computed on every rank alike. A loss there is divided by the number of ranks before its gradients
    are summed over them; the gradient that reaches the share is the whole one.
    """
    gathered: Tensor = _Gather.apply(tensor, n)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, n: int) -> Tensor:
        sizes = share_sizes(n)
        ctx.start, ctx.size = sum(sizes[: rank()]), len(tensor)
        sent = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor
        padded = sent.new_zeros((max(sizes), *sent.shape[1:]))  # the collective needs equal sizes
        padded[: len(sent)] = sent
        received = [torch.empty_like(padded) for _ in sizes]
        with _communication():
            dist.all_gather(received, padded)
        return torch.cat([part[:size] for part, size in zip(received, sizes, strict=True)]).to(tensor.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[ctx.start : ctx.start + ctx.size] * world_size(), None


def gather_objects(value: T) -> list[T]:
    """Return the values of all ranks, in order; they are pickled."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    with _communication():
        dist.all_gather_object(values, value)
    return values


def from_first(compute: Callable[[], T]) -> T:
    """Return what `compute` returns on rank 0, which alone calls it; the value is pickled."""
    if world_size() == 1:
        return compute()
    values: list[Any] = [compute() if is_first() else None]
    with _communication():
        dist.broadcast_object_list(values, 0)
    value: T = values[0]
    return value


def any_rank(flag: bool) -> bool:
    """Return whether a flag is set on any rank."""
    return flag if world_size() == 1 else bool(total(torch.tensor(int(flag))))
