"""Features: the outputs of layers of f and g, read with forward hooks; the networks stay unchanged."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lntl.errors import UserError
from lntl.types import Networks

PENULTIMATE = "penultimate"  # the input of the last linear layer of g
MAX_VALUES = 8192  # numbers kept of an image's map: 10,000 images then take at most 330 MB
_SIDES = (56, 28, 14, 7, 4, 2, 1)  # of the grids that a map is averaged over: halves of the usual image sides


def pooled(x: Tensor, most: int) -> Tensor:
    """Return maps (N, C, H, W) averaged over a coarser grid until C * H * W <= most, or 1 x 1; others as they are."""
    if x.dim() != 4 or x[0].numel() <= most:
        return x
    fitting = (side for side in _SIDES if side < min(x.shape[2:]) and x.shape[1] * side**2 <= most)
    return F.adaptive_avg_pool2d(x, next(fitting, 1))


def layer_names(networks: Networks, x: Tensor) -> list[str]:
    """Return the layers that can be probed, in the networks' order.

    They are the modules of f and g whose output for x (N, C, H, W) has numbers for each image, and `penultimate`.
    """
    found: set[str] = set()

    def note(name: str, out: Any) -> None:
        if isinstance(out, Tensor) and out.is_floating_point() and out.dim() > 1 and len(out) == len(x):
            found.add(name)

    handles = [
        module.register_forward_hook(lambda _module, _given, out, name=name: note(name, out))
        for name, module in _modules(networks)
    ]
    try:
        _run(networks, x)
    finally:
        for handle in handles:
            handle.remove()
    last = [PENULTIMATE] if _last_linear(networks.g) is not None else []
    return [name for name, _ in _modules(networks) if name in found] + last


def default_layers(networks: Networks) -> tuple[str, ...]:
    """Return z and the layer before the logits; the two are one where g is a linear layer."""
    last = _last_linear(networks.g)
    return ("f",) if last is None or last is networks.g else ("f", PENULTIMATE)


def check_layers(names: Iterable[str], networks: Networks, x: Tensor) -> None:
    """Raise UserError, with the list of valid names, for a layer that the networks do not have."""
    valid = layer_names(networks, x)
    for name in names:
        if name not in valid:
            raise UserError(f"--layer {name}: the networks have no such layer; valid: {', '.join(valid)}")


def features(networks: Networks, images: Iterable[Tensor], layer: str) -> Tensor:
    """Return the output of one layer, as `layer_outputs`."""
    return layer_outputs(networks, images, (layer,))[layer]


def layer_outputs(networks: Networks, images: Iterable[Tensor], layers: Iterable[str]) -> dict[str, Tensor]:
    """Return the output of each layer for each image, by layer, from one forward pass.

    Args:
        networks: The networks; they are left in eval mode.
        images: Batches of images, (N, C, H, W).
        layers: Names of modules of f or g, or "penultimate". Of several outputs of one the last counts.

    Returns:
        Features (n, ...) float32 on the CPU; maps of more than MAX_VALUES numbers an image are averaged over a grid.

    Raises:
        UserError: If a number is not finite.
    """
    rows: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for x in images:
        outputs: dict[str, Tensor] = {}
        with ExitStack() as hooks:
            for layer in rows:
                hooks.enter_context(_listening(networks, layer, partial(outputs.__setitem__, layer)))
            _run(networks, x)
        for layer, out in outputs.items():
            rows[layer].append(out)
    found = {layer: torch.cat(parts) for layer, parts in rows.items()}  # no inference tensors: they can be trained on
    for layer, z in found.items():
        if not z.isfinite().all():
            raise UserError(f"layer {layer}: some outputs are NaN or infinite; use a checkpoint that did not diverge")
    return found


@contextmanager
def _listening(networks: Networks, layer: str, receive: Callable[[Tensor], None]) -> Iterator[None]:
    """Pass the output of `layer` in each forward pass to `receive`, copied before a later layer changes it in place."""

    def copy(out: Tensor) -> None:
        receive(pooled(out.detach().float(), MAX_VALUES).cpu().contiguous().clone())

    last = _last_linear(networks.g)
    if layer == PENULTIMATE and last is not None:
        handle = last.register_forward_pre_hook(lambda _module, given: copy(given[0]))
    else:
        handle = networks.get_submodule(layer).register_forward_hook(lambda _module, _given, out: copy(out))
    try:
        yield
    finally:
        handle.remove()


@torch.inference_mode()
def _run(networks: Networks, x: Tensor) -> None:
    networks.eval()
    networks.g(networks.f(x))


def _modules(networks: Networks) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in networks.named_modules() if name.split(".")[0] in ("f", "g")]


def _last_linear(g: nn.Module) -> nn.Linear | None:
    """Return the linear layer of g that was defined last, which gives the logits."""
    return next((module for module in reversed(list(g.modules())) if isinstance(module, nn.Linear)), None)
