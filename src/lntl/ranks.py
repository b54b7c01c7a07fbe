"""Ranks, the processes of one run: the rank of this process, and the collectives that training and evaluation need.

In a run of one process, rank 0 of 1, each function returns its argument without communication.
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
    """Record the rank of this process and the number of processes; torch.distributed must be initialised."""
    _membership.rank, _membership.world_size = rank, world_size


def rank() -> int:
    """Return the number of this process, from 0; only rank 0 writes files and prints."""
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
    """Return the sum of a tensor over the ranks; all ranks get the same bits."""
    if world_size() == 1:
        return tensor
    result = tensor.detach().clone(memory_format=torch.contiguous_format)
    with _communication():
        dist.all_reduce(result)
    return result


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
        sums = total(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, sums.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(part.view(gradient.shape))


@torch.no_grad()
def broadcast_state(module: nn.Module) -> None:
    """Copy the parameters and buffers of a module from rank 0 to all ranks."""
    if world_size() == 1:
        return
    for tensor in (*module.parameters(), *module.buffers()):
        buffer = tensor.detach().to(torch.uint8) if tensor.dtype == torch.bool else tensor.detach()
        buffer = buffer.clone(memory_format=torch.contiguous_format)
        with _communication():
            dist.broadcast(buffer, 0)
        tensor.copy_(buffer)


def share_sizes(n: int) -> list[int]:
    """Return how many of n examples each rank takes; the numbers differ by at most 1, and the first ranks take more."""
    size, remainder = divmod(n, world_size())
    return [size + (number < remainder) for number in range(world_size())]


def gather(tensor: Tensor, n: int) -> Tensor:
    """Return all n examples in order, (n, ...); `tensor` is the share (m, ...) of this rank.

    The operation is differentiable. Every rank then computes the same loss from the n examples. Divide this loss by the
    number of ranks, because the gradients of parameters are summed over the ranks. The backward pass multiplies by this
    number again, so the share gets the gradient of the undivided loss.
    """
    gathered: Tensor = _Gather.apply(tensor, n)
    return gathered


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, n: int) -> Tensor:
        sizes = share_sizes(n)
        ctx.start, ctx.size = sum(sizes[: rank()]), len(tensor)
        share = tensor.to(torch.uint8) if tensor.dtype == torch.bool else tensor
        padded_share = share.new_zeros((max(sizes), *share.shape[1:]))  # the collective needs equal sizes
        padded_share[: len(share)] = share
        shares = [torch.empty_like(padded_share) for _ in sizes]
        with _communication():
            dist.all_gather(shares, padded_share)
        return torch.cat([share[:size] for share, size in zip(shares, sizes, strict=True)]).to(tensor.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient[ctx.start : ctx.start + ctx.size] * world_size(), None


def gather_objects(value: T) -> list[T]:
    """Return the values of all ranks, in the order of the ranks; each value is sent as a pickle."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    with _communication():
        dist.all_gather_object(values, value)
    return values


def compute_on_first(compute: Callable[[], T]) -> T:
    """Call `compute` on rank 0 only and return its result on every rank; the result is sent as a pickle."""
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
