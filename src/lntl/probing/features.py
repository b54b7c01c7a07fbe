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
MAX_VALUES = 8192  # largest number of values stored for an image; 10,000 images take at most 330 MB
# Side lengths of the grids of `pool_maps`: 224 (a usual image side) divided by 4, 8, 16, 32, 64, 128 and 256.
_GRID_SIDES = (56, 28, 14, 7, 4, 2, 1)


def pool_maps(x: Tensor, max_values: int) -> Tensor:
    """Average-pool maps (N, C, H, W) to the finest grid with C * H * W <= max_values; to 1 x 1 if no grid is so small.

    Smaller maps and vectors are returned unchanged.
    """
    if x.dim() != 4 or x[0].numel() <= max_values:
        return x
    sides = (side for side in _GRID_SIDES if side < min(x.shape[2:]) and x.shape[1] * side**2 <= max_values)
    return F.adaptive_avg_pool2d(x, next(sides, 1))


def layer_names(networks: Networks, x: Tensor) -> list[str]:
    """Return the names of the layers that can be probed, in the order of definition.

    These are the modules of f and g whose output for x (N, C, H, W) has one row for each image, and `penultimate`.
    """
    valid: set[str] = set()

    def check_output(name: str, out: Any) -> None:
        if isinstance(out, Tensor) and out.is_floating_point() and out.dim() > 1 and len(out) == len(x):
            valid.add(name)

    handles = [
        module.register_forward_hook(lambda _module, _inputs, out, name=name: check_output(name, out))
        for name, module in _find_modules(networks)
    ]
    try:
        _run(networks, x)
    finally:
        for handle in handles:
            handle.remove()
    last = [PENULTIMATE] if _find_last_linear(networks.g) is not None else []
    return [name for name, _ in _find_modules(networks) if name in valid] + last


def default_layers(networks: Networks) -> tuple[str, ...]:
    """Return "f", whose output is z, and "penultimate"; only "f" if g is a linear layer, since its input is z."""
    last = _find_last_linear(networks.g)
    return ("f",) if last is None or last is networks.g else ("f", PENULTIMATE)


def check_layers(names: Iterable[str], networks: Networks, x: Tensor) -> None:
    """Raise UserError, with the list of valid names, if the networks lack one of the layers."""
    valid = layer_names(networks, x)
    for name in names:
        if name not in valid:
            raise UserError(f"--layer {name}: the networks have no such layer; valid: {', '.join(valid)}")


def features(networks: Networks, images: Iterable[Tensor], layer: str) -> Tensor:
    """Return the output of one layer, as in `layer_outputs`."""
    return layer_outputs(networks, images, (layer,))[layer]


def layer_outputs(networks: Networks, images: Iterable[Tensor], layers: Iterable[str]) -> dict[str, Tensor]:
    """Return the output of each layer for each image, by layer, from one forward pass.

    Args:
        networks: The networks; they are left in eval mode.
        images: Batches of images, (N, C, H, W).
        layers: Names of modules of f or g, or "penultimate". If a module runs more than once, its last output is used.

    Returns:
        Features (n, ...) float32 on the CPU; maps with more than MAX_VALUES values per image are pooled to a grid.

    Raises:
        UserError: If a feature is not finite.
    """
    rows: dict[str, list[Tensor]] = {layer: [] for layer in layers}
    for x in images:
        outputs: dict[str, Tensor] = {}
        with ExitStack() as hooks:
            for layer in rows:
                hooks.enter_context(_make_output_hook(networks, layer, partial(outputs.__setitem__, layer)))
            _run(networks, x)
        for layer, out in outputs.items():
            rows[layer].append(out)
    # torch.cat outside inference mode returns ordinary tensors, on which probes can be trained.
    features_by_layer = {layer: torch.cat(parts) for layer, parts in rows.items()}
    for layer, z in features_by_layer.items():
        if not z.isfinite().all():
            raise UserError(f"layer {layer}: some outputs are NaN or infinite; use a checkpoint that did not diverge")
    return features_by_layer


@contextmanager
def _make_output_hook(networks: Networks, layer: str, receive: Callable[[Tensor], None]) -> Iterator[None]:
    """Pass a copy of the output of `layer` to `receive` in each forward pass: a later layer may change it in place."""

    def copy(out: Tensor) -> None:
        receive(pool_maps(out.detach().float(), MAX_VALUES).cpu().clone(memory_format=torch.contiguous_format))

    last = _find_last_linear(networks.g)
    if layer == PENULTIMATE and last is not None:
        handle = last.register_forward_pre_hook(lambda _module, inputs: copy(inputs[0]))
    else:
        handle = networks.get_submodule(layer).register_forward_hook(lambda _module, _inputs, out: copy(out))
    try:
        yield
    finally:
        handle.remove()


@torch.inference_mode()
def _run(networks: Networks, x: Tensor) -> None:
    networks.eval()
    networks.g(networks.f(x))


def _find_modules(networks: Networks) -> list[tuple[str, nn.Module]]:
    return [(name, module) for name, module in networks.named_modules() if name.split(".")[0] in ("f", "g")]


def _find_last_linear(g: nn.Module) -> nn.Linear | None:
    """Return the last defined linear layer of g; its output is the logits."""
    return next((module for module in reversed(list(g.modules())) if isinstance(module, nn.Linear)), None)
