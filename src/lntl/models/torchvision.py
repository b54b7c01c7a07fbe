"""Any classifier of torchvision (ResNet, VGG, DenseNet, ConvNeXt, ViT, ...), split at one of its layers."""

from torch import nn

from lntl.errors import UserError
from lntl.models.backbone import Backbone, BackboneSettings, replace
from lntl.plugins import did_you_mean

__all__ = ["Torchvision"]

_CLASSES, _CHANNELS = 1000, 3  # numbers of outputs and of input channels of torchvision's classifiers
# aux_logits=False: without the auxiliary classifier; init_weights=True: the default, without torchvision's warning.
_ARGUMENTS: dict[str, dict[str, object]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


class Torchvision(Backbone):
    """f: (N, C, H, W) -> z, the output of the layer `split`; g: z -> (N, classes); h: z -> (N, bins, *bias_shape)."""

    plugin = "torchvision"

    class Config(BackboneSettings):
        """Settings of `model`."""

    @staticmethod
    def architectures() -> list[str]:
        """Return the names of torchvision's classifiers."""
        from torchvision import models

        return list(models.list_models(module=models))

    @classmethod
    def create(cls, arch: str, input_shape: tuple[int, int, int], outputs: int) -> nn.Module:
        """Return a classifier; its first layer is replaced if the images do not have 3 channels."""
        from torchvision import models

        if arch not in (names := cls.architectures()):
            raise UserError(f"model.arch: torchvision has no classifier {arch!r}{did_you_mean(arch, names)}")
        channels, height, width = input_shape
        arguments: dict[str, object] = dict(_ARGUMENTS.get(arch, {}))
        if arch.startswith("vit_"):
            arguments["image_size"] = height
        if arch == "maxvit_t":
            arguments["input_size"] = (height, width)
        try:
            network: nn.Module = models.get_model(arch, **arguments)
        except (AssertionError, ValueError) as error:  # the size is not a multiple of the patch size
            raise UserError(f"model.arch: {arch} cannot take images of {height} x {width}: {error}") from error
        _resize_ends(network, channels, outputs)
        return network


def _resize_ends(network: nn.Module, channels: int, outputs: int) -> None:
    """Replace the first convolution if the images do not have 3 channels, and the last layer."""
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    first, conv = next((n, m) for n, m in layers if isinstance(m, nn.Conv2d) and m.in_channels == _CHANNELS)
    if channels != _CHANNELS:
        replace(network, first, _copy_with_channels(conv, channels, conv.out_channels))
    last, head = next((n, m) for n, m in reversed(layers) if _count_outputs(m) == _CLASSES)
    if isinstance(head, nn.Linear):
        replace(network, last, nn.Linear(head.in_features, outputs))
    else:
        replace(network, last, _copy_with_channels(head, head.in_channels, outputs))


def _count_outputs(layer: nn.Conv2d | nn.Linear) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _copy_with_channels(conv: nn.Conv2d, inputs: int, outputs: int) -> nn.Conv2d:
    """Return a new convolution with the kernel size, stride and padding of `conv`, but other numbers of channels."""
    padding = conv.padding
    return nn.Conv2d(inputs, outputs, conv.kernel_size, conv.stride, padding, bias=conv.bias is not None)  # type: ignore[arg-type]
