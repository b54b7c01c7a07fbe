"""A classifier from a library, split at a layer into f and g, with a new last layer for the classes of the data."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lntl.errors import UserError
from lntl.models import image_shape
from lntl.models.heads import HeadPerBias, PooledHead, TaskHeadSettings
from lntl.models.splitting import MAX_DEPTH, SplitError, split_with_shape
from lntl.plugins import conflict, did_you_mean
from lntl.types import DataSpec, Networks

_AUXILIARY_PREFIXES = ("aux", "AuxLogits")  # weights of auxiliary classifiers, which are removed from networks here


class BackboneSettings(TaskHeadSettings):
    """Settings of `model` for a classifier of a library."""

    arch: str = Field(description="Architecture; `lntl models NAME` lists them. Short form: name: NAME/ARCH.")
    split: str = Field(description="Layer with which f ends; g is the rest. `lntl models NAME/ARCH` lists the layers.")
    pretrained: bool = Field(False, description="Whether to start from the library's ImageNet weights (a download).")
    weights: str | None = Field(
        None, description="A .safetensors file with start weights of the whole architecture; needs no download."
    )
    small_images: bool = Field(
        False, description="For images of about 32 pixels: a first convolution of 3 x 3, no pooling; only for ResNets."
    )
    frozen: list[str] = Field([], description="Layers of f that are not trained, BatchNorm included; `f` for all.")
    lr_factors: dict[str, Annotated[float, Field(gt=0, le=1e6)]] = Field(
        {}, description="Learning rates of layers of f, as multiples of optimizer_fg.lr, e.g. {f: 0.1}; `f` for all."
    )

    @model_validator(mode="after")
    def _check_source_of_weights(self) -> Self:
        if self.pretrained and self.weights is not None:
            raise conflict("pretrained and weights both name start weights; set only one of them")
        return self


class Backbone(Networks):
    """f: (N, C, H, W) -> z, the output of the layer `split`; g: z -> (N, classes); h: z -> (N, bins, *bias_shape).

    z is a map (N, C, H, W), tokens (N, C, T) or a vector (N, C), channels first.
    """

    plugin: str  # name of the model in the YAML

    def __init__(self, spec: DataSpec, config: BackboneSettings) -> None:
        super().__init__()
        input_shape, self.full_name = image_shape(spec, self.plugin), f"{self.plugin}/{config.arch}"
        heads = spec.num_bias_values if config.heads == "per_bias" else 1
        network = self.create(config.arch, input_shape, heads * spec.num_classes)
        # If start weights are for other classes, these layers keep their random weights.
        self.new_layers = _find_last_layers(network, heads * spec.num_classes)
        if config.small_images:
            self.new_layers.add(replace_stem(network, self.full_name))
        try:
            self.f, g, shape = split_with_shape(network, config.split, torch.zeros(1, *input_shape))
        except SplitError as reason:
            raise self._cannot_split(network, config.split, reason) from reason
        self.num_features = shape[0]
        self.g = HeadPerBias(g, spec.num_bias_values, config.heads_sum) if config.heads == "per_bias" else g
        self.h = PooledHead(shape, spec.num_bins, spec.bias_shape, spec.num_values_per_bias)
        self.has_given_weights = config.pretrained or config.weights is not None
        self.f.freeze(tuple(self._check_layers(config.frozen, "frozen")))
        self.lr_factors = dict(
            zip(self._check_layers(config.lr_factors, "lr_factors"), config.lr_factors.values(), strict=True)
        )
        self.train()

    @staticmethod
    @abstractmethod
    def architectures() -> list[str]:
        """Return the names of the library's classifiers."""

    @classmethod
    @abstractmethod
    def create(cls, arch: str, input_shape: tuple[int, int, int], outputs: int) -> nn.Module:
        """Return a classifier with random weights and `outputs` logits; raises UserError for an unknown name."""

    def _cannot_split(self, network: nn.Module, split: str, reason: SplitError) -> UserError:
        names = [name for name, _ in network.named_modules() if name and name.count(".") < MAX_DEPTH]
        suggestion = did_you_mean(split, names) if split not in names and len(names) > 0 else ""
        suggestion = suggestion if suggestion.startswith("; did") else ""
        return UserError(
            f"model.split: {self.full_name} cannot be split at {split!r}: {reason}{suggestion}; "
            f"`lntl models {self.full_name}` lists the layers"
        )

    def _check_layers(self, names: list[str] | Mapping[str, float], key: str) -> list[str]:
        """Return names of layers of f, '' for `f` itself; raises UserError for a name that f does not have."""
        layers = [name for name, _ in self.f.named_modules() if name]
        for name in names:
            if name not in (*layers, "f"):
                raise UserError(f"model.{key}: f has no layer {name!r}{did_you_mean(name, ['f', *layers])}")
        return ["" if name == "f" else name for name in names]

    def load_whole(self, state: Mapping[str, Tensor]) -> None:
        """Load weights of the whole architecture by their names; a last layer of another size keeps its weights.

        Raises UserError for weights of another architecture.
        """
        body = self.g.body if isinstance(self.g, HeadPerBias) else self.g
        tensors: dict[str, Tensor] = {**self.f.state_dict(), **body.state_dict()}
        state = {key: value for key, value in state.items() if not key.startswith(_AUXILIARY_PREFIXES)}
        loadable = {key for key, value in tensors.items() if key in state and state[key].shape == value.shape}
        optional = {
            key for key in tensors if key.rpartition(".")[0] in self.new_layers or key.endswith("num_batches_tracked")
        }
        mismatches = sorted((tensors.keys() - loadable - optional) | (state.keys() - tensors.keys()))
        if mismatches:
            first = mismatches[0]
            file_shape, shape = (
                f"shape {tuple(s[first].shape)}" if first in s else "missing" for s in (state, tensors)
            )
            raise UserError(
                f"{len(mismatches)} weights do not fit {self.full_name}; {first}: {file_shape} in the file, {shape} "
                "in the model"
            )
        with torch.no_grad():
            for key in loadable:
                tensors[key].copy_(state[key])


def _find_last_layers(network: nn.Module, outputs: int) -> set[str]:
    """Return the names of the layers whose outputs are the logits; distilled transformers have two such layers."""
    return {
        name
        for name, module in network.named_modules()
        if outputs in (getattr(module, "out_features", None), getattr(module, "out_channels", None))
    }


def replace(network: nn.Module, name: str, layer: nn.Module) -> None:
    """Replace the layer `name` of a network."""
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, layer)


def replace_stem(network: nn.Module, name: str) -> str:
    """Replace the 7 x 7 convolution of a ResNet by a 3 x 3 convolution of stride 1, and remove the pooling.

    Returns the name of the new layer. Source: He et al., CVPR 2016, section 4.2, the networks for CIFAR-10. Raises
    UserError for other networks.
    """
    conv = getattr(network, "conv1", None)
    if not isinstance(conv, nn.Conv2d) or not isinstance(getattr(network, "maxpool", None), nn.Module):
        raise UserError(
            f"model.small_images: {name} is not built like a ResNet; use a ResNet, or leave small_images out"
        )
    replace(network, "conv1", nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1, bias=False))
    replace(network, "maxpool", nn.Identity())
    return "conv1"
