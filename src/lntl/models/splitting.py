"""Split a network at one of its layers into f and g; the layers keep their names."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from lntl.errors import UserError

MAX_DEPTH = 3  # maximum depth of listed layers: layer2.0.conv1 has depth 3
_NOT_TRACEABLE = (ValueError, TypeError, RuntimeError, AttributeError, AssertionError, LookupError, NotImplementedError)


class SplitError(UserError):
    """A network cannot be split at a layer; the message is only the reason."""


class Part(nn.Module):
    """A part of a network: its layers, and the code that runs them.

    The layers in `frozen` ('' for all) keep their weights and statistics.
    """

    frozen: tuple[str, ...] = ()

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__()
        for name, child in graph_module.named_children():
            self.add_module(name, child)
        for name, parameter in graph_module.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in graph_module.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self._run = type(graph_module).forward

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the part for x."""
        out: Tensor = self._run(self, x)
        return out

    def freeze(self, layers: tuple[str, ...]) -> None:
        """Freeze the weights and running statistics of layers."""
        self.frozen = layers
        for name in layers:
            self.get_submodule(name).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Part":
        """Set the mode of all layers but the frozen ones, whose BatchNorm and dropout stay in evaluation mode."""
        super().train(mode and "" not in self.frozen)
        for name in filter(None, self.frozen):
            self.get_submodule(name).eval()
        return self


class _Tracer(fx.Tracer):
    """Traces only the modules that contain the split layer; other modules stay calls and are not traced."""

    def __init__(self, split: str) -> None:
        super().__init__()
        parts = split.split(".")
        self.parents = {".".join(parts[:depth]) for depth in range(1, len(parts))}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.parents


def split_at(network: nn.Module, split: str, channels_last: bool = False) -> tuple[Part, Part]:
    """Return f and g with g(f(x)) = network(x) in evaluation mode; f ends with the layer `split`.

    With channels_last, the layer returns (N, ..., C); f permutes this to (N, C, ...), and g permutes it back. Raises
    SplitError.
    """
    graph = _trace(network, split)
    calls = [node for node in graph.nodes if node.op == "call_module" and node.target == split]
    if len(calls) != 1:
        raise SplitError(f"it is run {len(calls)} times in a pass")
    z, output = calls[0], next(node for node in graph.nodes if node.op == "output").args[0]
    if not isinstance(output, fx.Node):
        raise SplitError("the network does not return one tensor")
    f_nodes, g_nodes = _find_dependencies(z), _find_dependencies(output, stop=z)
    if f_nodes & g_nodes:
        raise SplitError("a branch of the network bypasses it")
    f, g = fx.Graph(), fx.Graph()
    out = _copy(graph, f_nodes, f, {})
    f.output(f.call_method("movedim", (out[z], -1, 1)) if channels_last else out[z])
    z_input = g.placeholder("z")
    out = _copy(graph, g_nodes, g, {z: g.call_method("movedim", (z_input, 1, -1)) if channels_last else z_input})
    g.output(out[output])
    parts = tuple(Part(fx.GraphModule(network, part)) for part in (f, g))
    _check_parts(*parts)
    return parts[0], parts[1]


def _trace(network: nn.Module, split: str) -> fx.Graph:
    if split not in dict(network.named_modules()) or not split:
        raise SplitError("there is no such layer")
    parameters = list(inspect.signature(network.forward).parameters.values())[1:]
    defaults = {
        parameter.name: parameter.default for parameter in parameters if parameter.default is not parameter.empty
    }
    try:
        return _Tracer(split).trace(network.eval(), defaults or None)
    except _NOT_TRACEABLE as error:
        raise SplitError(f"the code around it cannot be traced ({str(error).splitlines()[0]})") from error


def _find_dependencies(node: fx.Node, stop: fx.Node | None = None) -> set[fx.Node]:
    """Return `node` and the nodes on which it depends, up to `stop`."""
    dependencies: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if node is not stop and node not in dependencies:
            dependencies.add(node)
            waiting.extend(node.all_input_nodes)
    return dependencies


def _copy(graph: fx.Graph, nodes: set[fx.Node], to: fx.Graph, out: dict[fx.Node, fx.Node]) -> dict[fx.Node, fx.Node]:
    """Copy nodes of a graph in their order; the copies do not work in place, because h and the probes also use z."""
    for node in graph.nodes:
        if node in nodes:
            out[node] = to.node_copy(node, out.__getitem__)
            if "inplace" in node.kwargs:
                out[node].kwargs = node.kwargs | {"inplace": False}
    return out


def _check_parts(f: Part, g: Part) -> None:
    if not list(g.parameters()):
        raise SplitError("it leaves no layer for g")
    if {id(p) for p in f.parameters()} & {id(p) for p in g.parameters()}:
        raise SplitError("f and g would share weights")
    for module in (*f.modules(), *g.modules()):
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]


def split_with_shape(network: nn.Module, split: str, x: Tensor) -> tuple[Part, Part, tuple[int, ...]]:
    """Return f, g and the shape (C,), (C, T) or (C, H, W) of z for one image; x (1, C, H, W) is an example image.

    Outputs (N, T, C) or (N, H, W, C) of transformers are permuted to channels first.
    """
    f, g = split_at(network, split)
    shape = _compute_z_shape(f, g, x)
    if _channels_are_last(shape, x):
        f, g = split_at(network, split, channels_last=True)
        shape = (shape[-1], *shape[:-1])
    return f, g, shape


@torch.no_grad()
def _compute_z_shape(f: Part, g: Part, x: Tensor) -> tuple[int, ...]:
    try:
        z: object = f.eval()(x)
        g.eval()(z)
    except _NOT_TRACEABLE as error:
        size = " x ".join(map(str, x.shape[1:]))
        raise SplitError(f"images of {size} cannot be processed ({str(error).splitlines()[0]})") from error
    if not isinstance(z, Tensor) or not z.is_floating_point() or z.dim() not in (2, 3, 4) or len(z) != len(x):
        raise SplitError("it does not return a vector (C,), tokens (T, C) or a map (C, H, W) for each image")
    return tuple(z.shape[1:])


def _channels_are_last(shape: tuple[int, ...], x: Tensor) -> bool:
    """Return True for tokens (T, C), and for maps whose first (not last) two sizes have the aspect ratio of x."""
    if len(shape) < 3:
        return len(shape) == 2
    height, width = x.shape[2:]
    return shape[0] * width == shape[1] * height and shape[1] * width != shape[2] * height


@dataclass(frozen=True)
class SplitPoint:
    """A layer at which a network can be split, the shape of z for one image, and the share of the weights in f."""

    name: str
    kind: str
    shape: tuple[int, ...]
    share: float


def split_points(network: nn.Module, x: Tensor) -> Iterator[SplitPoint]:
    """Yield the layers at which the network can be split for images like x (1, C, H, W), in the order of definition."""
    total = sum(p.numel() for p in network.parameters())
    for name, module in network.named_modules():
        if name and name.count(".") < MAX_DEPTH:
            try:
                f, _, shape = split_with_shape(network, name, x)
            except SplitError:
                continue
            yield SplitPoint(name, type(module).__name__, shape, sum(p.numel() for p in f.parameters()) / total)
